"""Withdrawn versions, stopped models and the emergency flag: an SQL table that every process polls once a second.

Checks read memory. A poll that finds a change notifies the running answers, which check again. After five seconds
without a successful poll `readable` is false; the running answers are notified too, and hand over to a person. Every
stop and resumption is recorded with its author, time and reason, in the same transaction.

The row of a withdrawn version is permanent, because the index keeps the version's points for searches of an earlier
time, and an index restored from a backup does not know of the withdrawal. A poll reads the stops, the number of version
rows and the sum of their instants; it reads the rows themselves if the number or the sum changed, and once a minute.

The table also has the instants at which versions end or are replaced, because an index node that rejoins serves stale
data for some seconds and could return a replaced version. Such a row is written once the index has the version's
window, and removed a week after its instant, because a node that was away for longer rejoins empty.
"""

import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import anyio
from pydantic import BaseModel, PositiveFloat
from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, String, Table, cast, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from knowledge.passage import Passage
from knowledge.storage import Schema, migrate, polled, transaction_lock
from telemetry.supervision import OnFailure, contained, supervise, uncounted

_LONGEST_AUTHOR, _LONGEST_REASON = 310, 400
"""In characters; the longest author is a token's tenant and subject (`knowledge.identity`)."""

METADATA = MetaData()
SCHEMA = Schema(owner="knowledge", package="knowledge.storage", tables=METADATA)
WITHDRAWN = Table(
    "knowledge_withdrawals",
    METADATA,
    Column("kind", String(16), primary_key=True),
    Column("tenant", String(200), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("reason", String(_LONGEST_REASON), nullable=False),
    Column("at", Double, nullable=False),
)
CHANGES = Table(
    "knowledge_stop_changes",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Double, nullable=False),
    Column("action", String(8), nullable=False),
    Column("model", String(200), nullable=False),
    Column("changed_by", String(_LONGEST_AUTHOR), nullable=False),
    Column("reason", String(_LONGEST_REASON), nullable=False),
    Column("tenant", String(200), nullable=False, server_default=""),
)
_VERSION: Final = "version"
_ENDS: Final = "ends"
_STOP: Final = "stop"
_MODEL: Final = "model"
_TENANT: Final = "tenant"
_EVERYONE: Final = ""
_ENDS_KEPT_SECONDS: Final = 7 * 86400.0


class WithdrawalsSettings(BaseModel, frozen=True):
    """In seconds: the intervals of polls and full reads, a poll's deadline, and the time for which a poll is valid."""

    every: PositiveFloat = 1.0
    whole_every: PositiveFloat = 60.0
    deadline: PositiveFloat = 2.0
    known_for: PositiveFloat = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StopChange:
    """A stop or resumption of a model, of a tenant's answers or, if neither is set, of all; `at` is in Unix seconds."""

    action: Literal["stop", "resume"]
    model: str | None = None
    tenant: str | None = None
    by: str
    reason: str
    at: float


def change_target(*, model: str | None, tenant: str | None) -> str:
    """Return the target of a change: `model:<name>`, `tenant:<name>` or `everything`."""
    if model:
        return f"model:{model}"
    return f"tenant:{tenant}" if tenant else "everything"


class Withdrawals:
    """The table of withdrawals, with a cache of its rows."""

    def __init__(
        self, engine: AsyncEngine, settings: WithdrawalsSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._stops: frozenset[tuple[str, str]] = frozenset()
        self._versions: frozenset[tuple[str, str]] = frozenset()
        self._ends: dict[tuple[str, str], float] = {}
        self._counted: tuple[int, int] = (0, 0)
        """Version and end rows at their last read: the count, and the sum of their instants in milliseconds."""
        self._read_at = float("-inf")
        self._versions_read_at = float("-inf")
        self._notified_state = (False, self._stops, self._versions)
        """The state at the last notification: `readable`, the stops and the versions."""
        self._listeners: list[Callable[[], None]] = []

    def withdrawn(self, tenant: str, document_id: str, version: int) -> bool:
        """Return whether this version is withdrawn."""
        return (tenant, f"{document_id}@{version}") in self._versions

    def has_ended(self, tenant: str, document_id: str, version: int, *, now: float) -> bool:
        """Return whether SQL records that this version ended by `now` (Unix seconds); the index may be stale."""
        return self._ends.get((tenant, f"{document_id}@{version}"), math.inf) <= now

    def has_withdrawn(self, passage: Passage, *, now: float) -> bool:
        """Return whether a found passage is withdrawn or no longer visible at `now` (Unix seconds)."""
        return self.withdrawn(passage.tenant, passage.document_id, passage.version) or passage.has_ended(now)

    def is_over(self, passage: Passage, *, now: float) -> bool:
        """Return whether a passage may no longer be shown: withdrawn, ended or replaced at `now` (Unix seconds)."""
        has_ended = self.has_ended(passage.tenant, passage.document_id, passage.version, now=now)
        return has_ended or self.has_withdrawn(passage, now=now)

    def may_answer(self, tenant: str) -> bool:
        """Return whether the tenant is not stopped and the last successful poll is still valid."""
        return self.readable() and not self.stopped(tenant)

    def stopped(self, tenant: str | None = None) -> bool:
        """Return whether the global emergency flag or this tenant's is set."""
        return (_STOP, _EVERYONE) in self._stops or (_TENANT, tenant) in self._stops

    def stopped_tenants(self) -> frozenset[str]:
        """Return the tenants with an emergency flag of their own."""
        return frozenset(name for kind, name in self._stops if kind == _TENANT)

    def stopped_models(self) -> frozenset[str]:
        """Return the names of the stopped models."""
        return frozenset(name for kind, name in self._stops if kind == _MODEL)

    def readable(self) -> bool:
        """Return whether the last successful poll is still valid."""
        return self.readable_for() >= 0

    def readable_for(self) -> float:
        """Return the seconds for which the last successful poll remains valid; negative if it is too old."""
        return self._read_at + self._settings.known_for - self._clock()

    @contextmanager
    def notifying(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener` whenever the withdrawals, the stops or `readable` change, while the block runs."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    async def change(self, change: StopChange) -> None:
        """Stop or resume all answers, a tenant's or a model's, on every replica within seconds; record the change.

        Raises:
            ValueError: the author or the reason is empty or too long, or both a model and a tenant are set.
        """
        if not change.by.strip() or not change.reason.strip():
            raise ValueError("say who stops or resumes, and why")
        for text, longest in ((change.by, _LONGEST_AUTHOR), (change.reason, _LONGEST_REASON)):
            if len(text) > longest:
                raise ValueError(f"at most {longest} characters: {text[:30]}…")
        if change.model is not None and change.tenant is not None:
            raise ValueError("a model is stopped for all tenants: name a model or a tenant")
        kind, name = (_STOP, _EVERYONE) if change.model is None else (_MODEL, change.model)
        if change.tenant is not None:
            kind, name = _TENANT, change.tenant
        stop = {"kind": kind, "tenant": _EVERYONE, "name": name, "reason": change.reason, "at": change.at}
        record = {"action": change.action, "model": change.model or "", "changed_by": change.by}
        record |= {"tenant": change.tenant or _EVERYONE}
        with anyio.fail_after(self._settings.deadline):
            async with self._engine.begin() as connection:
                await transaction_lock(connection, "stops")
                # Delete first, so that a second stop does not conflict with the first.
                await connection.execute(delete(WITHDRAWN).where(WITHDRAWN.c.kind == kind, WITHDRAWN.c.name == name))
                if change.action == "stop":
                    await connection.execute(insert(WITHDRAWN).values(stop))
                await connection.execute(insert(CHANGES).values(record | {"reason": change.reason, "at": change.at}))
        await self.read()

    async def changes(self, *, limit: int, tenant: str | None = None) -> tuple[StopChange, ...]:
        """Return the latest stops and resumptions, newest first; with `tenant`, only that tenant's.

        Raises:
            UNAVAILABLE: the table cannot be read.
        """
        newest = select(CHANGES).order_by(CHANGES.c.id.desc()).limit(limit)
        if tenant is not None:
            newest = newest.where(CHANGES.c.tenant == tenant)
        with anyio.fail_after(self._settings.deadline):
            async with self._engine.connect() as connection:
                rows = (await connection.execute(newest)).all()
        return tuple(
            StopChange(
                action=row.action,
                model=row.model or None,
                tenant=row.tenant or None,
                by=row.changed_by,
                reason=row.reason,
                at=row.at,
            )
            for row in rows
        )

    async def read(self) -> None:
        """Poll the table now.

        Raises:
            UNAVAILABLE: the table cannot be read.
        """
        stops = select(WITHDRAWN.c.kind, WITHDRAWN.c.name).where(WITHDRAWN.c.kind.in_((_STOP, _MODEL, _TENANT)))
        # Integers: a sum of doubles depends on the order in which PostgreSQL reads the rows.
        instants = func.coalesce(func.sum(cast(WITHDRAWN.c.at * 1000, BigInteger)), 0)
        count = select(func.count(), instants).where(WITHDRAWN.c.kind.in_((_VERSION, _ENDS)))
        with anyio.fail_after(self._settings.deadline):
            async with self._engine.connect() as connection:
                stop_rows = (await connection.execute(stops)).all()
                row_count, instant_sum = (await connection.execute(count)).one()
                has_changed = (row_count, instant_sum) != self._counted
                is_full_read_due = self._clock() - self._versions_read_at > self._settings.whole_every
                if has_changed or is_full_read_due:
                    await self._read_versions(connection)
                    self._counted = row_count, instant_sum
        self._stops = frozenset((kind, name) for kind, name in stop_rows)
        self._read_at = self._clock()
        self._notify()

    async def _read_versions(self, connection: AsyncConnection) -> None:
        columns = (WITHDRAWN.c.kind, WITHDRAWN.c.tenant, WITHDRAWN.c.name, WITHDRAWN.c.at)
        rows = (await connection.execute(select(*columns).where(WITHDRAWN.c.kind.in_((_VERSION, _ENDS))))).all()
        self._versions = frozenset((row.tenant, row.name) for row in rows if row.kind == _VERSION)
        self._ends = {(row.tenant, row.name): row.at for row in rows if row.kind == _ENDS}
        self._versions_read_at = self._clock()

    def _notify(self) -> None:
        """Call the listeners if the state has changed since the last notification."""
        state = (self.readable(), self._stops, self._versions)
        if state == self._notified_state:
            return
        self._notified_state = state
        for listener in tuple(self._listeners):
            with contained("listener"):  # a failing listener doesn't stop the others
                listener()

    async def watch_age(self) -> None:
        """Notify the listeners as soon as the last successful poll is too old, until cancelled."""
        while True:
            self._notify()
            remaining = self.readable_for()
            await anyio.sleep(remaining if remaining >= 0 else min(self._settings.every, self._settings.known_for))


async def write_withdrawal(
    connection: AsyncConnection, tenant: str, document_id: str, version: int, *, reason: str, at: float
) -> None:
    """Withdraw a version in the caller's transaction."""
    await _write_row(connection, _VERSION, tenant, f"{document_id}@{version}", reason[:_LONGEST_REASON], at)


async def write_end(
    connection: AsyncConnection, tenant: str, document_id: str, version: int, *, ends_at: float
) -> None:
    """Write a version's end in the caller's transaction; call it once the index has the version's window."""
    await _write_row(connection, _ENDS, tenant, f"{document_id}@{version}", "", ends_at)


async def remove_end(connection: AsyncConnection, tenant: str, document_id: str, version: int, *, now: float) -> None:
    """Remove a version's end, and all ends over a week old, in the caller's transaction."""
    is_old = (WITHDRAWN.c.kind == _ENDS) & (WITHDRAWN.c.at < now - _ENDS_KEPT_SECONDS)
    await connection.execute(delete(WITHDRAWN).where(_is_row(_ENDS, tenant, f"{document_id}@{version}") | is_old))


async def _write_row(connection: AsyncConnection, kind: str, tenant: str, name: str, reason: str, at: float) -> None:
    row = {"kind": kind, "tenant": tenant, "name": name, "reason": reason, "at": at}
    await connection.execute(delete(WITHDRAWN).where(_is_row(kind, tenant, name)))
    await connection.execute(insert(WITHDRAWN).values(row))


def _is_row(kind: str, tenant: str, name: str) -> Any:
    return (WITHDRAWN.c.kind == kind) & (WITHDRAWN.c.tenant == tenant) & (WITHDRAWN.c.name == name)


async def load_withdrawals(engine: AsyncEngine, settings: WithdrawalsSettings | None = None) -> Withdrawals:
    """Migrate the tables, and return the withdrawals after one read, without polling.

    Raises:
        UNAVAILABLE: the tables cannot be read.
    """
    await migrate(engine, SCHEMA)
    withdrawals = Withdrawals(engine, settings or WithdrawalsSettings())
    await withdrawals.read()
    return withdrawals


@asynccontextmanager
async def open_withdrawals(
    engine: AsyncEngine, settings: WithdrawalsSettings | None = None, *, on_failure: OnFailure = uncounted
) -> AsyncGenerator[Withdrawals]:
    """Migrate the tables, read them, and poll them while the block runs."""
    settings = settings or WithdrawalsSettings()
    withdrawals = await load_withdrawals(engine, settings)
    async with (
        polled("withdrawals", withdrawals.read, every=settings.every, on_failure=on_failure),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(supervise, "withdrawals_age", withdrawals.watch_age, on_failure)
        try:
            yield withdrawals
        finally:
            tasks.cancel_scope.cancel()
