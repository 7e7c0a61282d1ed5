"""Clients of Redis, and the circuit breaker before them: opened by a late command, a broken connection or a replica.

While it is open every command is refused at once with `StoreUnavailable`, except two probes a second, which have less
time. Everything in a process that uses Redis shares one breaker, so that only the first command waits. A command may
also be late by its own weight, or because this process has no connection left for it: a PING over a connection of its
own tells that from a store that is away.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import structlog
from pydantic import BaseModel, Field, PositiveFloat
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, ReadOnlyError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chatbot.errors import StoreUnavailable
from knowledge.tls import SYSTEM_TLS, TlsSettings

T = TypeVar("T")
log = structlog.get_logger(__name__)

LATE_SECONDS = 0.02
"""An event loop that runs a timer later than this was too busy to read replies."""
GRACE_SECONDS = 0.05
LOOK_SECONDS = 3600.0
"""Between two looks at how Redis is set."""
RETRY_SECONDS = 5.0
DEMOTED = (ReadOnlyError, ClusterDownError)
"""What a Redis answers that is no master any more: its connections are given up, and others may lead to the master."""


class RedisBreakerSettings(BaseModel, frozen=True):
    """When Redis counts as away, and how its return is noticed."""

    slow_after: PositiveFloat = Field(
        0.2, description="seconds: the deadline of a command; one that misses it opens the breaker"
    )
    probe_timeout: ClassVar[float] = 0.05  # seconds: the deadline of a probe while the breaker is open
    probe_every: ClassVar[float] = 0.5  # seconds: between two probes


@dataclass(slots=True, eq=False)
class _Asked:
    """A PING that is under way, and whether it was answered."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    answered: bool = False


class RedisBreaker:
    """Runs commands against a deadline; while it is open it refuses them."""

    def __init__(
        self,
        settings: RedisBreakerSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        ping: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`ping` asks Redis whether it answers, over a connection that nothing else uses."""
        self._settings = settings
        self._clock = clock
        self._ping = ping
        self._asked: _Asked | None = None
        self._next_probe: float | None = None
        self._away_at = self._back_at = -math.inf

    @property
    def away_for(self) -> float:
        """For how many seconds commands have been refused; 0 where they are let through."""
        return self._clock() - self._away_at if self.is_open else 0.0

    @property
    def back_for(self) -> float:
        """For how many seconds commands have been let through again; infinite where Redis was never away."""
        return 0.0 if self.is_open else self._clock() - self._back_at

    @property
    def is_open(self) -> bool:
        """Whether commands are refused now."""
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
        deadline = self._settings.slow_after if self._next_probe is None else self._probe(self._next_probe)
        try:
            reply = await command(deadline)
        except DEMOTED as exc:
            self._open(exc)
            raise StoreUnavailable from exc
        except (TimeoutError, RedisConnectionError, RedisTimeoutError, RedisClusterException, OSError) as exc:
            if await self._answers():
                self._close()
                log.warning("redis_command_failed_alone", error=type(exc).__name__)
            else:
                self._open(exc)
            raise StoreUnavailable from exc
        except RedisError as exc:
            # Redis answers, so it is not away: out of memory, disk full (MISCONF), an error in a script.
            self._close()
            log.warning("redis_refused_command", error=type(exc).__name__, detail=said_by_redis(exc))
            raise StoreUnavailable from exc
        if self._next_probe is not None:
            self._close()
        return reply

    async def _answers(self) -> bool:
        """Return whether Redis answers a PING now; commands that fail together share one."""
        if self._ping is None:
            return False
        if (asked := self._asked) is not None:
            await asked.over.wait()
            return asked.answered
        asked = self._asked = _Asked()
        try:
            with suppress(TimeoutError, RedisError, OSError):
                await in_time(self._ping, self._settings.probe_timeout)
                asked.answered = True
        finally:
            self._asked = None
            asked.over.set()
        return asked.answered

    def _probe(self, due: float) -> float:
        """Let a command through as a probe that is due at `due`; return its deadline in seconds.

        Raises:
            StoreUnavailable: it is not due yet.
        """
        now = self._clock()
        if now < due:
            raise StoreUnavailable(may_be_executed=False)
        # Set before the first await, so that commands that arrive meanwhile are no second probe; if the probe is
        # cancelled, the next one comes a period later.
        self._next_probe = now + self._settings.probe_every
        return self._settings.probe_timeout

    def _open(self, exc: BaseException) -> None:
        if self._next_probe is None:
            log.warning("redis_away", error=type(exc).__name__)
            self._away_at = self._clock()
        self._next_probe = self._clock() + self._settings.probe_every

    def _close(self) -> None:
        if self._next_probe is not None:
            log.info("redis_back")
            self._back_at = self._clock()
        self._next_probe = None


_PIPELINED = " of pipeline caused error: "


def said_by_redis(exc: RedisError) -> str:
    """Return what Redis said of a command, without the command's arguments, which are a customer's.

    redis-py puts a command of a pipeline before it; of a command that it does not know, Redis puts them behind it.
    """
    said = str(exc)
    if said.startswith("Command # "):
        said = said.rpartition(_PIPELINED)[2]
    return said.partition(", with args")[0][:200]


async def evicts(redis: Redis) -> str | None:
    """Return the policy by which a full Redis removes keys that nobody has deleted; None where it refuses writes.

    Conversations, reservations and logs would go without a word.
    """
    memory = await redis.info("memory")
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    return None if policy == "noeviction" else policy


async def watch_eviction(redis: Redis, breaker: RedisBreaker, tell: Callable[[bool], None]) -> None:
    """Look every hour whether Redis removes keys when it is full, and tell, for ever."""
    while True:
        wait = RETRY_SECONDS
        with suppress(StoreUnavailable):
            policy = await breaker.call(lambda: evicts(redis))
            tell(policy is not None)
            if policy is not None:
                log.error("redis_evicts", policy=policy, mend="set its maxmemory-policy to noeviction")
            wait = LOOK_SECONDS
        await asyncio.sleep(wait)


def more_time(due: float) -> float:
    """Return the seconds that a command gets after its deadline `due`, a time of the event loop.

    When the event loop itself is late, the reply may lie unread in the socket, and a busy process would take a healthy
    Redis for away: such a command gets 50 ms more.
    """
    return GRACE_SECONDS if asyncio.get_running_loop().time() - due > LATE_SECONDS else 0.0


async def in_time(command: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Await `command()` for at most `seconds`, and a grace while the event loop is late.

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
    """A process's connections to Redis; the deadline of a command is the breaker's."""

    max_connections: ClassVar[int] = 64  # connections: of one process to Redis
    breaker: RedisBreakerSettings = RedisBreakerSettings()

    def for_pings(self) -> "RedisSettings":
        """Return the settings of the client for the breaker's pings."""
        return self.model_copy(update={"max_connections": 1})


@asynccontextmanager
async def open_cluster(
    url: str, settings: RedisSettings, tls: TlsSettings = SYSTEM_TLS
) -> AsyncGenerator[RedisCluster]:
    """Open a client of the Redis Cluster that the node at `url` belongs to; a node that returns is found again."""
    client = RedisCluster.from_url(
        url,
        max_connections=settings.max_connections,
        socket_timeout=None,  # the breaker's deadline is shorter, and redis-py's own costs a task a command
        socket_connect_timeout=2,
        retry=Retry(NoBackoff(), 1),
        **tls.redis_options(url),
    )
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def open_redis(url: str, settings: RedisSettings, tls: TlsSettings = SYSTEM_TLS) -> AsyncGenerator[Redis]:
    """Open a client: its pool makes commands wait in a burst, and retries once, at once, over a stale connection."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=settings.max_connections,
        timeout=5,
        socket_timeout=None,  # the breaker's deadline is shorter, and redis-py's own costs a task a command
        socket_connect_timeout=2,
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[*DEMOTED],  # by another connection
        **tls.redis_options(url),
    )
    client = Redis.from_pool(pool)
    try:
        yield client
    finally:
        await client.aclose()
