"""Redis stalls while customers read, for moments and for longer than a lease, at the product's own settings.

Whatever a customer has read to its end is what every replica, the history, the audit and the bill say.
"""

import json
import signal
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

import anyio
import pytest

from tests.conftest import DURABLE, RedisServer, redis_server
from tests.e2e.cluster import NEEDS_HAPROXY, Cluster, clustered
from tests.e2e.conftest import KOREAN, new_customer, until
from tests.e2e.events import SentEvent, end_of, read_events, text_of

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.faults, NEEDS_HAPROXY]

ANSWER = (
    "만기 전에 해지하면 중도해지 금리 연 0.5%를 적용합니다. 가입 후 1개월이 지나지 않으면 이자를 지급하지 않습니다. "
    "샘물 정기예금의 기본 금리는 연 3.1%이며 가입 기간은 12개월입니다. 최소 가입 금액은 100만원입니다. "
    "급여를 한샘은행 계좌로 받으면 우대금리 0.2%p를 더합니다."
)
LONG_OUTAGE = 13.0
"""Longer than a lease, and than the sweep waits before it ends an orphan."""


@dataclass(frozen=True)
class Bank:
    """Two replicas at the product's own settings, and their Redis."""

    cluster: Cluster
    redis: RedisServer

    async def stall(self, seconds: float) -> None:
        """Let Redis stand still for so long: the fault itself."""
        self.redis.signal(signal.SIGSTOP)
        try:
            await anyio.sleep(seconds)
        finally:
            self.redis.signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    folder = tmp_path_factory.mktemp("outages")
    # Nothing but what the answer shows and who may ask how often.
    settings = {"TURN__ANSWER": "written"}
    with redis_server(folder / "redis", *DURABLE) as redis, clustered(folder, redis.url, **settings) as cluster:
        yield Bank(cluster, redis)


@pytest.fixture
async def talking(bank: Bank) -> AsyncGenerator[Bank]:
    await bank.cluster.whole()
    yield bank
    await bank.cluster.restore()


async def read_to_the_end(bank: Bank, who: str, *, stall_after: int, seconds: float) -> list[SentEvent]:
    """Ask at one replica and read to the end, while Redis stalls after so many tokens."""
    events: list[SentEvent] = []
    replica = bank.cluster.replicas[0]
    async with (
        bank.cluster.client(who, url=replica.url) as http,
        anyio.create_task_group() as tasks,
        http.stream("POST", "/v1/chat", json={"message": KOREAN}) as response,
    ):
        async for event in read_events(response):
            events.append(event)
            if sum(event.name == "token" for event in events) == stall_after and event.name == "token":
                tasks.start_soon(bank.stall, seconds)
    return events


async def check_everywhere(bank: Bank, who: str, events: list[SentEvent]) -> None:
    """Assert that log, history, audit and bill come to say what the customer has read."""
    cluster, answer_id, done = bank.cluster, events[0].answer_id, end_of(events)
    assert done.field("finish_reason") == "stop"
    usage = json.loads(done.data)["usage"]
    conversation = f"/v1/conversations/{events[0].field('conversation_id')}"

    async def kept(url: str) -> bool:
        async with cluster.client(who, url=url) as http:
            reply = await http.get(conversation)
        messages = reply.json().get("messages", []) if reply.status_code == 200 else []
        return [message["text"] for message in messages[1:]] == [text_of(events)]

    async def replayed(url: str) -> list[SentEvent]:
        async with (
            cluster.client(who, url=url) as http,
            http.stream("GET", f"/v1/answers/{answer_id}/events") as response,
        ):
            return [event async for event in read_events(response)] if response.status_code == 200 else []

    async def is_replayed(url: str) -> bool:
        return await replayed(url) == events

    for replica in cluster.replicas:
        await until(lambda url=replica.url: kept(url), 10)  # type: ignore[misc]
        await until(lambda url=replica.url: is_replayed(url), 10)  # type: ignore[misc]
    await until(lambda: cluster.spent_today(who) == usage["prompt_tokens"] + usage["answer_tokens"], 10)
    await until(lambda: cluster.slots(who) == 0, 5)
    assert cluster.audited(answer_id) == ["closed", "opened"]
    assert not cluster.redis.zrange("answers:open", 0, -1), "nobody will take it for an orphan"


@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.0])
async def test_a_stall_at_the_end_of_an_answer_changes_nothing_that_was_read(
    talking: Bank, fault_round: int, seconds: float
) -> None:
    who, taken_before = new_customer(), await talking.cluster.counted("chatbot_takeovers_total")
    await talking.cluster.tell(answer=ANSWER, token_seconds=0.01, probe=0.99)
    stall_after = 6 + fault_round % 4
    events = await read_to_the_end(talking, who, stall_after=stall_after, seconds=seconds)
    await check_everywhere(talking, who, events)
    assert await talking.cluster.counted("chatbot_takeovers_total") == taken_before
    assert await talking.cluster.counted("chatbot_lost_writes_total") == 0


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_an_answer_outlives_an_outage_longer_than_its_lease(talking: Bank, fault_round: int) -> None:
    del fault_round
    who, taken_before = new_customer(), await talking.cluster.counted("chatbot_takeovers_total")
    # Half of it is said before Redis is back, half after.
    await talking.cluster.tell(answer=ANSWER, token_seconds=0.1, probe=0.99)
    began = time.monotonic()
    events = await read_to_the_end(talking, who, stall_after=3, seconds=LONG_OUTAGE)
    assert time.monotonic() - began > LONG_OUTAGE, "the answer ended before the outage"
    await check_everywhere(talking, who, events)
    assert await talking.cluster.counted("chatbot_takeovers_total") == taken_before


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_reader_on_another_replica_gets_an_error_when_redis_stays_away(talking: Bank, fault_round: int) -> None:
    del fault_round
    cluster, who = talking.cluster, new_customer()
    await cluster.tell(answer=ANSWER, token_seconds=0.2, probe=0.99)
    own: list[SentEvent] = []
    elsewhere: list[SentEvent] = []

    async def read_elsewhere(answer_id: str) -> None:
        async with (
            cluster.client(who, url=cluster.replicas[1].url) as http,
            http.stream("GET", f"/v1/answers/{answer_id}/events") as response,
        ):
            async for event in read_events(response):
                elsewhere.append(event)
                if event.name == "token" and sum(e.name == "token" for e in elsewhere) == 3:
                    tasks.start_soon(talking.stall, LONG_OUTAGE + 3)

    async with (
        cluster.client(who, url=cluster.replicas[0].url) as http,
        anyio.create_task_group() as tasks,
        http.stream("POST", "/v1/chat", json={"message": KOREAN}) as response,
    ):
        async for event in read_events(response):
            own.append(event)
            if event.name == "accepted":
                tasks.start_soon(read_elsewhere, event.answer_id)
    assert end_of(own).field("finish_reason") == "stop"
    error = elsewhere[-1]
    assert (error.name, error.field("code")) == ("error", "store_unavailable")
    assert "1599-0000" in str(error.field("handoff"))
    assert elsewhere[:-1] == own[: len(elsewhere) - 1]
    await check_everywhere(talking, who, own)
