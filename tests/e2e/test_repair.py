"""An answer that the checks withhold whole is repaired by the passages' own sentences: one if the model is sure of it.

The model's answer is held in its middle, so that what it is asked next meets what the test has told meanwhile.
"""

import asyncio
import contextlib
import json
import signal
import sqlite3
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from pydantic import ValidationError

from chatbot.services import TurnSettings
from tests.e2e.cluster import NEEDS_HAPROXY, Cluster, clustered
from tests.e2e.conftest import Product, served, until
from tests.e2e.events import SentEvent, notice_codes, read_events, text_of
from tests.e2e.model import requests
from tests.e2e.test_replay import admin

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

QUESTION = "샘물 정기예금의 기본 금리와 가입 기간을 알려 주세요"
WRONG = "샘물 정기예금의 기본 금리는 연 7.7%입니다."
SURE = (0.1, 0.9)
HELD = {"answer": WRONG, "probe": 0.99, "stall_after": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An answer as its reader got it."""

    quotes: tuple[str, ...]
    text: str
    end: dict[str, object]
    answer_id: str
    events: tuple[SentEvent, ...] = field(repr=False)

    @classmethod
    def of(cls, events: list[SentEvent]) -> "Shown":
        assert [event.name for event in events if event.name in {"done", "error"}] == ["done"]
        assert notice_codes(events)[:1] == ["withheld"]
        return cls(
            quotes=tuple(str(event.field("quote")) for event in events if event.name == "citation"),
            text=text_of(events),
            end=json.loads(events[-1].data),
            answer_id=str(events[0].field("answer_id")),
            events=tuple(events),
        )


async def asked(product: Product, **behaviour: object) -> Shown:
    """Ask, as a new customer, a model that answers wrongly and otherwise as `behaviour` says."""
    await product.tell(answer=WRONG, probe=0.99, **behaviour)
    try:
        async with product.client(uuid4().hex) as http:
            return Shown.of(await product.ask(http, QUESTION))
    finally:
        await product.restore()


@pytest.fixture(scope="module")
async def unsure(product: Product) -> Shown:
    """The answer where the model chooses no quote."""
    shown = await asked(product)
    assert len(shown.quotes) >= 2
    assert (shown.end["finish_reason"], shown.end["grounded"]) == ("stop", True)
    return shown


async def closed(product: Product, shown: Shown) -> tuple[dict[str, object], dict[str, str]]:
    """Return the answer's closed row, and what a replay finds that asks the model again."""
    async with admin(product) as http:
        reply = (await http.post(f"/v1/admin/answers/{shown.answer_id}/replay", json={"ask_model": True})).json()
    return reply["closed"], {finding["what"]: finding["standing"] for finding in reply["findings"]}


async def test_a_quote_that_the_model_is_sure_of_is_shown_alone_and_costs_nothing_more(
    product: Product, unsure: Shown
) -> None:
    sure = await asked(product, chooses=SURE)
    assert sure.quotes == unsure.quotes[1:2]
    assert sure.text.count(sure.quotes[0]) == 1
    assert not [quote for n, quote in enumerate(unsure.quotes) if n != 1 and quote in sure.text]
    assert (sure.end["finish_reason"], sure.end["grounded"]) == ("stop", True)
    usage, before = sure.end["usage"], unsure.end["usage"]
    assert isinstance(usage, dict)
    assert isinstance(before, dict)
    assert {**usage, "cached_tokens": 0} == {**before, "cached_tokens": 0}


async def test_a_model_that_is_not_sure_enough_changes_nothing(product: Product, unsure: Shown) -> None:
    doubting = await asked(product, chooses=(0.4, 0.6))
    assert (doubting.quotes, doubting.text) == (unsure.quotes, unsure.text)


async def test_the_audit_keeps_what_the_model_chose_and_a_replay_asks_it_again(product: Product) -> None:
    sure = await asked(product, chooses=SURE)
    await product.tell(answer=WRONG, probe=0.99, chooses=SURE)
    row, standings = await closed(product, sure)
    assert row["repair"] == pytest.approx(SURE, abs=0.02)
    assert {standings[part] for part in ("probes", "model", "repair", "answer")} == {"same"}
    await product.tell(chooses=(0.9, 0.1))
    assert (await closed(product, sure))[1]["repair"] == "differs"
    await product.tell(answer="샘물 정기예금의 가입 기간은 12개월입니다.")
    standings = (await closed(product, sure))[1]
    assert (standings["model"], standings["repair"]) == ("differs", "unknown")
    await product.restore()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A customer whose answer runs, with its events so far."""

    http: httpx2.AsyncClient
    events: list[SentEvent] = field(default_factory=list)

    async def follow(self) -> None:
        async with self.http.stream("POST", "/v1/chat", json={"message": QUESTION}) as response:
            async for event in read_events(response):
                self.events.append(event)


@contextlib.asynccontextmanager
async def held(product: Product, **then: object) -> AsyncGenerator[Asking]:
    """Hold an answer in its middle, and let it end while the model does as `then` says from its next call on."""
    await product.tell(**HELD)
    try:
        async with product.client(uuid4().hex) as http, asyncio.TaskGroup() as tasks:
            asking = Asking(http=http)
            tasks.create_task(asking.follow())
            await until(lambda: in_the_middle(product.model_url))
            await product.tell(stall_after=None, **then)
            yield asking
    finally:
        await product.restore()


async def in_the_middle(url: str) -> bool:
    """Return whether a model holds an answer."""
    return any(
        (request["ended"], request["answer_tokens"]) == ("running", HELD["stall_after"])
        for request in await requests(url)
    )


async def chooses(url: str) -> bool:
    """Return whether a model is being asked for one token."""
    return any(request["ended"] == "running" and request["top_logprobs"] is not None for request in await requests(url))


@pytest.mark.parametrize("status", [500, 429], ids=["fails", "is overloaded"])
async def test_where_the_model_cannot_be_asked_the_quotes_are_shown(
    product: Product, unsure: Shown, status: int
) -> None:
    async with held(product, fail_status=status) as asking:
        await until(lambda: asking.events[-1].name == "done")
    shown = Shown.of(asking.events)
    assert (shown.quotes, shown.text, shown.end["finish_reason"]) == (unsure.quotes, unsure.text, "stop")
    assert shown.end["grounded"] is True
    assert (await closed(product, shown))[0]["repair"] == []


async def test_an_emergency_stop_while_the_model_chooses_shows_no_quote(product: Product) -> None:
    async with (
        held(product, first_token_seconds=30, chooses=SURE) as asking,
        product.client("park", role="platform") as http,
    ):
        await until(lambda: chooses(product.model_url))
        try:
            assert (await http.post("/v1/admin/stop", json={"reason": "test"})).status_code == 200
            await until(lambda: asking.events[-1].name == "done")
        finally:
            await http.post("/v1/admin/resume", json={"reason": "test"})
    shown = Shown.of(asking.events)
    assert (shown.quotes, shown.end["finish_reason"], shown.end["grounded"]) == ((), "handoff", False)
    assert "일시 중단" in shown.text


async def test_a_customer_who_stops_while_the_model_chooses_has_stopped_the_answer(product: Product) -> None:
    async with held(product, first_token_seconds=30, chooses=SURE) as asking:
        await until(lambda: chooses(product.model_url))
        answer_id = asking.events[0].field("answer_id")
        assert (await asking.http.post(f"/v1/answers/{answer_id}/cancel")).status_code == 202
        await until(lambda: asking.events[-1].name == "done")
    shown = Shown.of(asking.events)
    assert (shown.quotes, shown.text, shown.end["finish_reason"]) == ((), "", "cancelled")


async def test_where_no_certainty_is_enough_the_model_is_not_asked(
    product: Product, unsure: Shown, tmp_path: Path, redis_url: str
) -> None:
    model = {name: product.environment[name] for name in ("LLM_URLS", "LLM_PROFILE")}
    with served(tmp_path, redis_url, model, TURN__REPAIR_CERTAINTY="1") as incurious:
        shown = await asked(incurious, chooses=(1.0, 0.0))
        assert shown.quotes == unsure.quotes
        assert (await requests(product.model_url))[-1]["top_logprobs"] is None, "the answer was the last it was asked"


@pytest.mark.parametrize("certainty", [-0.1, 0, 1.1])
def test_a_certainty_beyond_its_bounds_is_refused(certainty: float) -> None:
    with pytest.raises(ValidationError):
        TurnSettings(repair_certainty=certainty)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Cluster]:
    # An answer whose audit row cannot be closed waits for that, all shown: its writer can be killed then.
    settings = {"AUDIT__DEADLINE": "60", "TURN__FINISH_TIMEOUT": "60"}
    with clustered(tmp_path_factory.mktemp("repair"), f"{redis_url.removesuffix('/0')}/9", **settings) as running:
        yield running


@pytest.mark.faults
@NEEDS_HAPROXY
@pytest.mark.parametrize(("other", "left"), [("sure", SURE), ("unsure", ())])
async def test_a_successor_repeats_what_was_shown_and_asks_nothing_again(
    cluster: Cluster, other: str, left: tuple[float, ...]
) -> None:
    await cluster.whole()
    await cluster.tell(**HELD, chooses=left)
    events: list[SentEvent] = []
    async with cluster.client(uuid4().hex) as http, asyncio.TaskGroup() as tasks:
        with contextlib.closing(sqlite3.connect(cluster.database, isolation_level=None)) as sql:
            tasks.create_task(cluster.follow(http, events, message=QUESTION))
            model = await cluster.working()
            await until(lambda: in_the_middle(model.url))
            sql.execute("BEGIN IMMEDIATE")
            await cluster.tell(stall_after=None)
            await until(lambda: "citation" in {event.name for event in events})
            cluster.replicas[await cluster.owner()].stop(signal.SIGKILL)
            before = await choices(cluster)
            await cluster.tell(chooses=() if left else SURE)
    shown = Shown.of(events)
    assert len(shown.quotes) == (1 if other == "sure" else 2)
    assert [event.id.rpartition(".")[2] for event in events] == [str(n) for n in range(1, len(events) + 1)]
    assert (shown.end["finish_reason"], shown.end["grounded"]) == ("stop", True)
    assert await choices(cluster) == before
    assert cluster.audited(shown.answer_id) == ["closed", "opened"]
    await cluster.restore()


async def choices(cluster: Cluster) -> int:
    """Return how often the models were asked for one token of more than a ping."""
    requested = [request for model in cluster.models for request in await requests(model.url)]
    return sum(
        request["top_logprobs"] is not None and int(str(request["prompt_tokens"])) > 100 for request in requested
    )


@pytest.mark.faults
@NEEDS_HAPROXY
async def test_a_successor_of_one_that_was_killed_while_the_model_chose_lets_it_choose(cluster: Cluster) -> None:
    await cluster.whole()
    await cluster.tell(**HELD)
    events: list[SentEvent] = []
    async with cluster.client(uuid4().hex) as http, asyncio.TaskGroup() as tasks:
        tasks.create_task(cluster.follow(http, events, message=QUESTION))
        model = await cluster.working()
        await until(lambda: in_the_middle(model.url))
        await cluster.tell(stall_after=None, first_token_seconds=30)
        await until(lambda: chooses(model.url))
        cluster.replicas[await cluster.owner()].stop(signal.SIGKILL)
        await cluster.tell(first_token_seconds=0.0, chooses=SURE)
    shown = Shown.of(events)
    assert (len(shown.quotes), shown.end["finish_reason"]) == (1, "stop")
    await cluster.restore()
