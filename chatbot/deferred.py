"""Writes at the end of an answer: a write that fails is kept in memory and retried until its store accepts it.

A finished answer is therefore settled and added to the history although Redis stalls at its end. These writes are
idempotent: each reservation is settled once, and each answer is added once to its conversation. At most `most` writes
wait; a write that is given up is counted as lost. A stopping process waits for them within its drain.

A failover may lose recent writes. The writes of the last `again` seconds are remembered, and repeated after data loss
is detected.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import anyio
import structlog
from pydantic import BaseModel

from chatbot.errors import StoreUnavailable
from telemetry.supervision import OnFailure, contained, uncounted

T = TypeVar("T")
WriteKind = Literal["settlement", "history", "key", "log"]
"""`key`: bind or free an Idempotency-Key; `log`: append the last events of an answer."""
log = structlog.get_logger(__name__)


class DeferredSettings(BaseModel, frozen=True):
    """The queue's size and its retry interval."""

    most: ClassVar[int] = 10_000  # writes: the maximum number that wait in a process
    every: ClassVar[float] = 0.5  # seconds: the retry interval
    again: ClassVar[float] = 10.0  # seconds: the maximum age of a completed write that is repeated after data loss


@dataclass(frozen=True, slots=True, eq=False)
class DeferredWrite:
    """A waiting or completed write; `lost` is called if it is given up."""

    kind: WriteKind
    write: Callable[[], Awaitable[object]]
    lost: Callable[[], None] = lambda: None


class DeferredWrites:
    """Runs writes now if their store is available, and later otherwise."""

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
        """The number of waiting writes."""
        return len(self._waiting)

    async def write(self, kind: WriteKind, write: Callable[[], Awaitable[T]]) -> T | None:
        """Return the write's result, or None if its store is unavailable (it is retried) or a bug made it fail."""
        deferred = DeferredWrite(kind, write)
        result: T | None
        available, result = await self._try(deferred)
        if not available:
            self.defer(deferred)
        return result

    def note_done(self, done: DeferredWrite) -> None:
        """Remember a completed write, so that it can be repeated if the store loses it within `again` seconds."""
        self._done.append((time.monotonic(), done))

    def store_seen(self, *, lost_writes: bool) -> None:
        """Record that the store answers; queue the last writes again if it has lost some."""
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
        """Retry the waiting writes until cancelled."""
        while True:
            await anyio.sleep(self._settings.every)
            await self.retry()

    async def retry(self) -> None:
        """Try each waiting write once, in order; skip the rest of a kind whose store is unavailable."""
        away: set[WriteKind] = set()
        for deferred in tuple(self._waiting):
            if deferred.kind not in away and not (await self._try(deferred))[0]:
                away.add(deferred.kind)
        if not self._waiting:
            self._none_waits.set()
            self._none_waits = anyio.Event()

    async def _try(self, deferred: DeferredWrite) -> tuple[bool, Any]:
        """Try a write; return whether its store is available, and the write's result."""
        with contained(deferred.kind, self._on_failure):
            try:
                result = await deferred.write()
            except StoreUnavailable:
                return False, None
            self._waiting.pop(deferred, None)
            self.note_done(deferred)
            return True, result
        self._lose(deferred)
        return True, None

    async def drained(self) -> None:
        """Return when no write waits."""
        while self._waiting:
            await self._none_waits.wait()

    def give_up(self) -> None:
        """Count all waiting writes as lost, because this process ends."""
        while self._waiting:
            self._lose(next(iter(self._waiting)))
