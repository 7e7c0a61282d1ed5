"""Records for hooks: what happened, without any text of a customer's."""

from array import array
from dataclasses import dataclass

from chatbot.events import Usage
from chatbot.notices import DegradationLevel
from knowledge.passage import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFinished:
    """An answer has ended; seconds count from the moment its turn was opened."""

    outcome: str
    language: Language
    grounded: bool
    seconds: float
    first_token_seconds: float | None
    usage: Usage
    unpaid_tokens: int
    """Those that a model generated beyond what was allowed, or that were lost with it."""
    withheld: int
    citations: int
    related: bool
    """Whether passages that may help were shown in place of an answer."""
    degradation_level: DegradationLevel | None
    """None where the conversation's own endpoint answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFinished:
    """A search has ended: the question's vector and the dense and term score of its best passage, 0 without one."""

    vector: "array[float]"
    language: Language
    meaning: float
    terms: float
    about: str = ""
    """The title of the best passage's document."""
