"""One answer that runs in this process: what was put, what is published, who waits for it."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence

import anyio

from chatbot.events import LAST, Event
from chatbot.streams.log import AnswerId, LogAppend, LogEntry
from chatbot.streams.resume import Diverged, Replay
from knowledge.identity import Principal


class LiveAnswer:
    """One answer, of which `logged` was said before by a writer that this one succeeds. Only the answer itself puts."""

    def __init__(
        self,
        answer_id: AnswerId,
        who: Principal,
        *,
        conversation_id: str,
        epoch: int = 1,
        logged: Sequence[Event] = (),
        token_ids: Sequence[int] = (),
    ) -> None:
        self.answer_id = answer_id
        self.who = who
        self.conversation_id = conversation_id
        self.epoch = epoch
        self.scope = anyio.CancelScope()
        self.opened = True
        """Whether there is a log."""
        self.durable = True
        """Whether the log has what is published."""
        self.warned = False
        self.forgotten = False
        """Whether its customer has deleted it."""
        self.published: list[Event] = list(logged)
        self.token_ids: list[int] = list(token_ids)
        self.ended = False
        self.gone = False
        """Whether another replica writes the answer, or will."""
        self.finishing = False
        self._replay = Replay(logged)
        self._logged = len(logged)
        self._logged_ids = len(token_ids)
        self._written_at = -math.inf
        self._pending: list[Event] = []
        self._waiting: list[anyio.Event] = []
        self._in_flight: list[anyio.Event] = []
        self._put = anyio.Event()
        self._grown = anyio.Event()
        self._abandon: asyncio.TimerHandle | None = None

    def put(self, *events: Event) -> list[Event]:
        """Add events to the answer and return those that are new; they are on the wire once the log has them.

        Raises:
            Diverged: the writer before this one said something else.
        """
        fresh = self._replay.fresh(events)
        self._pending.extend(fresh)
        self._put.set()
        return fresh

    def ends_with(self, events: Sequence[Event]) -> bool:
        """Return whether the writer before this one ended with these events, which are not put again yet."""
        return self._replay.ends_with(events)

    def note(self, token_ids: Sequence[int]) -> None:
        """Keep the ids of the answer's tokens for a successor; they go with the next append."""
        self.token_ids += token_ids

    def check_repeated(self) -> None:
        """Make sure that everything in the log has been said again by a writer that is through.

        Raises:
            Diverged: it says less than the log.
        """
        if not self._replay.over:
            raise Diverged

    def keep_tokens(self, token_ids: Sequence[int]) -> None:
        """Go on after these ids, which are the first of those in the log."""
        self.token_ids = list(token_ids)
        self._logged_ids = len(token_ids)

    def say_something_else(self) -> None:
        """Do not repeat what the log has: what follows is new."""
        self._replay = Replay(())

    async def owned(self) -> bool:
        """Wait until the log has what was put, and return whether this process still writes the answer.

        From then on it is finished here, whatever becomes of the process.
        """
        if not (self.ended or self.gone):
            written = anyio.Event()
            self._waiting.append(written)
            self._put.set()
            await written.wait()
        self.finishing = not self.gone
        return self.finishing

    async def gathered(self) -> tuple[list[Event], LogAppend]:
        """Wait until something is to be written; return the new events, and all that the log does not have."""
        await self._put.wait()
        self._put = anyio.Event()
        batch, self._pending = self._pending, []
        self._in_flight += self._waiting
        self._waiting.clear()
        return batch, LogAppend(
            first=self._logged + 1,
            events=[*self.published[self._logged :], *batch],
            ids_before=self._logged_ids,
            token_ids=self.token_ids[self._logged_ids :],
        )

    def written(self, written: LogAppend) -> None:
        """Take note that the log has it, and with it the writer's lease anew."""
        self.durable = True
        self._written_at = time.monotonic()
        self._logged += len(written.events)
        self._logged_ids += len(written.token_ids)

    def just_written(self, seconds: float) -> bool:
        """Whether the log was written within so many seconds."""
        return time.monotonic() - self._written_at < seconds

    def publish(self, events: Sequence[Event]) -> None:
        """Show events to every connection."""
        self.published.extend(events)
        self.ended = self.ended or any(isinstance(e, LAST) for e in events)
        self._wake()

    def leave(self) -> None:
        """Stop writing: the answer is another replica's; nothing of it is settled or recorded here."""
        self.gone = True
        self.scope.cancel()
        self.attended()
        self._in_flight += self._waiting
        self._put.set()
        self._wake()

    def _wake(self) -> None:
        grown, self._grown = self._grown, anyio.Event()
        grown.set()
        for written in self._in_flight:
            written.set()
        self._in_flight.clear()

    async def follow(self, after: int) -> AsyncGenerator[LogEntry]:
        """Yield the entries after number `after` until the last one, or until the answer is written elsewhere."""
        n = after
        while True:
            while n < len(self.published):
                n += 1
                yield LogEntry(n=n, event=self.published[n - 1])
            if self.ended or self.gone:
                return
            await self._grown.wait()

    def abandon_after(self, grace: float) -> None:
        """Cancel the answer in `grace` seconds, unless it is attended then."""
        self.attended()
        if not self.ended:
            self._abandon = asyncio.get_running_loop().call_later(grace, self.scope.cancel)

    def attended(self) -> None:
        """Stop the abandonment clock."""
        if self._abandon is not None:
            self._abandon.cancel()
