"""Connections that keep the service busy without a request are closed; others are answered meanwhile."""

import socket
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketStream
from fastapi import FastAPI, Request

from edge import bind, listening
from edge.connection_limits import ConnectionLimits
from tests.conftest import free_port

pytestmark = pytest.mark.anyio

LIMITS = ConnectionLimits(head_bytes=4096, head_seconds=0.3, body_bytes=1000, body_seconds=0.3, connections=20)
GOOD = b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"


def measuring_app() -> FastAPI:
    app = FastAPI()

    @app.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    return app


@asynccontextmanager
async def served(limits: ConnectionLimits = LIMITS) -> AsyncGenerator[int]:
    port = free_port()
    with bind("127.0.0.1", port) as bound:
        async with listening(measuring_app(), bound, limits=limits):
            yield port


async def all_of(stream: SocketStream) -> bytes:
    """Return what the server sends until it closes the connection; a reset is an end too."""
    reply = b""
    with anyio.fail_after(20):
        try:
            while True:
                reply += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return reply


async def sent(port: int, parts: Iterable[bytes], *, pause: float = 0.0) -> bytes:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        try:
            for part in parts:
                await stream.send(part)
                await anyio.sleep(pause)
        except anyio.BrokenResourceError:  # closed while we were still sending
            pass
        return await all_of(stream)


async def asked(port: int) -> bytes:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(GOOD)
        with anyio.fail_after(20):
            return await stream.receive()


def trickled(text: bytes) -> Iterable[bytes]:
    return (text[n : n + 1] for n in range(len(text)))


HEAD = b"POST /length HTTP/1.1\r\nhost: x\r\n"


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"x: " + b"a" * 200_000,
        HEAD + b"".join(b"x%d: a\r\n" % n for n in range(20_000)),
        b"POST /" + b"a" * 200_000,
        HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\ntrailer: " + b"a" * 200_000,
        HEAD + b"transfer-encoding: chunked\r\n\r\n1;" + b"a" * 200_000,
    ],
    ids=["one long header", "many headers", "a long address", "a trailer", "a chunk's extension"],
)
async def test_a_head_that_does_not_end_is_refused(head: bytes) -> None:
    async with served() as port:
        reply = await sent(port, [head])
        assert not reply or reply.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))
        assert b" 200 OK" in await asked(port)


@pytest.mark.parametrize(
    ("begun", "rest"),
    [(b"", b""), (HEAD, b"x: " + b"a" * 60), (HEAD + b"content-length: 500\r\n\r\n", b"a" * 60)],
    ids=["nothing", "a head", "a body"],
)
async def test_a_request_that_trickles_is_closed(begun: bytes, rest: bytes) -> None:
    async with served() as port:
        began = time.monotonic()
        reply = await sent(port, [begun, *trickled(rest)] if begun else [], pause=0.1)
        assert not reply or reply.startswith(b"HTTP/1.1 408"), "what was sent after the end may have cost the reply"
        assert time.monotonic() - began < 5, "sent to its end it takes longer"


async def test_a_slow_body_that_comes_on_is_read_whatever_time_it_takes() -> None:
    body = [b"a" * 500] * 10
    async with served() as port:
        head = HEAD + b"content-length: 5000\r\nconnection: close\r\n\r\n"
        reply = await sent(port, [head, *body], pause=0.1)
    assert b" 200 OK" in reply
    assert reply.endswith(b"5000")


async def test_a_body_in_chunks_of_one_byte_is_read() -> None:
    head = HEAD + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    async with served() as port:
        reply = await sent(port, [head + b"1\r\na\r\n" * 5000 + b"0\r\n\r\n"])
    assert reply.endswith(b"5000")


async def test_idle_connections_in_any_number_leave_room_for_a_customer() -> None:
    idle: list[socket.socket] = []
    limits = ConnectionLimits(head_seconds=30, connections=20)
    try:
        async with served(limits) as port:
            for _ in range(200):
                idle.append(socket.create_connection(("127.0.0.1", port)))
                await anyio.lowlevel.checkpoint()
            began = time.monotonic()
            assert b" 200 OK" in await asked(port)
            assert time.monotonic() - began < 5
    finally:
        for one in idle:
            one.close()


async def test_requests_that_follow_on_one_connection_each_have_their_own_limits() -> None:
    async with served() as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        for _ in range(60):  # more than one head may have
            await stream.send(GOOD)
            reply = b""
            with anyio.fail_after(20):
                while not reply.endswith(b"\r\n\r\n5"):
                    reply += await stream.receive()
            assert b" 200 OK" in reply
