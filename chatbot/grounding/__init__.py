"""Sentence ↔ passage: every claim is tied to a passage by comparison, or withheld. No clock, no I/O."""

from chatbot.grounding.evidence import Quote
from chatbot.grounding.negation import YES, Polarity
from chatbot.grounding.numbers import quantities, unsupported_quantities
from chatbot.grounding.quantity import Quantity
from chatbot.grounding.quotes import NO_QUOTES, QuoteCandidates, QuotedAnswer, nearest_quote, quoted_answer
from chatbot.grounding.sentences import passage_sentences
from chatbot.grounding.stems import features
from chatbot.grounding.stream import (
    CHECKS_VERSION,
    GroundingMode,
    GroundingStream,
    grounding_stream,
)

__all__ = [
    "CHECKS_VERSION",
    "NO_QUOTES",
    "YES",
    "GroundingMode",
    "GroundingStream",
    "Polarity",
    "Quantity",
    "Quote",
    "QuoteCandidates",
    "QuotedAnswer",
    "features",
    "grounding_stream",
    "nearest_quote",
    "passage_sentences",
    "quantities",
    "quoted_answer",
    "unsupported_quantities",
]
