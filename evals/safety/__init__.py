"""Attacks by other people's tools, screening of labelled questions, masking of made-up identifiers."""

from evals.safety.guarded import is_labelled, run_screening
from evals.safety.masking import is_hidden, is_masked

__all__ = ["is_hidden", "is_labelled", "is_masked", "run_screening"]
