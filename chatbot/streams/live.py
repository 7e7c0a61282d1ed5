"""One answer that this process writes: the events put, those published to readers, and what the log still lacks."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence

import anyio

from chatbot.events import Event
from chatbot.streams.log import AnswerId, LogAppend, LogEntry, LogOpening, entry_of
from chatbot.streams.resume import Diverged, RepetitionCheck
from knowledge.identity import Principal


class LiveAnswer:
    """One answer in this process; `logged` are the events of the writer that it succeeds. Only its own task puts."""

    loggable = True
    """Whether it has a log in Redis, or may get one."""
    fully_logged = True
    """Whether the log has every published event."""
    warned = False
    """Whether readers have been told that the answer is not resumable, or need not be."""
    deleted = False
    """Whether its customer has deleted it."""
    unflushed = False
    """Whether it has ended, and its log lacks the end."""
    ended = False
    """Whether the event that ends the answer is published."""
    last_put = False
    """Whether the event that ends the answer was put."""
    worked = False
    """Whether the work that puts its events is over."""
    broken = False
    """Whether a part of the answer could not be written: it was dropped, and the answer ends in an error."""
    written_elsewhere = False
    """Whether another replica writes the answer, or will."""
    abandoned = False
    """Whether it was cancelled because nobody read it, not because its customer said so."""
    finishing = False
    """Whether this process settles and records the answer."""

    outcome = b""
    """How the answer ends, once that is decided, as a successor reads it."""
    opening: LogOpening | None = None
    """What makes its log where Redis never had it, or has lost it."""

    def __init__(
        self,
        answer_id: AnswerId,
        who: Principal,
        *,
        conversation_id: str,
        epoch: int = 1,
        logged: Sequence[Event] = (),
        output: bytes = b"",
    ) -> None:
        self.answer_id = answer_id
        self.who = who
        self.conversation_id = conversation_id
        self.epoch = epoch
        self.scope = anyio.CancelScope()
        self.entries: list[LogEntry] = [entry_of(n, event) for n, event in enumerate(logged, 1)]
        """What is published."""
        self.output = bytearray(output)
        """The model's output, as its frames are encoded."""
        self._repetition = RepetitionCheck(logged) if logged else None
        self._logged = len(logged)
        self._logged_output = len(output)
        self._appended_at = -math.inf
        self._pending: list[Event] = []
        self._waiting: list[anyio.Event] = []
        self._in_flight: list[anyio.Event] = []
        self._put = anyio.Event()
        self._grown = anyio.Event()
        self._abandonment: asyncio.TimerHandle | None = None

    @property
    def published(self) -> list[Event]:
        """The events that every connection may see."""
        return [entry.event for entry in self.entries]

    @property
    def logged(self) -> int:
        """How many of the published events the log has for certain."""
        return self._logged

    def give_up_log(self) -> None:
        """Go on without a log: Redis cannot have one of this answer, or its customer has deleted it."""
        self.loggable, self.fully_logged = False, False

    def put(self, *events: Event, output: bytes = b"") -> list[Event]:
        """Add events to the answer and return the new ones; they are published once the log has them.

        `output` is the model's next output, for a successor; without an event it goes with the next append.

        Raises:
            Diverged: the log has other events of the previous writer.
        """
        self.output += output
        new = list(events) if self._repetition is None else self._repetition.new_events(events)
        self.last_put = self.last_put or any(event.ends for event in new)
        self._pending += new
        if events:
            self._put.set()
        return new

    def end_with(self, last: Event) -> None:
        """Put the event that ends the answer, unless one was put."""
        if not self.last_put:
            self.stop_repeating()
            self.put(last)

    @property
    def repeats(self) -> bool:
        """Whether logged events of the previous writer are still to be repeated."""
        return self._repetition is not None and not self._repetition.complete

    def log_ends_with(self, events: Sequence[Event]) -> bool:
        """Return whether exactly these logged events remain to be repeated."""
        return self._repetition is not None and self._repetition.completed_by(events)

    def check_repeated(self) -> None:
        """Check, once everything is put, that all logged events were repeated.

        Raises:
            Diverged: the log has more.
        """
        if self.repeats:
            raise Diverged

    def stop_repeating(self) -> None:
        """Take every further event as new, whatever the log has."""
        self._repetition = None

    async def confirm_ownership(self, outcome: bytes = b"") -> bool:
        """Wait until the log has what was put, and how the answer ends; return whether this process still writes it.

        If so, this process finishes it: it is not handed over any more. Should it die meanwhile, its successor ends the
        answer as it is settled and recorded by then.
        """
        if self.written_elsewhere:  # how this process ends its part is not how the answer ends
            return False
        self.outcome = outcome
        if not self.ended:
            appended = anyio.Event()
            self._waiting.append(appended)
            self._put.set()
            await appended.wait()
        self.finishing = not self.written_elsewhere
        return self.finishing

    async def next_batch(self) -> list[LogEntry]:
        """Wait until something was put; return the entries that are to be published."""
        await self._put.wait()
        self._put = anyio.Event()
        self._in_flight += self._waiting
        self._waiting.clear()
        put, self._pending = self._pending, []
        return [entry_of(n, event) for n, event in enumerate(put, len(self.entries) + 1)]

    def unlogged(self, batch: Sequence[LogEntry] = ()) -> LogAppend:
        """Return everything that the log lacks, and entries that are to be published."""
        return LogAppend(
            entries=[*self.entries[self._logged :], *batch],
            output_before=self._logged_output,
            output=bytes(self.output[self._logged_output :]),
            outcome=self.outcome,
            abandoned=self.abandoned,
        )

    @property
    def owes_log(self) -> bool:
        """Whether the log lacks something that this process is to bring there."""
        return not (self.fully_logged or self.written_elsewhere or self.deleted)

    def log_lost(self) -> None:
        """Note that Redis has lost the log, or a part of it: the next append has everything."""
        self.fully_logged = False
        self._logged = self._logged_output = 0

    def append_again(self) -> None:
        """Append what the log lacks, although nothing new was put."""
        self._put.set()

    def mark_appended(self, appended: LogAppend) -> None:
        """Note that the log has this, which renewed the writer's lease."""
        self.fully_logged = True
        self._appended_at = time.monotonic()
        if appended.entries:
            self._logged = appended.entries[-1].n
        self._logged_output = appended.output_before + len(appended.output)

    def appended_within(self, seconds: float) -> bool:
        """Return whether the last append was less than so many seconds ago."""
        return time.monotonic() - self._appended_at < seconds

    def drop_unpublished(self) -> None:
        """Drop what was put and not published, with the output that the log lacks: it cannot be written."""
        self.broken, self.last_put, self.outcome = True, False, b""
        self._pending.clear()
        del self.output[self._logged_output :]
        self.publish()

    def publish(self, batch: Sequence[LogEntry] = ()) -> None:
        """Show entries to every connection; whoever waits for more, or for the log, looks again."""
        self.entries += batch
        self.ended = self.ended or any(entry.event.ends for entry in batch)
        grown, self._grown = self._grown, anyio.Event()
        grown.set()
        for appended in self._in_flight:
            appended.set()
        self._in_flight.clear()

    def stop_writing(self) -> None:
        """Leave the answer to another replica; nothing of it is settled or recorded here."""
        self.written_elsewhere = True
        self.scope.cancel()
        self.cancel_abandonment()
        self._in_flight += self._waiting
        self._put.set()
        self.publish()

    async def follow(self, after: int) -> AsyncGenerator[LogEntry]:
        """Yield the entries after number `after` until the last one, or until the answer is written elsewhere."""
        n = after
        while True:
            while n < len(self.entries):
                n += 1
                yield self.entries[n - 1]
            if self.ended or self.written_elsewhere:
                return
            await self._grown.wait()

    def abandon_after(self, grace: float) -> None:
        """Cancel the answer in `grace` seconds, unless `cancel_abandonment` is called before."""
        self.cancel_abandonment()
        if not self.ended:
            self._abandonment = asyncio.get_running_loop().call_later(grace, self._abandon)

    def _abandon(self) -> None:
        self.abandoned = self.abandoned or not self.scope.cancel_called
        self.scope.cancel()

    def cancel_abandonment(self) -> None:
        """Stop the abandonment timer."""
        if self._abandonment is not None:
            self._abandonment.cancel()
