"""Faults that this product survives: models away, Redis away, customers who leave (`make faults N=50` repeats them)."""

import contextlib
import json
import resource
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2
import pytest

from tests.conftest import NOT_DURABLE, RedisServer, redis_server
from tests.e2e.conftest import ENGLISH, KOREAN, Product, scripted_model, served, until
from tests.e2e.events import SentEvent, end_of, notice_codes, read_events, text_of
from tests.e2e.metrics import total
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.faults]


def unasked(fault_round: int) -> str:
    """Return a variant of the question that was not asked before."""
    return f"{KOREAN} ({fault_round})"


async def none_active(product: Product) -> bool:
    return await total(product.url, "chatbot_active_answers") == 0


async def test_with_every_model_away_the_passages_themselves_answer(product: Product, fault_round: int) -> None:
    async with product.telling(dead=True), product.client(f"faulted-{fault_round}") as http:
        began = time.monotonic()
        events = await product.ask(http, unasked(fault_round))
        took = time.monotonic() - began
    assert took < patient(2.5), f"{took:.2f} s"
    done = end_of(events)
    assert done.field("finish_reason") == "handoff"
    assert notice_codes(events) == ["degraded"]
    assert [event for event in events if event.name == "citation"], "quoted passages are cited"
    assert "1599-0000" in text_of(events)
    async with product.client(f"faulted-{fault_round}") as http:
        await until(lambda: _answered(product, http), 15)


async def _answered(product: Product, http: httpx2.AsyncClient) -> bool:
    return end_of(await product.ask(http, KOREAN)).field("finish_reason") == "stop"


async def test_a_model_that_dies_mid_answer_ends_the_stream_honestly(product: Product, fault_round: int) -> None:
    async with product.telling(drop_after=12, token_seconds=0.01), product.client(f"cut-{fault_round}") as http:
        events = await product.ask(http, unasked(fault_round))
    end = end_of(events)
    if end.name == "error":
        assert end.field("code") == "model_unavailable"
        assert "1599-0000" in str(end.field("handoff"))
    else:
        assert end.field("finish_reason") == "handoff"
    async with product.client(f"cut-{fault_round}") as http:
        await until(lambda: _answered(product, http), 15)


@pytest.mark.parametrize("first_token_seconds", [0.0, 30.0], ids=["mid-stream", "before the first token"])
async def test_a_customer_who_leaves_a_stream_stops_the_model_after_the_grace(
    leaving: Product, fault_round: int, first_token_seconds: float
) -> None:
    async with leaving.telling(
        first_token_seconds=first_token_seconds, token_seconds=0.05, answer="이자는 연 0.5%입니다. " * 100, probe=0.99
    ):
        who = f"leaver-{fault_round}-{first_token_seconds}"
        async with leaving.client(who) as http:
            before = (await http.get("/v1/limits")).json()
            async with http.stream("POST", "/v1/chat", json={"message": KOREAN}) as response:
                async for event in read_events(response):
                    if event.name == ("token" if first_token_seconds == 0 else "sources"):
                        answer_id = event.answer_id
                        break
            left = time.monotonic()
            await until(lambda: none_active(leaving), 1.0 + 2.0)
            assert time.monotonic() - left >= 0.5, "the grace is kept"
            await until(leaving.idle, 0.5)
            async with http.stream("GET", f"/v1/answers/{answer_id}/events") as response:
                replayed = [event async for event in read_events(response)]
            assert end_of(replayed).field("finish_reason") == "cancelled"
            after = (await http.get("/v1/limits")).json()
            assert after["remaining_slots"] == before["remaining_slots"]


async def test_a_customer_who_comes_back_within_the_grace_misses_nothing(leaving: Product, fault_round: int) -> None:
    async with leaving.telling(token_seconds=0.02, probe=0.99), leaving.client(f"returner-{fault_round}") as http:
        seen: list[SentEvent] = []
        async with http.stream("POST", "/v1/chat", json={"message": KOREAN}) as response:
            async for event in read_events(response):
                seen.append(event)
                if len(seen) == 2:
                    break
        answer_id = seen[-1].answer_id
        address = f"/v1/answers/{answer_id}/events"
        async with http.stream("GET", address, headers={"last-event-id": seen[-1].id}) as response:
            seen += [event async for event in read_events(response)]
    assert [event.id for event in seen] == [f"{answer_id}.{n}" for n in range(1, len(seen) + 1)]
    assert end_of(seen).field("finish_reason") == "stop"


async def test_a_customer_who_leaves_a_call_without_stream_stops_the_model_at_once(
    product: Product, fault_round: int
) -> None:
    async with product.telling(first_token_seconds=30, probe=0.99), product.client(f"hanging-{fault_round}") as http:
        with contextlib.suppress(httpx2.TimeoutException):
            await http.post("/v1/chat", json={"message": KOREAN, "stream": False}, timeout=0.7)
        await until(product.idle, 0.5)
        await until(lambda: none_active(product), 1.0)


async def test_a_customer_who_stops_reading_harms_nobody_else(product: Product, fault_round: int) -> None:
    host, _, port = product.url.removeprefix("http://").partition(":")
    body = json.dumps({"message": KOREAN}).encode()
    token = product.token(f"deaf-{fault_round}")
    head = f"POST /v1/chat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n"
    with socket.create_connection((host, int(port))) as deaf:
        deaf.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        async with product.client(f"other-{fault_round}") as http:
            assert end_of(await product.ask(http, KOREAN)).field("finish_reason") == "stop"


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that may be stopped."""
    with redis_server(tmp_path_factory.mktemp("redis"), *NOT_DURABLE) as redis:
        yield redis


@pytest.fixture(scope="module")
def leaving(tmp_path_factory: pytest.TempPathFactory, own_redis: RedisServer) -> Iterator[Product]:
    """A product with a short grace, so that abandonment is seen soon."""
    folder = tmp_path_factory.mktemp("leaving")
    with scripted_model(folder) as model, served(folder, own_redis.url, model, ANSWERS__GRACE="1") as running:
        yield running


async def test_with_redis_hung_an_answer_has_a_notice_and_no_history(
    leaving: Product, own_redis: RedisServer, fault_round: int
) -> None:
    async with leaving.client(f"hung-{fault_round}") as http:
        assert end_of(await leaving.ask(http, KOREAN)).field("finish_reason") == "stop"
        own_redis.signal(signal.SIGSTOP)
        try:
            events = await leaving.ask(http, KOREAN)
            refused = await http.get("/v1/conversations")
        finally:
            own_redis.signal(signal.SIGCONT)
        assert end_of(events).field("finish_reason") == "stop"
        codes = set(notice_codes(events))
        assert codes == {"history_unavailable", "degraded"}
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
        await until(lambda: _without_notice(leaving, http), 5)


async def _without_notice(product: Product, http: httpx2.AsyncClient) -> bool:
    return not [event for event in await product.ask(http, KOREAN) if event.name == "notice"]


async def test_sigterm_lets_a_running_answer_end(tmp_path: Path, redis_url: str) -> None:
    with scripted_model(tmp_path) as model, served(tmp_path, redis_url, model) as product:
        await product.tell(token_seconds=0.03, probe=0.99)
        async with product.client("patient") as http:
            events: list[SentEvent] = []
            async with http.stream("POST", "/v1/chat", json={"message": KOREAN}) as response:
                async for event in read_events(response):
                    events.append(event)
                    if event.name == "sources":
                        product.process.send_signal(signal.SIGTERM)
                        await until(lambda: _draining(product), 2)
            assert end_of(events).field("finish_reason") == "stop"
        await until(lambda: product.process.poll() is not None, 10)
        assert product.process.returncode == 0


async def _readiness(product: Product, status: int) -> bool:
    async with httpx2.AsyncClient() as http:
        reply = await http.get(f"{product.url}/readyz")
    return (reply.status_code, reply.json()["sql"]) == (status, "ok" if status == 200 else "unavailable")


async def _draining(product: Product) -> bool:
    async with httpx2.AsyncClient() as http:
        reply = await http.get(f"{product.url}/readyz")
    return reply.status_code == 503 and reply.json()["status"] == "draining"


@contextlib.contextmanager
def sql_locked(product: Product) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(product.database, timeout=10, isolation_level=None)) as sql:
        sql.execute("BEGIN EXCLUSIVE")
        yield
        sql.execute("ROLLBACK")


@contextlib.contextmanager
def disk_full(product: Product) -> Iterator[None]:
    """Let no file of the process be written: it fails as on a full disk."""
    _, hard = resource.prlimit(product.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(product.process.pid, resource.RLIMIT_FSIZE, (0, hard))
    yield
    resource.prlimit(product.process.pid, resource.RLIMIT_FSIZE, (hard, hard))


@contextlib.contextmanager
def index_lost(product: Product) -> Iterator[None]:
    (product.data / "qdrant").rename(product.data / "elsewhere")
    yield
    (product.data / "elsewhere").rename(product.data / "qdrant")


ASKED = [(KOREAN, "상담원"), (ENGLISH, "call 1599")]


@pytest.mark.parametrize(("question", "expected"), ASKED)
async def test_without_the_index_a_customer_reads_a_hand_off_in_their_language(
    leaving: Product, fault_round: int, question: str, expected: str
) -> None:
    async with leaving.client(f"unfound-{fault_round}") as http:
        with index_lost(leaving):
            began = time.monotonic()
            events = await leaving.ask(http, question)
            took = time.monotonic() - began
        done = end_of(events)
        assert (done.field("finish_reason"), done.field("grounded")) == ("handoff", False)
        assert expected in text_of(events)
        assert "1599-0000" in text_of(events)
        assert took < patient(2), f"{took:.2f} s"
        await until(lambda: _answered(leaving, http), 5)


@pytest.mark.parametrize("fault", [sql_locked, disk_full])
@pytest.mark.parametrize(("question", "expected"), ASKED)
async def test_with_sql_locked_or_full_a_customer_reads_a_hand_off(
    leaving: Product,
    fault_round: int,
    question: str,
    expected: str,
    fault: Callable[[Product], AbstractContextManager[None]],
) -> None:
    who = f"unaudited-{fault_round}"
    with fault(leaving):
        await until(lambda: _readiness(leaving, 503), 5)
        async with leaving.client(who) as http:
            began = time.monotonic()
            refused = await http.post("/v1/chat", json={"message": question})
            took = time.monotonic() - began
            openai = await http.post(
                "/v1/chat/completions",
                json={"model": "scripted", "messages": [{"role": "user", "content": question}]},
            )
    assert (refused.status_code, refused.json()["code"]) == (503, "audit_unavailable")
    assert expected in refused.json()["handoff"]
    assert "1599-0000" in refused.json()["handoff"]
    assert expected in openai.json()["error"]["message"]
    assert took < patient(2), f"{took:.2f} s"
    await until(lambda: _readiness(leaving, 200), 5)
    async with leaving.client(who) as http:
        assert end_of(await leaving.ask(http, question)).name == "done", "it heals by itself"
