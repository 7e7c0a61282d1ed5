"""Listening: a socket that is bound before anything else starts, and a server that runs while a block runs.

uvicorn's own signal handling closes the listener first. This server keeps it open while answers drain, so that a probe
sees `draining` and a load balancer routes elsewhere.
"""

import errno
import gc
import socket
import ssl
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import anyio
import uvicorn
from fastapi import FastAPI

from edge.certificates import PLAIN_TEXT, ServerTlsSettings, server_tls_context
from edge.connection_limits import ConnectionLimits, LimitedConnection, most_connections, raise_file_limit

_OPEN_CONNECTIONS_SECONDS = 5
_BACKLOG = 2048
_GC_THRESHOLDS = (50_000, 10, 10)
"""The thresholds of `gc.set_threshold`. With 5,000 open streams, each collection visits the 50,000 objects that their
readers wait on, in 50 ms at any threshold; a full collection takes 1.4 s. CPython's default thresholds cause a full
collection every 12 s."""


class PortTaken(Exception):
    """The address cannot be bound; the message names it and the remedy."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int, *, setting: str = "PORT") -> socket.socket:
    """Return a socket that is bound to the address and listens.

    Raises:
        PortTaken: the port is in use, or the address does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The explicit protocol makes asyncio disable Nagle's algorithm, which would delay each reply by 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        # SO_REUSEADDR lets a second bind succeed until one socket listens, so listen now to claim the port.
        bound.listen(_BACKLOG)
    except OSError as exc:
        bound.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortTaken(f"port {port} is taken: stop what listens there, or set {setting} to a free one") from exc
        raise PortTaken(f"cannot listen on {host}:{port} ({exc.strerror}): set {setting} or HOST to another") from exc
    return bound


def _configured(app: FastAPI, limits: ConnectionLimits, tls: ssl.SSLContext | None) -> uvicorn.Config:
    """Return the configuration of our servers: limited connections, which get five seconds to finish at shutdown.

    `LimitedConnection` does TLS itself, because uvicorn's handshake would start before the limits apply.
    """
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="uvloop",
        http=partial(LimitedConnection, limits=limits, tls=tls),  # type: ignore[arg-type]  # uvicorn only calls it
        ws="none",  # else uvicorn imports an installed WebSocket package, which takes 0.1 s
        timeout_graceful_shutdown=_OPEN_CONNECTIONS_SECONDS,
        server_header=False,
    )


@asynccontextmanager
async def listening(
    app: FastAPI,
    bound: socket.socket,
    *,
    limits: ConnectionLimits | None = None,
    certificate: ServerTlsSettings = PLAIN_TEXT,
) -> AsyncGenerator[None]:
    """Serve the application on the socket while the block runs, with limited connections and TLS if configured.

    When the block ends, running requests have five seconds to finish; then all connections are closed.
    """
    raise_file_limit()
    # Objects created at startup are permanent; collecting them would pause every answer for half a second at a time.
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(*_GC_THRESHOLDS)
    async with server_tls_context(certificate) as tls, anyio.create_task_group() as tasks:
        limits = limits or ConnectionLimits(connections=most_connections())
        server = _Server(_configured(app, limits, tls))
        tasks.start_soon(_serve_to_its_end, server, bound)
        try:
            yield
        finally:
            server.should_exit = True
            gc.set_threshold(*thresholds)


async def _serve_to_its_end(server: uvicorn.Server, bound: socket.socket) -> None:
    with anyio.CancelScope(shield=True):  # if cancelled, uvicorn closes nothing and its socket keeps accepting
        await server.serve([bound])
