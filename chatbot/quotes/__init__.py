"""Quotes of the bank's documents: units of passages, ranked by a question, and the quoting answer. No I/O."""

from chatbot.quotes.answer import NOT_CERTAIN, citation, quoting_answer
from chatbot.quotes.ranking import Candidate, asks_two_things, close_candidates, posterior, rank
from chatbot.quotes.stems import content_words, features
from chatbot.quotes.units import nearest_unit, units_of

__all__ = [
    "NOT_CERTAIN",
    "Candidate",
    "asks_two_things",
    "citation",
    "close_candidates",
    "content_words",
    "features",
    "nearest_unit",
    "posterior",
    "quoting_answer",
    "rank",
    "units_of",
]
