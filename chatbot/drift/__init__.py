"""Measure the drift of questions and answers from a reference window by the population stability index."""

from chatbot.drift.psi import FLOOR, Bin, Reference, TooFewQuestions
from chatbot.drift.watch import DriftSettings, DriftWatch, ReferenceUnreadable, read_reference

__all__ = [
    "FLOOR",
    "Bin",
    "DriftSettings",
    "DriftWatch",
    "Reference",
    "ReferenceUnreadable",
    "TooFewQuestions",
    "read_reference",
]
