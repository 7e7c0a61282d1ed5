"""Listening: a socket that is bound before anything else is started, and a server that runs while a block does.

uvicorn's own signal handling closes the listener first; this server keeps it open while answers drain, so that a
probe can see `draining` and a load balancer goes elsewhere.
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

from edge.certificates import PLAIN_TEXT, ServerTlsSettings, shown_certificate
from edge.connection_limits import ConnectionLimits, LimitedConnection, allow_files, most_connections

_OPEN_CONNECTIONS_SECONDS = 5
_BACKLOG = 2048
_GC_THRESHOLDS = (50_000, 10, 10)
"""Net new objects before the youngest generation is collected, and how many collections of one go before the next older
one is collected too. With 5,000 open streams a collection walks what their readers wait on, 50,000 objects in 50 ms,
at whatever threshold; a full one takes 1.4 s. With CPython's own thresholds there is a full one every 12 s."""


class PortTaken(Exception):
    """The address cannot be bound; the message names it and says what to do."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int, *, setting: str = "PORT") -> socket.socket:
    """Return a socket bound to the address.

    Raises:
        PortTaken: something else listens there, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named: of a socket without one asyncio does not switch Nagle's delay off, 40 ms a reply.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        # SO_REUSEADDR lets a second bind succeed until one socket listens; listening now makes the port ours.
        bound.listen(_BACKLOG)
    except OSError as exc:
        bound.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortTaken(f"port {port} is taken: stop what listens there, or set {setting} to a free one") from exc
        raise PortTaken(f"cannot listen on {host}:{port} ({exc.strerror}): set {setting} or HOST to another") from exc
    return bound


def configured(
    app: FastAPI, *, limits: ConnectionLimits | None = None, tls: ssl.SSLContext | None = None
) -> uvicorn.Config:
    """Return how every server of ours serves: connections within the limits, with five seconds to end at its end.

    TLS is the connections' own matter: uvicorn's own would begin before there is one to limit.
    """
    limits = limits or ConnectionLimits(connections=most_connections())
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="uvloop",
        http=partial(LimitedConnection, limits=limits, tls=tls),  # type: ignore[arg-type]  # uvicorn only calls it
        ws="none",  # else whatever package is installed speaks WebSocket, and takes a tenth of a second to be imported
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
    """Serve the application on the socket while the block runs; each connection within the limits, encrypted with one.

    However the block ends, what is being answered has five seconds to end, and no connection is left open.
    """
    allow_files()
    # Objects opened at the start stay: to search them for garbage would stop every answer for half a second at a time.
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(*_GC_THRESHOLDS)
    async with shown_certificate(certificate) as tls, anyio.create_task_group() as tasks:
        server = _Server(configured(app, limits=limits, tls=tls))
        tasks.start_soon(_serve_to_its_end, server, bound)
        try:
            yield
        finally:
            server.should_exit = True
            gc.set_threshold(*thresholds)


async def _serve_to_its_end(server: uvicorn.Server, bound: socket.socket) -> None:
    with anyio.CancelScope(shield=True):  # cancelled, uvicorn closes nothing, and its socket accepts on
        await server.serve([bound])
