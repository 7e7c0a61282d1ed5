"""Polls the SQL database in the background while a block runs."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import structlog

from knowledge.storage.database import UNAVAILABLE
from telemetry.supervision import OnFailure, supervise

log = structlog.get_logger(__name__)


@asynccontextmanager
async def polled(
    name: str, read: Callable[[], Awaitable[None]], *, every: float, on_failure: OnFailure
) -> AsyncGenerator[None]:
    """Call `read`, which needs a deadline, at intervals of `every` seconds while the block runs; log failures."""

    async def poll() -> None:
        while True:
            await anyio.sleep(every)
            try:
                # aiosqlite may hang if it is cancelled while it opens a connection.
                with anyio.CancelScope(shield=True):
                    await read()
            except UNAVAILABLE as exc:
                log.warning("database_poll_failed", poll=name, error=type(exc).__name__)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(supervise, name, poll, on_failure)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
