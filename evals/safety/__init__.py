"""Attacks by others' tools, screening on labelled texts, masking on made-up identifiers."""

from evals.safety.guarded import is_labelled, run_guarded
from evals.safety.masking import is_masked

__all__ = ["is_labelled", "is_masked", "run_guarded"]
