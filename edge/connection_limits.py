"""Limits of each connection before anybody has shown a token: bytes and seconds of a request's head, a body that stands
still, a reply that nobody takes, requests that wait for their turn, and the number of connections.

uvicorn has none of these: a head of any length would be held in memory, for as long as its sender likes. Nor does it
count a connection whose TLS handshake does not end: here it is one of all from its first byte, and the handshake's time
is a part of the head's.

A request that asks for another protocol (`Upgrade: h2c`, as Java's client does) is answered as if it did not, which RFC
9110, 7.8 permits; uvicorn would lose its content.
"""

import asyncio
import fcntl
import resource
import socket
import ssl
import struct
import sys
import termios
import types
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_MOST_CONNECTIONS: Final = 12_000  # more than one process has readers
_MOST_FILES: Final = 65_536  # connections, and for each answer one to its model and one to Redis, with room
_SHARE_OF_FILES: Final = 0.75
_PIECE_BYTES: Final = 16 * 1024
_HEAD_PIECE_BYTES: Final = 512
# A body in chunks of a byte has five bytes of framing for each; trailers count as a head does.
_FRAMING: Final = 8
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 s


def allow_files() -> None:
    """Let this process open as many files as it may allow itself: many machines give it 1,024 to begin with.

    Customers' connections would leave too few of those for the models and Redis.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, _MOST_FILES) if hard > 0 else _MOST_FILES
    if 0 < soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """Return how many connections a process may hold: most of its files, the rest is for stores and models."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_MOST_CONNECTIONS, int(soft * _SHARE_OF_FILES)) if soft > 0 else _MOST_CONNECTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """The most bytes of a head, the seconds that it may take, and those in which a body must bring `body_bytes`.

    A reply of which nothing is taken in `reply_seconds` is given up, and after `stalled_seconds` already where another
    connection needs its room. Where more than `pipelined` requests wait for their turn, nothing behind them is read.
    """

    head_bytes: int = 32 * 1024
    head_seconds: float = 10.0
    body_bytes: int = 10 * 1024
    body_seconds: float = 10.0
    reply_seconds: float = 120.0
    stalled_seconds: float = 5.0
    pipelined: int = 32
    connections: int = _MOST_CONNECTIONS


Handshake = Coroutine[object, None, asyncio.Transport | None]


@types.coroutine
def _continued(begun: Handshake, waits_for: object) -> Generator[object, None, asyncio.Transport | None]:
    """Await a coroutine that was begun by hand and waits for something."""
    while True:
        yield waits_for
        try:
            waits_for = begun.send(None)
        except StopIteration as ended:
            encrypted: asyncio.Transport | None = ended.value
            return encrypted


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's connection, closed where its client keeps it open without a request."""

    def __init__(self, *args: Any, limits: ConnectionLimits, tls: ssl.SSLContext | None = None, **more: Any) -> None:
        super().__init__(*args, **more)
        self._limits = limits
        self._tls = tls
        self._handshake: asyncio.Task[None] | None = None
        self._early = b""
        self._wire: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self.opened_at = self.loop.time()
        self._in_head = True
        self._fed = self._body = self._body_before = 0
        self._reply_timer: asyncio.TimerHandle | None = None
        self._unacked = 0
        self._taken_at = self.opened_at
        self._running: RequestResponseCycle | None = None
        self._is_deaf = False

    @property
    def waits(self) -> bool:
        """Whether the client has no request here, so that nobody answers it now, and it is not being closed."""
        answered = self.cycle is None or self.cycle.response_complete
        # One that is closing is still among the connections: of many that come at once each must close another.
        return self._in_head and answered and not self.transport.is_closing()

    @property
    def _stands(self) -> bool:
        """Whether what was sent waits for the client to take it, so that nothing is written."""
        is_full = self.flow is not None and self.flow.write_paused
        return is_full or (self.transport.is_closing() and self._untaken > 0)

    @property
    def stalled_for(self) -> float:
        """For how many seconds the client has taken nothing of what waits for it; 0 where nothing waits."""
        return self.loop.time() - self._taken_at if self._reply_timer is not None and self._stands else 0.0

    @property
    def _untaken(self) -> int:
        """How many bytes wait here for the client; a close of TLS waits for what the wire below still has."""
        try:
            above = 0 if self._wire is self.transport else self.transport.get_write_buffer_size()
        except AttributeError:  # asyncio's TLS transport drops its buffer when it is closed a second time
            above = 0
        return above + self._wire.get_write_buffer_size()

    def _unacknowledged(self) -> int:
        """Return how many bytes the client has not taken, with those in the kernel, which has megabytes for each."""
        in_kernel = fcntl.ioctl(self._wire.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4))
        return self._untaken + int.from_bytes(in_kernel, sys.byteorder)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self._wire = transport
        if self._tls is None:
            super().connection_made(transport)
        else:
            transport.pause_reading()
            self.transport = transport
            self.connections.add(self)
            # Begun here: a task begins after uvloop's first read, whose bytes would be no longer the handshake's.
            handshake = self.loop.start_tls(
                transport, self, self._tls, server_side=True, ssl_handshake_timeout=self._limits.head_seconds
            )
            self._handshake = self.loop.create_task(self._shake_hands(transport, handshake, handshake.send(None)))
        self._begin_head()
        if len(self.connections) > self._limits.connections:
            self._make_room()

    async def _shake_hands(self, plain: asyncio.Transport, handshake: Handshake, waits_for: object) -> None:
        """Encrypt the connection, and let the request begin that may have come with the end of the handshake."""
        try:
            encrypted = await _continued(handshake, waits_for)
        except (OSError, RuntimeError):  # no TLS, none in time, a certificate that is not let in; closed meanwhile
            encrypted = None
        self._handshake = None
        if encrypted is None or encrypted.is_closing():
            plain.abort()
            self._stop_timer()
            self.connections.discard(self)
            return
        super().connection_made(encrypted)
        if self._early:
            self.data_received(self._early)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_watch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._handshake is not None:
            self._early += data
            return
        start = 0
        while start < len(data):
            if self._is_deaf or self.transport.is_closing():
                return
            # A head in small pieces: of one that begins behind another request, no more than a piece is not counted.
            piece = data[start : start + (_HEAD_PIECE_BYTES if self._in_head else _PIECE_BYTES)]
            if self._in_head and self._fed + len(piece) > self._limits.head_bytes:
                self.refuse(b"431 Request Header Fields Too Large")
                return
            start += len(piece)
            self._fed += len(piece)
            self._parse(piece)
            if self._fed - self._body > self._limits.head_bytes + _FRAMING * self._body:
                self.refuse(b"431 Request Header Fields Too Large")
                return
            if len(self.pipeline) > self._limits.pipelined:
                self._turn_deaf()

    def _turn_deaf(self) -> None:
        """Read nothing more; what has come whole is answered, whatever time it takes, and the connection closed."""
        self._stop_timer()
        if not self._in_head:  # the last has come in part
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0]
        self._is_deaf, self.cycle.keep_alive = True, False

    def _parse(self, data: bytes) -> None:
        """Feed the parser; a request that asks for another protocol is read again as one that does not."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            if self._asks_for_upgrade():
                head = self._head_without_upgrade()
                self.parser = httptools.HttpRequestParser(self)
                self._parse(head + data[exc.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _asks_for_upgrade(self) -> bool:
        return self.parser.should_upgrade() and any(name == b"upgrade" for name, _ in self.headers)

    def _head_without_upgrade(self) -> bytes:
        first = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = (b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade")
        return b"\r\n".join([first, *kept, b"", b""])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:  # another request on the same connection
            self._begin_head()

    def on_headers_complete(self) -> None:
        if self._asks_for_upgrade():
            return
        self._in_head = False
        self._stop_timer()
        self._body_before = self._body
        self._timer = self.loop.call_later(self._limits.body_seconds, self._check_body)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._asks_for_upgrade():
            return
        self._stop_timer()
        self._in_head, self._fed, self._body = True, 0, 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reply()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_reply()

    def _watch_reply(self) -> None:
        """Look now and then whether the client takes anything of what waits for it."""
        self._stop_watch()
        if self._untaken:
            self._unacked, self._taken_at = self._unacknowledged(), self.loop.time()
            self._reply_timer = self.loop.call_later(self._limits.stalled_seconds, self._look_at_reply)

    def _look_at_reply(self) -> None:
        self._reply_timer = None
        if not self._stands:
            return
        unacked, now = self._unacknowledged(), self.loop.time()
        if unacked < self._unacked:  # while it stands, nothing is added
            self._unacked, self._taken_at = unacked, now
        if now - self._taken_at >= self._limits.reply_seconds:
            self.break_off()
        else:
            self._reply_timer = self.loop.call_later(self._limits.stalled_seconds, self._look_at_reply)

    def _stop_watch(self) -> None:
        if self._reply_timer is not None:
            self._reply_timer.cancel()
            self._reply_timer = None

    def _begin_head(self) -> None:
        self._in_head, self._fed, self._body = True, 0, 0
        self._timer = self.loop.call_later(self._limits.head_seconds, self.refuse, b"408 Request Timeout")

    def _check_body(self) -> None:
        arrived, self._body_before = self._body - self._body_before, self._body
        if arrived < self._limits.body_bytes and not self.flow.read_paused:  # paused: it waits for us
            self.refuse(b"408 Request Timeout")
        else:
            self._timer = self.loop.call_later(self._limits.body_seconds, self._check_body)

    def _make_room(self) -> None:
        """Close the oldest connection without a request; else one whose reply nobody takes, or this one."""
        ours = [other for other in self.connections if isinstance(other, LimitedConnection)]
        if waiting := [other for other in ours if other.waits and other is not self]:
            min(waiting, key=lambda other: other.opened_at).refuse(b"503 Service Unavailable")
            return
        longest = max(ours, key=lambda other: other.stalled_for)
        if longest.stalled_for >= self._limits.stalled_seconds:
            longest.break_off()
        else:
            self.refuse(b"503 Service Unavailable")

    def refuse(self, status: bytes) -> None:
        """Close the connection, with this status where no reply has begun."""
        self._stop_timer()
        if self._handshake is not None:
            self.transport.abort()
        if self.transport.is_closing():
            return
        running = self._running
        if running is None or running.response_complete or not running.response_started:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()

    def break_off(self) -> None:
        """Close the connection with a reset: the kernel would keep what its client does not take for minutes."""
        self._wire.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._wire.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
