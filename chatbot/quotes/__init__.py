"""Quotes of the bank's documents: units of passages, ranked by a question, and the quoting answer. No I/O."""

from chatbot.quotes.answer import NOT_CERTAIN, citation, introduced
from chatbot.quotes.ranking import Candidate, asks_two_things, is_close, posterior, rank
from chatbot.quotes.stems import content_words, features
from chatbot.quotes.units import nearest_unit, pieces_of

__all__ = [
    "NOT_CERTAIN",
    "Candidate",
    "asks_two_things",
    "citation",
    "content_words",
    "features",
    "introduced",
    "is_close",
    "nearest_unit",
    "pieces_of",
    "posterior",
    "rank",
]
