"""More customers than there are slots: served in a fair order, told their places, refused with a time to return.

How much and how fast is measured by `python -m evals.performance.load`; here the only timing is
that a refusal is immediate.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import aiohttp
import httpx2
import pytest

from evals.quality import Customer
from evals.questions import Sample
from tests.e2e.conftest import TENANT, Product, scripted_model, served, until
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


class Asked:
    """One customer's stream, read in the background."""

    def __init__(self) -> None:
        self.events: list[SentEvent] = []

    def named(self, name: str) -> list[SentEvent]:
        return [event for event in self.events if event.name == name]

    @property
    def over(self) -> bool:
        return bool(self.named("done"))


Ask = Callable[[str, str], Asked]


@asynccontextmanager
async def customers(product: Product) -> AsyncGenerator[Ask]:
    """Yield a function that begins a question; streams that still run are cancelled at the end of the block."""
    async with asyncio.TaskGroup() as tasks:
        running: list[asyncio.Task[None]] = []

        async def read(asked: Asked, sub: str, role: str) -> None:
            async with (
                product.client(sub, role=role) as http,
                http.stream("POST", "/v1/chat", json=QUESTION) as response,
            ):
                assert response.status_code == 200, await response.aread()
                async for event in read_events(response):
                    asked.events.append(event)

        def ask(sub: str, role: str) -> Asked:
            asked = Asked()
            running.append(tasks.create_task(read(asked, sub, role)))
            return asked

        yield ask
        for task in running:
            task.cancel()


async def refused(product: Product, sub: str) -> httpx2.Response | None:
    """Ask without streaming; return the refusal, or None where the question was queued."""
    async with product.client(sub) as http:
        try:
            return await http.post("/v1/chat", json={**QUESTION, "stream": False}, timeout=2)
        except httpx2.ReadTimeout:
            return None


async def test_waiting_is_told_in_order_and_beyond_the_bound_is_a_refusal_with_a_time(small: Product) -> None:
    await small.tell(stall_after=0)
    async with customers(small) as ask:
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
        refusal = await refused(small, "fourth")
        assert refusal is not None, "a refusal does not wait"
        assert (refusal.status_code, refusal.json()["code"]) == (503, "overloaded")
        assert refusal.headers["content-type"] == "application/problem+json"
        assert int(refusal.headers["retry-after"]) >= 1
        assert await total(small.url, "chatbot_rejected_questions_total", priority="0", reason="full") == 1
        assert not any(asked.over for asked in (first, second, third))
        await small.restore()
        await until(lambda: all(asked.over for asked in (first, second, third, batch)), 30)
    asked = (await requests(small.model_url))[-4:]
    assert [request["priority"] for request in asked] == [0, 0, 0, 10], "the service goes last, and the model knows"


async def test_a_customer_of_the_evals_comes_back_when_the_product_says_so(small: Product) -> None:
    await small.tell(stall_after=0)
    before = await total(small.url, "chatbot_rejected_questions_total", priority="20", reason="full")
    async with customers(small) as ask, aiohttp.ClientSession(small.url) as http:
        first = ask("first", "customer")
        await until(lambda: first.named("sources"), 10)
        waiting = [ask(name, "customer") for name in ("second", "third")]
        await until(lambda: all(asked.named("queued") for asked in waiting), 10)
        customer = Customer(http, small.signer, tenant=TENANT)
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(customer.ask(Sample(id="q", text=QUESTION["message"])))
            await until(partial(turned_away_after, small, before), 10)
            await small.restore()
    assert answer.result().finish_reason in {"stop", "refused", "withheld"}


async def turned_away_after(product: Product, before: float) -> bool:
    return await total(product.url, "chatbot_rejected_questions_total", priority="20", reason="full") > before


async def test_whoever_cancels_while_queued_gives_the_place_back_at_once(small: Product) -> None:
    await small.tell(stall_after=0)
    async with customers(small) as ask:
        first = ask("first", "customer")
        await until(lambda: first.named("sources"), 10)
        waiting = [ask(name, "customer") for name in ("second", "third")]
        await until(lambda: all(asked.named("queued") for asked in waiting), 10)
        assert await refused(small, "fourth") is not None
        leaver = waiting[0].named("accepted")[0].field("answer_id")
        async with small.client("second") as http:
            (await http.post(f"/v1/answers/{leaver}/cancel")).raise_for_status()
        await until(lambda: waiting[0].over, 5)
        fourth = ask("fourth", "customer")
        await until(lambda: fourth.named("queued"), 10)
        assert fourth.named("queued")[0].field("position") == 2
        await small.restore()
        await until(lambda: first.over and waiting[1].over and fourth.over, 30)
