"""Writes at the end of an answer: a write that fails is kept in memory and retried until its store accepts it.

A finished answer is therefore settled and added to the history although Redis stalls at its end. These writes are
idempotent: each reservation is settled once, and each answer is added once to its conversation. The number of waiting
writes is bounded; a write that is given up is counted as lost. A stopping process waits for them within its drain.

Completed writes are remembered for some seconds, and repeated if a failover or a restart of the store may lose them.
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

    most_waiting: ClassVar[int] = 10_000  # writes: the maximum number that wait in a process
    retry_seconds: ClassVar[float] = 0.5  # seconds: the retry interval
    repeat_within: ClassVar[float] = 10.0  # seconds: the maximum age of a completed write repeated after data loss


@dataclass(frozen=True, slots=True, eq=False)
class DeferredWrite:
    """A waiting or completed write; `on_lost` is called if it is given up."""

    kind: WriteKind
    write: Callable[[], Awaitable[object]]
    on_lost: Callable[[], None] = lambda: None


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
        self._completed: deque[tuple[float, DeferredWrite]] = deque(maxlen=settings.most_waiting)
        self._queue_emptied = anyio.Event()

    @property
    def waiting(self) -> int:
        """The number of waiting writes."""
        return len(self._waiting)

    async def write(self, kind: WriteKind, write: Callable[[], Awaitable[T]]) -> T | None:
        """Run a write; return its result, or None if it waits for its store or failed because of a bug."""
        deferred = DeferredWrite(kind, write)
        result: T | None
        is_available, result = await self._try(deferred)
        if not is_available:
            self.defer(deferred)
        return result

    def remember(self, completed: DeferredWrite) -> None:
        """Remember a completed write for some seconds, so that it can be repeated if the store loses it."""
        self._completed.append((time.monotonic(), completed))

    def store_answered(self, *, lost_writes: bool) -> None:
        """Queue the remembered writes again if the store has lost writes; forget writes that are too old to be lost."""
        if lost_writes:
            log.warning("redis_data_loss_detected", writes=len(self._completed))
            self._waiting |= {write: None for _, write in self._completed}
            self._completed.clear()
        oldest = time.monotonic() - self._settings.repeat_within
        while self._completed and self._completed[0][0] < oldest:
            self._completed.popleft()

    def defer(self, deferred: DeferredWrite) -> None:
        """Queue a write and retry it until its store accepts it."""
        self._waiting[deferred] = None
        log.warning("redis_write_deferred", kind=deferred.kind, waiting=self.waiting)
        if self.waiting > self._settings.most_waiting:
            self._lose(next(iter(self._waiting)))

    def _lose(self, deferred: DeferredWrite) -> None:
        self._waiting.pop(deferred, None)
        log.error("redis_write_lost", kind=deferred.kind)
        self._on_lost(deferred.kind)
        deferred.on_lost()

    async def retry_forever(self) -> None:
        """Retry the waiting writes until cancelled."""
        while True:
            await anyio.sleep(self._settings.retry_seconds)
            await self.retry()

    async def retry(self) -> None:
        """Try each waiting write once, in order; if a store is unavailable, skip the other writes of that kind."""
        unavailable: set[WriteKind] = set()
        for deferred in tuple(self._waiting):
            if deferred.kind in unavailable:
                continue
            is_available, _ = await self._try(deferred)
            if not is_available:
                unavailable.add(deferred.kind)
        if not self._waiting:
            self._queue_emptied.set()
            self._queue_emptied = anyio.Event()

    async def _try(self, deferred: DeferredWrite) -> tuple[bool, Any]:
        """Try a write; return whether its store is available, and the result (None if a bug loses the write)."""
        with contained(deferred.kind, self._on_failure):
            try:
                result = await deferred.write()
            except StoreUnavailable:
                return False, None
            self._waiting.pop(deferred, None)
            self.remember(deferred)
            return True, result
        self._lose(deferred)
        return True, None

    async def drained(self) -> None:
        """Return when no write waits."""
        while self._waiting:
            await self._queue_emptied.wait()

    def discard_waiting(self) -> None:
        """Count all waiting writes as lost, because this process ends."""
        while self._waiting:
            self._lose(next(iter(self._waiting)))
