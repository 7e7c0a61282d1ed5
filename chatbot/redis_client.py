"""The one breaker that a process puts before Redis: opened by the first command over 200 ms or a broken connection.

While it is open every command is refused at once with `StoreUnavailable`, but one probe a second, which has less time.
All of a process's users of Redis (ledger, history, answer log) share one, so that only the first of them waits.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog
from pydantic import BaseModel, PositiveFloat, PositiveInt
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chatbot.errors import StoreUnavailable

T = TypeVar("T")
log = structlog.get_logger(__name__)

LATE_SECONDS = 0.02
GRACE_SECONDS = 0.05


class RedisBreakerSettings(BaseModel, frozen=True):
    """How long a command may take, how long a probe may, and how often there is one."""

    slow_after: PositiveFloat = 0.2
    probe_timeout: PositiveFloat = 0.05
    probe_every: PositiveFloat = 1.0


class RedisBreaker:
    """Runs commands one way: in time, or `StoreUnavailable`."""

    def __init__(self, settings: RedisBreakerSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._next_probe: float | None = None

    @property
    def is_open(self) -> bool:
        return self._next_probe is not None

    async def call(self, command: Callable[[], Awaitable[T]]) -> T:
        """Await `command()` within the deadline.

        Raises:
            StoreUnavailable: the breaker is open, or the command was late, lost its connection or was refused by Redis.
        """
        return await self.call_within(lambda seconds: in_time(command, seconds))

    async def call_within(self, command: Callable[[float], Awaitable[T]]) -> T:
        """Await `command(seconds)`, which raises TimeoutError itself when it took longer.

        Raises:
            StoreUnavailable: the breaker is open, or the command was late, lost its connection or was refused by Redis.
        """
        deadline = self._admit()
        try:
            reply = await command(deadline)
        except (TimeoutError, RedisConnectionError, RedisTimeoutError, RedisClusterException, OSError) as exc:
            self._open(exc)
            raise StoreUnavailable from exc
        except RedisError as exc:
            # It answers, so it is there: read-only, out of memory, disk full (MISCONF), a script's mistake.
            self._close()
            log.warning("redis refused a command", error=type(exc).__name__, detail=str(exc)[:200])
            raise StoreUnavailable from exc
        self._close()
        return reply

    def _admit(self) -> float:
        if self._next_probe is None:
            return self._settings.slow_after
        now = self._clock()
        if now < self._next_probe:
            raise StoreUnavailable
        # Claimed before the first await, so that there is one probe whoever else arrives meanwhile; and should the
        # probe be cancelled, the next one comes a period later.
        self._next_probe = now + self._settings.probe_every
        return self._settings.probe_timeout

    def _open(self, exc: BaseException) -> None:
        if self._next_probe is None:
            log.warning("redis is away", error=type(exc).__name__)
        self._next_probe = self._clock() + self._settings.probe_every

    def _close(self) -> None:
        if self._next_probe is not None:
            log.info("redis is back")
        self._next_probe = None


def more_time(due: float) -> float:
    """Return the seconds that a command gets after its deadline has passed.

    When the event loop itself was late to notice, the reply may lie unread in the socket, and a busy process would call
    a healthy Redis away: such a command gets 50 ms more.
    """
    return GRACE_SECONDS if asyncio.get_running_loop().time() - due > LATE_SECONDS else 0.0


async def in_time(command: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Await `command()`, at most `seconds` long by Redis's fault.

    Raises:
        TimeoutError: no reply in time.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    async with asyncio.timeout(None) as scope:

        def expire() -> None:
            scope.reschedule(loop.time() + more_time(due))

        timer = loop.call_at(due, expire)
        try:
            return await command()
        finally:
            timer.cancel()


class RedisSettings(BaseModel, frozen=True):
    """How a process talks to Redis; the deadline of a command is the breaker's."""

    max_connections: PositiveInt = 64
    max_readers: PositiveInt = 1000
    """Connections beside those for customers who follow an answer that another replica writes; each waits in Redis."""
    breaker: RedisBreakerSettings = RedisBreakerSettings()

    def for_readers(self) -> "RedisSettings":
        """Return the settings of the client with which they wait."""
        return self.model_copy(update={"max_connections": self.max_readers})


@asynccontextmanager
async def open_cluster(url: str, settings: RedisSettings) -> AsyncGenerator[RedisCluster]:
    """Open a client of a Redis Cluster, of which `url` names a node; one that is away is found when it is back."""
    client = RedisCluster.from_url(
        url, max_connections=settings.max_connections, socket_connect_timeout=2, retry=Retry(NoBackoff(), 1)
    )
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def open_redis(url: str, settings: RedisSettings) -> AsyncGenerator[Redis]:
    """Open the process's client: a pool that waits in a burst, and one immediate retry over a stale connection."""
    pool = BlockingConnectionPool.from_url(
        url, max_connections=settings.max_connections, timeout=5, socket_connect_timeout=2, retry=Retry(NoBackoff(), 1)
    )
    client = Redis.from_pool(pool)
    try:
        yield client
    finally:
        await client.aclose()
