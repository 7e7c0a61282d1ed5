"""What the bank has taken back: versions, models, everything; in SQL, known to every process in a second.

Asked before each sentence leaves, so it answers from memory; a task looks at the table every second. When it could not
be read for five seconds nothing is known, and `readable` says so: the caller then hands over to a person. Every stop
and every resumption is written down with who, when and why, in the transaction that makes it.

A withdrawn version's row is never removed: its points stay for searches as of then, and an older index that was
restored knows nothing of their end. So as many rows as before are the same rows, whatever clock or late commit they
came from, and a look reads the stops and counts the versions; all are read when there are more, and once a minute.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import anyio
import structlog
from pydantic import BaseModel, PositiveFloat
from sqlalchemy import Column, Double, Integer, MetaData, String, Table, delete, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from knowledge.storage import UNAVAILABLE, Schema, hold, migrate

log = structlog.get_logger(__name__)

METADATA = MetaData()
SCHEMA = Schema(owner="knowledge", package="knowledge.storage", tables=METADATA)
WITHDRAWN = Table(
    "knowledge_withdrawals",
    METADATA,
    Column("kind", String(16), primary_key=True),
    Column("tenant", String(200), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("reason", String(400), nullable=False),
    Column("at", Double, nullable=False),
)
CHANGES = Table(
    "knowledge_stop_changes",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Double, nullable=False),
    Column("action", String(8), nullable=False),
    Column("model", String(200), nullable=False),
    Column("changed_by", String(200), nullable=False),
    Column("reason", String(400), nullable=False),
)
_VERSION: Final = "version"
_STOP: Final = "stop"
_MODEL: Final = "model"
_EVERYONE: Final = ""

UNREADABLE = UNAVAILABLE


class WithdrawalsSettings(BaseModel, frozen=True):
    """How often the table is looked at and how often read as a whole, how long a look may take, and after how long
    nothing is known any more."""

    every: PositiveFloat = 1.0
    whole_every: PositiveFloat = 60.0
    deadline: PositiveFloat = 2.0
    known_for: PositiveFloat = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StopChange:
    """Somebody has stopped or resumed everything, or one model; `at` is Unix seconds."""

    action: Literal["stop", "resume"]
    model: str | None = None
    by: str
    reason: str
    at: float


class Withdrawals:
    """The table as this process last read it."""

    def __init__(
        self, engine: AsyncEngine, settings: WithdrawalsSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._stops: frozenset[tuple[str, str]] = frozenset()
        self._versions: frozenset[tuple[str, str]] = frozenset()
        self._read_at = float("-inf")
        self._whole_at = float("-inf")
        self._listeners: list[Callable[[], None]] = []

    def withdrawn(self, tenant: str, document_id: str, version: int) -> bool:
        """Return whether this version may no longer answer."""
        return (tenant, f"{document_id}@{version}") in self._versions

    def stopped(self) -> bool:
        """Return whether the emergency flag is set."""
        return (_STOP, _EVERYONE) in self._stops

    def stopped_models(self) -> frozenset[str]:
        """Return the names of the models that may not be asked."""
        return frozenset(name for kind, name in self._stops if kind == _MODEL)

    def readable(self) -> bool:
        """Return whether what is known is recent enough to rely on."""
        return self._clock() - self._read_at <= self._settings.known_for

    async def withdraw(self, tenant: str, document_id: str, version: int, *, reason: str, at: float) -> None:
        """Let a version answer no more, everywhere, within seconds; `at` is Unix seconds."""
        try:
            async with self._engine.begin() as connection:
                await write_withdrawal(connection, tenant, document_id, version, reason=reason, at=at)
        except IntegrityError:
            log.info("already_withdrawn")  # another process was first
        await self.read()

    @contextmanager
    def heard_by(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener` after every look at the table, whether it could be read or not, while the block runs."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    async def change(self, change: StopChange) -> None:
        """Stop or resume everything, or one model, on every replica within seconds, and write down who did it and why.

        Raises:
            ValueError: it does not say who or why.
        """
        if not change.by.strip() or not change.reason.strip():
            raise ValueError("say who stops or resumes, and why")
        kind, name = (_STOP, _EVERYONE) if change.model is None else (_MODEL, change.model)
        row = {"kind": kind, "tenant": _EVERYONE, "name": name, "reason": change.reason, "at": change.at}
        written = {"at": change.at, "action": change.action, "model": name}
        with anyio.fail_after(self._settings.deadline):
            async with self._engine.begin() as connection:
                await hold(connection, "stops")
                # First out, then in: so a second stop needs no look at the first.
                await connection.execute(delete(WITHDRAWN).where(WITHDRAWN.c.kind == kind, WITHDRAWN.c.name == name))
                if change.action == "stop":
                    await connection.execute(insert(WITHDRAWN).values(row))
                who = {"changed_by": change.by, "reason": change.reason}
                await connection.execute(insert(CHANGES).values(written | who))
        await self.read()

    async def changes(self, *, limit: int) -> tuple[StopChange, ...]:
        """Return the latest stops and resumptions, newest first.

        Raises:
            UNREADABLE: they cannot be read.
        """
        newest = select(CHANGES).order_by(CHANGES.c.id.desc()).limit(limit)
        with anyio.fail_after(self._settings.deadline):
            async with self._engine.connect() as connection:
                rows = (await connection.execute(newest)).all()
        return tuple(
            StopChange(action=r.action, model=r.model or None, by=r.changed_by, reason=r.reason, at=r.at) for r in rows
        )

    async def read(self) -> None:
        """Look at the table now.

        Raises:
            UNREADABLE: it cannot be read.
        """
        stops = select(WITHDRAWN.c.kind, WITHDRAWN.c.name).where(WITHDRAWN.c.kind.in_((_STOP, _MODEL)))
        count = select(func.count()).where(WITHDRAWN.c.kind == _VERSION)
        with anyio.fail_after(self._settings.deadline):
            async with self._engine.connect() as connection:
                found = (await connection.execute(stops)).all()
                if (await connection.execute(count)).scalar_one() != len(self._versions) or self._is_whole_due():
                    await self._read_versions(connection)
        self._stops = frozenset((kind, name) for kind, name in found)
        self._read_at = self._clock()
        self._tell()

    def _is_whole_due(self) -> bool:
        return self._clock() - self._whole_at > self._settings.whole_every

    async def _read_versions(self, connection: AsyncConnection) -> None:
        versions = select(WITHDRAWN.c.tenant, WITHDRAWN.c.name).where(WITHDRAWN.c.kind == _VERSION)
        rows = (await connection.execute(versions)).all()
        self._versions = frozenset((tenant, name) for tenant, name in rows)
        self._whole_at = self._clock()

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    async def watch(self) -> None:
        """Read the table for ever."""
        while True:
            try:
                # aiosqlite may never come back from a connection that is cancelled while it opens; the deadline holds.
                with anyio.CancelScope(shield=True):
                    await self.read()
            except UNREADABLE as exc:
                log.warning("withdrawals_unreadable", error=type(exc).__name__)
                self._tell()
            await anyio.sleep(self._settings.every)


async def write_withdrawal(
    connection: AsyncConnection, tenant: str, document_id: str, version: int, *, reason: str, at: float
) -> None:
    """Withdraw a version in the caller's transaction: what decides it and what makes it known are one write."""
    name = f"{document_id}@{version}"
    same = (WITHDRAWN.c.kind == _VERSION) & (WITHDRAWN.c.tenant == tenant) & (WITHDRAWN.c.name == name)
    row = {"kind": _VERSION, "tenant": tenant, "name": name, "reason": reason[:400], "at": at}
    await connection.execute(delete(WITHDRAWN).where(same))
    await connection.execute(insert(WITHDRAWN).values(row))


async def known_withdrawals(engine: AsyncEngine, settings: WithdrawalsSettings | None = None) -> Withdrawals:
    """Make the tables where they are missing, and return what they say now.

    Raises:
        UNREADABLE: they cannot be read.
    """
    await migrate(engine, SCHEMA)
    withdrawals = Withdrawals(engine, settings or WithdrawalsSettings())
    await withdrawals.read()
    return withdrawals


@asynccontextmanager
async def open_withdrawals(
    engine: AsyncEngine, settings: WithdrawalsSettings | None = None
) -> AsyncGenerator[Withdrawals]:
    """Make the tables where they are missing, read them once, and go on reading them while the block runs."""
    withdrawals = await known_withdrawals(engine, settings)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(withdrawals.watch)
        try:
            yield withdrawals
        finally:
            tasks.cancel_scope.cancel()
