"""Checks of a model's answer: numbers, names and polarity must match a unit of a passage. No clock, no I/O."""

from chatbot.grounding.negation import YES, has_negation, same_polarity
from chatbot.grounding.numbers import quantities, unsupported_quantities
from chatbot.grounding.plain_text import plain_text
from chatbot.grounding.quantity import Quantity
from chatbot.grounding.sentences import passage_sentences
from chatbot.grounding.stream import GroundingStream

__all__ = [
    "YES",
    "GroundingStream",
    "Quantity",
    "has_negation",
    "passage_sentences",
    "plain_text",
    "quantities",
    "same_polarity",
    "unsupported_quantities",
]
