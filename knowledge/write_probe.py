"""A probe of the SQL database by a write: both services need a database that accepts writes.

Only a commit notices a full disk, so a row is inserted and deleted in one transaction, which no reader sees.
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
    """Writes at most once a second; between two writes the last outcome holds."""

    def __init__(self, engine: AsyncEngine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._turn = anyio.Lock()
        self._failure: BaseException | None = None
        self._written_at: float | None = None

    async def ping(self) -> None:
        """Return if the database accepted the last write.

        Raises:
            UNAVAILABLE: it did not.
        """
        async with self._turn:
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
        # Shielded: cancelled inside a call, an aiosqlite connection would keep the write lock.
        with anyio.fail_after(DEADLINE_SECONDS, shield=True):
            async with impatient_transaction(self._engine) as connection:
                await connection.execute(insert(WITHDRAWN).values(row))
                await connection.execute(delete(WITHDRAWN).where(WITHDRAWN.c.name == row["name"]))
