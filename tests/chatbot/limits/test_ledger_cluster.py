"""The ledger on a real cluster of three nodes: all keys of a tenant lie in one slot, so its scripts run anywhere."""

import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack
from itertools import pairwise

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio.cluster import RedisCluster
from redis.crc import key_slot

from chatbot.errors import RateLimited
from chatbot.events import Usage
from chatbot.limits.ledger import Caller, Ledger
from chatbot.limits.limits import LedgerSettings, Limit, LimitSettings
from chatbot.redis_client import RedisBreaker, RedisSettings, open_cluster
from tests.chatbot.conftest import PATIENT
from tests.conftest import NOT_DURABLE, START_SECONDS, free_port, redis_server

pytestmark = [pytest.mark.anyio, pytest.mark.services]

SLOTS = 16384
NODES = 3
LIMIT = Limit(tokens_per_minute=100, requests_per_minute=10, concurrent=4, tokens_per_day=1000)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    """Three nodes, each with a third of the slots, that know each other."""
    ports, buses = ([free_port() for _ in range(NODES)] for _ in range(2))
    bounds = [SLOTS * n // NODES for n in range(NODES + 1)]
    with ExitStack() as stack:
        for port, bus in zip(ports, buses, strict=True):
            options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), *NOT_DURABLE)
            stack.enter_context(redis_server(tmp_path_factory.mktemp("node"), *options, port=port))
        nodes = [stack.enter_context(BlockingRedis(port=port)) for port in ports]
        for epoch, (client, (first, end)) in enumerate(zip(nodes, pairwise(bounds), strict=True), 1):
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", epoch)
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
        for port, bus in zip(ports[1:], buses[1:], strict=True):
            nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", port, bus)
        deadline = time.monotonic() + START_SECONDS
        while not all(is_whole(client) for client in nodes):
            assert time.monotonic() < deadline, "the nodes never became a cluster"
            time.sleep(0.05)
        yield ports


def is_whole(client: BlockingRedis) -> bool:
    info = client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]  # has no types
    return str(info["cluster_state"]) == "ok" and int(info["cluster_known_nodes"]) == NODES


@pytest.fixture
async def cluster(ports: list[int]) -> AsyncGenerator[RedisCluster]:
    async with open_cluster(f"redis://127.0.0.1:{ports[0]}", RedisSettings()) as cluster:
        yield cluster


def keys_by_node(ports: list[int], tenant: str) -> dict[int, list[bytes]]:
    """Return which node keeps which keys of a tenant."""
    keys_at = {}
    for port in ports:
        with BlockingRedis(port=port) as client:
            keys_at[port] = list(client.scan_iter(match=f"*{tenant}*", count=1000))
    return {port: keys for port, keys in keys_at.items() if keys}


async def test_all_that_the_ledger_does_works_on_a_cluster(cluster: RedisCluster, ports: list[int]) -> None:
    limits = LedgerSettings(limits=LimitSettings(tenant=LIMIT, user=LIMIT, model=LIMIT), answers_needed=1)
    ledger = Ledger(cluster, RedisBreaker(PATIENT), limits)
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
        names = {key.decode().partition("}:")[2] for key in keys}
        windows = {f"{scope}:window" for scope in ("all", "model:qwen%2F2.5")}  # the user's went with the reset
        days = {f"{scope}:days" for scope in ("all", "user:lee%20%7Bkim%7D", "model:qwen%2F2.5")}
        leases = {f"{scope}:leases" for scope in ("all", "user:lee%20%7Bkim%7D", "model:qwen%2F2.5")}
        assert names == windows | days | leases | {f"reservation:{open_still.id}", "answers", "answers:p95"}
        nodes |= held.keys()
    assert len(nodes) > 1, "tenants spread over the nodes"
