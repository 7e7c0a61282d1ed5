"""Records of finished answers for hooks, without any customer text."""

from dataclasses import dataclass
from typing import Final

import msgspec

from chatbot.events import FinishReason, Usage
from chatbot.notices import DEGRADATION_LEVELS, DegradationLevel
from knowledge.passage import Language

QUOTED: Final = "quoted"
"""The label of a hand-off that quotes passages because no model answers."""


class AnswerResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an answer ended: decided once, stored in the answer log for a successor, and embedded in other records.

    Processes of other releases read the field names.
    """

    finish_reason: FinishReason = FinishReason.CANCELLED
    """Meaningless if `error` is set."""
    usage: Usage = Usage()
    grounded: bool = False
    quoted: bool = False
    """Whether passages are quoted in place of the model's words."""
    error: str = ""
    """The code of the error that ended the answer."""
    retry_after: float | None = None
    missing: str = ""
    """The error code of the unavailable store or model that caused a hand-off."""
    withheld: int = 0
    """The number of sentences that failed the checks."""
    models: tuple[str, ...] = ()
    """The models that generated parts of the answer."""
    degradation_level: DegradationLevel | None = None
    """None if the conversation's own endpoint answered."""
    probes: tuple[float, ...] = ()
    """The model's probability of "yes" for each probe, in order."""
    choice: tuple[float, ...] = ()
    """The units' probabilities in the model's first choice, in the order of the ranking; empty without a choice."""
    unpaid_tokens: int = 0
    """Generated tokens that are not charged: beyond the allowance, or lost with a model."""

    def degraded_to(self, level: DegradationLevel) -> "AnswerResult":
        """Return the result with this degradation level, unless it already has a worse one."""
        reached = self.degradation_level or level
        return msgspec.structs.replace(self, degradation_level=max(reached, level, key=DEGRADATION_LEVELS.index))

    @property
    def label(self) -> str:
        """The outcome's metric label; a hand-off without a quote counts as the error that caused it."""
        if self.error or (self.missing and not self.quoted):
            return f"error_{self.error or self.missing}"
        return QUOTED if self.missing else self.finish_reason.value


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFinished:
    """An answer has ended; seconds count from the opening of its turn."""

    result: AnswerResult
    language: Language
    seconds: float
    first_token_seconds: float | None
    citations: int
    related: bool
    """Whether related passages were shown in place of an answer."""
