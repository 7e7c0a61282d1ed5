"""How far questions and answers have moved from a reference window: the population stability index."""

from chatbot.drift.psi import (
    FLOOR,
    MODERATE_SHIFT,
    SIGNIFICANT_SHIFT,
    Bin,
    BinCounter,
    Feature,
    FeatureBins,
    Reference,
    TooFewQuestions,
    build_reference,
    psi,
)
from chatbot.drift.watch import DriftSettings, DriftWatch, ReferenceUnreadable, read_reference

__all__ = [
    "FLOOR",
    "MODERATE_SHIFT",
    "SIGNIFICANT_SHIFT",
    "Bin",
    "BinCounter",
    "DriftSettings",
    "DriftWatch",
    "Feature",
    "FeatureBins",
    "Reference",
    "ReferenceUnreadable",
    "TooFewQuestions",
    "build_reference",
    "psi",
    "read_reference",
]
