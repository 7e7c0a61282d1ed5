"""The answers that run in this process: owned by the application's task group, only read by connections.

An event is appended to the answer log before any connection sees it (group commit: while one append is in flight the
next ones gather). With Redis away the stream goes on from this process's memory, with a notice, and cannot be resumed
elsewhere. An answer that nobody reads is abandoned after a grace: its scope is cancelled, which closes the model's
socket, and it then ends like any cancelled one.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager

import anyio
import structlog
from anyio.abc import TaskGroup
from pydantic import BaseModel

from chatbot.answer_log import AnswerId, AnswerLog, Entry, PassageRef, WriterReplaced
from chatbot.errors import ForeignEventId, LogLost, NotFound, StoreUnavailable
from chatbot.events import LAST, Event, Notice, NoticeCode
from knowledge.identity import Principal

log = structlog.get_logger(__name__)

_EPOCH = 1  # taking over another replica's answer, with the next epoch, is a later step


_NOT_RESUMABLE = "연결이 끊기면 이 답변은 이어볼 수 없습니다. If the connection drops, this answer cannot be resumed."


class AnswersSettings(BaseModel, frozen=True):
    """Seconds until an unread stream is abandoned, and how many unlogged answers stay in memory after their end."""

    grace: float = 10.0
    kept: int = 200


class Running:
    """One answer: what was put, what is published, who reads. Only the answer itself puts."""

    def __init__(self, answer_id: AnswerId, who: Principal, *, conversation_id: str) -> None:
        self.answer_id = answer_id
        self.who = who
        self.conversation_id = conversation_id
        self.scope = anyio.CancelScope()
        self.durable = True
        self.warned = False
        self.published: list[Event] = []
        self.ended = False
        self._pending: list[Event] = []
        self._put = anyio.Event()
        self._grown = anyio.Event()
        self._readers = 0
        self._abandon: asyncio.TimerHandle | None = None

    def put(self, *events: Event) -> None:
        """Add events to the answer; they are on the wire once the log has them."""
        self._pending.extend(events)
        self._put.set()

    async def gathered(self) -> list[Event]:
        """Wait for events that were put and return all of them."""
        await self._put.wait()
        self._put = anyio.Event()
        batch, self._pending = self._pending, []
        return batch

    def publish(self, events: Sequence[Event]) -> None:
        """Show events to every connection."""
        self.published.extend(events)
        self.ended = self.ended or any(isinstance(e, LAST) for e in events)
        grown, self._grown = self._grown, anyio.Event()
        grown.set()

    async def follow(self, after: int) -> AsyncGenerator[Entry]:
        """Yield the entries after number `after` until the last one."""
        n = after
        while True:
            while n < len(self.published):
                n += 1
                yield Entry(n=n, event=self.published[n - 1])
            if self.ended:
                return
            await self._grown.wait()

    @contextmanager
    def read(self, *, grace: float) -> Iterator[None]:
        """Count a reader for as long as it reads; `grace` seconds after the last one left, the answer is cancelled."""
        self._readers += 1
        if self._abandon is not None:
            self._abandon.cancel()
        try:
            yield
        finally:
            self._readers -= 1
            self.abandon_after(grace)

    def abandon_after(self, grace: float) -> None:
        """Cancel the answer in `grace` seconds unless somebody reads it then."""
        if self._readers == 0 and not self.ended:
            self._abandon = asyncio.get_running_loop().call_later(grace, self.scope.cancel)

    def settle(self) -> None:
        """Stop the abandonment clock."""
        if self._abandon is not None:
            self._abandon.cancel()


Work = Callable[[Running], Awaitable[None]]


class Answers:
    """Starts answers, finds them, cancels them."""

    def __init__(self, answer_log: AnswerLog, tasks: TaskGroup, settings: AnswersSettings) -> None:
        self._log = answer_log
        self._tasks = tasks
        self._settings = settings
        self._running: dict[AnswerId, Running] = {}
        self._kept: OrderedDict[AnswerId, Running] = OrderedDict()
        self._idle = anyio.Event()
        self._idle.set()

    @property
    def active(self) -> int:
        """How many answers run here now."""
        return len(self._running)

    async def start(self, running: Running, work: Work, *, passages: Sequence[PassageRef]) -> None:
        """Open the answer's log and run `work` in the application's task group."""
        if not self._running:
            self._idle = anyio.Event()
        self._running[running.answer_id] = running
        try:
            await self._log.open(
                running.who,
                running.answer_id,
                epoch=_EPOCH,
                conversation_id=running.conversation_id,
                passages=passages,
            )
        except StoreUnavailable:
            running.durable = False
        running.abandon_after(self._settings.grace)
        self._tasks.start_soon(self._run, running, work)
        self._tasks.start_soon(self._write, running)

    async def _run(self, running: Running, work: Work) -> None:
        with running.scope:
            await work(running)

    async def _write(self, running: Running) -> None:
        while not running.ended:
            batch = await running.gathered()
            if running.durable:
                await self._append(running, batch)
            if not (running.durable or running.warned):
                batch = _warned(running, batch)
            running.publish(batch)
        running.settle()
        del self._running[running.answer_id]
        if not running.durable:
            self._keep(running)
        if not self._running:
            self._idle.set()

    async def _append(self, running: Running, batch: list[Event]) -> None:
        first = len(running.published) + 1
        try:
            await self._log.append(running.who.tenant, running.answer_id, epoch=_EPOCH, first=first, events=batch)
        except StoreUnavailable:
            running.durable = False
        except WriterReplaced:
            running.scope.cancel()

    def _keep(self, running: Running) -> None:
        self._kept[running.answer_id] = running
        while len(self._kept) > self._settings.kept:
            self._kept.popitem(last=False)

    def find(self, who: Principal, answer_id: AnswerId) -> Running | None:
        """Return the answer if this process holds it and it is the caller's.

        Raises:
            NotFound: it is somebody else's.
        """
        running = self._running.get(answer_id) or self._kept.get(answer_id)
        if running is not None and (running.who.tenant, running.who.sub) != (who.tenant, who.sub):
            raise NotFound("there is no such answer")
        return running

    async def reach(self, who: Principal, answer_id: AnswerId, last_event_id: str | None) -> tuple[int, bool]:
        """Return the number after which to go on, and whether nothing is left to send.

        Raises:
            NotFound: no such answer, or somebody else's.
            ForeignEventId: `last_event_id` is another answer's.
            LogLost: it lies beyond the log.
        """
        after = _number_of(last_event_id, answer_id)
        running = self.find(who, answer_id)
        if running is not None:
            length, ended = len(running.published), running.ended
        else:
            length, ended = await self._log.length(who, answer_id)
        if after > length:
            raise LogLost(f"the log ends at event {length}")
        return after, ended and after == length

    async def follow(self, who: Principal, answer_id: AnswerId, *, after: int) -> AsyncGenerator[Entry]:
        """Yield the entries after number `after`: from memory while the answer runs here, else from the log."""
        running = self.find(who, answer_id)
        if running is not None:
            async with aclosing(running.follow(after)) as entries:
                async for entry in entries:
                    yield entry
            return
        while True:
            for entry in await self._log.read(who, answer_id, after=after):
                after = entry.n
                yield entry
                if isinstance(entry.event, LAST):
                    return

    @contextmanager
    def read(self, answer_id: AnswerId, *, resumable: bool = True) -> Iterator[None]:
        """Count a connection that reads the answer; one that cannot resume is given no grace."""
        running = self._running.get(answer_id)
        if running is None:
            yield
            return
        with running.read(grace=self._settings.grace if resumable else 0):
            yield

    def cancel(self, who: Principal, answer_id: AnswerId) -> bool:
        """Stop the answer if it runs here; return whether it did.

        Raises:
            NotFound: it is somebody else's.
        """
        running = self.find(who, answer_id)
        if running is None or running.ended:
            return False
        running.scope.cancel()
        return True

    async def drained(self) -> None:
        """Wait until no answer runs here."""
        await self._idle.wait()

    def cancel_all(self) -> None:
        """Stop every answer (emergency stop, end of the grace of a shutdown)."""
        for running in self._running.values():
            running.scope.cancel()


def _warned(running: Running, batch: list[Event]) -> list[Event]:
    running.warned = True
    log.warning("answer_not_logged", answer_id=running.answer_id)
    at = 0 if running.published else 1  # `accepted` stays the first event
    return [*batch[:at], Notice(code=NoticeCode.DEGRADED, text=_NOT_RESUMABLE), *batch[at:]]


def _number_of(last_event_id: str | None, answer_id: AnswerId) -> int:
    if not last_event_id:
        return 0
    owner, _, n = last_event_id.rpartition(".")
    if owner != answer_id or not n.isdecimal() or len(n) > 9:
        raise ForeignEventId
    return int(n)
