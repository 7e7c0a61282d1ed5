"""What the bank has as documents: versions, their states, who approved them, and the jobs that index them (SQL).

Every write that decides something about a document first updates the document's row, so that on PostgreSQL two such
writes queue at that row, as they do on SQLite at the one write lock.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from hashlib import sha256

import anyio
from sqlalchemy import exists, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from stamina import AsyncRetryingCaller

from ingest.catalogue import records, rows
from ingest.catalogue.tables import DOCUMENTS, JOBS, SCHEMA, VERSIONS
from ingest.catalogue.versions import (
    DocumentSummary,
    Indexed,
    IndexTold,
    Job,
    JobState,
    Received,
    State,
    Upload,
    Version,
    VersionKey,
    Window,
)
from ingest.errors import CatalogueUnavailable, DuplicateContent, NotFound
from knowledge import withdrawals
from knowledge.storage import UNAVAILABLE, hold, migrate

TRANSACTION_SECONDS = 10.0
TURN_SECONDS = 10.0
_ASKED_AT_ONCE = 500


class Catalogue:
    """The one who reads and writes the tables of documents; the claims of jobs are in `ingest.jobs.claims`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # Two uploads of the same bytes meet at a primary key; the slower one looks again and finds the other's row.
        self._again = AsyncRetryingCaller(attempts=5, timeout=10.0, wait_initial=0.01, wait_max=0.2).on(IntegrityError)
        # Who waits for SQLite's one write lock tries again now and then, and gives up while others overtake.
        self._in_turn = anyio.Lock() if engine.dialect.name == "sqlite" else nullcontext()

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection]:
        """Open a transaction that writes: on SQLite in turn with the others of this process, as `read` otherwise.

        Raises:
            CatalogueUnavailable: as `read`, or its turn does not come.
        """
        async with AsyncExitStack() as turn:
            try:
                with anyio.fail_after(TURN_SECONDS):
                    await turn.enter_async_context(self._in_turn)
            except TimeoutError as exc:
                raise CatalogueUnavailable from exc
            yield await turn.enter_async_context(self.read())

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection]:
        """Open a transaction that comes to its end even where its task is cancelled (after 10 s it gives up).

        Cancelled inside a call, SQLAlchemy drops an aiosqlite connection half closed: its thread keeps the write lock,
        and disposing of the engine waits for ever. That is worth a cancel scope across a yield: every use is one
        `async with` in one task.

        Raises:
            CatalogueUnavailable: the database cannot be asked, or its disk is full.
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
        """Bring the tables to this release's shape, those of withdrawals too.

        Raises:
            CatalogueUnavailable: the database cannot be asked.
        """
        try:
            await migrate(self._engine, withdrawals.SCHEMA, SCHEMA)
        except UNAVAILABLE as exc:
            raise CatalogueUnavailable from exc

    async def ping(self) -> None:
        """Ask the database something.

        Raises:
            CatalogueUnavailable: it does not answer.
        """
        async with self.read() as connection:
            await connection.execute(select(1))

    async def receive(self, upload: Upload, *, now: float) -> Received:
        """Register an upload; the same bytes and metadata are the same version, and a failed one is tried again.

        Raises:
            DuplicateContent: the same bytes are there with other metadata.
        """
        return await self._again(self._receive, upload, now)

    async def _receive(self, upload: Upload, now: float) -> Received:
        async with self.write() as connection:
            await hold(connection, f"content {upload.sha256}")
            known = await _known(connection, upload)
            if known is not None and known.state is not State.WITHDRAWN:
                return await _received_before(connection, known, now)
            document_id = upload.document_id or (known.key.document_id if known else _name_of(upload))
            number = await records.next_version(connection, upload.tenant, document_id, now)
            key = VersionKey(tenant=upload.tenant, document_id=document_id, version=number)
            await records.add_version(connection, key, upload, instead_of=known.key if known else None, now=now)
            version = await records.version(connection, key)
            return Received(version=version, job=await records.job_of(connection, key), is_new=True)

    async def version(self, key: VersionKey) -> Version:
        """Return a version.

        Raises:
            NotFound: there is none.
        """
        async with self.read() as connection:
            return await records.version(connection, key)

    async def versions(self, tenant: str, document_id: str) -> list[Version]:
        """Return a document's versions, oldest first.

        Raises:
            NotFound: there is no such document.
        """
        async with self.read() as connection:
            found = await records.versions(connection, tenant, document_id)
        if not found:
            raise NotFound("there is no such document")
        return found

    async def documents(self, tenant: str, *, limit: int, after: str = "") -> list[DocumentSummary]:
        """Return documents by id from the one after `after` on."""
        of_documents = (
            select(VERSIONS, DOCUMENTS.c.latest)
            .join(
                DOCUMENTS,
                (DOCUMENTS.c.tenant == VERSIONS.c.tenant)
                & (DOCUMENTS.c.document_id == VERSIONS.c.document_id)
                & (DOCUMENTS.c.latest == VERSIONS.c.version),
            )
            .where(VERSIONS.c.tenant == tenant, VERSIONS.c.document_id > after)
            .order_by(VERSIONS.c.document_id)
            .limit(limit)
        )
        async with self.read() as connection:
            found = (await connection.execute(of_documents)).mappings().all()
        return [DocumentSummary(latest=rows.version(row), versions=row["latest"]) for row in found]

    async def in_state(
        self, tenant: str, state: State, *, limit: int, after: tuple[str, int] = ("", 0)
    ) -> list[Version]:
        """Return a tenant's versions in a stored state, by document and version from the one after `after` on."""
        names = tuple_(VERSIONS.c.document_id, VERSIONS.c.version)
        wanted = select(VERSIONS).where(VERSIONS.c.tenant == tenant, VERSIONS.c.state == state, names > after)
        order = (VERSIONS.c.document_id, VERSIONS.c.version)
        async with self.read() as connection:
            found = (await connection.execute(wanted.order_by(*order).limit(limit))).mappings().all()
        return [rows.version(row) for row in found]

    async def job(self, tenant: str, job_id: str) -> Job:
        """Return a job of a tenant.

        Raises:
            NotFound: there is none.
        """
        wanted = select(JOBS).where(JOBS.c.tenant == tenant, JOBS.c.id == job_id)
        async with self.read() as connection:
            row = (await connection.execute(wanted)).mappings().one_or_none()
        if row is None:
            raise NotFound("there is no such job")
        return rows.job(row)

    async def jobs(self, tenant: str, state: JobState, *, limit: int, after: str = "") -> list[tuple[Job, Version]]:
        """Return a tenant's jobs in a state with their versions, by id from the one after `after` on."""
        wanted = select(JOBS).where(JOBS.c.tenant == tenant, JOBS.c.state == state, JOBS.c.id > after)
        async with self.read() as connection:
            found = (await connection.execute(wanted.order_by(JOBS.c.id).limit(limit))).mappings().all()
            jobs = [rows.job(row) for row in found]
            return [(job, await records.version(connection, job.key)) for job in jobs]

    async def indexed(self, key: VersionKey, indexed: Indexed) -> Version:
        """Record that a version is in the index as a draft, unless it is already, or was withdrawn meanwhile."""
        async with self.write() as connection:
            await connection.execute(
                records.at(key)
                .where(VERSIONS.c.state.in_([State.RECEIVED, State.FAILED]))
                .values(
                    state=State.INDEXED,
                    format=indexed.format,
                    title=_storable(indexed.title),
                    language=indexed.language,
                    passages=indexed.passages,
                    reason=None,
                    detail=None,
                )
            )
            return await records.version(connection, key)

    async def failed(self, key: VersionKey, *, reason: str, detail: str) -> Version:
        """Record why a version cannot be indexed, unless it was approved or withdrawn meanwhile."""
        async with self.write() as connection:
            still_wanted = records.at(key).where(VERSIONS.c.state.not_in([State.APPROVED, State.WITHDRAWN]))
            await connection.execute(still_wanted.values(state=State.FAILED, reason=reason, detail=_storable(detail)))
            return await records.version(connection, key)

    async def window_written(self, key: VersionKey, window: Window) -> bool:
        """Record that the index has been told this window; return whether it is still the version's."""
        told = rows.window(window)
        same = [VERSIONS.c[name].is_not_distinct_from(value) for name, value in told.items()]
        async with self.write() as connection:
            written = await connection.execute(records.at(key).where(*same).values(window_written=IndexTold.WINDOW))
            return written.rowcount == 1

    async def doubt_window(self, key: VersionKey) -> None:
        """Have a version's window written again, if it has one: the index may have lost it."""
        async with self.write() as connection:
            told = records.at(key).where(
                VERSIONS.c.visible_from.is_not(None), VERSIONS.c.window_written == IndexTold.WINDOW
            )
            await connection.execute(told.values(window_written=IndexTold.BEGINNING))

    async def recounted(self, key: VersionKey, passages: int) -> None:
        """Record how many passages a version has after it was cut anew."""
        async with self.write() as connection:
            await connection.execute(records.at(key).values(passages=passages))

    async def unwritten_windows(self) -> list[Version]:
        """Return versions whose window a crash kept from the index, in the order in which they were to be written."""
        wanted = select(VERSIONS).where(VERSIONS.c.window_written != IndexTold.WINDOW)
        order = (VERSIONS.c.tenant, VERSIONS.c.document_id, VERSIONS.c.version)
        async with self.read() as connection:
            found = (await connection.execute(wanted.order_by(*order))).mappings().all()
        return [rows.version(row) for row in found]

    async def everything(self) -> list[VersionKey]:
        """Return all versions that belong in the index: drafts, and whatever anybody could ever read."""
        keys = (VERSIONS.c.tenant, VERSIONS.c.document_id, VERSIONS.c.version)
        shown = (VERSIONS.c.state == State.WITHDRAWN) & VERSIONS.c.visible_from.is_not(None)
        wanted = select(*keys).where(VERSIONS.c.state.in_([State.INDEXED, State.APPROVED]) | shown).order_by(*keys)
        async with self.read() as connection:
            found = (await connection.execute(wanted)).all()
        return [VersionKey(tenant=row.tenant, document_id=row.document_id, version=row.version) for row in found]

    async def contents(self, digests: Sequence[str]) -> set[str]:
        """Return which of these contents some version has."""
        found: set[str] = set()
        for start in range(0, len(digests), _ASKED_AT_ONCE):
            some = digests[start : start + _ASKED_AT_ONCE]
            async with self.read() as connection:
                wanted = select(VERSIONS.c.sha256).where(VERSIONS.c.sha256.in_(some))
                found |= set((await connection.execute(wanted)).scalars())
        return found

    @asynccontextmanager
    async def unnamed(self, digest: str) -> AsyncGenerator[bool]:
        """Tell whether no version has a content; no new one can come to have it while the block runs."""
        async with self.write() as connection:
            await hold(connection, f"content {digest}")
            yield (await connection.execute(select(exists().where(VERSIONS.c.sha256 == digest)))).scalar_one() is False

    async def all_versions(self, tenant: str) -> list[Version]:
        """Return every version of a tenant, newest upload first (for `ingest status`)."""
        wanted = select(VERSIONS).where(VERSIONS.c.tenant == tenant).order_by(VERSIONS.c.uploaded_at.desc())
        async with self.read() as connection:
            found = (await connection.execute(wanted)).mappings().all()
        return [rows.version(row) for row in found]


def _storable(text: str) -> str:
    """Return what a file says without the one character that PostgreSQL does not store."""
    return text.replace("\x00", "")


def _name_of(upload: Upload) -> str:
    return f"doc-{sha256(f'{upload.tenant}/{upload.sha256}'.encode()).hexdigest()[:16]}"


async def _known(connection: AsyncConnection, upload: Upload) -> Version | None:
    """Return the version that has the upload's bytes; one that was withdrawn stands in nobody's way.

    Raises:
        DuplicateContent: it has other metadata, or another document was named.
    """
    key = await records.content_holder(connection, upload.tenant, upload.sha256)
    if key is None:
        return None
    known = await records.version(connection, key)
    if known.state is State.WITHDRAWN:
        return known
    other_document = upload.document_id is not None and upload.document_id != key.document_id
    if other_document or known.fingerprint != upload.metadata.fingerprint:
        raise DuplicateContent(key.document_id, key.version)
    return known


async def _received_before(connection: AsyncConnection, known: Version, now: float) -> Received:
    if known.state is State.FAILED:
        await connection.execute(records.at(known.key).values(state=State.RECEIVED, reason=None, detail=None))
        await connection.execute(rows.job_at(known.key).values(**rows.job_again(now)))
        known = await records.version(connection, known.key)
    return Received(version=known, job=await records.job_of(connection, known.key), is_new=False)
