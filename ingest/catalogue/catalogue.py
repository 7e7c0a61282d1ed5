"""The catalogue of documents in SQL: versions, their states and windows, and the jobs that index them.

A transaction that decides about a document first updates the document's row. So a second decision waits for the first:
on PostgreSQL for the row's lock, on SQLite for the only write lock.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import asdict
from hashlib import sha256
from itertools import takewhile

import anyio
from sqlalchemy import ColumnElement, exists, func, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from stamina import AsyncRetryingCaller

from ingest.catalogue import records, rows
from ingest.catalogue.listing import Listing, documents_query
from ingest.catalogue.tables import DECISIONS, JOBS, SCHEMA, VERSIONS
from ingest.catalogue.versions import (
    DecisionRecord,
    DocumentSummary,
    IndexedVersion,
    IndexingResult,
    Job,
    JobState,
    Received,
    State,
    Upload,
    Version,
    VersionKey,
    Window,
    WindowWritten,
)
from ingest.errors import CatalogueUnavailable, DuplicateContent, NotFound, Unprocessable
from knowledge import withdrawals
from knowledge.index_state import IndexState, read_index_state, write_index_state
from knowledge.storage import UNAVAILABLE, migrate, transaction_lock
from knowledge.write_probe import WriteProbe

TRANSACTION_SECONDS = 10.0
TURN_SECONDS = 10.0
_MOST_DECISIONS = 500


class Catalogue:
    """Reads and writes the tables of documents; the claims of jobs are in `ingest.jobs.claims`.

    Every method raises CatalogueUnavailable if the database is unavailable.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._write_probe = WriteProbe(engine)
        # Of two uploads of the same bytes, the slower one violates a primary key; its retry finds the other's row.
        retrying = AsyncRetryingCaller(attempts=5, timeout=10.0, wait_initial=0.01, wait_max=0.2)
        self._retry_on_conflict = retrying.on(IntegrityError)
        # SQLite's write lock has no queue: a writer polls it and may fail while others overtake it. So the writers of
        # this process queue for this lock.
        self._write_turn = anyio.Lock() if engine.dialect.name == "sqlite" else nullcontext()

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection]:
        """Open a transaction that writes; on SQLite, wait up to TURN_SECONDS for the other writers of this process."""
        async with AsyncExitStack() as turn:
            try:
                with anyio.fail_after(TURN_SECONDS):
                    await turn.enter_async_context(self._write_turn)
            except TimeoutError as exc:
                raise CatalogueUnavailable from exc
            yield await turn.enter_async_context(self.read())

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection]:
        """Open a transaction that completes even if its task is cancelled, within TRANSACTION_SECONDS.

        If a call is cancelled, SQLAlchemy leaves an aiosqlite connection half closed: its thread keeps the write lock,
        and disposing of the engine never returns. The cancel scope across the `yield` is safe because every use is one
        `async with` in one task.
        """
        try:
            with anyio.fail_after(TRANSACTION_SECONDS, shield=True):
                async with self._engine.begin() as connection:
                    yield connection
        except IntegrityError:
            raise
        except UNAVAILABLE as exc:
            raise CatalogueUnavailable from exc

    async def create_tables(self) -> None:
        """Migrate the catalogue's and the withdrawals' tables to this release's schema."""
        try:
            await migrate(self._engine, withdrawals.SCHEMA, SCHEMA)
        except UNAVAILABLE as exc:
            reason = str(exc).partition("\n")[0]
            raise CatalogueUnavailable(
                f"the database {self._engine.url!r} cannot be migrated ({reason}): check DATABASE_URL and DATA_DIR, or "
                "restore it"
            ) from exc

    async def ping(self) -> None:
        """Return if the database accepts writes; raise CatalogueUnavailable otherwise."""
        try:
            await self._write_probe.ping()
        except UNAVAILABLE as exc:
            raise CatalogueUnavailable from exc

    async def receive(self, upload: Upload, *, now: float) -> Received:
        """Register an upload: the same bytes and metadata are the same version, and a failed one is queued again.

        The bytes of a withdrawn version become a new version, and with `upload.again` those of an expired one too.
        Raises DuplicateContent if the tenant has the same bytes with other metadata or as another document.
        """
        return await self._retry_on_conflict(self._receive, upload, now)

    async def _receive(self, upload: Upload, now: float) -> Received:
        async with self.write() as connection:
            await transaction_lock(connection, f"content {upload.sha256}")
            latest = await records.last_version_of_content(connection, upload.tenant, upload.sha256)
            repeated = None if latest is None else await _earlier_copy(connection, upload, latest, now)
            if repeated is not None:
                return await _receive_repeated(connection, repeated, now)
            document_id = _document_id(upload, latest)
            number = await records.take_next_number(connection, upload.tenant, document_id, now)
            key = VersionKey(tenant=upload.tenant, document_id=document_id, version=number)
            await records.add_version(connection, key, upload, replaces=latest, now=now)
            version = await records.read_version(connection, key)
            return Received(version=version, job=await records.read_job(connection, key))

    async def version(self, key: VersionKey) -> Version:
        """Return a version; raise NotFound if there is none."""
        async with self.read() as connection:
            return await records.read_version(connection, key)

    async def versions(self, tenant: str, document_id: str) -> list[Version]:
        """Return a document's versions, oldest first; raise NotFound if there are none."""
        async with self.read() as connection:
            versions = await records.read_versions(connection, tenant, document_id)
        if not versions:
            raise NotFound("there is no such document")
        return versions

    async def documents(
        self, tenant: str, listing: Listing, *, limit: int, now: float, after: str = ""
    ) -> list[DocumentSummary]:
        """Return at most `limit` of a tenant's documents in the listing's order, from behind the document `after`."""
        any_document = documents_query(tenant, Listing(order=listing.order), now=now)
        documents = documents_query(tenant, listing, now=now).subquery()
        order = (documents.c.sort_value, documents.c.document_id)
        query = select(documents).order_by(*order).limit(limit)
        async with self.read() as connection:
            if after:
                last_document = any_document.where(VERSIONS.c.document_id == after)
                last = (await connection.execute(last_document)).mappings().first()
                if last is None:
                    raise Unprocessable("cursor: no document has such an id")
                query = query.where(tuple_(*order) > (last["sort_value"], after))
            page = (await connection.execute(query)).mappings().all()
        return [DocumentSummary(latest=rows.to_version(row), versions=row["latest"]) for row in page]

    async def decisions(self, key: VersionKey) -> list[DecisionRecord]:
        """Return the decisions about a version, oldest first."""
        query = select(DECISIONS).where(rows.of_version(DECISIONS, key)).order_by(DECISIONS.c.id)
        async with self.read() as connection:
            decisions = (await connection.execute(query)).all()
        return [
            DecisionRecord(event=row.decision, by=row.decided_by, at=row.decided_at, detail=row.detail)
            for row in decisions
        ]

    async def counts(self, tenant: str) -> dict[State, int]:
        """Return how many versions of a tenant are in each stored state."""
        query = select(VERSIONS.c.state, func.count()).where(VERSIONS.c.tenant == tenant).group_by(VERSIONS.c.state)
        async with self.read() as connection:
            return {State(state): count for state, count in await connection.execute(query)}

    async def in_state(self, tenant: str, state: State, *, limit: int, after: tuple[str, int]) -> list[Version]:
        """Return at most `limit` of a tenant's versions in a stored state, from behind (document, version) `after`."""
        order = (VERSIONS.c.document_id, VERSIONS.c.version)
        query = select(VERSIONS).where(VERSIONS.c.tenant == tenant, VERSIONS.c.state == state, tuple_(*order) > after)
        async with self.read() as connection:
            versions = (await connection.execute(query.order_by(*order).limit(limit))).mappings().all()
        return [rows.to_version(row) for row in versions]

    async def job(self, tenant: str, job_id: str) -> Job:
        """Return a job of a tenant; raise NotFound if there is none."""
        query = select(JOBS).where(JOBS.c.tenant == tenant, JOBS.c.id == job_id)
        async with self.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            raise NotFound("there is no such job")
        return rows.to_job(row)

    async def jobs(
        self, tenant: str, state: JobState, *, limit: int | None = None, after: str = ""
    ) -> list[tuple[Job, Version]]:
        """Return at most `limit` of a tenant's jobs in a state, with their versions, by id from behind the id `after`.

        Jobs of withdrawn versions are left out, because they need no action.
        """
        job_key, version_key = (tuple_(t.c.tenant, t.c.document_id, t.c.version) for t in (JOBS, VERSIONS))
        query = select(JOBS).join(VERSIONS, job_key == version_key).where(VERSIONS.c.state != State.WITHDRAWN)
        query = query.where(JOBS.c.tenant == tenant, JOBS.c.state == state, JOBS.c.id > after)
        async with self.read() as connection:
            jobs = (await connection.execute(query.order_by(JOBS.c.id).limit(limit))).mappings().all()
            return [(job, await records.read_version(connection, job.key)) for job in map(rows.to_job, jobs)]

    async def mark_indexed(self, key: VersionKey, result: IndexingResult) -> Version:
        """Record that a received or failed version is in the index as a draft; other versions don't change."""
        indexed = {"state": State.INDEXED, "title": _without_nul(result.title), "reason": None, "detail": None}
        update = records.update_version(key).where(VERSIONS.c.state.in_([State.RECEIVED, State.FAILED]))
        async with self.write() as connection:
            await connection.execute(update.values(**asdict(result) | indexed))
            return await records.read_version(connection, key)

    async def mark_failed(self, key: VersionKey, *, reason: str, detail: str) -> Version:
        """Record why a version cannot be indexed; an approved or withdrawn version doesn't change."""
        async with self.write() as connection:
            may_fail = VERSIONS.c.state.not_in([State.APPROVED, State.WITHDRAWN])
            failure = {"state": State.FAILED, "reason": reason, "detail": _without_nul(detail)}
            await connection.execute(records.update_version(key).where(may_fail).values(**failure))
            return await records.read_version(connection, key)

    async def confirm_window(self, key: VersionKey, window: Window) -> bool:
        """Mark `window` as written to the index unless the version's window has changed; return whether it was marked.

        Also publish its end to the chatbots, which is safe: the index has the successor's window (`in_writing_order`).
        """
        columns = rows.window_columns(window)
        unchanged_columns = [VERSIONS.c[name].is_not_distinct_from(value) for name, value in columns.items()]
        update = records.update_version(key).where(*unchanged_columns).values(window_written=WindowWritten.WHOLE)
        async with self.write() as connection:
            is_confirmed = (await connection.execute(update)).rowcount == 1
            if is_confirmed and window.visible_until is not None:
                await withdrawals.write_end(
                    connection, key.tenant, key.document_id, key.version, ends_at=window.visible_until
                )
            return is_confirmed

    async def unconfirm_window(self, key: VersionKey) -> None:
        """Queue a version's window to be written again, because the index may have lost it."""
        update = records.update_version(key).where(_has_confirmed_window())
        async with self.write() as connection:
            await connection.execute(update.values(window_written=WindowWritten.START))

    async def last_decision(self) -> int:
        """Return the id of the last decision; 0 if there is none."""
        async with self.read() as connection:
            return (await connection.execute(select(func.max(DECISIONS.c.id)))).scalar_one() or 0

    async def unconfirm_windows_decided_again(self, *, after: int, until: float) -> int:
        """Queue the windows of documents that were decided about again; return the id of the last decision covered.

        Covers at most 500 decisions, after the id `after` and before the instant `until`. A process that wrote an
        earlier decision's window late may have overwritten a later one in the index, and died before it noticed.
        """
        query = select(DECISIONS.c.id, DECISIONS.c.tenant, DECISIONS.c.document_id, DECISIONS.c.decided_at)
        query = query.where(DECISIONS.c.id > after).order_by(DECISIONS.c.id).limit(_MOST_DECISIONS)
        async with self.read() as connection:
            decisions = (await connection.execute(query)).all()
        past = list(takewhile(lambda decision: decision.decided_at < until, decisions))
        for decision in past:
            of_document = rows.of_document(VERSIONS, decision.tenant, decision.document_id)
            same_document = rows.of_document(DECISIONS, decision.tenant, decision.document_id)
            has_earlier = exists().where(same_document, DECISIONS.c.id < decision.id)
            unconfirm = update(VERSIONS).where(of_document, _has_confirmed_window(), has_earlier)
            async with self.write() as connection:
                await connection.execute(unconfirm.values(window_written=WindowWritten.START))
        return past[-1].id if past else after

    async def set_passage_count(self, key: VersionKey, passages: int) -> None:
        """Record the number of a version's passages after it was chunked again."""
        async with self.write() as connection:
            await connection.execute(records.update_version(key).values(passages=passages))

    async def unwritten_windows(self) -> list[Version]:
        """Return the versions whose windows the index may lack, by tenant, document and version."""
        query = select(VERSIONS).where(VERSIONS.c.window_written != WindowWritten.WHOLE)
        order = (VERSIONS.c.tenant, VERSIONS.c.document_id, VERSIONS.c.version)
        async with self.read() as connection:
            versions = (await connection.execute(query.order_by(*order))).mappings().all()
        return [rows.to_version(row) for row in versions]

    async def index_state(self) -> IndexState:
        """Return the last comparison of the index with these tables."""
        async with self.read() as connection:
            return await read_index_state(connection)

    async def record_index_state(self, state: IndexState) -> None:
        """Record a comparison of the index with these tables."""
        async with self.write() as connection:
            await write_index_state(connection, state)

    async def indexed_versions(self) -> list[IndexedVersion]:
        """Return all versions that belong in the index: drafts, and those that customers could ever read."""
        keys = (VERSIONS.c.tenant, VERSIONS.c.document_id, VERSIONS.c.version)
        columns = (*keys, VERSIONS.c.passages, VERSIONS.c.visible_from)
        was_visible = (VERSIONS.c.state == State.WITHDRAWN) & VERSIONS.c.visible_from.is_not(None)
        is_in_index = VERSIONS.c.state.in_([State.INDEXED, State.APPROVED]) | was_visible
        async with self.read() as connection:
            versions = (await connection.execute(select(*columns).where(is_in_index).order_by(*keys))).mappings().all()
        return [rows.to_indexed_version(row) for row in versions]

    async def digests(self) -> set[str]:
        """Return the SHA-256 of every version's content."""
        async with self.read() as connection:
            return set((await connection.execute(select(VERSIONS.c.sha256).distinct())).scalars())

    async def all_versions(self, tenant: str) -> list[Version]:
        """Return every version of a tenant, newest upload first (for `ingest status`)."""
        query = select(VERSIONS).where(VERSIONS.c.tenant == tenant).order_by(VERSIONS.c.uploaded_at.desc())
        async with self.read() as connection:
            versions = (await connection.execute(query)).mappings().all()
        return [rows.to_version(row) for row in versions]


def _has_confirmed_window() -> ColumnElement[bool]:
    return VERSIONS.c.visible_from.is_not(None) & (VERSIONS.c.window_written == WindowWritten.WHOLE)


def _without_nul(text: str) -> str:
    """Return a text without U+0000, which PostgreSQL does not store."""
    return text.replace("\x00", "")


def _document_id(upload: Upload, latest: VersionKey | None) -> str:
    """Return the id of the document that an upload is a version of; `latest` is the last version with its bytes."""
    if upload.document_id is not None:
        return upload.document_id
    if latest is not None and not upload.path:
        return latest.document_id
    return f"doc-{sha256(f'{upload.tenant}/{upload.path or upload.sha256}'.encode()).hexdigest()[:16]}"


async def _earlier_copy(connection: AsyncConnection, upload: Upload, latest: VersionKey, now: float) -> Version | None:
    """Return the version that an upload repeats; None if the upload is a new version.

    `latest` is the last version with these bytes. The bytes of an expired version become a new version only
    with `upload.again`, since a folder that is loaded twice holds files of expired versions too.

    Raises:
        DuplicateContent: the bytes exist with other metadata, or as another document.
    """
    last = await records.read_version(connection, latest)
    if last.state is State.WITHDRAWN:
        return None
    repeated = await records.version_of_upload(connection, upload)
    if repeated is not None and not (upload.again and _is_over(repeated, now)):
        return repeated
    if upload.again and _is_over(last, now):
        return None
    raise DuplicateContent(latest.document_id, latest.version, is_over=_is_over(last, now))


def _is_over(version: Version, now: float) -> bool:
    return version.state_at(now) is State.EXPIRED


async def _receive_repeated(connection: AsyncConnection, version: Version, now: float) -> Received:
    """Return the version that an upload repeats, and its job; if indexing it failed, queue the job again."""
    key = version.key
    if version.state is State.FAILED:
        await connection.execute(records.update_version(key).values(state=State.RECEIVED, reason=None, detail=None))
        await connection.execute(rows.update_job(key).values(**rows.requeued(now)))
        version = await records.read_version(connection, key)
    return Received(version=version, job=await records.read_job(connection, key))
