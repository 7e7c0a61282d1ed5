"""A probe of the SQL database by a write, for the readiness of both services: a database that only reads is of no use.

Only a commit notices a full disk, so a row is inserted and deleted in one transaction, which no reader sees.
"""

import time
from uuid import uuid4

import anyio
from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from knowledge.storage import UNAVAILABLE
from knowledge.withdrawals import WITHDRAWN

DEADLINE_SECONDS = 1.5
EVERY_SECONDS = 1.0


class WriteProbe:
    """Writes at most once a second; between two writes the last outcome holds."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._turn = anyio.Lock()
        self._failure: BaseException | None = None
        self._written_at: float | None = None

    async def ping(self) -> None:
        """Return if the database accepted the last write.

        Raises:
            UNAVAILABLE: it did not.
        """
        async with self._turn:
            if self._written_at is None or time.monotonic() - self._written_at >= EVERY_SECONDS:
                self._failure = None
                try:
                    await self._write()
                except UNAVAILABLE as exc:
                    self._failure = exc
                self._written_at = time.monotonic()
            if self._failure is not None:
                raise self._failure.with_traceback(None)

    async def _write(self) -> None:
        row = {"kind": "probe", "tenant": "", "name": uuid4().hex, "reason": "", "at": 0.0}
        # Shielded: cancelled inside a call, an aiosqlite connection would keep the write lock.
        with anyio.fail_after(DEADLINE_SECONDS, shield=True):
            async with self._engine.begin() as connection:
                if self._engine.dialect.name == "sqlite":
                    await connection.exec_driver_sql("PRAGMA busy_timeout=1000")
                await connection.execute(insert(WITHDRAWN).values(row))
                await connection.execute(delete(WITHDRAWN).where(WITHDRAWN.c.name == row["name"]))
