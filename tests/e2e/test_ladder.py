"""The ladder down when models fail, and the emergency stop: two replicas, two endpoints of a model, a smaller one."""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncGenerator, Iterator

import httpx2
import pytest

from tests.e2e import model
from tests.e2e.cluster import NEEDS_HAPROXY, Cluster, Server, clustered
from tests.e2e.conftest import KOREAN, TENANT, new_customer, until
from tests.e2e.events import SentEvent, notice_codes, text_of
from tests.forked import run_to_the_end
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.faults, NEEDS_HAPROXY]

OTHER = "샘물 정기예금의 최소 가입 금액은 얼마인가요?"
ANSWER = "만기 전에 해지하면 중도해지 금리 연 0.5%를 적용합니다. 샘물 정기예금의 기본 금리는 연 3.1%입니다."
CONTACT = "1599-0000"
# Bars of docs/reliability.md; what is added is for two cores that others share.
NOISE = 1.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Cluster]:
    url = f"{redis_url.removesuffix('/0')}/7"
    with clustered(tmp_path_factory.mktemp("ladder"), url, smaller="small-7b", TURN__ANSWER="written") as running:
        yield running


@pytest.fixture
async def ladder(cluster: Cluster) -> AsyncGenerator[Cluster]:
    """The cluster with every part working and an empty cache."""
    cluster.redis.flushdb()
    await cluster.tell(answer=ANSWER, probe=0.99)
    await until(lambda: by_primaries(cluster), 15)
    await until(lambda: no_endpoint_is_left_out(cluster), 15)
    cluster.redis.flushdb()
    yield cluster
    await cluster.restore()


@pytest.fixture
async def whole(ladder: Cluster) -> list[SentEvent]:
    """An answer without a fault."""
    events = await asked(ladder, ladder.replicas[0])
    assert (finish(events), notice_codes(events), events[-1].field("written")) == ("stop", [], True)
    return events


async def by_primaries(cluster: Cluster) -> bool:
    """Return whether every replica's primaries answer."""
    answers = [await asked(cluster, replica) for replica in cluster.replicas]
    return all(notice_codes(events) == [] and finish(events) == "stop" for events in answers)


async def no_endpoint_is_left_out(cluster: Cluster) -> bool:
    """Return whether every replica would ask every endpoint, the smaller model's too."""
    breakers: set[str] = set()
    for replica in cluster.replicas:
        async with cluster.client("park", url=replica.url, role="platform") as admin:
            breakers |= {str(model["breaker"]) for model in (await admin.get("/v1/admin/stops")).json()["models"]}
    return breakers == {"closed"}


async def asked(cluster: Cluster, replica: Server, message: str = KOREAN) -> list[SentEvent]:
    """Ask one replica as a new customer."""
    async with cluster.client(new_customer(), url=replica.url) as http:
        return await cluster.ask(http, message)


async def tell(server: Server | None, **behaviour: object) -> None:
    assert server is not None
    await model.tell(server.url, **behaviour)


def notices(events: list[SentEvent]) -> str:
    return " ".join(str(event.field("text")) for event in events if event.name == "notice")


def finish(events: list[SentEvent]) -> object:
    assert [event.name for event in events if event.name in {"done", "error"}] == [events[-1].name]
    return events[-1].field("finish_reason" if events[-1].name == "done" else "code")


def citations(events: list[SentEvent]) -> list[bytes]:
    return [event.data for event in events if event.name == "citation"]


@contextlib.asynccontextmanager
async def counted(cluster: Cluster, rung: str) -> AsyncGenerator[None]:
    """Assert that the block adds one answer at this degradation level and none at another, within a second."""

    async def counts() -> tuple[float, float]:
        name = "chatbot_degraded_answers_total"
        return await cluster.counted(name, rung=rung), await cluster.counted(name)

    await until(cluster.at_rest)
    at_rung, in_all = await counts()
    yield

    async def is_counted() -> bool:
        return await counts() == (at_rung + 1, in_all + 1)

    await until(is_counted, 1)


async def all_down(cluster: Cluster) -> None:
    await cluster.tell(dead=True)
    await tell(cluster.fallback, dead=True)


async def test_a_smaller_model_answers_where_no_endpoint_of_the_model_can(
    ladder: Cluster, whole: list[SentEvent]
) -> None:
    await ladder.tell(dead=True)
    await tell(ladder.fallback, answer=ANSWER, probe=0.99)
    async with counted(ladder, "fallback"):
        events = await asked(ladder, ladder.replicas[0])
    assert (finish(events), notice_codes(events), text_of(events)) == ("stop", ["model_switched"], text_of(whole))
    assert "예비 AI 모델" in notices(events)
    assert closing(ladder, events)["models"] == ["small-7b"]


def closing(cluster: Cluster, events: list[SentEvent]) -> dict[str, object]:
    """Return the body of an answer's closed audit row."""
    with contextlib.closing(sqlite3.connect(cluster.database, timeout=10)) as sql:
        query = "SELECT body FROM chatbot_audit WHERE answer_id = ? AND kind = 'closed'"
        (body,) = sql.execute(query, (events[0].field("answer_id"),)).fetchone()
    row: dict[str, object] = json.loads(body)
    return row


async def test_with_every_model_down_breakers_open_soon_and_models_are_found_again(
    ladder: Cluster, fault_round: int
) -> None:
    replica, message = ladder.replicas[fault_round % 2], f"{OTHER} ({fault_round})"

    async def failures() -> float:
        names = ("broken", "unreachable", "slow")
        return sum([await ladder.counted("chatbot_model_calls_total", group="primary", outcome=o) for o in names])

    failed = await failures()
    await all_down(ladder)
    async with ladder.client(new_customer(), url=replica.url) as http:

        async def seconds() -> float:
            began = time.monotonic()
            assert finish(await ladder.ask(http, message)) == "handoff"
            return time.monotonic() - began

        assert await seconds() < patient(2 + NOISE)
        for _ in range(8):
            await seconds()
        assert await failures() - failed <= 10
        took = sorted([await seconds() for _ in range(20)])
        assert took[10] <= patient(0.2), took
        assert took[-2] <= patient(0.2 + NOISE), took
        await ladder.tell(dead=False)
        failed, began = await failures(), time.monotonic()
        await until(lambda: _answers(ladder, http, message), 15)
        assert time.monotonic() - began <= patient(15)
        assert await failures() - failed <= 3


async def _answers(cluster: Cluster, http: httpx2.AsyncClient, message: str) -> bool:
    await asyncio.sleep(0.2)  # a customer who asks again
    return finish(await cluster.ask(http, message)) == "stop"


@pytest.mark.long
async def test_a_model_that_stalls_is_left_in_time_and_slows_nobody_else(ladder: Cluster) -> None:
    await ladder.tell(token_seconds=0.01, stall_after=25)
    who, replica, events = new_customer(), ladder.replicas[0], list[SentEvent]()
    took: list[float] = []
    async with ladder.client(who, url=replica.url) as http, asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(ladder.follow(http, events, message=KOREAN))
        await until(lambda: "token" in {event.name for event in events})
        began = time.monotonic()
        stalled = await ladder.working()
        await tell(next(model for model in ladder.models if model is not stalled), stall_after=None)
        async with ladder.client(who, url=replica.url) as other:
            while not answering.done():
                for address in ("/livez", "/v1/conversations"):
                    asked_at = time.monotonic()
                    assert (await other.get(address)).status_code == 200
                    took.append(time.monotonic() - asked_at)
                await asyncio.sleep(0.05)
    assert (finish(events), notice_codes(events)) == ("stop", ["model_switched"])
    assert 9 < time.monotonic() - began < patient(10 + 2 + NOISE), "10 s between two tokens, and the rest of the answer"
    took.sort()
    assert took[len(took) // 2] <= patient(0.1), took[-5:]
    assert took[int(len(took) * 0.99)] <= patient(0.2 + NOISE), took[-5:]


@pytest.mark.parametrize("tenant", [None, TENANT], ids=["everything", "a tenant"])
async def test_an_emergency_stop_ends_every_answer_on_every_replica(
    ladder: Cluster, fault_round: int, tenant: str | None
) -> None:
    # Silent in mid-answer: a stop does not wait for the next token.
    await ladder.tell(answer=ANSWER * 5, probe=0.99, token_seconds=0.01, stall_after=60)
    streams: list[list[SentEvent]] = [[], []]
    reason = f"round {fault_round}"
    async with asyncio.TaskGroup() as tasks:
        for replica, events in zip(ladder.replicas, streams, strict=True):
            tasks.create_task(followed(ladder, replica, events))
        await until(lambda: all(text_of(events) for events in streams))
        began = time.monotonic()
        await command(ladder, "stop", *(["--tenant", tenant] if tenant else []), "--by", "kim", "--reason", reason)
        stopped = time.monotonic()
    assert time.monotonic() - stopped < patient(2 + NOISE), f"the command itself took {stopped - began:.1f} s"
    assert [finish(events) for events in streams] == ["handoff", "handoff"]
    assert all("일시 중단" in text_of(events) and CONTACT in text_of(events) for events in streams)
    await until(ladder.idle, 0.5 + NOISE)

    calls = await ladder.counted("chatbot_model_calls_total")
    for replica in ladder.replicas:
        events = await asked(ladder, replica)
        assert (finish(events), citations(events)) == ("handoff", [])
        assert "일시 중단" in text_of(events)
    assert await ladder.counted("chatbot_model_calls_total") == calls, "no model is asked"

    await ladder.tell(answer=ANSWER, token_seconds=0.0, stall_after=None)
    async with ladder.client("park", url=ladder.replicas[1].url, role="platform") as admin:
        state = (await admin.post("/v1/admin/resume", json={"reason": f"{reason} is over", "tenant": tenant})).json()
        assert (state["stopped"], state["stopped_tenants"]) == (False, [])
        assert [(c["action"], c["model"], c["tenant"], c["by"], c["reason"]) for c in state["changes"][:2]] == [
            ("resume", None, tenant, f"{TENANT}/park", f"{reason} is over"),
            ("stop", None, tenant, "kim", reason),
        ]
        assert all(abs(change["at"] - time.time()) < 60 for change in state["changes"][:2])
    await until(lambda: by_primaries(ladder), 2 + NOISE)


async def followed(cluster: Cluster, replica: Server, events: list[SentEvent]) -> None:
    async with cluster.client(new_customer(), url=replica.url) as http:
        await cluster.follow(http, events, message=KOREAN)


async def command(cluster: Cluster, *arguments: str) -> None:
    log = cluster.database.with_name("stop.log")
    environment = cluster.environment | {"DATA_DIR": str(cluster.database.parent)}
    await asyncio.to_thread(run_to_the_end, "chatbot.__main__", arguments, environment, log)


async def test_a_stopped_model_is_replaced_by_the_fallback_on_every_replica(ladder: Cluster) -> None:
    await ladder.tell(answer=ANSWER * 5, probe=0.99, token_seconds=0.01, stall_after=60)
    await tell(ladder.fallback, answer=ANSWER, probe=0.99)
    streams: list[list[SentEvent]] = [[], []]
    async with ladder.client("park", url=ladder.replicas[0].url, role="platform") as admin:
        async with asyncio.TaskGroup() as tasks:
            for replica, events in zip(ladder.replicas, streams, strict=True):
                tasks.create_task(followed(ladder, replica, events))
            await until(lambda: all(text_of(events) for events in streams))
            began = time.monotonic()
            state = (await admin.post("/v1/admin/stop", json={"model": "main", "reason": "wrong language"})).json()
        assert time.monotonic() - began < patient(2 + NOISE)
        assert [finish(events) for events in streams] == ["model_unavailable"] * 2
        assert all(CONTACT in str(events[-1].field("handoff")) for events in streams)
        assert (state["stopped"], state["stopped_models"]) == (False, ["main"])
        assert [(m["name"], m["stopped"]) for m in state["models"]] == [
            ("main", True),
            ("main", True),
            ("small", False),
        ]
        for replica in ladder.replicas:
            events = await asked(ladder, replica)
            assert (finish(events), notice_codes(events)) == ("stop", ["model_switched"])
            assert "예비 AI 모델" in notices(events)
        await ladder.tell(answer=ANSWER, token_seconds=0.0, stall_after=None)
        await admin.post("/v1/admin/resume", json={"model": "main", "reason": "rolled back"})
    await until(lambda: by_primaries(ladder), 2 + NOISE)
