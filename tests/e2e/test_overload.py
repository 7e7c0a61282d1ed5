"""More customers than there are slots: served in a fair order, told their places, refused with a time to return."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.e2e.conftest import Product, scripted_model, served, until
from tests.e2e.events import SentEvent, read_events
from tests.e2e.metrics import total
from tests.e2e.model import requests

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.services]

QUESTION = {"message": "정기예금 기본 금리는 얼마인가요?"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Product]:
    """A product with one slot and room for two who wait, whose model says nothing until it is told to."""
    folder = tmp_path_factory.mktemp("small")
    settings = {"ADMISSION__SLOTS": "1", "ADMISSION__QUEUE": "2", "ADMISSION__TENANT_SHARE": "1"}
    settings |= {
        "ADMISSION__FIRST_TOKEN_TARGET": "100",
        "TURN__ANSWER": "written",
        "TURN__ANSWERABILITY__THRESHOLD": "0",
    }
    with scripted_model(folder) as model, served(folder, redis_url, model, **settings) as running:
        yield running


@dataclass
class Asked:
    """One customer's stream, read in the background."""

    events: list[SentEvent] = field(default_factory=list)

    def named(self, name: str) -> list[SentEvent]:
        return [event for event in self.events if event.name == name]

    @property
    def over(self) -> bool:
        return bool(self.named("done"))


async def read(product: Product, sub: str, role: str, asked: Asked) -> None:
    async with product.client(sub, role=role) as http, http.stream("POST", "/v1/chat", json=QUESTION) as response:
        assert response.status_code == 200, await response.aread()
        async for event in read_events(response):
            asked.events.append(event)


async def test_queued_customers_see_their_place_and_a_full_queue_refuses(small: Product) -> None:
    await small.tell(stall_after=0)
    async with asyncio.TaskGroup() as tasks:

        def ask(sub: str, role: str) -> Asked:
            asked = Asked()
            tasks.create_task(read(small, sub, role, asked))
            return asked

        first = ask("first", "customer")
        await until(lambda: first.named("sources"), 10)
        batch = ask("batch", "service")
        await until(lambda: batch.named("queued"), 10)
        second = ask("second", "customer")
        await until(lambda: second.named("queued") and len(batch.named("queued")) == 2, 10)
        assert second.named("queued")[0].field("position") == 1
        assert [event.field("position") for event in batch.named("queued")] == [1, 2], "told again when overtaken"
        assert await total(small.url, "chatbot_queued_answers", priority="10") == 1
        third = ask("third", "customer")
        await until(lambda: third.named("queued"), 10)
        async with small.client("fourth") as http:
            refusal = await http.post("/v1/chat", json=QUESTION, timeout=2)
        assert (refusal.status_code, refusal.json()["code"]) == (503, "overloaded")
        assert refusal.headers["content-type"] == "application/problem+json"
        assert int(refusal.headers["retry-after"]) >= 1
        assert await total(small.url, "chatbot_rejected_questions_total", priority="0", reason="full") == 1
        assert not any(asked.over for asked in (first, second, third))
        await small.restore()
        await until(lambda: all(asked.over for asked in (first, second, third, batch)), 30)
    asked = (await requests(small.model_url))[-4:]
    assert [request["priority"] for request in asked] == [0, 0, 0, 10], "the service goes last, and the model knows"
