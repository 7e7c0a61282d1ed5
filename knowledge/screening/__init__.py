"""Screening of questions and passages: masks personal identifiers, reports instructions to the model (pure)."""

from knowledge.screening.identifiers import find_identifiers
from knowledge.screening.instructions import ScreeningFinding, Tactic, find_injection, normalised, one_spaced
from knowledge.screening.patterns import IdentifierKind
from knowledge.screening.screening import mask

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
