"""Following answers that other replicas write: one read of the log for each in a process, shared by all who follow.

A read begins behind the last event that its first follower has; whoever needs earlier events fetches those alone. Each
second one command asks, for all reads of a tenant, whether their writers still live.
"""

from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

import anyio
import structlog
from anyio.abc import TaskGroup

from chatbot.errors import ChatError, LogLost, NotFound, StoreUnavailable
from chatbot.streams.log import AnswerId, AnswerLog, AnswerProgress, LogEntry
from knowledge.identity import Principal
from telemetry.supervision import OnFailure, contained

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 0.25
_LOOK_SECONDS = 1.0
"""Between two looks at all writers, at most; a mark "read" counts for longer (`chatbot.streams.log`)."""
_SOON_SECONDS = 0.1
"""How long a read waits for entries where the writer is silent or has ended the answer."""
TakeOver = Callable[[str, AnswerId], Awaitable[bool]]
"""Takes over an answer of a tenant whose writer's lease has lapsed; returns whether this process writes it now."""


class SharedRead:
    """What is read of one answer: its entries after number `start`; it is over at the last, or where it failed."""

    def __init__(self, who: Principal, start: int) -> None:
        self.who = who
        self.start = start
        self.scope = anyio.CancelScope()
        self.waiting = anyio.CancelScope()
        """Of the wait for entries: its deadline is the end of the writer's lease, as far as that is known."""
        self.followers = 0
        self.entries: list[LogEntry] = []
        self.over = False
        self._look_before = (0, start)
        """How many entries the log had then, and the last that was read."""
        self.was_there = False
        self.error: ChatError | None = None
        self._grown = anyio.Event()

    @property
    def after(self) -> int:
        """The number of the last entry that was read."""
        return self.entries[-1].n if self.entries else self.start

    def wait_on(self, progress: AnswerProgress | None, now: float) -> None:
        """Wait for entries until the lease ends; no longer where nothing came of what the log had at the look before.

        A connection that died without a word brings nothing.
        """
        left = progress.lease_left if progress is not None else None
        had, after = self._look_before
        self._look_before = (progress.events if progress is not None else 0, self.after)
        brings_nothing = had > self.after == after
        self.waiting.deadline = now if left is None or brings_nothing else now + left

    def add(self, entries: list[LogEntry]) -> None:
        self.entries += entries
        self._wake()

    def end(self, error: ChatError | None = None) -> None:
        """End the read; followers look anew for who has the answer, or get the error."""
        if not self.over:
            self.over, self.error = True, error
            self._wake()

    def _wake(self) -> None:
        grown, self._grown = self._grown, anyio.Event()
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
            await self._grown.wait()


class ReadsElsewhere:
    """The answers that this process reads for its followers while another replica writes them."""

    def __init__(
        self,
        answer_log: AnswerLog,
        tasks: TaskGroup,
        *,
        patience: float,
        take_over: TakeOver,
        on_failure: OnFailure,
    ) -> None:
        """`patience` is how many seconds a read waits for Redis to come back."""
        self._log = answer_log
        self._tasks = tasks
        self._patience = patience
        self._take_over = take_over
        self._on_failure = on_failure
        self._reads: dict[AnswerId, SharedRead] = {}
        self._looking = False

    def __len__(self) -> int:
        """Return how many answers are read."""
        return len(self._reads)

    def __contains__(self, answer_id: AnswerId) -> bool:
        """Return whether an answer is read."""
        return answer_id in self._reads

    async def follow(self, who: Principal, answer_id: AnswerId, after: int) -> AsyncGenerator[LogEntry]:
        """Yield the entries after number `after`, until the last one or until this process writes the answer.

        Raises:
            NotFound: no such answer, or another customer's.
            LogLost: the answer has ended, without a last event after `after`.
            StoreUnavailable: Redis has been away for too long.
        """
        read = self._reads.get(answer_id)
        if read is None or read.over:
            read = self._reads[answer_id] = SharedRead(who, after)
            self._tasks.start_soon(self._run, answer_id, read)
            if not self._looking:
                self._looking = True
                self._tasks.start_soon(self._keep_looking)
        elif (read.who.tenant, read.who.sub) != (who.tenant, who.sub):
            raise NotFound("there is no such answer")
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
                self._leave(answer_id, read)

    async def _earlier(self, who: Principal, answer_id: AnswerId, *, after: int, before: int) -> list[LogEntry]:
        """Return some of the entries from behind `after` to `before`.

        Raises:
            LogLost: there are none.
            StoreUnavailable: Redis cannot be asked.
        """
        entries = await self._log.entries(who.tenant, answer_id, after=after, until=before)
        if not entries:
            raise LogLost(f"the log has lost what followed event {after}")
        return entries

    def _leave(self, answer_id: AnswerId, read: SharedRead) -> None:
        read.end()
        read.scope.cancel()
        if self._reads.get(answer_id) is read:
            del self._reads[answer_id]

    def end_all(self) -> None:
        """End every read: this process goes."""
        for answer_id, read in tuple(self._reads.items()):
            self._leave(answer_id, read)

    async def _run(self, answer_id: AnswerId, read: SharedRead) -> None:
        with read.scope, contained("reader", self._on_failure):
            try:
                await self._read(answer_id, read)
            except ChatError as exc:
                read.end(exc)
        read.end(ChatError())
        if self._reads.get(answer_id) is read:
            del self._reads[answer_id]

    async def _read(self, answer_id: AnswerId, read: SharedRead) -> None:
        """Read until the last event, or until the answer was taken over by this process.

        Raises:
            ChatError: the read cannot go on.
        """
        away_since: float | None = None
        while not read.over:
            try:
                await self._read_more(answer_id, read)
            except (StoreUnavailable, NotFound) as exc:
                if isinstance(exc, NotFound) and not await self._may_come_back(answer_id, read):
                    raise
                away_since = away_since or anyio.current_time()
                if anyio.current_time() - away_since >= self._patience:
                    raise
                await anyio.sleep(_RETRY_SECONDS)
            else:
                away_since = None

    async def _may_come_back(self, answer_id: AnswerId, read: SharedRead) -> bool:
        """Return whether an answer that is not there any more may only be forgotten: its writer then brings it back."""
        try:
            return read.was_there and not await self._log.was_deleted(read.who.tenant, answer_id)
        except StoreUnavailable:
            return read.was_there

    async def _read_more(self, answer_id: AnswerId, read: SharedRead) -> None:
        """Read until the writer's lease ends, and take the answer over where it has lapsed.

        Raises:
            NotFound: there is no such answer any more.
            LogLost: the answer has ended, without a last event after those read.
            StoreUnavailable: Redis cannot be asked.
        """
        progress = await self._log.touch(read.who, answer_id, "read")
        read.was_there = True
        left = progress.lease_left
        if left is not None and left <= 0 and await self._take_over(read.who.tenant, answer_id):
            read.end()
            return
        if left is not None and left > 0:
            with anyio.move_on_after(left) as read.waiting:
                while not read.over:
                    await self._read_next(answer_id, read, self._log.block_seconds)
            return
        while await self._read_next(answer_id, read, _SOON_SECONDS):
            if read.over:
                return
        if left is None:
            raise LogLost(f"the log ends at event {progress.events}")

    async def _read_next(self, answer_id: AnswerId, read: SharedRead, wait: float) -> bool:
        """Wait for entries, at most so many seconds; return whether there were any. The last one ends the read.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        entries = await self._log.read(read.who.tenant, answer_id, after=read.after, wait=wait)
        read.add(entries)
        if entries and entries[-1].event.ends:
            read.end()
        return bool(entries)

    # --- the writers of what is read ---------------------------------------------------------------------------------

    async def _keep_looking(self) -> None:
        """Look at the writers of all reads again and again, while there are reads."""
        try:
            seconds = between = min(_LOOK_SECONDS, self._log.lease_seconds / 2)
            while self._reads:
                await anyio.sleep(seconds)
                seconds = min(_RETRY_SECONDS, between)
                with contained("reader", self._on_failure), suppress(StoreUnavailable):
                    await self._look()
                    seconds = between
        finally:
            self._looking = False

    async def _look(self) -> None:
        """Leave the readers' marks, and let each read wait for as long as its writer's lease lasts now.

        Raises:
            StoreUnavailable: Redis cannot be asked; the reads wait until the ends of the leases that they know.
        """
        subs: defaultdict[str, dict[AnswerId, str]] = defaultdict(dict)
        for answer_id, read in self._reads.items():
            subs[read.who.tenant][answer_id] = read.who.sub
        for tenant, of_tenant in subs.items():
            told = await self._log.touch_all(tenant, of_tenant, "read")
            now = anyio.current_time()
            for answer_id, progress in told.items():
                if answer_id in self._reads:
                    self._reads[answer_id].wait_on(progress, now)
