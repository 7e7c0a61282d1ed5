"""Connections that occupy the service without a request are closed, while others are answered."""

import select
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream
from fastapi import FastAPI, Request, Response

from edge import ServerTlsSettings, bind, listening
from edge.connection_limits import ConnectionLimits, LimitedConnection
from tests.certificates import certificates
from tests.conftest import free_port

pytestmark = pytest.mark.anyio

LONG = 32 * 2**20
"""The bytes of a reply that exceeds the kernel's buffer for a client that does not read."""
LIMITS = ConnectionLimits(
    head_bytes=4096,
    head_seconds=0.3,
    body_bytes=1000,
    body_seconds=0.3,
    reply_seconds=0.3,
    stalled_seconds=0.1,
    connections=20,
)
GOOD = b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"


def measuring_app() -> FastAPI:
    app = FastAPI()

    @app.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    @app.post("/late")
    async def late() -> None:
        await anyio.sleep(3 * max(LIMITS.head_seconds, LIMITS.body_seconds))

    @app.get("/long")
    async def long() -> Response:
        return Response(bytes(LONG))

    return app


@dataclass(frozen=True)
class Served:
    """A server with limits, and its clients' connection settings."""

    port: int
    tls: ssl.SSLContext | None

    async def connect(self) -> ByteStream:
        wire = await anyio.connect_tcp("127.0.0.1", self.port)
        if self.tls is None:
            return wire
        try:
            return await TLSStream.wrap(wire, hostname="127.0.0.1", ssl_context=self.tls, standard_compatible=False)
        except BaseException:
            await wire.aclose()
            raise


Serve = Callable[..., AbstractAsyncContextManager[Served]]


OVER_TLS_TOO = pytest.mark.parametrize("served", ["plain text", "TLS"], indirect=True)


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    certificate, tls = ServerTlsSettings(), None
    if getattr(request, "param", "plain text") == "TLS":
        folder = certificates(tmp_path_factory.mktemp("authority"))
        certificate = ServerTlsSettings(cert_file=folder / "server.pem", key_file=folder / "server.key")
        tls = ssl.create_default_context(cafile=folder / "ca.pem")

    @asynccontextmanager
    async def serve(limits: ConnectionLimits = LIMITS) -> AsyncGenerator[Served]:
        port = free_port()
        with bind("127.0.0.1", port) as bound:
            async with listening(measuring_app(), bound, limits=limits, certificate=certificate):
                yield Served(port, tls)

    return serve


async def all_of(stream: ByteStream) -> bytes:
    """Return the data that the server sends before it closes or resets the connection."""
    reply = b""
    with anyio.fail_after(20):
        try:
            while True:
                reply += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return reply


async def sent(there: Served, parts: Iterable[bytes], *, pause: float = 0.0) -> bytes:
    async with await there.connect() as stream:
        try:
            for part in parts:
                await stream.send(part)
                await anyio.sleep(pause)
        except anyio.BrokenResourceError:  # closed while we were still sending
            pass
        return await all_of(stream)


async def answer_of(there: Served) -> bytes:
    async with await there.connect() as stream:
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
async def test_a_head_that_does_not_end_is_refused(served: Serve, head: bytes) -> None:
    async with served() as there:
        reply = await sent(there, [head])
        assert not reply or reply.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))
        assert b" 200 OK" in await answer_of(there)


def head_of(size: int) -> bytes:
    begin, end = HEAD + b"content-length: 0\r\nconnection: close\r\nx: ", b"\r\n\r\n"
    return begin + b"a" * (size - len(begin) - len(end)) + end


@pytest.mark.parametrize("before", [b"", HEAD + b"content-length: 0\r\n\r\n"], ids=["first", "pipelined"])
@pytest.mark.parametrize(("more", "status"), [(-600, b"200"), (600, b"431")])
async def test_a_head_longer_than_the_limit_is_refused(served: Serve, before: bytes, more: int, status: bytes) -> None:
    async with served() as there:
        reply = await sent(there, [before + head_of(LIMITS.head_bytes + more)])
    assert reply.split(b"HTTP/1.1 ")[-1].startswith(status)


@pytest.mark.parametrize(
    ("begun", "rest"),
    [(b"", b""), (HEAD, b"x: " + b"a" * 60), (HEAD + b"content-length: 500\r\n\r\n", b"a" * 60)],
    ids=["nothing", "a head", "a body"],
)
@OVER_TLS_TOO
async def test_a_request_that_trickles_is_closed(served: Serve, begun: bytes, rest: bytes) -> None:
    async with served() as there:
        began = time.monotonic()
        reply = await sent(there, [begun, *trickled(rest)] if begun else [], pause=0.1)
        assert not reply or reply.startswith(b"HTTP/1.1 408"), "what was sent after the end may have cost the reply"
        assert time.monotonic() - began < 5, "sent to its end it takes longer"


async def test_a_slow_body_that_continues_is_read(served: Serve) -> None:
    body = [b"a" * 500] * 10
    async with served() as there:
        head = HEAD + b"content-length: 5000\r\nconnection: close\r\n\r\n"
        reply = await sent(there, [head, *body], pause=0.1)
    assert b" 200 OK" in reply
    assert reply.endswith(b"5000")


async def test_a_body_in_chunks_of_one_byte_is_read(served: Serve) -> None:
    head = HEAD + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    async with served() as there:
        reply = await sent(there, [head + b"1\r\na\r\n" * 5000 + b"0\r\n\r\n"])
    assert reply.endswith(b"5000")


def is_closed(wire: socket.socket) -> bool:
    """Return whether the other end has closed the connection, after at most a refusal."""
    wire.settimeout(0)
    try:
        while wire.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


@OVER_TLS_TOO
async def test_idle_connections_make_room_for_a_customer(served: Serve) -> None:
    idle: list[socket.socket] = []
    limits = ConnectionLimits(head_seconds=30, connections=20)
    try:
        async with served(limits) as there:
            for _ in range(200):
                idle.append(socket.create_connection(("127.0.0.1", there.port)))
                await anyio.lowlevel.checkpoint()
            began = time.monotonic()
            assert b" 200 OK" in await answer_of(there)
            assert time.monotonic() - began < 5
            with anyio.fail_after(10):  # each counts from its first byte
                while sum(map(is_closed, idle)) < len(idle) - limits.connections:
                    await anyio.sleep(0.02)
    finally:
        for one in idle:
            one.close()


async def test_each_request_of_a_connection_has_its_own_limits(served: Serve) -> None:
    async with served() as there, await there.connect() as stream:
        for _ in range(60):  # more than one head's limit
            await stream.send(GOOD)
            reply = b""
            with anyio.fail_after(20):
                while not reply.endswith(b"\r\n\r\n5"):
                    reply += await stream.receive()
            assert b" 200 OK" in reply


LONG_REQUEST = b"GET /long HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


async def broken_off(stream: ByteStream) -> None:
    """Wait until the server has aborted a connection whose client does not read."""
    states = select.poll()
    states.register(stream.extra(SocketAttribute.raw_socket), 0)  # noqa: S610  no database
    with anyio.fail_after(20):
        while not states.poll(0):  # errors are always reported
            await anyio.sleep(0.02)


@OVER_TLS_TOO
async def test_an_unread_reply_is_dropped(served: Serve) -> None:
    async with served() as there, await there.connect() as stream:
        await stream.send(LONG_REQUEST)
        await broken_off(stream)
        assert b" 200 OK" in await answer_of(there)


async def test_a_slowly_read_reply_is_sent_completely(served: Serve) -> None:
    async with served() as there, await there.connect() as stream:
        await stream.send(LONG_REQUEST)
        with anyio.fail_after(60):
            for _ in range(16):
                taken = 0
                while taken < LONG // 16:
                    taken += len(await stream.receive(LONG // 16 - taken))
                await anyio.sleep(0.05)


@OVER_TLS_TOO
async def test_unread_replies_make_room_for_a_customer(served: Serve) -> None:
    limits = ConnectionLimits(reply_seconds=60, stalled_seconds=0.2, connections=5)
    async with served(limits) as there, AsyncExitStack() as open_ones:
        stalled = [await open_ones.enter_async_context(await there.connect()) for _ in range(limits.connections)]
        for stream in stalled:
            await stream.send(LONG_REQUEST)
            assert b" 200 OK" in await stream.receive(100)
        with anyio.fail_after(20):
            while not await let_in(there):
                await anyio.sleep(0.05)


@OVER_TLS_TOO
async def test_a_connection_closed_twice_is_reset(served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[LimitedConnection] = []
    complete = LimitedConnection.on_response_complete

    def record(connection: LimitedConnection) -> None:
        made.append(connection)
        complete(connection)

    monkeypatch.setattr(LimitedConnection, "on_response_complete", record)
    limits = ConnectionLimits(reply_seconds=0.2, stalled_seconds=0.1)
    async with served(limits) as there, await there.connect() as stream:
        await stream.send(LONG_REQUEST)
        with anyio.fail_after(20):
            while not made:
                await anyio.sleep(0.01)
            made[0].transport.close()
            made[0].transport.close()
            while made[0] in made[0].connections:
                await anyio.sleep(0.01)


async def let_in(there: Served) -> bool:
    """Return whether the server answers a new connection."""
    try:
        return b" 200 OK" in await answer_of(there)
    except (anyio.EndOfStream, anyio.BrokenResourceError, ConnectionError):  # with TLS there is no status
        return False


@OVER_TLS_TOO
async def test_a_slowly_read_reply_makes_no_room(served: Serve) -> None:
    limits = ConnectionLimits(stalled_seconds=0.5, connections=1)
    async with served(limits) as there, await there.connect() as stream:
        await stream.send(LONG_REQUEST)
        taken = 0
        with anyio.fail_after(60):
            for part in range(1, 4):  # the kernel may have buffered the rest
                while taken < part * LONG // 8:
                    taken += len(await stream.receive(LONG // 8))
                assert not await let_in(there)
            while taken < LONG:
                taken += len(await stream.receive())


async def test_pipelined_requests_are_bounded(served: Serve) -> None:
    async with served() as there:
        few = await sent(there, [GOOD * 20 + GOOD.replace(b"host: x", b"host: x\r\nconnection: close")])
        flood = await sent(there, [GOOD * 5000])
    assert few.count(b" 200 OK") == 21
    assert flood.count(b" 200 OK") <= LIMITS.pipelined


@pytest.mark.parametrize(
    "body",
    [b"content-length: 5\r\n\r\nhello", b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
    ids=["of a known length", "in chunks"],
)
@pytest.mark.parametrize("cut", [1, 20, 70, 130, 1000])
async def test_a_request_for_an_upgrade_is_answered_without_it(served: Serve, body: bytes, cut: int) -> None:
    """Java's own client sends these headers with its first request (RFC 9110, 7.8: they may be ignored)."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\nUpgrade: h2c\r\n"
    asks = HEAD + upgrade + body
    async with served() as there, await there.connect() as stream:
        for _ in range(2):
            await stream.send(asks[:cut])
            await anyio.lowlevel.checkpoint()
            await stream.send(asks[cut:] or b"")
            reply = b""
            with anyio.fail_after(20):
                while not reply.endswith(b"\r\n\r\n5"):
                    reply += await stream.receive()
            assert b" 200 OK" in reply
