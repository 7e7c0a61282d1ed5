"""Leaving: a service that is told to stop refuses new questions and lets running answers end."""

import asyncio
import signal

import anyio
from fastapi import FastAPI

from chatbot.app import drain


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
