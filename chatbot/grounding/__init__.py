"""Sentence ↔ passage: every claim is tied to a passage by comparison, or withheld. Pure: no clock, no network."""

from chatbot.grounding.numbers import quantities, unsupported
from chatbot.grounding.stream import Grounding, GroundingStream, QuotedAnswer, checks_for, quote_passages

__all__ = ["Grounding", "GroundingStream", "QuotedAnswer", "checks_for", "quantities", "quote_passages", "unsupported"]
