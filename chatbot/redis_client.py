"""Redis clients and their circuit breaker, which opens on a late command, a broken connection or a demoted master.

An open breaker rejects each command at once with `StoreUnavailable`, except two probes per second with a shorter
deadline. All users of Redis in a process share one breaker, so that only the first command waits. A command may also be
late because it is slow or the pool is exhausted; a PING over a dedicated connection distinguishes that from an
unavailable Redis.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import ClassVar, TypeVar

import structlog
from pydantic import BaseModel, Field, PositiveFloat
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chatbot.errors import StoreUnavailable
from knowledge.tls import SYSTEM_TLS, TlsSettings

T = TypeVar("T")
log = structlog.get_logger(__name__)

LATE_SECONDS = 0.02  # the delay of a timer that shows that the event loop was too busy to read replies
GRACE_SECONDS = 0.05  # the additional time of a command in that case
CHECK_SECONDS = 60.0  # the interval of the checks of Redis's configuration
MAX_CONNECTIONS = 64  # the pool size of one process for one Redis
DEMOTED = (ReadOnlyError,)
"""Errors of a demoted master; its connections are closed: a new connection may reach the new master."""


class RedisBreakerSettings(BaseModel, frozen=True):
    """When Redis counts as unavailable, and how often it is probed."""

    slow_after: PositiveFloat = Field(
        0.2, description="seconds: A command's deadline. If it is missed and a PING fails too, the breaker opens."
    )
    probe_timeout: ClassVar[float] = 0.05  # seconds: the deadline of a probe while the breaker is open
    probe_every: ClassVar[float] = 0.5  # seconds: the probe interval


class RedisBreaker:
    """Runs commands with a deadline; rejects them while it is open."""

    def __init__(
        self,
        settings: RedisBreakerSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        ping: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`ping` sends a PING over a dedicated connection."""
        self._settings = settings
        self._clock = clock
        self._ping = ping
        self._pinging: asyncio.Task[bool] | None = None
        self._next_probe: float | None = None
        self._opened_at = self._closed_at = -math.inf

    @property
    def slow_after(self) -> float:
        """The deadline of a command in seconds."""
        return self._settings.slow_after

    @property
    def unavailable_for(self) -> float:
        """Seconds since the breaker opened; 0 while it is closed."""
        return self._clock() - self._opened_at if self.is_open else 0.0

    @property
    def available_for(self) -> float:
        """Seconds since the breaker closed; 0 while it is open, infinite if it never opened."""
        return 0.0 if self.is_open else self._clock() - self._closed_at

    @property
    def is_open(self) -> bool:
        """Whether commands are rejected."""
        return self._next_probe is not None

    async def call(self, command: Callable[[], Awaitable[T]]) -> T:
        """Await `command()` within the deadline.

        Raises:
            StoreUnavailable: the breaker is open, the command was late or lost its connection, or Redis rejected it.
        """
        deadline = self._settings.slow_after
        if self._next_probe is not None:
            deadline = self._begin_probe(self._next_probe)
        try:
            reply = await in_time(command, deadline)
        except DEMOTED as exc:
            self._open(exc)
            raise StoreUnavailable from exc
        except (TimeoutError, RedisConnectionError, RedisTimeoutError, OSError) as exc:
            if await self._redis_answers():
                self._close()
                log.warning("redis_command_failed", error=type(exc).__name__)
            else:
                self._open(exc)
            raise StoreUnavailable from exc
        except RedisError as exc:
            # Redis is available, but its memory or its disk is full (MISCONF), or a script failed.
            self._close()
            log.warning("redis_command_rejected", error=type(exc).__name__, detail=_detail(exc))
            raise StoreUnavailable from exc
        if self._next_probe is not None:
            self._close()
        return reply

    async def _redis_answers(self) -> bool:
        """Return whether Redis answers a PING now; concurrent failures share one PING."""
        if self._ping is None:
            return False
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.ensure_future(self._is_ping_answered(self._ping))
        return await asyncio.shield(self._pinging)

    async def _is_ping_answered(self, ping: Callable[[], Awaitable[object]]) -> bool:
        try:
            await in_time(ping, self._settings.probe_timeout)
        except (TimeoutError, RedisError, OSError):
            return False
        return True

    def _begin_probe(self, not_before: float) -> float:
        """Let a command probe Redis and return its deadline in seconds; raise `StoreUnavailable` until `not_before`."""
        now = self._clock()
        if now < not_before:
            raise StoreUnavailable(may_be_executed=False)
        # Set before the first await, so that no concurrent command becomes a second probe. If the probe is cancelled,
        # the next one is due after the usual interval.
        self._next_probe = now + self._settings.probe_every
        return self._settings.probe_timeout

    def _open(self, exc: BaseException) -> None:
        if self._next_probe is None:
            log.warning("redis_unavailable", error=type(exc).__name__)
            self._opened_at = self._clock()
        self._next_probe = self._clock() + self._settings.probe_every

    def _close(self) -> None:
        if self._next_probe is not None:
            log.info("redis_recovered")
            self._closed_at = self._clock()
        self._next_probe = None


def _detail(exc: RedisError) -> str:
    """Return Redis's error message without the command's arguments, which contain customer data.

    redis-py prepends the command of a pipeline; Redis appends the arguments of an unknown command.
    """
    message = str(exc)
    if message.startswith("Command # "):
        message = message.rpartition(" of pipeline caused error: ")[2]
    return message.partition(", with args")[0][:200]


async def watch_eviction(redis: Redis, breaker: RedisBreaker, report_eviction_enabled: Callable[[bool], None]) -> None:
    """Check every minute, until cancelled, whether a full Redis would evict keys instead of rejecting writes.

    Eviction would silently remove conversations, reservations and logs.
    """
    while True:
        with suppress(StoreUnavailable):
            memory = await breaker.call(lambda: redis.info("memory"))
            policy = str(memory.get("maxmemory_policy", "noeviction"))
            report_eviction_enabled(policy != "noeviction")
            if policy != "noeviction":
                log.error("redis_eviction_enabled", policy=policy, advice="set its maxmemory-policy to noeviction")
        await asyncio.sleep(CHECK_SECONDS)


async def in_time(command: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Await `command()` for at most `seconds`, plus a grace period if the event loop itself is late.

    A late loop may have left the reply unread in the socket; without grace a busy process would suspect Redis.

    Raises:
        TimeoutError: the command missed its deadline.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    async with asyncio.timeout(None) as scope:

        def expire() -> None:
            is_late = loop.time() - deadline > LATE_SECONDS
            scope.reschedule(loop.time() + (GRACE_SECONDS if is_late else 0.0))

        timer = loop.call_at(deadline, expire)
        try:
            return await command()
        finally:
            timer.cancel()


@asynccontextmanager
async def open_redis(
    url: str, tls: TlsSettings = SYSTEM_TLS, *, max_connections: int = MAX_CONNECTIONS
) -> AsyncGenerator[Redis]:
    """Open a client: in a burst, commands wait for a connection; on a stale connection, a command is retried once."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=5,
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[*DEMOTED],  # over another connection
        socket_timeout=None,  # the breaker's deadline is shorter, and redis-py's timeout costs a task per command
        socket_connect_timeout=2,
        **tls.redis_options(url),
    )
    client = Redis.from_pool(pool)
    try:
        yield client
    finally:
        await client.aclose()
