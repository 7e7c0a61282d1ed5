"""Answers that run in a task group of the test, and their log in a database that is empty before each test."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.events import Event, Token
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from chatbot.streams import AnswerId, AnswerLog, AnswerLogSettings, Answers, LiveAnswer, TakenOver
from chatbot.streams.log import LogAppend, LogEntry, entry_of
from chatbot.streams.pipelined_connection import PipelinedConnection, open_pipelined_connection
from knowledge.identity import Principal
from tests.answers import customer, done
from tests.chatbot.conftest import PATIENT

WORDS = tuple(f"word{n} " for n in range(12))
TEXT = "".join(WORDS)
HALF = len(WORDS) // 2
LogOf = Callable[[type[AnswerLog]], Any]
"""Opens a log of a class of the test's own."""


def new_answer(who: Principal | None = None) -> LiveAnswer:
    return LiveAnswer(AnswerId(uuid4().hex), who or customer())


def log_append(
    *, first: int, events: Sequence[Event], output_before: int = 0, output: bytes = b"", outcome: bytes = b""
) -> LogAppend:
    """Return an append of events that are numbered from `first`."""
    entries = [entry_of(n, event) for n, event in enumerate(events, first)]
    return LogAppend(entries=entries, output_before=output_before, output=output, outcome=outcome)


async def give_up_lease(log: AnswerLog, live: LiveAnswer) -> None:
    await log.end_leases({live.answer_id: (live.who.tenant, live.epoch)})


async def never_resumed(live: LiveAnswer, taken: TakenOver) -> None:
    """Fail the test: no writer here is dead."""
    raise AssertionError(f"{live.answer_id} was taken over, after {len(taken.events)} events")


async def entries_of(registry: Answers, live: LiveAnswer, after: int = 0) -> list[LogEntry]:
    """Follow an answer to its end, as one of its readers."""
    with anyio.fail_after(15), registry.readers.reading(live.who, live.answer_id):
        async with aclosing(registry.readers.follow(live.who, live.answer_id, after=after)) as entries:
            return [entry async for entry in entries]


async def events_of(registry: Answers, live: LiveAnswer) -> list[Event]:
    return [entry.event for entry in await entries_of(registry, live)]


class Speaker:
    """The work of an answer: emits half of the words, waits until it may go on, and emits the rest."""

    def __init__(self, *, waits: bool = True) -> None:
        self.half, self.go_on = anyio.Event(), anyio.Event()
        """`half` is set once the first half is in the log."""
        if not waits:
            self.go_on.set()

    async def __call__(self, live: LiveAnswer) -> None:
        await self.speak(live)
        live.emit(done())

    async def speak(self, live: LiveAnswer) -> None:
        """Emit the words from the first one, as a successor does, too."""
        for n, word in enumerate(WORDS):
            if n == HALF:
                while len(live.entries) < HALF:
                    await anyio.sleep(0.01)
                self.half.set()
                await self.go_on.wait()
            live.emit(Token(text=word), output=bytes([n]) if n >= len(live.output) else b"")
            await anyio.lowlevel.checkpoint()


@pytest.fixture
async def tasks() -> AsyncGenerator[TaskGroup]:
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()


@pytest.fixture
async def redis(redis_url: str) -> AsyncGenerator[Redis]:
    """An empty database: what other tests left in it would be taken over."""
    async with Redis.from_url(f"{redis_url.removesuffix('/0')}/5", max_connections=200) as client:
        await client.flushdb()
        yield client


@pytest.fixture
def log_settings() -> AnswerLogSettings:
    return AnswerLogSettings()


@pytest.fixture
async def log_of(redis: Redis, log_settings: AnswerLogSettings) -> AsyncGenerator[LogOf]:
    """Opens logs in the test's Redis, with a breaker that no busy machine opens."""
    async with open_pipelined_connection(redis, slow_after=20) as pipelined:
        yield lambda kind: kind(redis, RedisBreaker(PATIENT), log_settings, pipelined=pipelined)


@pytest.fixture
def answer_log(log_of: LogOf) -> AnswerLog:
    log: AnswerLog = log_of(AnswerLog)
    return log


@pytest.fixture
def away_log(nowhere: Redis) -> AnswerLog:
    """A log whose Redis is not there: the answers are in this process alone."""
    pipelined = PipelinedConnection(nowhere, slow_after=1)
    return AnswerLog(nowhere, RedisBreaker(RedisBreakerSettings()), AnswerLogSettings(), pipelined=pipelined)
