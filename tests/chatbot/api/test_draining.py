"""A question that arrives before its process drains is answered there, also where it waits for another with its key."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import SimpleNamespace
from typing import cast

import anyio
import pytest
from redis.asyncio import Redis
from starlette.requests import Request

from chatbot.api.openai_request import ChatMessage, CompletionRequest
from chatbot.api.routes.answers import begin_again
from chatbot.api.routes.chat import Ask, begin_answer
from chatbot.api.routes.openai import begin_completion
from chatbot.conversations import History, HistorySettings, StoredMessage
from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import Draining, KeyReused
from chatbot.redis_client import RedisBreaker
from chatbot.services import Services
from chatbot.streams import (
    AnswerId,
    AnswerLogSettings,
    AnswerSettings,
    IdempotencyKeys,
    IdempotencySettings,
    LogOpening,
    StartedAnswer,
    open_answer_log,
)
from knowledge.identity import Principal
from tests.answers import answers_of, customer
from tests.chatbot.conftest import PATIENT

pytestmark = [pytest.mark.anyio, pytest.mark.services]

ROUTES = ("chat", "openai", "again")
Begin = Callable[[], Awaitable[StartedAnswer]]


class CountedKeys(IdempotencyKeys):
    """Keys that tell when a second request has come."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(
            redis, RedisBreaker(PATIENT), IdempotencySettings(), deferred=DeferredWrites(DeferredSettings())
        )
        self.requests, self.second = 0, anyio.Event()

    async def begin_once(self, who: Principal, key: str | None, digest: str, begin: Begin) -> StartedAnswer:
        self.requests += 1
        if self.requests == 2:
            self.second.set()
        return await super().begin_once(who, key, digest, begin)


async def ask(route: str, who: Principal, services: Services) -> None:
    request = Request({"type": "http", "state": {}})
    if route == "chat":
        await begin_answer(Ask(message="What?"), who, services, request, "key")
    elif route == "openai":
        asked = CompletionRequest(model="m", messages=[ChatMessage(role="user", content="What?")])
        await begin_completion(asked, who, services, request, "key")
    else:
        await begin_again("a1", who, services, idempotency_key="key")


@pytest.fixture
async def services(redis: Redis) -> AsyncGenerator[Services]:
    opened = open_answer_log(redis, RedisBreaker(PATIENT), AnswerLogSettings())
    async with opened as log, anyio.create_task_group() as tasks:
        parts = SimpleNamespace(
            answers=answers_of(log, tasks, AnswerSettings(), deferred=DeferredWrites(DeferredSettings())),
            answer_log=log,
            history=History(redis, RedisBreaker(PATIENT), HistorySettings()),
            idempotency=CountedKeys(redis),
            models=SimpleNamespace(model="m"),
        )
        yield cast("Services", parts)


@pytest.mark.parametrize("route", ROUTES)
async def test_a_drain_waits_for_a_question_that_waits_for_another_with_its_key_and_refuses_the_next(
    services: Services, route: str
) -> None:
    who, keys = customer(), cast("CountedKeys", services.idempotency)
    began, go_on, drained = anyio.Event(), anyio.Event(), anyio.Event()
    messages = [
        StoredMessage(id="q1", parent_id=None, role="user", text="What?", at=1.0),
        StoredMessage(id="a1", parent_id="q1", role="assistant", text="That.", at=1.0, answer_id="a1"),
    ]
    await services.history.append(who, "c1", messages, now=time.time())

    async def begin_slowly() -> StartedAnswer:
        began.set()
        await go_on.wait()
        await services.answer_log.open(who, AnswerId("another"), LogOpening("c"))
        return StartedAnswer(AnswerId("another"), None)

    async def ask_with_the_same_key() -> None:
        with pytest.raises(KeyReused):
            await ask(route, who, services)

    async def drain() -> None:
        await services.answers.writers.drained()
        drained.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keys.begin_once, who, "key", "another body", begin_slowly)
        await began.wait()
        tasks.start_soon(ask_with_the_same_key)
        await keys.second.wait()
        services.answers.writers.begin_draining()
        tasks.start_soon(drain)
        await anyio.wait_all_tasks_blocked()
        assert not drained.is_set()
        with pytest.raises(Draining):
            await ask(route, who, services)
        go_on.set()
    assert drained.is_set()
