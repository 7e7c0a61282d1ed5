"""What the process does when its Redis hangs, dies and comes back: a server of its own, stopped and killed for real."""

import io
import resource
import signal
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from functools import partial

import anyio
import pytest
import structlog
from redis.asyncio import Redis

from chatbot.conversations import History, HistorySettings, StoredMessage
from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import StoreUnavailable
from chatbot.events import Usage
from chatbot.limits import Caller, Ledger, LedgerSettings
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings, open_redis, watch_eviction
from chatbot.streams import AnswerLogSettings, open_answer_log
from knowledge.identity import Principal
from tests.conftest import RedisServer
from tests.constants import with_constants
from tests.log_and_spans import written_log
from tests.patience import patient

pytestmark = pytest.mark.anyio
log = structlog.get_logger(__name__)

# The product's deadlines, but a probe with almost every command: the time between probes is not measured here.
SETTINGS = with_constants(RedisBreakerSettings(), probe_every=0.05)


@pytest.fixture
async def client(server: RedisServer) -> AsyncGenerator[Redis]:
    async with open_redis(server.url) as client:
        yield client


def someone() -> Caller:
    return Caller(tenant=uuid.uuid4().hex, sub="lee", model="qwen")


async def test_a_hung_redis_delays_one_answer_by_250_ms(server: RedisServer, client: Redis) -> None:
    breaker = RedisBreaker(RedisBreakerSettings())
    ledger, who = Ledger(client, breaker, LedgerSettings(), deferred=DeferredWrites(DeferredSettings())), someone()
    first = await ledger.reserve(who, prompt_tokens=10, answer_tokens=10, lease_seconds=60)
    server.signal(signal.SIGSTOP)
    began = anyio.current_time()
    hung = await ledger.reserve(who, prompt_tokens=10, answer_tokens=10, lease_seconds=60)
    opened = anyio.current_time()
    with pytest.raises(StoreUnavailable):
        await History(client, breaker, HistorySettings()).load(Principal(tenant=who.tenant, sub=who.sub), "c1")
    local = await ledger.reserve(who, prompt_tokens=10, answer_tokens=10, lease_seconds=60)
    at_once = anyio.current_time()
    server.signal(signal.SIGCONT)
    assert (first.local, hung.local, local.local) == (False, True, True)
    assert opened - began < 0.35  # 250 ms, and what two shared cores add
    assert at_once - opened < 0.05


async def test_a_command_that_is_late_by_itself_fails_alone(server: RedisServer, client: Redis) -> None:
    async with open_redis(server.url, max_connections=1) as pinging:
        breaker = RedisBreaker(RedisBreakerSettings(), ping=pinging.ping)
        with pytest.raises(StoreUnavailable):
            await breaker.call(lambda: client.blpop(["nothing"], timeout=30))
        assert not breaker.is_open
        await breaker.call(client.ping)
        async with open_redis(server.url, max_connections=1) as busy, anyio.create_task_group() as tasks:

            async def use_the_connection() -> None:
                await busy.blpop(["nothing"], timeout=1)

            tasks.start_soon(use_the_connection)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(StoreUnavailable):  # no connection is left
                await breaker.call(busy.ping)
            assert not breaker.is_open


async def test_a_demoted_redis_is_away_until_a_master_answers(client: Redis) -> None:
    breaker = RedisBreaker(SETTINGS)
    history, owner = History(client, breaker, HistorySettings()), Principal(tenant=uuid.uuid4().hex, sub="lee")
    question = StoredMessage(id="q1", parent_id=None, role="user", text="예금 금리는?", at=100.0)
    await history.append(owner, "c1", [question], now=100)
    before = await client.client_id()
    await client.replicaof("127.0.0.1", "1")
    with pytest.raises(StoreUnavailable):
        await history.append(owner, "c2", [question], now=100)
    assert breaker.is_open
    async with open_answer_log(client, RedisBreaker(SETTINGS), AnswerLogSettings()) as answer_log:
        with pytest.raises(StoreUnavailable):
            await answer_log.ping()
        assert answer_log.available_for == 0
    await client.replicaof("NO", "ONE")
    assert await client.client_id() != before, "connections to the demoted one are given up"
    with anyio.fail_after(patient(2)):
        while breaker.is_open:
            with suppress(StoreUnavailable):
                await history.append(owner, "c2", [question], now=100)
            await anyio.sleep(0.01)


@pytest.mark.faults
async def test_a_full_redis_reads_on_and_eviction_is_noticed(client: Redis) -> None:
    breaker, reports = RedisBreaker(SETTINGS), list[bool]()
    history, owner = History(client, breaker, HistorySettings()), Principal(tenant=uuid.uuid4().hex, sub="lee")
    question = StoredMessage(id="q1", parent_id=None, role="user", text="질문", at=1.0)
    await history.append(owner, "c1", [question], now=1.0)
    used = (await client.info("memory"))["used_memory"]
    await client.config_set("maxmemory", used - 1)
    for policy, evicting in (("noeviction", False), ("allkeys-lru", True), ("noeviction", False)):
        await client.config_set("maxmemory-policy", policy)
        with anyio.move_on_after(0.3):
            await watch_eviction(client, breaker, reports.append)
        assert reports[-1] is evicting
    with pytest.raises(StoreUnavailable):
        await history.append(owner, "c2", [question], now=2.0)
    assert not breaker.is_open, "it answers"
    await client.config_set("maxmemory", 0)
    assert await history.append(owner, "c2", [question], now=2.0)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    with written_log() as written:
        yield written


async def test_arguments_of_a_refused_command_are_not_logged(client: Redis, lines: io.StringIO) -> None:
    breaker, canary = RedisBreaker(SETTINGS), "hong 880101-1234567"

    async def pipelined() -> None:
        async with client.pipeline(transaction=False) as pipe:
            pipe.set("a", canary)
            await pipe.execute()

    await client.config_set("maxmemory", (await client.info("memory"))["used_memory"] - 1)
    unknown = partial(client.execute_command, "NOTHING", canary)
    for command in (unknown, lambda: client.set("a", canary), pipelined):
        with pytest.raises(StoreUnavailable) as refused:
            await breaker.call(command)
        log.error("store_unavailable", exc_info=refused.value)
    text = lines.getvalue()
    assert text.count("redis_command_rejected") == 3
    assert "unknown command 'NOTHING'" in text, "what was the matter stays"
    assert text.count("command not allowed when used memory") == 2
    assert canary not in text


def let_files_grow_to(server: RedisServer, size: int) -> None:
    """Let no file of the Redis grow past `size` bytes: a write past it fails as one to a full disk does."""
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.mark.faults
async def test_with_a_full_disk_redis_reads_on_and_loses_nothing(server: RedisServer, client: Redis) -> None:
    breaker = RedisBreaker(SETTINGS)
    history, owner = History(client, breaker, HistorySettings()), Principal(tenant=uuid.uuid4().hex, sub="lee")
    acknowledged: list[str] = []

    async def written(n: int) -> bool:
        question = StoredMessage(id=f"q{n}", parent_id=None, role="user", text="질문", at=float(n))
        with suppress(StoreUnavailable):
            if await history.append(owner, f"c{n}", [question], now=float(n)):
                acknowledged.append(f"c{n}")
                return True
        return False

    assert await written(0)
    let_files_grow_to(server, 0)
    with anyio.fail_after(patient(2)):
        n = 1
        while await written(n):  # what it takes until it notices is in its memory, and written later
            n += 1
            await anyio.sleep(0.01)
    assert not await written(1001), "it goes on to refuse"
    assert not breaker.is_open, "it answers"
    for conversation in acknowledged:
        assert (await history.load(owner, conversation)).messages
    let_files_grow_to(server, resource.RLIM_INFINITY)
    with anyio.fail_after(patient(5)):
        while not await written(2000):
            await anyio.sleep(0.05)
    await anyio.sleep(1.1)  # appendfsync everysec: what is a second old is on the disk
    server.restart()
    with anyio.fail_after(patient(5)):
        while not await written(3000):
            await anyio.sleep(0.05)
    for conversation in acknowledged:
        assert (await history.load(owner, conversation)).messages


async def test_after_a_kill_the_client_is_back_and_nothing_is_lost(server: RedisServer, client: Redis) -> None:
    breaker = RedisBreaker(SETTINGS)
    ledger, who = Ledger(client, breaker, LedgerSettings(), deferred=DeferredWrites(DeferredSettings())), someone()
    history, owner = History(client, breaker, HistorySettings()), Principal(tenant=who.tenant, sub=who.sub)
    reservation = await ledger.reserve(who, prompt_tokens=10, answer_tokens=10, lease_seconds=60)
    question = StoredMessage(id="q1", parent_id=None, role="user", text="질문", at=1.0)
    await history.append(owner, "c1", [question], now=1.0)
    await anyio.sleep(1.1)  # appendfsync everysec: what is a second old is on the disk
    server.restart()
    with anyio.fail_after(patient(2)):
        while (await ledger.reserve(who, prompt_tokens=1, answer_tokens=0, lease_seconds=60)).local:
            await anyio.sleep(0.02)
    assert (await history.load(owner, "c1")).messages == (question,)
    settled = await ledger.settle(reservation, Usage(prompt_tokens=15))
    assert settled is not None
