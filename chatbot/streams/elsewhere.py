"""Follow answers that other replicas write, with one poll of the logs shared by all readers.

The shared read of an answer starts after its first reader's last event; a reader that needs earlier events fetches
them separately. At least once a second, one command per tenant checks that the writers are alive.
"""

from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import anyio

from chatbot.errors import ChatError, LogLost, NotFound, StoreUnavailable
from chatbot.streams.log import AnswerId, AnswerProgress, LogEntry
from chatbot.streams.writers import AnswerParts
from knowledge.identity import Principal
from telemetry.supervision import contained

POLL_SECONDS = 0.05
_LOOK_SECONDS = 1.0
"""Between two looks at all writers, at most; a mark "read" counts for longer (`chatbot.streams.log`)."""
_SOON_SECONDS = 0.25
"""Until the next look where a lease has lapsed, or Redis cannot be asked."""
TakeOver = Callable[[str, AnswerId], Awaitable[bool]]
"""Takes over an answer of a tenant whose writer's lease has lapsed; returns whether this process writes it now."""


@dataclass(eq=False)
class SharedRead:
    """What is read of one answer: its entries after number `start`; it is over at the last, or where it failed."""

    who: Principal
    start: int
    followers: int = 0
    entries: list[LogEntry] = field(default_factory=list)
    over: bool = False
    error: ChatError | None = None
    was_there: bool = False
    is_taken_over: bool = False
    """Whether its takeover is under way."""
    failing_since: float | None = None
    grown: anyio.Event = field(default_factory=anyio.Event)

    @property
    def after(self) -> int:
        """The number of the last entry that was read."""
        return self.entries[-1].n if self.entries else self.start

    def add(self, entries: list[LogEntry]) -> None:
        self.entries += entries
        self.over, self.failing_since = entries[-1].event.ends, None
        self._wake()

    def end(self, error: ChatError | None = None) -> None:
        """End the read; followers look for who has the answer, or get the error."""
        if not self.over:
            self.over, self.error = True, error
            self._wake()

    def end_unless_it_heals(self, error: ChatError, now: float, patience: float) -> None:
        """End the read with an error that has lasted for longer than the patience, in seconds."""
        if self.failing_since is None:
            self.failing_since = now
        if now - self.failing_since >= patience:
            self.end(error)

    def _wake(self) -> None:
        grown, self.grown = self.grown, anyio.Event()
        grown.set()

    async def follow(self, after: int) -> AsyncGenerator[LogEntry]:
        """Yield the entries after number `after`, which is not before the start.

        Raises:
            ChatError: why the read ended.
        """
        n = after - self.start
        while True:
            while n < len(self.entries):
                n += 1
                yield self.entries[n - 1]
            if self.over:
                if self.error is not None:
                    raise self.error
                return
            await self.grown.wait()


class ReadsElsewhere:
    """The shared reads of answers that other replicas write."""

    def __init__(self, parts: AnswerParts, take_over: TakeOver) -> None:
        self._parts = parts
        self._log = parts.log
        self._take_over = take_over
        self._reads: dict[AnswerId, SharedRead] = {}
        self._polling = False
        self._look_at = 0.0

    def __len__(self) -> int:
        """Return the number of shared reads."""
        return len(self._reads)

    async def follow(self, who: Principal, answer_id: AnswerId, after: int) -> AsyncGenerator[LogEntry]:
        """Yield the entries after number `after`, until the last one or until this process writes the answer.

        Raises:
            NotFound: no such answer, or another customer's.
            LogLost: the answer has ended, without a last event after `after`.
            StoreUnavailable: Redis has been away for too long.
        """
        read = self._reads.get(answer_id)
        if read is None:
            read = self._reads[answer_id] = SharedRead(who, after)
            self._look_at = 0.0
            if not self._polling:
                self._polling = True
                self._parts.tasks.start_soon(self._poll)
        elif read.who.customer_id != who.customer_id:
            raise NotFound("answer not found")
        read.followers += 1
        try:
            while after < read.start:
                for entry in await self._earlier(who, answer_id, after=after, before=read.start):
                    after = entry.n
                    yield entry
            async for entry in read.follow(after):
                yield entry
        finally:
            read.followers -= 1
            if not read.followers:
                self._end(answer_id, read)

    async def _earlier(self, who: Principal, answer_id: AnswerId, *, after: int, before: int) -> list[LogEntry]:
        """Return some of the entries from behind `after` to `before`.

        Raises:
            LogLost: there are none.
        """
        entries = await self._log.entries(who.tenant, answer_id, after=after, until=before)
        if not entries:
            raise LogLost(f"the log has lost what followed event {after}")
        return entries

    def _end(self, answer_id: AnswerId, read: SharedRead, error: ChatError | None = None) -> None:
        read.end(error)
        if self._reads.get(answer_id) is read:
            del self._reads[answer_id]

    def end_all(self, error: ChatError | None = None) -> None:
        """End every read: this process is stopping, or polling failed."""
        for answer_id, read in tuple(self._reads.items()):
            self._end(answer_id, read, error)

    async def _poll(self) -> None:
        """Poll the logs while there are shared reads."""
        try:
            while self._reads:
                with contained("reader", self._parts.on_failure):
                    await self._read_all()
                    self._reads = {answer_id: read for answer_id, read in self._reads.items() if not read.over}
                    await anyio.sleep(POLL_SECONDS)
                    continue
                self.end_all(ChatError())
        finally:
            self._polling = False

    async def _read_all(self) -> None:
        """Read new entries of all logs, then check the writers of the answers that have not ended."""
        now, reads = anyio.current_time(), dict(self._reads)
        try:
            looked = await self._look(reads, now) if now >= self._look_at else {}
            new = await self._log.read_all({key: (read.who.tenant, read.after) for key, read in reads.items()})
        except StoreUnavailable as exc:
            self._look_at = now + _SOON_SECONDS
            for read in reads.values():
                read.end_unless_it_heals(exc, now, self._parts.settings.patience)
        else:
            for answer_id, entries in new.items():
                reads[answer_id].add(entries)
            for answer_id, progress in looked.items():
                if not reads[answer_id].over:
                    await self._judge(answer_id, reads[answer_id], progress, brought=answer_id in new)

    async def _look(self, reads: dict[AnswerId, SharedRead], now: float) -> dict[AnswerId, AnswerProgress | None]:
        """Mark the answers as read, and return their progress.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        self._look_at = now + min(_LOOK_SECONDS, self._log.lease_seconds / 2)
        subs: defaultdict[str, dict[AnswerId, str]] = defaultdict(dict)
        for answer_id, read in reads.items():
            subs[read.who.tenant][answer_id] = read.who.sub
        looked: dict[AnswerId, AnswerProgress | None] = {}
        for tenant, of_tenant in subs.items():
            looked |= await self._log.touch_all(tenant, of_tenant, "read")
        return looked

    async def _judge(
        self, answer_id: AnswerId, read: SharedRead, progress: AnswerProgress | None, *, brought: bool
    ) -> None:
        """End a read whose log is lost or complete; take the answer over if its writer is dead."""
        now = anyio.current_time()
        if progress is None:
            # A log that Redis lost in a failover is restored by its writer.
            patience = (
                self._parts.settings.patience
                if read.was_there and not await self._was_deleted(answer_id, read)
                else 0.0
            )
            read.end_unless_it_heals(NotFound("answer not found"), now, patience)
            return
        read.was_there, read.failing_since = True, None
        left = progress.lease_left
        if left is None and not brought:
            read.end(LogLost(f"the log ends at event {progress.events}"))
        elif left is None or left <= 0:
            self._look_at = min(self._look_at, now + _SOON_SECONDS)
        else:
            self._look_at = min(self._look_at, now + left)
        if left is not None and left <= 0 and not read.is_taken_over:
            read.is_taken_over = True
            self._parts.tasks.start_soon(self._succeed, answer_id, read)

    async def _was_deleted(self, answer_id: AnswerId, read: SharedRead) -> bool:
        with suppress(StoreUnavailable):
            return await self._log.was_deleted(read.who.tenant, answer_id)
        return False

    async def _succeed(self, answer_id: AnswerId, read: SharedRead) -> None:
        """Take over the answer of a dead writer; its followers then read it from memory."""
        is_bug = True
        with contained("reader", self._parts.on_failure):
            with suppress(StoreUnavailable):
                if await self._take_over(read.who.tenant, answer_id):
                    self._end(answer_id, read)
            is_bug = False
        read.is_taken_over = False
        if is_bug:
            self._end(answer_id, read, ChatError())
