"""The time of the SQL database, shared by processes whose machine clocks differ.

SQLite runs in the process, so its time is the machine's. PostgreSQL's time is queried periodically and extrapolated by
the monotonic clock, which is immune to steps of the machine's clock.
"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from knowledge.storage.polling import polled
from telemetry.supervision import OnFailure

SYNC_SECONDS = 30.0
DEADLINE_SECONDS = 5.0


class StoreClock:
    """Returns the database's time in Unix seconds; before the first `sync`, the machine's."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        machine: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._machine = machine
        self._monotonic = monotonic
        self._offset: float | None = None
        """The database's time minus the monotonic clock's."""

    def now(self) -> float:
        """Return the time in Unix seconds."""
        return self._machine() if self._offset is None else self._monotonic() + self._offset

    async def sync(self) -> None:
        """Query the database's time.

        Raises:
            UNAVAILABLE: the query fails.
        """
        if self._engine.dialect.name != "postgresql":
            return
        with anyio.fail_after(DEADLINE_SECONDS):
            async with self._engine.connect() as connection:
                asked_at = self._monotonic()
                store_seconds = await connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())"))
                answered_at = self._monotonic()
        self._offset = float(store_seconds) - (asked_at + answered_at) / 2


@asynccontextmanager
async def open_clock(engine: AsyncEngine, on_failure: OnFailure) -> AsyncGenerator[Callable[[], float]]:
    """Yield a function that returns the database's time, and sync it while the block runs.

    Raises:
        UNAVAILABLE: the first sync fails.
    """
    clock = StoreClock(engine)
    await clock.sync()
    async with polled("clock", clock.sync, every=SYNC_SECONDS, on_failure=on_failure):
        yield clock.now
