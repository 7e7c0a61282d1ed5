"""An answer as one document (`stream=false`), for who waits while it is written."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import anyio
import pytest
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.types import Message

from chatbot.api.routes.chat import collect
from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import Draining
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from chatbot.streams import (
    AnswerId,
    AnswerLogSettings,
    Answers,
    AnswerSettings,
    LiveAnswer,
    LogOpening,
    open_answer_log,
)
from tests.answers import answers_of, customer
from tests.chatbot.conftest import PATIENT

pytestmark = [pytest.mark.anyio, pytest.mark.services]
Work = Callable[[LiveAnswer], Awaitable[None]]


@asynccontextmanager
async def running(
    redis: Redis, settings: RedisBreakerSettings, live: LiveAnswer, work: Work
) -> AsyncGenerator[Answers]:
    """Run an answer in a process; where its Redis is away, in its memory alone."""
    opened = open_answer_log(redis, RedisBreaker(settings), AnswerLogSettings())
    async with opened as log, anyio.create_task_group() as tasks:
        registry = answers_of(log, tasks, AnswerSettings(), deferred=DeferredWrites(DeferredSettings()))
        await registry.writers.start(live, work, LogOpening("c"))
        yield registry
        tasks.cancel_scope.cancel()


async def silent(_: LiveAnswer) -> None:
    await anyio.sleep_forever()


async def nothing() -> Message:
    await anyio.sleep_forever()
    return {}


async def test_a_caller_of_a_whole_answer_gets_draining_at_a_hand_over(redis: Redis) -> None:
    live = LiveAnswer(AnswerId(uuid4().hex), customer())
    connected = Request({"type": "http"}, nothing)
    async with running(redis, PATIENT, live, silent) as registry, anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(Draining):
                await collect(registry.readers, live.who, live.answer_id, connected)

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await registry.hand_over()
