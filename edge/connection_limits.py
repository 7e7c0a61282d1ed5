"""Limits of each connection before anybody has shown a token: bytes and seconds of a request's head, a body that stands
still, and the number of connections.

uvicorn has none of these: a head of any length would be held in memory, for as long as its sender likes. Nor does it
count a connection whose TLS handshake does not end: here it is one of all from its first byte, and the handshake's time
is a part of the head's.
"""

import asyncio
import resource
import ssl
import types
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST_CONNECTIONS: Final = 12_000  # more than one process has readers
_SHARE_OF_FILES: Final = 0.75
_PIECE_BYTES: Final = 16 * 1024
# A body in chunks of a byte has five bytes of framing for each; trailers count as a head does.
_FRAMING: Final = 8


def most_connections() -> int:
    """Return how many connections a process may hold: most of its files, the rest is for stores and models."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_MOST_CONNECTIONS, int(soft * _SHARE_OF_FILES)) if soft > 0 else _MOST_CONNECTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """The most bytes of a head, the seconds that it may take, and those in which a body must bring `body_bytes`."""

    head_bytes: int = 32 * 1024
    head_seconds: float = 10.0
    body_bytes: int = 10 * 1024
    body_seconds: float = 10.0
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
        self._timer: asyncio.TimerHandle | None = None
        self.opened_at = self.loop.time()
        self._in_head = True
        self._fed = self._body = self._body_before = 0

    @property
    def waits(self) -> bool:
        """Whether the client has no request here, so that nobody answers it now, and it is not being closed."""
        answered = self.cycle is None or self.cycle.response_complete
        # One that is closing is still among the connections: of many that come at once each must close another.
        return self._in_head and answered and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
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
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._handshake is not None:
            self._early += data
            return
        for start in range(0, len(data), _PIECE_BYTES):
            if self.transport.is_closing():
                return
            piece = data[start : start + _PIECE_BYTES]
            self._fed += len(piece)
            super().data_received(piece)
            if self._fed - self._body > self._limits.head_bytes + _FRAMING * self._body:
                self.refuse(b"431 Request Header Fields Too Large")
                return

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:  # another request on the same connection
            self._begin_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        self._body_before = self._body
        self._timer = self.loop.call_later(self._limits.body_seconds, self._check_body)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stop_timer()
        self._in_head, self._fed, self._body = True, 0, 0
        super().on_message_complete()

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
        """Close the connection that has waited for the longest time; where none waits, this new one."""
        waiting = [other for other in self.connections if isinstance(other, LimitedConnection) and other.waits]
        oldest = min(waiting, key=lambda other: other.opened_at, default=self)
        oldest.refuse(b"503 Service Unavailable")

    def refuse(self, status: bytes) -> None:
        """Close the connection, with this status where no reply has begun."""
        self._stop_timer()
        if self._handshake is not None:
            self.transport.abort()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
