"""Attacks by other people's tools, masking of made-up identifiers, falsified sentences, honest questions."""

from evals.safety.masking import is_masked

__all__ = ["is_masked"]
