"""Serving an application for as long as a block runs, on a socket that is bound before anything else is started.

uvicorn's own signal handling closes the listener first; ours keeps it open while answers drain, so that a probe can
see `draining` and a balancer goes elsewhere.
"""

import asyncio
import errno
import gc
import signal
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import uvicorn
from fastapi import FastAPI

from chatbot.app import drain

_OPEN_CONNECTIONS_SECONDS = 5


class PortTaken(Exception):
    """One sentence that says which port and what to do."""


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
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        # SO_REUSEADDR lets a second bind pass while nobody listens yet; listening now makes the port ours.
        bound.listen(2048)
    except OSError as exc:
        bound.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortTaken(f"port {port} is taken: stop what listens there, or set {setting} to a free one") from exc
        raise PortTaken(f"cannot listen on {host}:{port} ({exc.strerror}): set {setting} or HOST to another") from exc
    return bound


@asynccontextmanager
async def listening(app: FastAPI, bound: socket.socket) -> AsyncGenerator[None]:
    """Serve the application on the socket while the block runs."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="uvloop",
        http="httptools",
        timeout_graceful_shutdown=_OPEN_CONNECTIONS_SECONDS,
        server_header=False,
    )
    server = _Server(config)
    # What was opened stays: to look through it for garbage stops every answer for half a second, again and again.
    gc.collect()
    gc.freeze()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [bound])
        try:
            yield
        finally:
            server.should_exit = True


async def until_told(app: FastAPI, *, drain_seconds: float, refuse_seconds: float = 0.0) -> None:
    """Wait for SIGTERM or SIGINT, then let running answers end (a second signal does not wait).

    Questions are refused for `refuse_seconds` at least: to a balancer that has not looked at `/readyz` since, a
    listener that closes under a request it has just sent is a server that broke.
    """
    loop, told, hurried = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurried if told.is_set() else told).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await told.wait()
    async with anyio.create_task_group() as tasks:

        async def hurry() -> None:
            await hurried.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(hurry)
        async with anyio.create_task_group() as leaving:
            leaving.start_soon(anyio.sleep, refuse_seconds)
            await drain(app, seconds=drain_seconds)
        tasks.cancel_scope.cancel()
