"""Screening of questions and passages: identifiers of persons are masked, instructions to the model are reported.

Pure.
"""

from knowledge.screening.instructions import ScreeningFinding, Tactic, find_injection, normalised, one_spaced
from knowledge.screening.screening import IdentifierKind, find_identifiers, mask

__all__ = [
    "IdentifierKind",
    "ScreeningFinding",
    "Tactic",
    "find_identifiers",
    "find_injection",
    "mask",
    "normalised",
    "one_spaced",
]
