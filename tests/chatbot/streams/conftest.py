"""Answers that run in a task group of the test, and their log."""

from collections.abc import AsyncGenerator, Sequence
from uuid import uuid4

import anyio
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.events import Event
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from chatbot.streams.live import LiveAnswer
from chatbot.streams.log import AnswerId, AnswerLog, AnswerLogSettings, LogAppend, entry_of, open_answer_log
from chatbot.streams.pipelined_connection import PipelinedConnection
from knowledge.identity import Principal
from tests.chatbot.conftest import PATIENT


def new_answer(who: Principal) -> LiveAnswer:
    return LiveAnswer(AnswerId(uuid4().hex), who)


def log_append(
    *, first: int, events: Sequence[Event], output_before: int = 0, output: bytes = b"", outcome: bytes = b""
) -> LogAppend:
    """Return an append of events that are numbered from `first`."""
    entries = [entry_of(n, event) for n, event in enumerate(events, first)]
    return LogAppend(entries=entries, output_before=output_before, output=output, outcome=outcome)


def log_in(redis: Redis, breaker: RedisBreakerSettings) -> AnswerLog:
    """Return a log to which nothing can be appended."""
    pipelined = PipelinedConnection(redis, slow_after=breaker.slow_after)
    return AnswerLog(redis, RedisBreaker(breaker), AnswerLogSettings(), pipelined=pipelined)


@pytest.fixture
async def tasks() -> AsyncGenerator[TaskGroup]:
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()


@pytest.fixture
async def answer_log(redis: Redis) -> AsyncGenerator[AnswerLog]:
    """The log in the test's Redis, with a breaker that no busy machine opens."""
    async with open_answer_log(redis, RedisBreaker(PATIENT), AnswerLogSettings()) as log:
        yield log
