"""The audit trail in SQL: two rows an answer, one before the model is called and one when the answer has ended.

Rows are chained by HMAC per writer (`chatbot.audit.chain`). A writer is a process; after a write whose outcome is
unknown it begins a new chain, so that no chain can fork. Writing is a group commit: while one transaction runs the
rows of the next one gather, so that many answers share one flush, and a caller that gives up loses only its own row.
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
from sqlalchemy import (
    Row as SqlRow,
)
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
"""Rows that one transaction writes or looks for: PostgreSQL refuses a statement that asks for some thousands."""
_LOOK_FOR_OPENING = 60.0
"""For how many seconds the opening of a rejected question may still be written: by a server that was slow to commit."""

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
    # It also makes opening and closing idempotent, on whichever replicas.
    UniqueConstraint("answer_id", "kind"),
)


class AuditSettings(BaseModel, frozen=True):
    """The secret of the chain; in seconds the deadline of a write (a hand-off is due within 2) and when to retry."""

    key: SecretStr = Field(min_length=16)
    deadline: PositiveFloat = 1.5
    retry_every: PositiveFloat = 2.0
    most_waiting: int = 10_000


@dataclass(slots=True)
class Waiting:
    """A record that is not written yet; `done` wakes its caller, with `error` if it failed."""

    record: AuditOpened | AuditClosed
    done: anyio.Event = field(default_factory=anyio.Event)
    error: Exception | None = None
    given_up: bool = False
    after_opening: bool = False
    """Whether it is written only where the opening of its answer is there."""
    since: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> tuple[str, str]:
        """The (answer, kind) of the row."""
        return self.record.answer_id, "opened" if isinstance(self.record, AuditOpened) else "closed"


class Audit:
    """Writes the two rows of an answer within a deadline; reads and verifies rows."""

    def __init__(self, engine: AsyncEngine, settings: AuditSettings) -> None:
        self._engine = engine
        self._settings = settings
        self.keys = AuditKeys(settings.key.get_secret_value().encode())
        self._waiting: list[Waiting] = []
        self._if_opened: list[Waiting] = []
        """Closing rows that are written only if their opening is there."""
        self._wake = anyio.Event()
        self._transaction = anyio.Lock()
        """Held by the one transaction that writes: the chain has one end."""
        self._writer, self._sequence, self._head = new_chain()

    async def open(self, opened: AuditOpened) -> None:
        """Write the opening row, before the model is called; a second time changes nothing.

        Raises:
            AuditUnavailable: it is not durable within the deadline, so there may be no answer.
            ValueError: it holds what no row can, such as text that is not Unicode.
        """
        await self._write(Waiting(opened))

    async def close(self, closed: AuditClosed) -> None:
        """Write the closing row; a second time changes nothing.

        Raises:
            AuditUnavailable: it is not durable yet; this process retries as long as it lives.
            ValueError: as `open`.
        """
        await self._write(Waiting(closed))

    def close_if_opened(self, closed: AuditClosed) -> None:
        """Close an opening whose answer will not be given, if it was written or still is: its outcome may be unknown.

        Does not wait; this process looks for the opening for a minute.
        """
        self._if_opened.append(Waiting(closed, after_opening=True))
        del self._if_opened[: -self._settings.most_waiting]
        self._wake.set()

    async def rows(self, answer_id: str) -> tuple[AuditRow, ...]:
        """Return an answer's rows, the opening first.

        Raises:
            AuditUnavailable: the database cannot be asked.
        """
        return await self._read(select(AUDIT).where(AUDIT.c.answer_id == answer_id).order_by(AUDIT.c.kind.desc()))

    async def unclosed(self, *, older_than: float, since: float = 0.0) -> tuple[AuditRow, ...]:
        """Return the opening rows from `since` to `older_than` (Unix seconds) without a closing one.

        Raises:
            AuditUnavailable: the database cannot be asked.
        """
        late = and_(AUDIT.c.kind == "opened", AUDIT.c.at >= since, AUDIT.c.at < older_than)
        return await self._read(select(AUDIT).where(late, ~exists_other("closed")).order_by(AUDIT.c.at))

    async def heads(self) -> tuple[ChainHead, ...]:
        """Return the last row of every chain, to be anchored where the owner of the database cannot write.

        Raises:
            AuditUnavailable: the database cannot be asked.
        """
        later = AUDIT.alias()
        is_last = ~exists().where(later.c.writer == AUDIT.c.writer, later.c.sequence > AUDIT.c.sequence)
        rows = await self._read(select(AUDIT).where(is_last).order_by(AUDIT.c.writer))
        return tuple(ChainHead(writer=row.writer, sequence=row.sequence, hmac=row.hmac) for row in rows)

    async def prune(self, *, before: float, keep: Container[str] = ()) -> int:
        """Remove the chains whose last row is older, but for those of these writers; return how many rows.

        A chain that continues is kept whole: the rows that stay verify from the first one.

        Raises:
            AuditUnavailable: the database cannot be written.
        """
        ended = select(AUDIT.c.writer).group_by(AUDIT.c.writer).having(func.max(AUDIT.c.at) < before)
        removed = 0
        try:
            async with self._engine.connect() as connection:
                writers = (await connection.execute(ended)).scalars().all()
            for writer in writers:
                if writer not in keep:
                    async with self._engine.begin() as connection:
                        removed += (await connection.execute(delete(AUDIT).where(AUDIT.c.writer == writer))).rowcount
        except UNAVAILABLE as exc:
            raise AuditUnavailable from exc
        return removed

    async def verify(
        self, *, unclosed_before: float, heads: Iterable[ChainHead] = (), since: float = 0.0
    ) -> list[ChainProblem]:
        """Return every edit, gap, reordering, cut (against anchored `heads`) and missing partner.

        The partner of a row from before `since` (Unix seconds) may be gone by `prune`.

        Raises:
            AuditUnavailable: the database cannot be asked.
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
        for row in await self.unclosed(older_than=unclosed_before, since=since):
            problems.append(problem("unclosed", row, "nothing says how the answer ended"))
        unopened = select(AUDIT).where(AUDIT.c.kind == "closed", AUDIT.c.at >= since, ~exists_other("opened"))
        for row in await self._read(unopened):
            problems.append(problem("unopened", row, "nothing says that the answer began"))
        return problems

    async def prepare(self) -> None:
        """Bring the tables to this release's shape.

        Raises:
            AuditUnavailable: the database cannot be asked.
        """
        try:
            await migrate(self._engine, SCHEMA)
        except UNAVAILABLE as exc:
            raise AuditUnavailable from exc

    async def write_forever(self) -> None:
        """Write everything that waits in one transaction, again and again; one task a process runs this."""
        while True:
            with anyio.move_on_after(self._settings.retry_every):
                await self._wake.wait()
            self._wake = anyio.Event()
            due = [waiting for waiting in self._waiting if not waiting.given_up]
            self._waiting = due[_MOST_AT_ONCE:]
            batch = [*due[:_MOST_AT_ONCE], *self._if_opened[:_MOST_AT_ONCE]]
            if batch:
                await self._write_batch(batch)

    async def drain(self) -> None:
        """Return when no row waits and no transaction runs, after the rows of `close_if_opened` too."""
        while self._waiting:
            await self._waiting[-1].done.wait()
        async with self._transaction:  # it may write the opening of a row in `_if_opened`
            if_opened = tuple(self._if_opened)
        for n in range(0, len(if_opened), _MOST_AT_ONCE):
            await self._write_batch(if_opened[n : n + _MOST_AT_ONCE])

    async def _write(self, waiting: Waiting) -> None:
        # What cannot be made a row fails here, for its caller alone, and not in the transaction of others.
        seal(waiting.record.entry(self._writer, 1, self.keys), GENESIS, self.keys)
        if len(self._waiting) >= self._settings.most_waiting:
            raise AuditUnavailable
        self._waiting.append(waiting)
        self._wake.set()
        try:
            with anyio.fail_after(self._settings.deadline):
                await waiting.done.wait()
        except TimeoutError as exc:
            raise AuditUnavailable from exc
        finally:
            # An opening whose caller gave up must not be written later: there is no answer to it.
            waiting.given_up = isinstance(waiting.record, AuditOpened) and not waiting.done.is_set()
        if waiting.error is not None:
            raise AuditUnavailable from waiting.error

    async def _write_batch(self, batch: Sequence[Waiting]) -> None:
        async with self._transaction:
            try:
                with anyio.fail_after(self._settings.deadline):
                    await self._insert_unless_written(batch)
            except UNAVAILABLE as exc:
                log.warning("audit_write_failed", rows=len(batch), error=type(exc).__name__)
                self._writer, self._sequence, self._head = new_chain()
                self._put_off(batch, exc)
            else:
                for waiting in batch:
                    waiting.done.set()
                if self._waiting:
                    self._wake.set()

    def _put_off(self, batch: Sequence[Waiting], exc: Exception) -> None:
        """Fail the callers that wait; keep the closings, so that no answer stays open after an outage."""
        for waiting in batch:
            waiting.error = exc
            waiting.done.set()
        closings = [w for w in batch if isinstance(w.record, AuditClosed) and not w.after_opening]
        self._waiting = [*(Waiting(closing.record) for closing in closings), *self._waiting]

    async def _insert_unless_written(self, batch: Sequence[Waiting]) -> None:
        try:
            await self._insert(batch)
        except IntegrityError:
            # Another replica wrote one of these rows between our read and our write.
            await self._insert(batch)

    async def _insert(self, batch: Sequence[Waiting]) -> None:
        async with impatient_transaction(self._engine) as connection:
            openings = [(waiting.record.answer_id, "opened") for waiting in batch if waiting.after_opening]
            stored_keys = await written(connection, [*(waiting.key for waiting in batch), *openings])
            rows: list[AuditRow] = []
            head = self._head
            for waiting in batch:
                is_due = not waiting.after_opening or (waiting.record.answer_id, "opened") in stored_keys
                if waiting.key not in stored_keys and is_due:
                    stored_keys.add(waiting.key)
                    entry = waiting.record.entry(self._writer, self._sequence + len(rows) + 1, self.keys)
                    rows.append(seal(entry, head, self.keys))
                    head = rows[-1].hmac
            if rows:
                await connection.execute(insert(AUDIT), [asdict(row) for row in rows])
        self._sequence += len(rows)
        self._head = head
        looked_for, since = {id(waiting) for waiting in batch}, time.monotonic() - _LOOK_FOR_OPENING
        may_come = [w for w in batch if w.after_opening and w.key not in stored_keys and w.since > since]
        self._if_opened = [*(w for w in self._if_opened if id(w) not in looked_for), *may_come]

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
    """Open the process's audit writer; on the way out it writes what still waits.

    Raises:
        AuditUnavailable: the database cannot be asked.
    """
    audit = Audit(engine, settings)
    await audit.prepare()
    async with anyio.create_task_group() as group:
        group.start_soon(supervise, "audit", audit.write_forever, on_failure)
        try:
            yield audit
        finally:
            with anyio.move_on_after(settings.deadline, shield=True):
                await audit.drain()
            group.cancel_scope.cancel()


async def written(connection: AsyncConnection, keys: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return which (answer, kind) already have their row."""
    pair = tuple_(AUDIT.c.answer_id, AUDIT.c.kind)
    rows = await connection.execute(select(AUDIT.c.answer_id, AUDIT.c.kind).where(pair.in_(keys)))
    return {(answer_id, kind) for answer_id, kind in rows}


def new_chain() -> tuple[str, int, str]:
    """Return the id of a new writer, the number of its rows, and the HMAC that its first row follows."""
    return uuid.uuid4().hex, 0, GENESIS


def exists_other(kind: str) -> Exists:
    """Return the condition that the row's answer also has a row of `kind`."""
    other = AUDIT.alias()
    return exists().where(other.c.answer_id == AUDIT.c.answer_id, other.c.kind == kind)


def row_of(sql_row: SqlRow[Any]) -> AuditRow:
    return AuditRow(**{column: getattr(sql_row, column) for column in AUDIT.columns.keys()})  # noqa: SIM118  no mapping
