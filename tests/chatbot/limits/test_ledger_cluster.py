"""The ledger on a real cluster of three nodes: all keys of a tenant lie in one slot, so its scripts run anywhere."""

import uuid
from collections.abc import AsyncGenerator, Iterator

import pytest
from redis.asyncio.cluster import RedisCluster
from redis.crc import key_slot

from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import RateLimited
from chatbot.events import Usage
from chatbot.limits.ledger import Caller, Ledger
from chatbot.limits.limits import LedgerSettings, Limit, LimitSettings
from chatbot.redis_client import RedisBreaker, open_cluster
from tests.chatbot.conftest import PATIENT
from tests.constants import with_constants
from tests.redis_cluster import keys_by_node, redis_cluster

pytestmark = [pytest.mark.anyio, pytest.mark.services]

LIMIT = Limit(tokens_per_minute=100, requests_per_minute=10, concurrent=4, tokens_per_day=1000)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as ports:
        yield ports


@pytest.fixture
async def cluster(ports: list[int]) -> AsyncGenerator[RedisCluster]:
    async with open_cluster(f"redis://127.0.0.1:{ports[0]}") as cluster:
        yield cluster


async def test_all_that_the_ledger_does_works_on_a_cluster(cluster: RedisCluster, ports: list[int]) -> None:
    limits = with_constants(
        LedgerSettings(limits=LimitSettings(tenant=LIMIT, user=LIMIT, model=LIMIT)), answers_needed=1
    )
    ledger = Ledger(cluster, RedisBreaker(PATIENT), limits, deferred=DeferredWrites(DeferredSettings()))
    nodes: set[int] = set()
    for _ in range(12):
        who = Caller(tenant=uuid.uuid4().hex, sub="lee {kim}", model="qwen/2.5")
        reservation = await ledger.reserve(who, prompt_tokens=40, answer_tokens=20, lease_seconds=60)
        longer = await ledger.extend(reservation, more_tokens=40)
        assert longer is not None
        assert longer.limits.remaining_tokens == 0
        with pytest.raises(RateLimited):
            await ledger.reserve(who, prompt_tokens=1, answer_tokens=0, lease_seconds=60)

        settled = await ledger.settle(longer, Usage(prompt_tokens=40, answer_tokens=30))
        assert settled is not None
        assert (settled.remaining_tokens, settled.remaining_today) == (30, 930)
        assert await ledger.settle(longer, Usage()) is None
        assert await ledger.expected_answer_tokens(who.tenant, 400) == 30
        open_still = await ledger.reserve(who, prompt_tokens=10, answer_tokens=0, lease_seconds=60)
        await ledger.reset(who, "user")
        assert [spending.use.tokens for spending in await ledger.spending(who)] == [80, 0, 80]

        held = keys_by_node(ports, who.tenant)
        assert len(held) == 1, "one node has all of it"
        keys = next(iter(held.values()))
        assert len({key_slot(key) for key in keys}) == 1
        names = {key.decode().partition("}:")[2] for key in keys if b":settled:" not in key}
        windows = {f"{scope}:window" for scope in ("all", "model:qwen%2F2.5")}  # the user's went with the reset
        days = {f"{scope}:days" for scope in ("all", "user:lee%20%7Bkim%7D", "model:qwen%2F2.5")}
        leases = {f"{scope}:leases" for scope in ("all", "user:lee%20%7Bkim%7D", "model:qwen%2F2.5")}
        assert names == windows | days | leases | {f"reservation:{open_still.id}", "answers", "answers:p95"}
        nodes |= held.keys()
    assert len(nodes) > 1, "tenants spread over the nodes"


async def test_what_a_dead_process_has_reserved_is_given_back_on_a_cluster(cluster: RedisCluster) -> None:
    ledger = Ledger(cluster, RedisBreaker(PATIENT), LedgerSettings(), deferred=DeferredWrites(DeferredSettings()))
    who = Caller(tenant=uuid.uuid4().hex, sub="lee {kim}", model="qwen/2.5")
    lapsed = await ledger.reserve(who, prompt_tokens=10, answer_tokens=0, lease_seconds=0)
    assert [spending.use.today for spending in await ledger.spending(who)] == [0, 0, 0]
    await ledger.settle(lapsed, Usage(prompt_tokens=5))
    assert [spending.use.today for spending in await ledger.spending(who)] == [5, 5, 5]
