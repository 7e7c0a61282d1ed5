"""The connection that appends: replies in order, a broken or hung one is left behind, on a Redis of its own."""

import asyncio
import signal
from collections.abc import AsyncGenerator

import anyio
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from chatbot.errors import StoreUnavailable
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings, open_redis
from chatbot.streams.pipelined_connection import PipelinedConnection, open_pipelined_connection
from tests.conftest import RedisServer

pytestmark = pytest.mark.anyio

ECHO = "redis.call('INCR', KEYS[1]) return ARGV[1]"
FAULTY = "return redis.call('INCR', 'no', 'number')"
ROUNDS = 200
PATIENT = 5.0


@pytest.fixture
async def client(server: RedisServer) -> AsyncGenerator[Redis]:
    async with open_redis(server.url) as client:
        yield client


@pytest.fixture
async def pipelined(client: Redis) -> AsyncGenerator[PipelinedConnection]:
    async with open_pipelined_connection(client, slow_after=PATIENT) as pipelined:
        yield pipelined


async def opened(client: Redis) -> int:
    """Return how many connections Redis has seen."""
    return int((await client.info("stats"))["total_connections_received"])


async def test_everybody_gets_their_own_reply(client: Redis, pipelined: PipelinedConnection) -> None:
    echo, faulty = client.register_script(ECHO), client.register_script(FAULTY)
    replies: dict[int, object] = {}

    async def ask(n: int) -> None:
        try:
            replies[n] = await pipelined.run(echo if n % 5 else faulty, ["n"], [n])
        except ResponseError as refused:
            replies[n] = refused

    async with asyncio.TaskGroup() as tasks:
        for n in range(ROUNDS):
            tasks.create_task(ask(n))
    for n, reply in replies.items():
        assert reply == str(n).encode() if n % 5 else isinstance(reply, ResponseError)
    assert len(replies) == ROUNDS
    assert len([entry for entry in await client.client_list() if entry["cmd"].startswith("eval")]) == 1


async def test_a_cancelled_call_shifts_no_reply(
    server: RedisServer, client: Redis, pipelined: PipelinedConnection
) -> None:
    echo, replies = client.register_script(ECHO), list[object]()
    await pipelined.run(echo, ["n"], ["first"])
    connections = await opened(client)

    async def ask(word: str) -> None:
        replies.append(await pipelined.run(echo, ["n"], [word]))

    server.signal(signal.SIGSTOP)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask(word)) for word in ("one", "two", "three")]
        await anyio.sleep(0.05)
        asked[1].cancel()
        server.signal(signal.SIGCONT)
    assert replies == [b"one", b"three"]
    assert await client.get("n") == b"4", "what nobody waits for is done all the same"
    assert await opened(client) == connections


async def test_a_lost_script_is_sent_again(server: RedisServer, client: Redis, pipelined: PipelinedConnection) -> None:
    echo = client.register_script(ECHO)
    assert await pipelined.run(echo, ["n"], ["a"]) == b"a"
    server.restart()
    assert await pipelined.run(echo, ["n"], ["b"]) == b"b"
    await client.script_flush()
    assert await pipelined.run(echo, ["n"], ["c"]) == b"c"


async def test_a_hung_connection_leaves_no_reply_to_the_next(server: RedisServer, client: Redis) -> None:
    async with open_pipelined_connection(client, slow_after=0.2) as pipelined:
        echo = client.register_script(ECHO)
        await pipelined.run(echo, ["n"], ["a"])
        connections = await opened(client)
        server.signal(signal.SIGSTOP)
        began = anyio.current_time()
        with pytest.raises(RedisConnectionError):
            await pipelined.run(echo, ["n"], ["late"])
        assert anyio.current_time() - began < PATIENT
        server.signal(signal.SIGCONT)
        assert await pipelined.run(echo, ["n"], ["next"]) == b"next"
        assert await opened(client) > connections


async def test_a_demoted_redis_is_left_though_it_answers_a_ping(client: Redis, pipelined: PipelinedConnection) -> None:
    echo, breaker = client.register_script(ECHO), RedisBreaker(RedisBreakerSettings(), ping=client.ping)
    assert await pipelined.run(echo, ["n"], [1]) == b"1"
    await client.replicaof("127.0.0.1", "1")
    connections = await opened(client)
    with pytest.raises(StoreUnavailable):
        await breaker.call(lambda: pipelined.run(echo, ["n"], [2]))
    assert breaker.is_open
    assert await opened(client) > connections, "another connection may lead to the master"
    await client.replicaof("NO", "ONE")
    assert await pipelined.run(echo, ["n"], [3]) == b"3"


async def test_it_uses_the_clients_credentials_name_and_database(server: RedisServer) -> None:
    async with open_redis(server.url) as admin:
        await admin.acl_setuser("bank", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@all"])
        url = server.url.replace("//", "//bank:secret@").replace("/0", "/3?client_name=appends")
        async with open_redis(url) as client, open_pipelined_connection(client, slow_after=PATIENT) as pipelined:
            assert await pipelined.run(client.register_script(ECHO), ["n"], ["a"]) == b"a"
            assert await client.get("n") == b"1"
            [own] = [entry for entry in await admin.client_list() if entry["cmd"].startswith("eval")]
        assert (own["user"], own["name"], own["db"]) == ("bank", "appends", "3")
