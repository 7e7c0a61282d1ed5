"""What must not pass: identifiers of persons, which are masked, and instructions to the model, which are reported.
Pure.
"""

from knowledge.screening.screening import (
    IdentifierKind,
    ScreeningFinding,
    Tactic,
    find_identifiers,
    find_injection,
    mask,
)

__all__ = ["IdentifierKind", "ScreeningFinding", "Tactic", "find_identifiers", "find_injection", "mask"]
