"""An answer as one document (`stream=false`), for who waits while it is written."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from types import SimpleNamespace
from typing import cast
from uuid import uuid4

import anyio
import pytest
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.types import Message

from chatbot.api.openai_request import ChatMessage, CompletionRequest
from chatbot.api.routes.chat import AnswerStream, StartedReply, collect, respond
from chatbot.api.routes.openai import StartedCompletion, complete
from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import Draining, RateLimited
from chatbot.events import Accepted, Token
from chatbot.reads import Reads, ReadSettings
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from chatbot.services import Services, TurnSettings
from chatbot.streams import (
    AnswerId,
    AnswerLogSettings,
    Answers,
    AnswerSettings,
    LiveAnswer,
    LogOpening,
    StartedAnswer,
    open_answer_log,
)
from tests.answers import answers_of, customer, done
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


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("in_format", ["ours", "openai"])
async def test_a_joined_answer_is_metered_as_one_sent_again(nowhere: Redis, in_format: str, *, stream: bool) -> None:
    live = LiveAnswer(AnswerId(uuid4().hex), customer())
    accepted = Accepted(
        answer_id=live.answer_id, conversation_id="c", question_id="q", model="m", prompt_version="p", trace_id="t"
    )
    reads, events = Reads(ReadSettings(bytes_per_minute=2000)), (accepted, Token(text="It. " * 300), done())

    async def work(live: LiveAnswer) -> None:
        live.emit(*events)

    async with running(nowhere, RedisBreakerSettings(), live, work) as registry:
        services = cast(
            "Services", SimpleNamespace(answers=registry, reads=reads, settings=TurnSettings(), now=lambda: 0.0)
        )

        async def read(*, joined: bool) -> None:
            started, request = StartedAnswer(live.answer_id, None, joined=joined), Request({"type": "http"}, nothing)
            if in_format == "ours":
                reply = await respond(StartedReply(started, stream=stream), live.who, request, services)
            else:
                messages = [ChatMessage(role="user", content="What?")]
                asked = CompletionRequest(model="m", messages=messages, stream=stream)
                reply = await complete(StartedCompletion(started, asked), live.who, request, services)
            if isinstance(reply, AnswerStream):
                async for _ in reply.body_iterator:
                    pass

        for _ in range(3):
            await read(joined=False)
        for _ in range(2):
            await read(joined=True)
        with pytest.raises(RateLimited):
            await read(joined=True)


async def test_a_waiting_caller_hears_of_a_hand_over(redis: Redis) -> None:
    live = LiveAnswer(AnswerId(uuid4().hex), customer())
    connected = Request({"type": "http"}, nothing)
    async with running(redis, PATIENT, live, silent) as registry, anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(Draining):
                await collect(registry.readers, live.who, live.answer_id, connected)

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await registry.hand_over()


async def test_a_caller_who_leaves_is_sent_nothing(nowhere: Redis) -> None:
    live = LiveAnswer(AnswerId(uuid4().hex), customer())
    leaves = anyio.Event()

    async def disconnect() -> Message:
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def half(live: LiveAnswer) -> None:
        live.emit(Token(text="It "))
        await anyio.sleep_forever()

    async with running(nowhere, RedisBreakerSettings(), live, half) as registry, anyio.create_task_group() as tasks:

        async def wait() -> None:
            leaving = Request({"type": "http"}, disconnect)
            assert await collect(registry.readers, live.who, live.answer_id, leaving) == []

        tasks.start_soon(wait)
        async with aclosing(live.follow(0)) as entries:
            await anext(entries)
        await anyio.wait_all_tasks_blocked()
        leaves.set()
