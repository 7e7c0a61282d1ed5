"""An answer as one document (`stream=false`), for a caller who waits while it is written."""

from uuid import uuid4

import anyio
import pytest
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.types import Message

from chatbot.api.routes.chat import collect_events
from chatbot.errors import Draining
from chatbot.redis_client import RedisBreaker
from chatbot.streams import AnswerId, AnswerLogSettings, AnswerSettings, LiveAnswer, LogOpening, open_answer_log
from tests.answers import answers_of, customer
from tests.chatbot.conftest import PATIENT

pytestmark = [pytest.mark.anyio, pytest.mark.services]


async def silent(_: LiveAnswer) -> None:
    await anyio.sleep_forever()


async def nothing() -> Message:
    await anyio.sleep_forever()
    return {}


async def test_a_caller_of_a_whole_answer_gets_draining_at_a_hand_over(redis: Redis) -> None:
    live, connected = LiveAnswer(AnswerId(uuid4().hex), customer()), Request({"type": "http"}, nothing)
    opened = open_answer_log(redis, RedisBreaker(PATIENT), AnswerLogSettings())
    async with opened as log, anyio.create_task_group() as process:
        registry = answers_of(log, process, AnswerSettings())
        await registry.writers.start(live, silent, LogOpening("c"))
        async with anyio.create_task_group() as waiting:

            async def wait() -> None:
                with pytest.raises(Draining):
                    await collect_events(registry.readers, live.who, live.answer_id, connected)

            waiting.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await registry.hand_over()
        process.cancel_scope.cancel()
