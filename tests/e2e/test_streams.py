"""Streams that survive: a dead replica, a dead model, a cancel elsewhere, customers who leave, a rolling restart."""

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, replace

import httpx2
import pytest

from llm_server.scripted import encode
from tests.e2e.cluster import NEEDS_HAPROXY, Cluster, Server, clustered
from tests.e2e.conftest import KOREAN, new_customer, until
from tests.e2e.events import SentEvent, notice_codes, read_events, text_of
from tests.e2e.model import requests

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.faults, NEEDS_HAPROXY]

ANSWER = (
    "만기 전에 해지하면 중도해지 금리 연 0.5%를 적용합니다. 가입 후 1개월이 지나지 않으면 이자를 지급하지 않습니다. "
    "샘물 정기예금의 기본 금리는 연 3.1%이며 가입 기간은 12개월입니다. 최소 가입 금액은 100만원입니다. "
    "급여를 한샘은행 계좌로 받으면 우대금리 0.2%p를 더합니다."
)
TOKEN_SECONDS = 0.015
GRACE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer without the ids, connections, processes and models that differ from run to run."""

    text: str
    citations: tuple[bytes, ...]
    finish_reason: str
    tokens: int


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Cluster]:
    # A Redis database of their own: replicas also end what other tests leave open.
    settings = {
        "TURN__ANSWER": "written",
        "ANSWERS__GRACE": str(GRACE),
        "DRAIN_SECONDS": "0.5",
        "REFUSE_SECONDS": "3",  # HAProxy looks every 0.3 s, and waits 2 s for an answer
        "ADMISSION__SLOTS": "64",  # one replica takes all the streams while the other restarts
    }
    with clustered(tmp_path_factory.mktemp("cluster"), f"{redis_url.removesuffix('/0')}/6", **settings) as running:
        yield running


@pytest.fixture(scope="module")
async def whole(cluster: Cluster) -> Answer:
    """An answer without a fault, charged as its usage says."""
    who = new_customer()
    await cluster.tell(answer=ANSWER, probe=0.99)
    async with cluster.client(who) as http:
        unbroken = answer_of(await cluster.ask(http, KOREAN))
    assert cluster.spent_today(who) == unbroken.tokens
    return unbroken


@pytest.fixture
async def talking(cluster: Cluster) -> AsyncGenerator[Cluster]:
    """The cluster, whole, with models that say the answer at a pace."""
    await cluster.whole()
    await cluster.tell(answer=ANSWER, token_seconds=TOKEN_SECONDS, probe=0.99)
    yield cluster
    await cluster.whole()
    await cluster.restore()


@pytest.fixture
def times(request: pytest.FixtureRequest) -> int:
    """Repetitions of what is promised of 200 times: 200 with `--faults 50`."""
    return 4 * int(request.config.getoption("--faults"))


def answer_of(events: list[SentEvent]) -> Answer:
    """Return a customer's answer; assert that its events have no gap, no duplicate and one end."""
    assert [event.id.rpartition(".")[2] for event in events] == [str(n) for n in range(1, len(events) + 1)]
    assert [event.name for event in events if event.name in {"done", "error"}] == ["done"]
    usage = json.loads(events[-1].data)["usage"]
    return Answer(
        text=text_of(events),
        citations=tuple(event.data for event in events if event.name == "citation"),
        finish_reason=str(events[-1].field("finish_reason")),
        tokens=usage["prompt_tokens"] + usage["answer_tokens"] + usage["thinking_tokens"],
    )


async def check_recorded(cluster: Cluster, who: str, events: list[SentEvent]) -> None:
    """Assert that an answer is charged once, is in the history once, and its audit row is closed."""
    got, answer_id = answer_of(events), events[0].answer_id
    await until(lambda: cluster.spent_today(who) == got.tokens)  # a late Redis gets the settlement again
    assert cluster.slots(who) == 0
    assert cluster.audited(answer_id) == ["closed", "opened"]
    async with cluster.client(who) as http:
        kept = (await http.get(f"/v1/conversations/{events[0].field('conversation_id')}")).json()["messages"]
    assert [message["role"] for message in kept] == ["user", "assistant"]
    assert (kept[1]["answer_id"], kept[1]["text"], kept[1]["finish_reason"]) == (answer_id, got.text, got.finish_reason)


async def generated(model: Server) -> int:
    """Return how many tokens of the present answer a model has generated."""
    return int((await requests(model.url))[-1]["answer_tokens"])


async def test_a_killed_replica_is_succeeded_by_the_other(talking: Cluster, whole: Answer, fault_round: int) -> None:
    chance, who = random.Random(fault_round), new_customer()  # noqa: S311  a test's dice
    async with talking.client(who) as http:
        events: list[SentEvent] = []

        async def kill_at_a_random_token() -> None:
            await until(lambda: bool(events))
            await asyncio.sleep(chance.uniform(0, 110) * TOKEN_SECONDS)
            talking.replicas[await talking.owner()].stop(signal.SIGKILL)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(talking.follow(http, events, message=KOREAN))
            tasks.create_task(kill_at_a_random_token())
    assert answer_of(events) == whole
    await check_recorded(talking, who, events)


async def test_a_killed_model_is_succeeded_by_the_other(talking: Cluster, whole: Answer, fault_round: int) -> None:
    chance, who = random.Random(fault_round), new_customer()  # noqa: S311  a test's dice
    async with talking.client(who) as http:
        events: list[SentEvent] = []

        async def kill_at_a_random_token() -> None:
            await until(lambda: bool(events))
            model, k = await talking.working(), chance.randrange(1, 100)
            await until(lambda: _has_said(model, k))
            model.stop(signal.SIGKILL)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(talking.follow(http, events, message=KOREAN))
            tasks.create_task(kill_at_a_random_token())
    assert notice_codes(events) == ["model_switched"]
    assert answer_of(events) == whole
    await check_recorded(talking, who, events)


@pytest.mark.parametrize("victim", ["model", "replica"])
async def test_thinking_interrupted_by_a_death_is_repeated_and_never_shown(
    talking: Cluster, whole: Answer, fault_round: int, victim: str
) -> None:
    thinking = "<think>\n" + "Ёж " * 15 + "\n</think>\n\n"
    chance, who = random.Random(fault_round), new_customer()  # noqa: S311  a test's dice
    to_think = len(encode(thinking))
    await talking.tell(thinking=thinking)
    async with talking.client(who) as http:
        events: list[SentEvent] = []

        async def kill_while_it_thinks() -> None:
            await until(lambda: "thinking" in notice_codes(events))
            model, k = await talking.working(), chance.randrange(2, 30)
            await until(lambda: _has_said(model, k))
            assert not text_of(events)
            server = model if victim == "model" else talking.replicas[await talking.owner()]
            server.stop(signal.SIGKILL)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(talking.follow(http, events, message=KOREAN, silence=to_think * TOKEN_SECONDS))
            tasks.create_task(kill_while_it_thinks())
    assert notice_codes(events).count("thinking") == 1
    assert "model_switched" not in notice_codes(events), "nothing of it was shown"
    assert answer_of(events) == replace(whole, tokens=whole.tokens + to_think)
    assert not [event for event in events if "Ё" in event.data.decode()]
    await check_recorded(talking, who, events)


async def _has_said(model: Server, k: int) -> bool:
    return await generated(model) >= k


async def test_an_answer_that_nobody_comes_back_for_is_closed(talking: Cluster) -> None:
    who = new_customer()
    async with talking.client(who) as http:
        async with http.stream("POST", "/v1/chat", json={"message": KOREAN}) as response:
            events = read_events(response)
            answer_id = (await anext(events)).answer_id
            talking.replicas[await talking.owner()].stop(signal.SIGKILL)
            await events.aclose()
        await until(lambda: talking.audited(answer_id) == ["closed", "opened"], 30)
    assert talking.slots(who) == 0


def sockets(cluster: Cluster) -> int:
    """Return how many files and sockets the replicas have open."""
    return sum(len(os.listdir(f"/proc/{r.process.pid}/fd")) for r in cluster.replicas if r.process)


async def test_customers_who_leave_cost_nothing_for_long(talking: Cluster, times: int) -> None:
    await talking.tell(answer=ANSWER * 5, token_seconds=0.05, probe=0.99)
    before, customers = sockets(talking), [f"{new_customer()}-{n}" for n in range(times)]
    answers: list[str] = []

    async def leave(n: int) -> None:
        async with talking.client(customers[n]) as http:
            if n % 3 == 2:  # without a stream
                with pytest.raises(httpx2.TimeoutException):
                    await http.post("/v1/chat", json={"message": KOREAN, "stream": False}, timeout=1)
                return
            async with http.stream("POST", "/v1/chat", json={"message": KOREAN}) as response:
                async for event in read_events(response):
                    answers.append(event.answer_id)
                    if event.name == ("token" if n % 3 else "accepted"):
                        break

    for begin in range(0, times, 10):
        async with asyncio.TaskGroup() as tasks:
            for n in range(begin, min(begin + 10, times)):
                tasks.create_task(leave(n))
    await until(talking.at_rest, GRACE + 5)
    await until(talking.idle, 0.5)
    assert [who for who in customers if talking.slots(who)] == []
    assert [answer for answer in set(answers) if talking.audited(answer) != ["closed", "opened"]] == []
    for who in customers:
        async with talking.client(who) as http:
            left = (await http.get("/v1/conversations")).json()["items"]
            assert len(left) == 1
            kept = (await http.get(f"/v1/conversations/{left[0]['id']}")).json()["messages"]
        assert [message["role"] for message in kept] == ["user", "assistant"]
        assert kept[1]["finish_reason"] == "cancelled"
    assert all(talking.spent_today(who) < 4000 for who in customers), "settled: no reservation stays charged"
    await until(lambda: sockets(talking) <= before + 12, 10)  # a few idle connections to Redis and the models stay


async def test_a_rolling_restart_loses_no_stream(talking: Cluster, whole: Answer) -> None:
    """Every stream is shorter than the restarts, longer than the drain's grace, and goes on."""
    await talking.tell(answer=ANSWER, token_seconds=0.06, probe=0.99)
    restarted = asyncio.Event()
    finished: list[list[SentEvent]] = []

    async def ask_again_and_again() -> None:
        mine: list[list[SentEvent]] = []
        async with talking.client(new_customer()) as http:
            while len(mine) < 2 or not restarted.is_set():
                mine.append(await talking.ask(http, KOREAN))
        finished.extend(mine)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(ask_again_and_again())
        for replica in talking.replicas:
            await until(lambda: len(talking.up()) == 2, 10)
            await asyncio.to_thread(replica.stop)
            replica.start()
            await asyncio.to_thread(replica.wait)
        await until(lambda: len(talking.up()) == 2, 10)
        restarted.set()
    assert [answer_of(events) for events in finished] == [whole] * len(finished)
