"""Stalls and outages of stores while customers read, over two replicas at the product's own limits.

Afterwards every slot is free, and what a customer has read to its end is in every replica's log, the history, the audit
and the bill. `python -m pytest tests/e2e/test_stalls.py -k after_a_stall --faults 50` makes 200 stalls, with four
customers in each.
"""

import random
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import httpx2
import msgspec
import pytest

from chatbot.audit import Closed, Opened
from tests.conftest import DURABLE, RedisServer, redis_server
from tests.e2e.chaos.differences import cost_of
from tests.e2e.chaos.faults import stopped
from tests.e2e.cluster import LEDGER, NEEDS_HAPROXY, Cluster, clustered
from tests.e2e.conftest import KOREAN, new_customer, until
from tests.e2e.events import SentEvent, end_of, notice_codes, read_events, text_of
from tests.postgres import SHARED, Postgres, programs, served, stands_still

NEEDS_POSTGRES = pytest.mark.skipif(programs() is None, reason="needs postgresql")
pytestmark = [
    *(pytest.mark.anyio, pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(300)),
    *(NEEDS_HAPROXY, NEEDS_POSTGRES),
]

ANSWER = (
    "만기 전에 해지하면 중도해지 금리 연 0.5%를 적용합니다. 가입 후 1개월이 지나지 않으면 이자를 지급하지 않습니다. "
    "샘물 정기예금의 기본 금리는 연 3.1%이며 가입 기간은 12개월입니다."
)
LAST = "최소 가입 금액은 100만원입니다. 급여를 한샘은행 계좌로 받으면 우대금리 0.2%p를 더합니다."
CUSTOMERS = 4
HEALED_SECONDS = 60.0
MOMENTS = {"opening": (0.0, 0.15), "answering": (0.15, 0.9), "closing": (0.9, 1.3)}
"""Between which shares of an undisturbed answer's time its stall begins."""
STALL_SECONDS = {"index": (0.1, 1.0), "model": (0.3, 3.0), "redis": (0.1, 1.5), "sql": (0.3, 3.0)}
"""How long a part stands still: less and more than its deadline. The n-th begins its rounds with the n-th moment."""
LONG_OUTAGE = 13.0
"""Longer than a lease, and than the sweep waits before it ends an orphan."""


@dataclass(frozen=True)
class Bank:
    """Two replicas at the product's own limits, their stores, and how long an undisturbed answer takes."""

    cluster: Cluster
    redis: RedisServer
    postgres: Postgres
    usual_seconds: float

    @asynccontextmanager
    async def stalled(self, part: str) -> AsyncGenerator[None]:
        """Let a part stand still while the block runs; the index, which is in the process, is taken away instead."""
        if part == "redis":
            async with stopped(self.redis.process.pid):
                yield
        elif part == "sql":
            with stands_still(self.postgres):
                yield
        elif part == "model":
            async with stopped(*(model.process.pid for model in self.cluster.models if model.process is not None)):
                yield
        else:
            folders = [self.cluster.database.parents[1] / name / "qdrant" for name in ("first", "second")]
            with ExitStack() as stack:
                for folder in folders:
                    away = folder.rename(folder.with_name("elsewhere"))
                    stack.callback(away.rename, folder)
                yield


@dataclass(slots=True)
class Reading:
    """One question, its refusal, and the events that were read of its answer."""

    sub: str
    status: int = 0
    events: list[SentEvent] = field(default_factory=list)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    folder = tmp_path_factory.mktemp("stalls")
    settings = {"TURN__ANSWER": "written", "LEDGER__REPLICAS": "2"}
    with (
        served() as postgres,
        redis_server(folder / "redis", *DURABLE) as redis,
        clustered(folder, redis.url, DATABASE_URL=postgres.url(SHARED), **settings) as cluster,
    ):
        anyio.run(cluster.whole)
        anyio.run(tell_models, cluster)
        usual = min(anyio.run(seconds_of_answer, cluster) for _ in range(3))
        yield Bank(cluster, redis, postgres, usual)


async def tell_models(cluster: Cluster) -> None:
    await cluster.tell(answer=ANSWER, token_seconds=0.005, probe=0.99)


async def seconds_of_answer(cluster: Cluster) -> float:
    began = time.monotonic()
    await ask(cluster, Reading(new_customer()), 0)
    return time.monotonic() - began


async def ask(
    cluster: Cluster, reading: Reading, replica: int, *, seen: Callable[[SentEvent], None] = lambda _event: None
) -> None:
    """Ask a replica once, and read to the end; call `seen` with each event."""
    async with (
        cluster.client(reading.sub, url=cluster.replicas[replica].url) as http,
        http.stream("POST", "/v1/chat", json={"message": KOREAN}) as response,
    ):
        reading.status = response.status_code
        if response.status_code == 200:
            async for event in read_events(response):
                reading.events.append(event)
                seen(event)


async def differences(bank: Bank, readings: Sequence[Reading]) -> list[str]:
    """Return what slots, bills, audit and history say otherwise than their customers have read."""
    cluster, found = bank.cluster, list[str]()
    entries: defaultdict[str, list[Opened | Closed]] = defaultdict(list)
    bodies = await anyio.to_thread.run_sync(bank.postgres.query, "SELECT body FROM chatbot_audit")
    for line in bodies.splitlines():
        entry = msgspec.json.decode(line, type=Opened | Closed)
        entries[entry.answer_id].append(entry)
    for reading in readings:
        sub = reading.sub
        mine = [of for of in entries.values() if any(isinstance(e, Opened) and e.sub == sub for e in of)]
        if any(not any(isinstance(entry, Closed) for entry in of) for of in mine):
            found.append(f"{sub}: an audit record is open")
        due, spent = sum(cost_of(of) for of in mine), cluster.spent_today(sub)
        if spent != due:
            found.append(f"{sub}: {spent} tokens are charged, {due} are due")
        if slots := cluster.slots(sub):
            found.append(f"{sub}: {slots} slots are taken")
        async with cluster.client(sub, url=cluster.replicas[0].url) as http:
            found += [f"{sub}: {difference}" async for difference in of_history(http, reading)]
    for key in (f"{LEDGER}:all:leases", f"{LEDGER}:model:scripted:leases"):
        if taken := cluster.redis.zcard(key):
            found.append(f"{key}: {taken} slots are taken")
    return found


async def of_history(http: httpx2.AsyncClient, reading: Reading) -> AsyncGenerator[str]:
    """Yield how the customer's conversations differ from what the customer was shown."""
    items = (await http.get("/v1/conversations")).json().get("items", [])
    messages: list[dict[str, Any]] = []
    for item in items:
        messages += (await http.get(f"/v1/conversations/{item['id']}")).json().get("messages", [])
    kept = [message["text"] for message in messages]
    is_kept = reading.status == 200 and "history_unavailable" not in notice_codes(reading.events)
    expected = [KOREAN, text_of(reading.events)] if is_kept else []
    if kept != expected:
        yield f"status {reading.status}: the history has {len(kept)} messages, {len(expected)} are right"


@pytest.mark.parametrize("part", STALL_SECONDS)
async def test_after_a_stall_every_slot_is_free_and_every_bill_right(bank: Bank, fault_round: int, part: str) -> None:
    dice = random.Random(f"{part} {fault_round}")  # noqa: S311  the same moments again
    moments = list(MOMENTS.values())
    least, most = moments[(fault_round + list(STALL_SECONDS).index(part)) % len(moments)]
    readings = [Reading(new_customer()) for _ in range(CUSTOMERS)]
    leads = [bank.usual_seconds * dice.uniform(least, most) for _ in readings]
    seconds, began = dice.uniform(*STALL_SECONDS[part]), max(leads)

    async def ask_later(reading: Reading, after: float, replica: int) -> None:
        await anyio.sleep(after)
        await ask(bank.cluster, reading, replica)

    async with anyio.create_task_group() as tasks:
        for n, (reading, lead) in enumerate(zip(readings, leads, strict=True)):
            tasks.start_soon(ask_later, reading, began - lead, n % 2)
        await anyio.sleep(began)
        async with bank.stalled(part):
            await anyio.sleep(seconds)
    await until_healed(bank, readings, f"after {seconds:.2f} s")


async def until_healed(bank: Bank, readings: Sequence[Reading], when: str) -> None:
    last: list[str] = []

    async def is_healed() -> bool:
        last[:] = await differences(bank, readings)
        return not last

    try:
        await until(is_healed, HEALED_SECONDS)
    except AssertionError:
        pytest.fail(f"{when}: " + "\n".join(last))


@pytest.fixture
async def talking(bank: Bank) -> AsyncGenerator[Bank]:
    """The bank, of whose answers none is taken over and no write is lost, at a pace that the test sets."""
    names = ("chatbot_takeovers_total", "chatbot_lost_writes_total")
    before = [await bank.cluster.counted(name) for name in names]
    yield bank
    assert [await bank.cluster.counted(name) for name in names] == before
    await tell_models(bank.cluster)


async def read_through_an_outage(bank: Bank, reading: Reading, *, begins_at: int, seconds: float) -> None:
    """Ask at one replica and read to the end, while Redis stands still for so long after so many tokens."""

    async def stall() -> None:
        async with bank.stalled("redis"):
            await anyio.sleep(seconds)

    def begin(event: SentEvent) -> None:
        if event.name == "token" and sum(event.name == "token" for event in reading.events) == begins_at:
            tasks.start_soon(stall)

    async with anyio.create_task_group() as tasks:
        await ask(bank.cluster, reading, 0, seen=begin)


async def check_everywhere(bank: Bank, reading: Reading) -> None:
    """Assert that log, history, audit and bill come to say what the customer has read."""
    cluster, done = bank.cluster, end_of(reading.events)
    assert done.field("finish_reason") == "stop"
    usage = msgspec.json.decode(done.data)["usage"]
    await until_healed(bank, [reading], "after an outage")
    assert cluster.spent_today(reading.sub) == usage["prompt_tokens"] + usage["answer_tokens"]
    for replica in cluster.replicas:

        async def is_replayed(url: str = replica.url) -> bool:
            async with cluster.client(reading.sub, url=url) as http:
                return await replayed(http, reading) == reading.events

        await until(is_replayed, 10)
    assert not cluster.redis.zrange("answers:open", 0, -1), "nobody will take it for an orphan"


async def replayed(http: httpx2.AsyncClient, reading: Reading) -> list[SentEvent]:
    async with http.stream("GET", f"/v1/answers/{reading.events[0].answer_id}/events") as response:
        return [event async for event in read_events(response)] if response.status_code == 200 else []


@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.0])
async def test_a_stall_at_the_end_of_an_answer_changes_nothing_that_was_read(
    talking: Bank, fault_round: int, seconds: float
) -> None:
    reading = Reading(new_customer())
    await talking.cluster.tell(token_seconds=0.01)
    await read_through_an_outage(talking, reading, begins_at=6 + fault_round % 4, seconds=seconds)
    await check_everywhere(talking, reading)


@pytest.mark.long
async def test_an_answer_outlives_an_outage_longer_than_its_lease(talking: Bank, fault_round: int) -> None:
    del fault_round
    reading = Reading(new_customer())
    await talking.cluster.tell(answer=f"{ANSWER} {LAST}", token_seconds=0.1)  # half of it after Redis is back
    began = time.monotonic()
    await read_through_an_outage(talking, reading, begins_at=3, seconds=LONG_OUTAGE)
    assert time.monotonic() - began > LONG_OUTAGE, "the answer ended before the outage"
    await check_everywhere(talking, reading)


@pytest.mark.long
async def test_a_reader_on_another_replica_gets_an_error_when_redis_stays_away(talking: Bank, fault_round: int) -> None:
    del fault_round
    own, elsewhere = Reading(new_customer()), list[SentEvent]()
    await talking.cluster.tell(answer=f"{ANSWER} {LAST}", token_seconds=0.2)

    async def read_elsewhere() -> None:
        async with (
            talking.cluster.client(own.sub, url=talking.cluster.replicas[1].url) as http,
            http.stream("GET", f"/v1/answers/{own.events[0].answer_id}/events") as response,
        ):
            async for event in read_events(response):
                elsewhere.append(event)

    def follow(event: SentEvent) -> None:
        if event.name == "accepted":
            tasks.start_soon(read_elsewhere)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(ask, talking.cluster, own, 0, seen=follow))
        await until(lambda: sum(event.name == "token" for event in elsewhere) >= 3, 10)
        async with talking.stalled("redis"):
            await anyio.sleep(LONG_OUTAGE + 3)
    error = elsewhere[-1]
    assert (error.name, error.field("code")) == ("error", "store_unavailable")
    assert "1599-0000" in str(error.field("handoff"))
    assert elsewhere[:-1] == own.events[: len(elsewhere) - 1]
    await check_everywhere(talking, own)
