"""A question that arrives before its process drains is answered there, also where it waits for another with its key."""

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
from chatbot.conversations import Conversation, StoredMessage
from chatbot.errors import Draining, KeyReused
from chatbot.redis_client import RedisBreaker
from chatbot.services import Services
from chatbot.streams import AnswerLogSettings, AnswerSettings, open_answer_log
from knowledge.identity import Principal
from tests.answers import answers_of, customer
from tests.chatbot.conftest import PATIENT

pytestmark = pytest.mark.anyio

MESSAGES = (
    StoredMessage(id="q1", parent_id=None, role="user", text="What?", at=1.0),
    StoredMessage(id="a1", parent_id="q1", role="assistant", text="That.", at=1.0, answer_id="a1"),
)


class ClaimedKey:
    """Idempotency-Keys of which another request, with another body, holds the only one."""

    def __init__(self) -> None:
        self.asked, self.go_on = anyio.Event(), anyio.Event()

    async def begin_once(self, *_: object) -> None:
        self.asked.set()
        await self.go_on.wait()
        raise KeyReused

    async def containing(self, *_: object) -> Conversation:
        return Conversation("c1", "What?", 1.0, 1.0, MESSAGES)


async def ask(route: str, who: Principal, services: Services) -> None:
    request = Request({"type": "http", "state": {}})
    if route == "chat":
        await begin_answer(Ask(message="What?"), who, services, request, "key")
    elif route == "openai":
        asked = CompletionRequest(model="m", messages=[ChatMessage(role="user", content="What?")])
        await begin_completion(asked, who, services, request, "key")
    else:
        await begin_again("a1", who, services, idempotency_key="key")


@pytest.mark.parametrize("route", ["chat", "openai", "again"])
async def test_a_drain_waits_for_questions_that_wait_for_their_key(nowhere: Redis, route: str) -> None:
    who, key, drained = customer(), ClaimedKey(), anyio.Event()
    opened = open_answer_log(nowhere, RedisBreaker(PATIENT), AnswerLogSettings())
    async with opened as log, anyio.create_task_group() as answers, anyio.create_task_group() as tasks:
        writers = (registry := answers_of(log, answers, AnswerSettings())).writers
        parts = SimpleNamespace(
            answers=registry, answer_log=log, history=key, idempotency=key, models=SimpleNamespace(model="m")
        )
        services = cast("Services", parts)

        async def ask_with_the_same_key() -> None:
            with pytest.raises(KeyReused):
                await ask(route, who, services)

        async def drain() -> None:
            await writers.drained()
            drained.set()

        tasks.start_soon(ask_with_the_same_key)
        await key.asked.wait()
        writers.begin_draining()
        tasks.start_soon(drain)
        await anyio.wait_all_tasks_blocked()
        assert not drained.is_set()
        with pytest.raises(Draining):
            await ask(route, who, services)
        key.go_on.set()
        with anyio.fail_after(5):
            await drained.wait()
        answers.cancel_scope.cancel()
