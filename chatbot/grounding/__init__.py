"""Checks of what a model writes: numbers, names and polarity are those of a passage's unit. No clock, no I/O."""

from chatbot.grounding.negation import YES, Polarity
from chatbot.grounding.numbers import quantities, unsupported_quantities
from chatbot.grounding.quantity import Quantity
from chatbot.grounding.sentences import passage_sentences
from chatbot.grounding.stream import CHECKS_VERSION, GroundingStream

__all__ = [
    "CHECKS_VERSION",
    "YES",
    "GroundingStream",
    "Polarity",
    "Quantity",
    "passage_sentences",
    "quantities",
    "unsupported_quantities",
]
