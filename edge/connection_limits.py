"""Limits of each connection, before authentication: bytes and seconds of a request's head, a stalled body, a reply that
the client does not read, pipelined requests, and the number of connections.

uvicorn has none of these: it would buffer a head of any length for as long as the sender likes. Nor does it count
connections whose TLS handshake is unfinished; here they count from the start, and the handshake's time is part of the
head's.

A request for a protocol upgrade (`Upgrade: h2c`, as Java's client sends) is answered without the upgrade, which RFC
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
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_MOST_CONNECTIONS: Final = 12_000  # more than the readers of one process
_MOST_FILES: Final = 65_536  # client connections, and per answer one to its model and one to Redis, with room to spare
_SHARE_OF_FILES: Final = 0.75
_PIECE_BYTES: Final = 16 * 1024
_HEAD_PIECE_BYTES: Final = 512
# The bytes of framing allowed per byte of a body: chunks of one byte have five each. Trailers count like a head.
_FRAMING: Final = 8
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 s


def raise_file_limit() -> None:
    """Raise this process's limit of open files as far as allowed; many machines start with 1,024.

    With so few, customers' connections would leave too few files for the models and Redis.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    new_limit = min(hard, _MOST_FILES) if hard > 0 else _MOST_FILES
    if 0 < soft < new_limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (new_limit, hard))


def most_connections() -> int:
    """Return the most client connections of a process; the remaining files are for stores and models."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_MOST_CONNECTIONS, int(soft * _SHARE_OF_FILES)) if soft > 0 else _MOST_CONNECTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Limits of a connection: bytes and seconds of a head; a body must deliver `body_bytes` every `body_seconds`.

    A reply is dropped if the client reads nothing for `reply_seconds`, or for `stalled_seconds` if another connection
    needs the slot. A connection with more than `pipelined` waiting requests is closed.
    """

    head_bytes: int = 32 * 1024
    head_seconds: float = 10.0
    body_bytes: int = 10 * 1024
    body_seconds: float = 10.0
    reply_seconds: float = 120.0
    stalled_seconds: float = 5.0
    pipelined: int = 32
    connections: int = _MOST_CONNECTIONS


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's connection with `ConnectionLimits`."""

    def __init__(self, *args: Any, limits: ConnectionLimits, tls: ssl.SSLContext | None = None, **more: Any) -> None:
        super().__init__(*args, **more)
        self._limits = limits
        self._tls = tls
        self._in_handshake = tls is not None
        self._early_data = b""
        self._wire: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self.opened_at = self.loop.time()
        self._in_head = True
        self._fed_bytes = self._body_bytes = self._body_bytes_before = 0
        self._reply_timer: asyncio.TimerHandle | None = None
        self._unacknowledged_before = 0
        self._last_read_at = self.opened_at
        self._current_cycle: RequestResponseCycle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether the connection is idle: no request in progress, and not closing."""
        answered = self.cycle is None or self.cycle.response_complete
        # Closing connections are still in the set; without this check, many new connections would close the same one.
        return self._in_head and answered and not self.transport.is_closing()

    @property
    def _is_blocked(self) -> bool:
        """Whether writing is blocked until the client reads."""
        is_full = self.flow is not None and self.flow.write_paused
        return is_full or (self.transport.is_closing() and self._buffered_bytes > 0)

    @property
    def stalled_for(self) -> float:
        """The seconds since the client last read from a blocked reply; 0 if writing is not blocked."""
        return self.loop.time() - self._last_read_at if self._reply_timer is not None and self._is_blocked else 0.0

    @property
    def _buffered_bytes(self) -> int:
        """The bytes buffered in this process for the client, in the TLS layer and in the TCP transport below."""
        try:
            above = 0 if self._wire is self.transport else self.transport.get_write_buffer_size()
        except AttributeError:  # asyncio's TLS transport drops its buffer on a second close
            above = 0
        return above + self._wire.get_write_buffer_size()

    def _unacknowledged(self) -> int:
        """Return the bytes that the client has not acknowledged, the kernel's buffer (up to megabytes) included."""
        in_kernel = fcntl.ioctl(self._wire.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4))
        return self._buffered_bytes + int.from_bytes(in_kernel, sys.byteorder)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        self._wire = transport
        if self._tls is None:
            super().connection_made(transport)
        else:
            transport.pause_reading()
            self.transport = transport
            self.connections.add(self)
            # Run the first step here: a task would miss uvloop's first read. `start_tls` awaits the handshake's end.
            handshake = self.loop.start_tls(
                transport, self, self._tls, server_side=True, ssl_handshake_timeout=self._limits.head_seconds
            )
            handshake.send(None).add_done_callback(lambda _: self._end_handshake(handshake))
        self._begin_head()
        if len(self.connections) > self._limits.connections:
            self._make_room()

    def _end_handshake(self, handshake: Coroutine[object, None, asyncio.Transport | None]) -> None:
        """Complete the TLS handshake, then process data that arrived with its end."""
        self._in_handshake = False
        encrypted: asyncio.Transport | None = None
        try:
            handshake.send(None)
        except StopIteration as ended:
            encrypted = ended.value
        except (OSError, RuntimeError):  # not TLS, timed out, client certificate rejected, or already closed
            pass
        if encrypted is None or encrypted.is_closing():
            self._wire.abort()
            self._stop_timer()
            self.connections.discard(self)
            return
        super().connection_made(encrypted)
        if self._early_data:
            self.data_received(self._early_data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_watch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_handshake:
            self._early_data += data
            return
        start = 0
        while start < len(data):
            if self.transport.is_closing():
                return
            # Heads are fed in small pieces: if a piece has the end of one request and the beginning of the next head,
            # that beginning is not counted.
            piece = data[start : start + (_HEAD_PIECE_BYTES if self._in_head else _PIECE_BYTES)]
            if self._in_head and self._fed_bytes + len(piece) > self._limits.head_bytes:
                self.refuse(b"431 Request Header Fields Too Large")
                return
            start += len(piece)
            self._fed_bytes += len(piece)
            self._parse(piece)
            if self._fed_bytes - self._body_bytes > self._limits.head_bytes + _FRAMING * self._body_bytes:
                self.refuse(b"431 Request Header Fields Too Large")
                return
            if len(self.pipeline) > self._limits.pipelined:
                self.refuse(b"503 Service Unavailable")
                return

    def _parse(self, data: bytes) -> None:
        """Feed the parser; parse a request for a protocol upgrade again without its `Upgrade` header."""
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
        kept_headers = (b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade")
        return b"\r\n".join([first, *kept_headers, b"", b""])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:  # another request on the same connection
            self._begin_head()

    def on_headers_complete(self) -> None:
        if self._asks_for_upgrade():
            return
        self._in_head = False
        self._stop_timer()
        self._body_bytes_before = self._body_bytes
        self._timer = self.loop.call_later(self._limits.body_seconds, self._check_body)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._asks_for_upgrade():
            return
        self._stop_timer()
        self._in_head, self._fed_bytes, self._body_bytes = True, 0, 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._current_cycle = cycle
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reply()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_reply()

    def _watch_reply(self) -> None:
        """Check periodically whether the client reads the buffered reply."""
        self._stop_watch()
        if self._buffered_bytes:
            self._unacknowledged_before, self._last_read_at = self._unacknowledged(), self.loop.time()
            self._reply_timer = self.loop.call_later(self._limits.stalled_seconds, self._check_reply)

    def _check_reply(self) -> None:
        """Reset the connection if the client has read nothing for too long; otherwise check again later."""
        self._reply_timer = None
        if not self._is_blocked:
            return
        unacknowledged, now = self._unacknowledged(), self.loop.time()
        if unacknowledged < self._unacknowledged_before:  # while blocked, nothing is added
            self._unacknowledged_before, self._last_read_at = unacknowledged, now
        if now - self._last_read_at >= self._limits.reply_seconds:
            self.abort_with_reset()
        else:
            self._reply_timer = self.loop.call_later(self._limits.stalled_seconds, self._check_reply)

    def _stop_watch(self) -> None:
        if self._reply_timer is not None:
            self._reply_timer.cancel()
            self._reply_timer = None

    def _begin_head(self) -> None:
        self._in_head, self._fed_bytes, self._body_bytes = True, 0, 0
        self._timer = self.loop.call_later(self._limits.head_seconds, self.refuse, b"408 Request Timeout")

    def _check_body(self) -> None:
        arrived, self._body_bytes_before = self._body_bytes - self._body_bytes_before, self._body_bytes
        if arrived < self._limits.body_bytes and not self.flow.read_paused:  # if paused, the client waits for us
            self.refuse(b"408 Request Timeout")
        else:
            self._timer = self.loop.call_later(self._limits.body_seconds, self._check_body)

    def _make_room(self) -> None:
        """Close the oldest idle connection; else the longest-stalled one, or this one."""
        limited = [other for other in self.connections if isinstance(other, LimitedConnection)]
        if idle := [other for other in limited if other.is_idle and other is not self]:
            min(idle, key=lambda other: other.opened_at).refuse(b"503 Service Unavailable")
            return
        longest = max(limited, key=lambda other: other.stalled_for)
        if longest.stalled_for >= self._limits.stalled_seconds:
            longest.abort_with_reset()
        else:
            self.refuse(b"503 Service Unavailable")

    def refuse(self, status: bytes) -> None:
        """Close the connection, and send `status` first if no response has started."""
        self._stop_timer()
        if self._in_handshake:
            self.transport.abort()
        if self.transport.is_closing():
            return
        cycle = self._current_cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()

    def abort_with_reset(self) -> None:
        """Close the connection with a reset, because the kernel would keep unread data for minutes."""
        self._wire.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._wire.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
