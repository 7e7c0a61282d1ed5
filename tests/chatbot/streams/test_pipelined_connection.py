"""The connection that appends: replies in order, a broken or hung one is left behind, on a Redis of its own."""

import asyncio
import signal
from collections.abc import AsyncGenerator

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from chatbot.redis_client import RedisSettings, open_redis
from chatbot.streams.pipelined_connection import PipelinedConnection, open_pipelined_connection
from tests.chatbot.test_redis_outage import Server, server
from tests.conftest import free_port

__all__ = ["server"]
pytestmark = pytest.mark.anyio

ECHO = "redis.call('INCR', KEYS[1]) return ARGV[1]"
FAULTY = "return redis.call('INCR', 'no', 'number')"
ROUNDS = 200
WITHIN = 5.0


@pytest.fixture
async def client(server: Server) -> AsyncGenerator[Redis]:
    async with open_redis(server.url, RedisSettings()) as client:
        yield client


@pytest.fixture
async def line(client: Redis) -> AsyncGenerator[PipelinedConnection]:
    async with open_pipelined_connection(client) as line:
        yield line


async def test_everybody_gets_their_own_reply_also_beside_refusals(client: Redis, line: PipelinedConnection) -> None:
    echo, faulty = client.register_script(ECHO), client.register_script(FAULTY)
    said: dict[int, object] = {}

    async def ask(n: int) -> None:
        try:
            said[n] = await line.run(echo if n % 5 else faulty, ["n"], [n], within=WITHIN)
        except ResponseError as refused:
            said[n] = refused

    async with asyncio.TaskGroup() as tasks:
        for n in range(ROUNDS):
            tasks.create_task(ask(n))
    for n, reply in said.items():
        assert reply == str(n).encode() if n % 5 else isinstance(reply, ResponseError)
    assert len(said) == ROUNDS
    assert len([entry for entry in await client.client_list() if entry["cmd"] == "evalsha"]) == 1


async def test_a_script_that_redis_has_forgotten_is_loaded_again(client: Redis, line: PipelinedConnection) -> None:
    echo = client.register_script(ECHO)
    assert await line.run(echo, ["n"], ["a"], within=WITHIN) == b"a"
    await client.script_flush()
    assert await line.run(echo, ["n"], ["b"], within=WITHIN) == b"b"


async def test_a_restarted_redis_is_found_again_at_once(
    server: Server, client: Redis, line: PipelinedConnection
) -> None:
    echo = client.register_script(ECHO)
    await line.run(echo, ["n"], ["a"], within=WITHIN)
    server.restart()
    assert await line.run(echo, ["n"], ["b"], within=WITHIN) == b"b"


async def test_who_gives_up_on_a_hung_redis_leaves_no_reply_to_the_next(
    server: Server, client: Redis, line: PipelinedConnection
) -> None:
    echo = client.register_script(ECHO)
    await line.run(echo, ["n"], ["a"], within=WITHIN)
    server.signal(signal.SIGSTOP)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(line.run(echo, ["n"], ["beside it"], within=WITHIN))
        with pytest.raises(TimeoutError):
            await line.run(echo, ["n"], ["late"], within=0.1)
        server.signal(signal.SIGCONT)
    assert waiting.result() == b"beside it", "it is asked again on the next connection"
    assert await line.run(echo, ["n"], ["next"], within=WITHIN) == b"next"


async def test_without_redis_it_says_so() -> None:
    nowhere = Redis.from_url(f"redis://127.0.0.1:{free_port()}/0")
    async with open_pipelined_connection(nowhere) as line:
        with pytest.raises((RedisError, OSError)):
            await line.run(nowhere.register_script(ECHO), ["n"], ["a"], within=WITHIN)
    await nowhere.aclose()
