"""An answer as one document (`stream=false`), for who waits while it is written."""

from uuid import uuid4

import anyio
import pytest
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.types import Message

from chatbot.api.routes.chat import collect
from chatbot.errors import Draining
from chatbot.redis_client import RedisBreaker
from chatbot.streams import (
    AnswerId,
    AnswerLog,
    AnswerLogSettings,
    AnswerRegistry,
    AnswerRegistrySettings,
    LiveAnswer,
    open_pipelined_connection,
)
from tests.answers import customer
from tests.chatbot.conftest import PATIENT

pytestmark = [pytest.mark.anyio, pytest.mark.services]


async def silent(_: LiveAnswer) -> None:
    await anyio.sleep_forever()


async def nothing() -> Message:
    await anyio.sleep_forever()
    return {}


async def test_who_waits_is_told_that_another_replica_goes_on_also_before_the_first_event(redis: Redis) -> None:
    live = LiveAnswer(AnswerId(uuid4().hex), customer(), conversation_id="c")
    connected = Request({"type": "http"}, nothing)
    async with open_pipelined_connection(redis) as pipelined, anyio.create_task_group() as tasks:
        log = AnswerLog(redis, RedisBreaker(PATIENT), AnswerLogSettings(), pipelined=pipelined)
        registry = AnswerRegistry(log, tasks, AnswerRegistrySettings())
        await registry.start(live, silent, passages=[])

        async def wait() -> None:
            with pytest.raises(Draining):
                await collect(registry, live.who, live.answer_id, connected)

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await registry.hand_over()
