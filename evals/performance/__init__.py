"""The performance report: first tokens, ingestion, load and the ledger's cost, compared with other systems."""

from evals.performance.bench import BenchFigure, run_measurement
from evals.performance.load import NO_LIMITS

__all__ = ["NO_LIMITS", "BenchFigure", "run_measurement"]
