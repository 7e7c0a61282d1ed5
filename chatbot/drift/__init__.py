"""How far questions have moved from a reference window, as population stability."""

from chatbot.drift.psi import DRIFTED, FLOOR, MOVED, Bin, Binned, Feature, Reference, Sketch, TooFew, build, psi
from chatbot.drift.watch import DriftSettings, DriftWatch, ReferenceUnreadable, read_reference

__all__ = [
    "DRIFTED",
    "FLOOR",
    "MOVED",
    "Bin",
    "Binned",
    "DriftSettings",
    "DriftWatch",
    "Feature",
    "Reference",
    "ReferenceUnreadable",
    "Sketch",
    "TooFew",
    "build",
    "psi",
    "read_reference",
]
