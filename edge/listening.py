"""Listening: a socket that is bound before anything else is started, and a server that runs while a block does.

uvicorn's own signal handling closes the listener first; this server keeps it open while answers drain, so that a
probe can see `draining` and a load balancer goes elsewhere.
"""

import errno
import gc
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import anyio
import uvicorn
from fastapi import FastAPI

from edge.connection_limits import ConnectionLimits, LimitedConnection, most_connections

_OPEN_CONNECTIONS_SECONDS = 5
_BACKLOG = 2048


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


@asynccontextmanager
async def listening(
    app: FastAPI, bound: socket.socket, *, limits: ConnectionLimits | None = None
) -> AsyncGenerator[None]:
    """Serve the application on the socket while the block runs; each connection within the limits."""
    limits = limits or ConnectionLimits(connections=most_connections())
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="uvloop",
        http=partial(LimitedConnection, limits=limits),  # type: ignore[arg-type]  # uvicorn only calls it
        timeout_graceful_shutdown=_OPEN_CONNECTIONS_SECONDS,
        server_header=False,
    )
    server = _Server(config)
    # Objects opened at the start stay: to search them for garbage would stop every answer for half a second at a time.
    gc.collect()
    gc.freeze()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [bound])
        try:
            yield
        finally:
            server.should_exit = True
