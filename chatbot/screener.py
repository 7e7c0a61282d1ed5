"""Screen a question and the client's earlier messages in a thread, within a deadline.

Screening takes processor time in proportion to the text: a few milliseconds, tens for the longest and most hostile. In
the event loop it would delay the other answers and the readiness probes.
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
"""The deadline of a screening, including its wait for earlier screenings."""


@dataclass(frozen=True, slots=True)
class Screening:
    """A screened question, its excluded topic or small talk, and the usable earlier messages."""

    question: ScreenedQuestion
    topic: ExcludedTopic | SmallTalk | None
    earlier: tuple[ClientMessage, ...]


class Screener:
    """Screens one question at a time: parallel threads would only share the interpreter lock."""

    def __init__(self, *, seconds: float = SCREENING_SECONDS) -> None:
        self._seconds = seconds
        self._limiter = anyio.CapacityLimiter(1)

    async def screen(self, question: str, earlier: Sequence[ClientMessage], own_names: Collection[str]) -> Screening:
        """Screen a question; `own_names` are the names of the customer's bank.

        Raises:
            Overloaded: the screening missed its deadline.
        """
        try:
            with anyio.fail_after(self._seconds):
                return await anyio.to_thread.run_sync(
                    _screen_now,
                    question,
                    tuple(earlier),
                    tuple(own_names),
                    limiter=self._limiter,
                    abandon_on_cancel=True,
                )
        except TimeoutError as exc:
            raise Overloaded("too many questions are being screened; try again", retry_after=1) from exc


def _screen_now(text: str, earlier: Sequence[ClientMessage], own_names: Collection[str]) -> Screening:
    question = screen(text)
    if question.verdict is not Verdict.OK:
        return Screening(question, None, ())
    topic = small_talk(question.text, own_names) or excluded_topic(question.text, own_names)
    return Screening(question, topic, screened_messages(earlier))
