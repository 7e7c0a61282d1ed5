"""One customer reads as much as is allowed, many times at once: nobody else notices."""

import time
from uuid import uuid4

import anyio
import httpx2
import pytest
from redis.asyncio import Redis

from chatbot.conversations import History, HistorySettings, StoredMessage
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from knowledge.identity import Principal
from tests.e2e.conftest import KOREAN, TENANT, Product, new_customer
from tests.e2e.events import end_of, notice_codes
from tests.e2e.metrics import total
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.faults, pytest.mark.long]

MESSAGES = 400
CHARACTERS = 3_400
"""Of a message: 400 of them are a conversation of 4 MB."""


async def long_conversation(redis: Redis, who: str) -> str:
    """Write a conversation of 4 MB, which the bounds of a history allow, and return its id."""
    history = History(redis, RedisBreaker(RedisBreakerSettings(slow_after=20)), HistorySettings())
    name, parent = uuid4().hex, None
    for n in range(0, MESSAGES, 2):
        question = StoredMessage(id=f"q{n}", parent_id=parent, role="user", text="가" * CHARACTERS, at=float(n))
        parent = f"a{n}"
        answer = StoredMessage(
            id=parent, parent_id=question.id, role="assistant", text="나" * CHARACTERS, at=float(n), answer_id=parent
        )
        await history.append(Principal(tenant=TENANT, sub=who), name, [question, answer], now=time.time())
    return name


async def test_ten_loads_of_a_conversation_of_four_megabytes_delay_nobody(
    product: Product, redis: Redis, fault_round: int
) -> None:
    del fault_round
    reader, asker = new_customer(), new_customer()
    address = f"/v1/conversations/{await long_conversation(redis, reader)}"
    over = anyio.Event()
    statuses: set[int] = set()

    async def read(http: httpx2.AsyncClient) -> None:
        while not over.is_set():
            statuses.add((await http.get(address)).status_code)

    async with (
        product.client(reader) as reading,
        product.client(asker) as asking,
        anyio.create_task_group() as tasks,
    ):
        refused = await total(product.url, "chatbot_refused_requests_total", code="store_unavailable")
        for _ in range(10):
            tasks.start_soon(read, reading)
        for _ in range(4):
            events = await product.ask(asking, KOREAN)
            assert end_of(events).field("finish_reason") == "stop"
            assert notice_codes(events) == []
            began = time.monotonic()
            assert (await asking.get("/v1/conversations")).status_code == 200
            assert time.monotonic() - began < patient(0.5)
        over.set()
    assert await total(product.url, "chatbot_refused_requests_total", code="store_unavailable") == refused
    assert statuses <= {200, 429}
