"""The performance report: first tokens, ingestion, load, ledgers, beside what others reach."""

from evals.performance.bench import BenchFigure, measured, started
from evals.performance.load import PLENTY, scripted, tokenizer

__all__ = ["PLENTY", "BenchFigure", "measured", "scripted", "started", "tokenizer"]
