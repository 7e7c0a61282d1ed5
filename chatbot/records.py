"""What happened: how an answer ended, and the records for hooks, without any text of a customer's."""

from array import array
from dataclasses import dataclass
from typing import Final

import msgspec

from chatbot.events import FinishReason, Usage
from chatbot.notices import DEGRADATION_LEVELS, DegradationLevel
from knowledge.passage import Language

QUOTED: Final = "quoted"
"""The label of an answer that quotes the passages since no model answers, and names a person."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The prompts that asked the model to choose a unit, and what it said to the first of them."""

    prompt: str
    """Its messages as JSON."""
    shares: tuple[float, ...]


class AnswerResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an answer ended: decided once, kept by its log for a successor, and embedded by whatever records it.

    The names of the fields are read by processes of other releases.
    """

    finish_reason: FinishReason = FinishReason.CANCELLED
    """Without meaning where there is an error."""
    usage: Usage = Usage()
    grounded: bool = False
    quoted: bool = False
    """Whether the passages' own words are shown instead of the model's."""
    error: str = ""
    """The code of the error that it ended in."""
    retry_after: float | None = None
    missing: str = ""
    """The code of what was away where the customer is handed to a person for it."""
    withheld: int = 0
    """The number of sentences that failed the checks."""
    models: tuple[str, ...] = ()
    """The models that generated some of it."""
    degradation_level: DegradationLevel | None = None
    """None where the conversation's own endpoint answered."""
    cached_answer_id: str = ""
    """The answer whose text is shown again, where no model could answer."""
    probes: tuple[float, ...] = ()
    """The model's probability of "yes" to each probe that was asked, in order."""
    choice: Choice | None = None
    unpaid_tokens: int = 0
    """Tokens that a model generated beyond what was allowed, or that were lost with it: nobody pays for them."""

    def degraded_to(self, level: DegradationLevel) -> "AnswerResult":
        """Return the result at a degradation level, unless a lower one was reached before."""
        reached = self.degradation_level or level
        return msgspec.structs.replace(self, degradation_level=max(reached, level, key=DEGRADATION_LEVELS.index))

    @property
    def label(self) -> str:
        """How the answer ended, as it is counted: a hand-off for want of a store or a model is an error of ours."""
        if self.error or (self.missing and not self.quoted):
            return f"error_{self.error or self.missing}"
        return QUOTED if self.missing else self.finish_reason.value


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFinished:
    """An answer has ended; seconds count from the moment its turn was opened."""

    result: AnswerResult
    language: Language
    seconds: float
    first_token_seconds: float | None
    citations: int
    related: bool
    """Whether passages that may help were shown in place of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFinished:
    """A search has ended: the question's vector and the dense and term score of its best passage, 0 without one."""

    vector: "array[float]"
    language: Language
    meaning: float
    terms: float
    about: str = ""
    """The title of the best passage's document."""
