"""Probes the SQL database with a write, because both services need a database that accepts writes.

Only a commit detects a full disk, so the probe inserts and deletes a row in one transaction, invisible to readers.
"""

import time
from collections.abc import Callable
from uuid import uuid4

import anyio
from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from knowledge.storage import UNAVAILABLE, impatient_transaction
from knowledge.withdrawals import WITHDRAWN

DEADLINE_SECONDS = 1.5
EVERY_SECONDS = 1.0


class WriteProbe:
    """Writes at most once a second; calls in between repeat the last outcome."""

    def __init__(self, engine: AsyncEngine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = anyio.Lock()
        self._failure: BaseException | None = None
        self._written_at: float | None = None

    async def ping(self) -> None:
        """Return if the database accepted the last write.

        Raises:
            UNAVAILABLE: the last write failed.
        """
        async with self._lock:
            if self._written_at is None or self._clock() - self._written_at >= EVERY_SECONDS:
                self._failure = None
                try:
                    await self._write()
                except UNAVAILABLE as exc:
                    self._failure = exc
                self._written_at = self._clock()
            if self._failure is not None:
                raise self._failure.with_traceback(None)

    async def _write(self) -> None:
        row = {"kind": "probe", "tenant": "", "name": uuid4().hex, "reason": "", "at": 0.0}
        # Shielded: an aiosqlite connection that is cancelled inside a call would keep the write lock.
        with anyio.fail_after(DEADLINE_SECONDS, shield=True):
            async with impatient_transaction(self._engine) as connection:
                await connection.execute(insert(WITHDRAWN).values(row))
                await connection.execute(delete(WITHDRAWN).where(WITHDRAWN.c.name == row["name"]))
