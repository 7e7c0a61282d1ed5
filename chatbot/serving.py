"""Shutting down: after SIGTERM or SIGINT the service refuses new questions and lets running answers end."""

import asyncio
import signal

import anyio
from fastapi import FastAPI

from chatbot.app import drain


async def until_told(app: FastAPI, *, drain_seconds: float, refuse_seconds: float = 0.0) -> None:
    """Wait for SIGTERM or SIGINT, then drain for at most `drain_seconds`; a second signal ends the drain.

    Questions are refused for at least `refuse_seconds`, so that the listener is still there when a load balancer that
    has not asked `/readyz` since sends a request.
    """
    loop, stopping, hurrying = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurrying if stopping.is_set() else stopping).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await stopping.wait()
    async with anyio.create_task_group() as tasks:

        async def hurry() -> None:
            await hurrying.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(hurry)
        async with anyio.create_task_group() as refusing:
            refusing.start_soon(anyio.sleep, refuse_seconds)
            await drain(app, seconds=drain_seconds)
        tasks.cancel_scope.cancel()
