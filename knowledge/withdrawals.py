"""What the bank has taken back: withdrawn versions, and the emergency flag; in SQL, known to every process in a second.

Asked before each sentence leaves, so it answers from memory; a task reads the table every second. When it could not be
read for five seconds nothing is known, and `readable` says so: the caller then hands over to a person.
"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
import structlog
from pydantic import BaseModel, PositiveFloat
from sqlalchemy import Column, Double, MetaData, String, Table, delete, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from knowledge.database import create_tables

log = structlog.get_logger(__name__)

METADATA = MetaData()
WITHDRAWN = Table(
    "knowledge_withdrawals",
    METADATA,
    Column("kind", String(16), primary_key=True),
    Column("tenant", String(200), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("reason", String(400), nullable=False),
    Column("at", Double, nullable=False),
)
_VERSION: Final = "version"
_STOP: Final = "stop"
_EVERYONE: Final = ""

UNREADABLE = (SQLAlchemyError, OSError, TimeoutError)


class WithdrawalsSettings(BaseModel, frozen=True):
    """How often the table is read, how long a reading may take, and after how long nothing is known any more."""

    every: PositiveFloat = 1.0
    deadline: PositiveFloat = 2.0
    known_for: PositiveFloat = 5.0


class Withdrawals:
    """The table as this process last read it."""

    def __init__(
        self, engine: AsyncEngine, settings: WithdrawalsSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._rows: frozenset[tuple[str, str, str]] = frozenset()
        self._read_at = float("-inf")

    def withdrawn(self, tenant: str, document_id: str, version: int) -> bool:
        """Return whether this version may no longer answer."""
        return (_VERSION, tenant, f"{document_id}@{version}") in self._rows

    def stopped(self) -> bool:
        """Return whether the emergency flag is set."""
        return (_STOP, _EVERYONE, _EVERYONE) in self._rows

    def readable(self) -> bool:
        """Return whether what is known is recent enough to rely on."""
        return self._clock() - self._read_at <= self._settings.known_for

    async def withdraw(self, tenant: str, document_id: str, version: int, *, reason: str, at: float) -> None:
        """Let a version answer no more, everywhere, within seconds; `at` is Unix seconds."""
        await self._add(_VERSION, tenant, f"{document_id}@{version}", reason, at)

    async def stop(self, reason: str, *, at: float) -> None:
        """Set the emergency flag: every chat then gets a static text."""
        await self._add(_STOP, _EVERYONE, _EVERYONE, reason, at)

    async def resume(self) -> None:
        """Clear the emergency flag."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(WITHDRAWN).where(WITHDRAWN.c.kind == _STOP))
        await self.read()

    async def read(self) -> None:
        """Read the table now.

        Raises:
            SQLAlchemyError, OSError, TimeoutError: it cannot be read.
        """
        columns = select(WITHDRAWN.c.kind, WITHDRAWN.c.tenant, WITHDRAWN.c.name)
        with anyio.fail_after(self._settings.deadline):
            async with self._engine.connect() as connection:
                rows = (await connection.execute(columns)).all()
        self._rows = frozenset((kind, tenant, name) for kind, tenant, name in rows)
        self._read_at = self._clock()

    async def watch(self) -> None:
        """Read the table for ever."""
        while True:
            try:
                await self.read()
            except UNREADABLE as exc:
                log.warning("withdrawals_unreadable", error=type(exc).__name__)
            await anyio.sleep(self._settings.every)

    async def _add(self, kind: str, tenant: str, name: str, reason: str, at: float) -> None:
        row = {"kind": kind, "tenant": tenant, "name": name, "reason": reason, "at": at}
        try:
            async with self._engine.begin() as connection:
                await connection.execute(insert(WITHDRAWN).values(row))
        except IntegrityError:
            log.info("already_withdrawn", kind=kind)
        await self.read()


@asynccontextmanager
async def open_withdrawals(
    engine: AsyncEngine, settings: WithdrawalsSettings | None = None
) -> AsyncGenerator[Withdrawals]:
    """Make the table where it is missing, read it once, and go on reading it while the block runs."""
    await create_tables(engine, METADATA)
    withdrawals = Withdrawals(engine, settings or WithdrawalsSettings())
    await withdrawals.read()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(withdrawals.watch)
        try:
            yield withdrawals
        finally:
            tasks.cancel_scope.cancel()
