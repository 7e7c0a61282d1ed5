"""Writes at the end of an answer: those that a store did not take are kept in memory and retried until it takes them.

What a customer has read to its end is settled and in the history although Redis stalls just then. Such a write may be
sent any number of times: a reservation is settled once, and an answer is once in its conversation. At most `most` of
them wait; one that is given up is counted as lost. A process that ends waits for them within its drain.

A store that fails over loses what it took last: the writes of the last `again` seconds are remembered, and repeated
when it is seen to have lost something.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import anyio
import structlog
from pydantic import BaseModel

from chatbot.errors import StoreUnavailable
from telemetry.supervision import OnFailure, contained, uncounted

T = TypeVar("T")
WriteKind = Literal["settlement", "history", "key", "log"]
"""`key`: an Idempotency-Key is bound or freed, `log`: the last events of an answer."""
log = structlog.get_logger(__name__)


class DeferredSettings(BaseModel, frozen=True):
    """How many writes wait, and how often they are tried."""

    # writes: how many settlements and messages of ended answers wait for Redis in a process
    most: ClassVar[int] = 10_000
    every: ClassVar[float] = 0.5  # seconds: between two rounds of retries
    # seconds: how recent a write is that is repeated where Redis has lost its last moments
    again: ClassVar[float] = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class DeferredWrite:
    """A write that waits, or was done; `lost` is called if it is given up."""

    kind: WriteKind
    write: Callable[[], Awaitable[object]]
    lost: Callable[[], None] = lambda: None


class DeferredWrites:
    """Does writes now where that is possible, and later otherwise."""

    def __init__(
        self,
        settings: DeferredSettings,
        *,
        on_lost: Callable[[WriteKind], None] = lambda _: None,
        on_failure: OnFailure = uncounted,
    ) -> None:
        self._settings = settings
        self._on_lost = on_lost
        self._on_failure = on_failure
        self._waiting: dict[DeferredWrite, None] = {}
        self._done: deque[tuple[float, DeferredWrite]] = deque(maxlen=settings.most)
        self._none_waits = anyio.Event()

    @property
    def waiting(self) -> int:
        """How many writes wait."""
        return len(self._waiting)

    async def write(self, kind: WriteKind, write: Callable[[], Awaitable[T]]) -> T | None:
        """Return what the write returns; None where its store is away, and it is kept, or where it fails by a bug."""
        deferred = DeferredWrite(kind, write)
        with contained(kind, self._on_failure):
            try:
                written = await write()
            except StoreUnavailable:
                self.defer(deferred)
                return None
            self.note_done(deferred)
            return written
        self._lose(deferred)
        return None

    def note_done(self, done: DeferredWrite) -> None:
        """Remember a completed write, to be repeated where its store loses it within `again` seconds."""
        self._done.append((time.monotonic(), done))

    def store_seen(self, *, lost_writes: bool) -> None:
        """Note that the store answers; repeat the last writes where it has lost some."""
        if lost_writes:
            log.warning("redis_data_loss_detected", writes=len(self._done))
            self._waiting |= {done: None for _, done in self._done}
            self._done.clear()
        oldest = time.monotonic() - self._settings.again
        while self._done and self._done[0][0] < oldest:
            self._done.popleft()

    def defer(self, deferred: DeferredWrite) -> None:
        """Queue a write and retry it until its store accepts it."""
        self._waiting[deferred] = None
        log.warning("redis_write_deferred", kind=deferred.kind, waiting=self.waiting)
        if self.waiting > self._settings.most:
            self._lose(next(iter(self._waiting)))

    def _lose(self, deferred: DeferredWrite) -> None:
        self._waiting.pop(deferred, None)
        log.error("redis_write_lost", kind=deferred.kind)
        self._on_lost(deferred.kind)
        deferred.lost()

    async def retry_forever(self) -> None:
        """Retry what waits until cancelled."""
        while True:
            await anyio.sleep(self._settings.every)
            await self.retry()

    async def retry(self) -> None:
        """Try everything that waits once, in order; of a kind whose store is still away only the first."""
        away: set[WriteKind] = set()
        for deferred in tuple(self._waiting):
            if deferred.kind not in away and not await self._try(deferred):
                away.add(deferred.kind)
        if not self._waiting:
            self._none_waits.set()
            self._none_waits = anyio.Event()

    async def _try(self, deferred: DeferredWrite) -> bool:
        """Try a write; return whether its store is there."""
        with contained(deferred.kind, self._on_failure):
            try:
                await deferred.write()
            except StoreUnavailable:
                return False
            self._waiting.pop(deferred, None)
            self.note_done(deferred)
            return True
        self._lose(deferred)
        return True

    async def drained(self) -> None:
        """Return when nothing waits."""
        while self._waiting:
            await self._none_waits.wait()

    def give_up(self) -> None:
        """Count everything that still waits as lost: this process ends."""
        while self._waiting:
            self._lose(next(iter(self._waiting)))
