"""Screens a question and what its client sent along in a thread, within a time limit.

Screening takes processor time in proportion to the text (a few milliseconds, tens for the longest and most hostile). In
the event loop it would delay every other answer, and the probes.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import anyio

from chatbot.errors import Overloaded
from chatbot.questions import (
    ClientMessage,
    ExcludedTopic,
    ScreenedQuestion,
    SmallTalk,
    Verdict,
    excluded_topic,
    screen,
    screened_messages,
    small_talk,
)

SCREENING_SECONDS = 3.0
"""The deadline of a screening, which includes the wait for those before it."""


@dataclass(frozen=True, slots=True)
class Screening:
    """A screened question, the topic for which it is not answered, and the earlier messages that may be used."""

    question: ScreenedQuestion
    topic: ExcludedTopic | SmallTalk | None
    earlier: tuple[ClientMessage, ...]


class Screener:
    """Screens one question at a time: threads beside each other would only take turns."""

    def __init__(self, *, seconds: float = SCREENING_SECONDS) -> None:
        self._seconds = seconds
        self._limiter = anyio.CapacityLimiter(1)

    async def screen(self, question: str, earlier: Sequence[ClientMessage], own_names: Collection[str]) -> Screening:
        """Return what screening finds; `own_names` are those of the customer's bank.

        Raises:
            Overloaded: it did not end within the deadline.
        """
        try:
            with anyio.fail_after(self._seconds):
                return await anyio.to_thread.run_sync(
                    self._screened,
                    question,
                    tuple(earlier),
                    tuple(own_names),
                    limiter=self._limiter,
                    abandon_on_cancel=True,
                )
        except TimeoutError as exc:
            raise Overloaded("too many questions are being screened; try again", retry_after=1) from exc

    def _screened(self, text: str, earlier: Sequence[ClientMessage], own_names: Collection[str]) -> Screening:
        question = screen(text)
        if question.verdict is not Verdict.OK:
            return Screening(question, None, ())
        topic = small_talk(question.text, own_names) or excluded_topic(question.text, own_names)
        return Screening(question, topic, screened_messages(earlier))
