"""The answers of a process: their writers, their takeover, their readers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from chatbot.streams.elsewhere import ReadsElsewhere
from chatbot.streams.readers import Readers
from chatbot.streams.takeover import Takeover, TakeoverReason
from chatbot.streams.writers import AnswerParts, Writers


@dataclass(frozen=True, slots=True)
class Answers:
    """What this process does for answers."""

    writers: Writers
    takeover: Takeover
    readers: Readers

    @classmethod
    def of(cls, parts: AnswerParts, *, on_taken: Callable[[TakeoverReason], None] = lambda _: None) -> "Answers":
        """Return the answers of a process."""
        writers = Writers(parts)
        takeover = Takeover(parts, writers, on_taken=on_taken)
        elsewhere = ReadsElsewhere(parts, partial(takeover.take_over, reason="reader"))
        return cls(writers, takeover, Readers(parts, writers, elsewhere))

    async def hand_over(self) -> None:
        """Leave every answer of this process to the others, readers and writers.

        Raises:
            StoreUnavailable: the leases could not be given up; they lapse by themselves.
        """
        self.readers.end_all()
        await self.writers.hand_over()
