"""Screening of questions and passages: identifiers of persons are masked, instructions to the model are reported.

Pure.
"""

from knowledge.screening.deobfuscation import one_spaced
from knowledge.screening.screening import (
    IdentifierKind,
    ScreeningFinding,
    Tactic,
    find_identifiers,
    find_injection,
    mask,
)

__all__ = ["IdentifierKind", "ScreeningFinding", "Tactic", "find_identifiers", "find_injection", "mask", "one_spaced"]
