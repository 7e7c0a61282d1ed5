"""Sentence ↔ passage: every claim is tied to a passage by comparison, or withheld. No clock, no I/O."""

from chatbot.grounding.numbers import quantities, unsupported_quantities
from chatbot.grounding.stream import (
    GroundingMode,
    GroundingStream,
    QuotedAnswer,
    grounding_stream,
    nearest_quote,
    quote_passages,
)

__all__ = [
    "GroundingMode",
    "GroundingStream",
    "QuotedAnswer",
    "grounding_stream",
    "nearest_quote",
    "quantities",
    "quote_passages",
    "unsupported_quantities",
]
