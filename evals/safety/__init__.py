"""Safety: third-party attack tools, masking of synthetic identifiers, falsified sentences, honest questions."""

from evals.safety.masking import is_masked

__all__ = ["is_masked"]
