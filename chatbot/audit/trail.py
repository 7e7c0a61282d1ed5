"""The audit trail in SQL: two rows per answer, one before the model is called and one after the answer has ended.

Rows are chained by HMAC per writer (`chatbot.audit.chain`). A process is a writer; after a write with an unknown
outcome it becomes a new writer with a new chain, so that no chain can fork. Rows that arrive during a transaction are
written together by the next one, so that many answers share one flush; a caller that gives up loses only its own row.
"""

import time
import uuid
from collections.abc import AsyncGenerator, Container, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import anyio
import structlog
from pydantic import BaseModel, Field, PositiveFloat, SecretStr
from sqlalchemy import (
    Column,
    Double,
    Exists,
    Integer,
    Select,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    delete,
    exists,
    func,
    insert,
    select,
    tuple_,
)
from sqlalchemy import Row as SqlRow
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chatbot.audit.chain import GENESIS, AuditKeys, AuditRow, ChainCheck, ChainHead, ChainProblem, problem, seal
from chatbot.audit.records import AuditClosed, AuditOpened
from chatbot.errors import AuditUnavailable
from chatbot.tables import METADATA, SCHEMA
from knowledge.storage import UNAVAILABLE, impatient_transaction, migrate
from telemetry.supervision import OnFailure, supervise, uncounted

log = structlog.get_logger(__name__)

_MOST_AT_ONCE = 500
"""The most records of each queue in one transaction: PostgreSQL rejects a search for some thousands of rows."""
_OPENING_MAY_COME_SECONDS = 60.0
"""How long the opening of a rejected question may still appear, because the database was slow to commit it."""

AUDIT = Table(
    "chatbot_audit",
    METADATA,
    Column("writer", String(32), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(8), nullable=False),
    Column("answer_id", String(64), nullable=False),
    Column("tenant", String(200), nullable=False),
    Column("at", Double, nullable=False, index=True),
    Column("body", Text, nullable=False),
    Column("prev_hmac", String(64), nullable=False),
    Column("hmac", String(64), nullable=False),
    # Makes opening and closing idempotent on all replicas.
    UniqueConstraint("answer_id", "kind"),
)


class AuditSettings(BaseModel, frozen=True):
    """The secret of the chains; the deadline of a write (a hand-off is due within 2 s) and the retry interval in s.

    While `most_waiting` records wait, further ones are rejected.
    """

    key: SecretStr = Field(min_length=16)
    deadline: PositiveFloat = 1.5
    retry_every: PositiveFloat = 2.0
    most_waiting: int = 10_000


@dataclass(slots=True)
class PendingRecord:
    """A record that is not written yet; `done` wakes its caller, with `error` if the write failed."""

    record: AuditOpened | AuditClosed
    done: anyio.Event = field(default_factory=anyio.Event)
    error: Exception | None = None
    given_up: bool = False
    needs_opening: bool = False
    """Whether it is written only if the opening of its answer is stored."""
    since: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> tuple[str, str]:
        """The (answer, kind) of the row."""
        return self.record.answer_id, "opened" if isinstance(self.record, AuditOpened) else "closed"


class Audit:
    """Writes the two rows of an answer within a deadline; reads and verifies rows.

    Every method that waits for the database raises `AuditUnavailable` if it is unavailable.
    """

    def __init__(self, engine: AsyncEngine, settings: AuditSettings) -> None:
        self._engine = engine
        self._settings = settings
        self.keys = AuditKeys(settings.key.get_secret_value().encode())
        self._pending: list[PendingRecord] = []
        self._pending_if_opened: list[PendingRecord] = []
        """Closing records that are written only if their opening is stored."""
        self._wake = anyio.Event()
        self._transaction = anyio.Lock()
        """Held by the one transaction that extends the chain."""
        self._writer, self._sequence, self._head = new_chain()

    async def open(self, opened: AuditOpened) -> None:
        """Write the opening row, before the model is called; a second call changes nothing.

        Raises:
            AuditUnavailable: the row is not durable within the deadline, so the question must not be answered.
            ValueError: a row cannot hold a value, such as text that is not Unicode.
        """
        await self._write(PendingRecord(opened))

    async def close(self, closed: AuditClosed) -> None:
        """Write the closing row; a second call changes nothing.

        Raises:
            AuditUnavailable: the row is not durable yet; this process retries, unless `most_waiting` records waited.
            ValueError: as `open`.
        """
        await self._write(PendingRecord(closed))

    def close_if_opened(self, closed: AuditClosed) -> None:
        """Close the record of an answer that will not be given, if its opening is stored within a minute.

        This returns at once, because it may not be known yet whether the opening was written.
        """
        self._pending_if_opened.append(PendingRecord(closed, needs_opening=True))
        del self._pending_if_opened[: -self._settings.most_waiting]
        self._wake.set()

    async def rows(self, answer_id: str) -> tuple[AuditRow, ...]:
        """Return an answer's rows, the opening first."""
        return await self._read(select(AUDIT).where(AUDIT.c.answer_id == answer_id).order_by(AUDIT.c.kind.desc()))

    async def unclosed_rows(self, *, older_than: float, since: float = 0.0) -> tuple[AuditRow, ...]:
        """Return the opening rows from `since` to `older_than` (Unix seconds) that have no closing row."""
        is_opening = and_(AUDIT.c.kind == "opened", AUDIT.c.at >= since, AUDIT.c.at < older_than)
        return await self._read(select(AUDIT).where(is_opening, ~exists_other_row("closed")).order_by(AUDIT.c.at))

    async def chain_heads(self) -> tuple[ChainHead, ...]:
        """Return the last row of every chain."""
        later = AUDIT.alias()
        is_last = ~exists().where(later.c.writer == AUDIT.c.writer, later.c.sequence > AUDIT.c.sequence)
        rows = await self._read(select(AUDIT).where(is_last).order_by(AUDIT.c.writer))
        return tuple(ChainHead(writer=row.writer, sequence=row.sequence, hmac=row.hmac) for row in rows)

    async def prune(self, *, before: float, kept_writers: Container[str] = ()) -> int:
        """Remove the chains whose last row is from before `before` (Unix seconds), except those of `kept_writers`.

        Return the number of removed rows. Only whole chains are removed, so that the others verify from the first row.

        Raises:
            AuditUnavailable: the database cannot be written.
        """
        old_writers = select(AUDIT.c.writer).group_by(AUDIT.c.writer).having(func.max(AUDIT.c.at) < before)
        removed_rows = 0
        try:
            async with self._engine.connect() as connection:
                writers = (await connection.execute(old_writers)).scalars().all()
            for writer in writers:
                if writer not in kept_writers:
                    async with self._engine.begin() as connection:
                        deleted = await connection.execute(delete(AUDIT).where(AUDIT.c.writer == writer))
                        removed_rows += deleted.rowcount
        except UNAVAILABLE as exc:
            raise AuditUnavailable from exc
        return removed_rows

    async def verify(
        self, *, unclosed_before: float, heads: Iterable[ChainHead] = (), since: float = 0.0
    ) -> list[ChainProblem]:
        """Return every edited, missing or reordered row, every anchored head that is missing, and every unpaired row.

        Rows from before `since` (Unix seconds) may be unpaired, because `prune` may have removed their partners.
        """
        problems: list[ChainProblem] = []
        check = ChainCheck(self.keys, heads)
        try:
            async with self._engine.connect() as connection:
                ordered = select(AUDIT).order_by(AUDIT.c.writer, AUDIT.c.sequence)
                async for sql_row in await connection.stream(ordered):
                    problems += check.feed(row_of(sql_row))
        except UNAVAILABLE as exc:
            raise AuditUnavailable from exc
        problems += check.missing_heads()
        for row in await self.unclosed_rows(older_than=unclosed_before, since=since):
            problems.append(problem("unclosed", row, "nothing says how the answer ended"))
        unopened = select(AUDIT).where(AUDIT.c.kind == "closed", AUDIT.c.at >= since, ~exists_other_row("opened"))
        for row in await self._read(unopened):
            problems.append(problem("unopened", row, "nothing says that the answer began"))
        return problems

    async def migrate_tables(self) -> None:
        """Migrate the tables to this release's schema."""
        try:
            await migrate(self._engine, SCHEMA)
        except UNAVAILABLE as exc:
            raise AuditUnavailable from exc

    async def write_forever(self) -> None:
        """Write pending records, one transaction at a time, until cancelled; one task of a process runs this."""
        while True:
            with anyio.move_on_after(self._settings.retry_every):
                await self._wake.wait()
            self._wake = anyio.Event()
            pending = [record for record in self._pending if not record.given_up]
            self._pending = pending[_MOST_AT_ONCE:]
            batch = [*pending[:_MOST_AT_ONCE], *self._pending_if_opened[:_MOST_AT_ONCE]]
            if batch:
                await self._write_batch(batch)

    async def drain(self) -> None:
        """Wait until no record is pending and no transaction runs, and write the records of `close_if_opened`."""
        while self._pending:
            await self._pending[-1].done.wait()
        async with self._transaction:  # a running one may write the opening of a record in `_pending_if_opened`
            pending_if_opened = tuple(self._pending_if_opened)
        for n in range(0, len(pending_if_opened), _MOST_AT_ONCE):
            await self._write_batch(pending_if_opened[n : n + _MOST_AT_ONCE])

    async def _write(self, pending: PendingRecord) -> None:
        """Hand a record to `write_forever`, and wait until it is written or the deadline has passed."""
        # A record that cannot become a row fails here, and not in a transaction with the records of other callers.
        seal(pending.record.entry(self._writer, 1, self.keys), GENESIS, self.keys)
        if len(self._pending) >= self._settings.most_waiting:
            raise AuditUnavailable
        self._pending.append(pending)
        self._wake.set()
        try:
            with anyio.fail_after(self._settings.deadline):
                await pending.done.wait()
        except TimeoutError as exc:
            raise AuditUnavailable from exc
        finally:
            # An opening whose caller gave up must not be written later: its question is not answered.
            pending.given_up = isinstance(pending.record, AuditOpened) and not pending.done.is_set()
        if pending.error is not None:
            raise AuditUnavailable from pending.error

    async def _write_batch(self, batch: Sequence[PendingRecord]) -> None:
        """Write records in one transaction; if it fails, begin a new chain and keep the closing records."""
        async with self._transaction:
            try:
                with anyio.fail_after(self._settings.deadline):
                    await self._insert_unless_written(batch)
            except UNAVAILABLE as exc:
                log.warning("audit_write_failed", rows=len(batch), error=type(exc).__name__)
                self._writer, self._sequence, self._head = new_chain()
                self._fail(batch, exc)
            else:
                for pending in batch:
                    pending.done.set()
                if self._pending:
                    self._wake.set()

    def _fail(self, batch: Sequence[PendingRecord], exc: Exception) -> None:
        """Fail the waiting callers; keep the closing records, so that no answer stays open after an outage."""
        for pending in batch:
            pending.error = exc
            pending.done.set()
        # `_pending_if_opened` still has the records that need their opening.
        closings = [
            pending for pending in batch if isinstance(pending.record, AuditClosed) and not pending.needs_opening
        ]
        self._pending = [*(PendingRecord(pending.record) for pending in closings), *self._pending]

    async def _insert_unless_written(self, batch: Sequence[PendingRecord]) -> None:
        try:
            await self._insert(batch)
        except IntegrityError:
            # Another replica wrote one of these rows between our read and our write.
            await self._insert(batch)

    async def _insert(self, batch: Sequence[PendingRecord]) -> None:
        """Insert the rows that are not stored, and keep the records whose openings may still be stored."""
        async with impatient_transaction(self._engine) as connection:
            openings = [(pending.record.answer_id, "opened") for pending in batch if pending.needs_opening]
            stored_keys = await keys_with_rows(connection, [*(pending.key for pending in batch), *openings])
            rows: list[AuditRow] = []
            head = self._head
            for pending in batch:
                may_write = not pending.needs_opening or (pending.record.answer_id, "opened") in stored_keys
                if pending.key not in stored_keys and may_write:
                    stored_keys.add(pending.key)
                    entry = pending.record.entry(self._writer, self._sequence + len(rows) + 1, self.keys)
                    rows.append(seal(entry, head, self.keys))
                    head = rows[-1].hmac
            if rows:
                await connection.execute(insert(AUDIT), [asdict(row) for row in rows])
        self._sequence += len(rows)
        self._head = head
        batch_ids = {id(pending) for pending in batch}
        not_in_batch = [pending for pending in self._pending_if_opened if id(pending) not in batch_ids]
        oldest = time.monotonic() - _OPENING_MAY_COME_SECONDS
        unstored = [pending for pending in batch if pending.needs_opening and pending.key not in stored_keys]
        self._pending_if_opened = [*not_in_batch, *(pending for pending in unstored if pending.since > oldest)]

    async def _read(self, query: Select[Any]) -> tuple[AuditRow, ...]:
        try:
            async with self._engine.connect() as connection:
                return tuple(row_of(row) for row in await connection.execute(query))
        except UNAVAILABLE as exc:
            raise AuditUnavailable from exc


@asynccontextmanager
async def open_audit(
    engine: AsyncEngine, settings: AuditSettings, *, on_failure: OnFailure = uncounted
) -> AsyncGenerator[Audit]:
    """Open the process's audit writer; at the end of the block, it writes the pending records.

    Raises:
        AuditUnavailable: the database is unavailable.
    """
    audit = Audit(engine, settings)
    await audit.migrate_tables()
    async with anyio.create_task_group() as group:
        group.start_soon(supervise, "audit", audit.write_forever, on_failure)
        try:
            yield audit
        finally:
            with anyio.move_on_after(settings.deadline, shield=True):
                await audit.drain()
            group.cancel_scope.cancel()


async def keys_with_rows(connection: AsyncConnection, keys: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the keys (answer, kind) that have a row."""
    pair = tuple_(AUDIT.c.answer_id, AUDIT.c.kind)
    rows = await connection.execute(select(AUDIT.c.answer_id, AUDIT.c.kind).where(pair.in_(keys)))
    return {(answer_id, kind) for answer_id, kind in rows}


def new_chain() -> tuple[str, int, str]:
    """Return the id of a new writer, the number of its rows (0), and the HMAC that its first row follows."""
    return uuid.uuid4().hex, 0, GENESIS


def exists_other_row(kind: str) -> Exists:
    """Return the SQL condition that the row's answer also has a row of this kind."""
    other = AUDIT.alias()
    return exists().where(other.c.answer_id == AUDIT.c.answer_id, other.c.kind == kind)


def row_of(sql_row: SqlRow[Any]) -> AuditRow:
    return AuditRow(**{column: getattr(sql_row, column) for column in AUDIT.columns.keys()})  # noqa: SIM118  no mapping
