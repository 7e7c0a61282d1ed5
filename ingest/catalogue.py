"""What the bank has as documents: versions, their states, who approved them, and the jobs that index them (SQL).

Every write that decides something about a document first updates the document's row, so that on PostgreSQL two such
writes queue at that row, as they do on SQLite at the one write lock.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from uuid import uuid4
from zoneinfo import ZoneInfo

import anyio
from sqlalchemy import Connection, Update, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from stamina import AsyncRetryingCaller

from ingest import rows
from ingest.errors import CatalogueUnavailable, DuplicateContent, Forbidden, NotFound, WrongState
from ingest.schema import CONTENTS, DECISIONS, DOCUMENTS, JOBS, METADATA, VERSIONS
from ingest.timeline import Window, activate
from ingest.versions import DocumentSummary, Indexed, Job, Received, State, Upload, Version, VersionKey

TRANSACTION_SECONDS = 10.0


class Catalogue:
    """The one who reads and writes the tables of documents; the claims of jobs are in `ingest.queue`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # Two uploads of the same bytes meet at a primary key; the slower one looks again and finds the other's row.
        self._again = AsyncRetryingCaller(attempts=5, timeout=10.0, wait_initial=0.01, wait_max=0.2).on(IntegrityError)

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncConnection]:
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
        except (SQLAlchemyError, OSError) as exc:
            raise CatalogueUnavailable from exc

    async def create_tables(self) -> None:
        """Make the tables that are missing (issue 5 brings migrations)."""
        async with self.begin() as connection:
            await connection.run_sync(_create)

    async def ping(self) -> None:
        """Ask the database something.

        Raises:
            CatalogueUnavailable: it does not answer.
        """
        async with self.begin() as connection:
            await connection.execute(select(1))

    async def receive(self, upload: Upload, *, now: float) -> Received:
        """Register an upload; the same bytes and metadata are the same version, and a failed one is tried again.

        Raises:
            DuplicateContent: the same bytes are there with other metadata.
        """
        return await self._again(self._receive, upload, now)

    async def _receive(self, upload: Upload, now: float) -> Received:
        async with self.begin() as connection:
            known = await _known(connection, upload)
            if known is not None:
                return await _received_before(connection, known, now)
            document_id = (
                upload.document_id or f"doc-{sha256(f'{upload.tenant}/{upload.sha256}'.encode()).hexdigest()[:16]}"
            )
            number = await _next_version(connection, upload.tenant, document_id, now)
            key = VersionKey(tenant=upload.tenant, document_id=document_id, version=number)
            await connection.execute(insert(VERSIONS).values(**rows.new_version(key, upload, now)))
            await connection.execute(
                insert(CONTENTS).values(
                    tenant=upload.tenant, sha256=upload.sha256, document_id=document_id, version=number
                )
            )
            await connection.execute(insert(JOBS).values(**rows.new_job(uuid4().hex, key, now)))
            version = await _version(connection, key)
            return Received(version=version, job=await _job_of(connection, key), is_new=True)

    async def version(self, key: VersionKey) -> Version:
        """Return a version.

        Raises:
            NotFound: there is none.
        """
        async with self.begin() as connection:
            return await _version(connection, key)

    async def versions(self, tenant: str, document_id: str) -> list[Version]:
        """Return a document's versions, oldest first.

        Raises:
            NotFound: there is no such document.
        """
        async with self.begin() as connection:
            found = await _versions(connection, tenant, document_id)
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
        async with self.begin() as connection:
            found = (await connection.execute(of_documents)).mappings().all()
        return [DocumentSummary(latest=rows.version(row), versions=row["latest"]) for row in found]

    async def job(self, tenant: str, job_id: str) -> Job:
        """Return a job of a tenant.

        Raises:
            NotFound: there is none.
        """
        wanted = select(JOBS).where(JOBS.c.tenant == tenant, JOBS.c.id == job_id)
        async with self.begin() as connection:
            row = (await connection.execute(wanted)).mappings().one_or_none()
        if row is None:
            raise NotFound("there is no such job")
        return rows.job(row)

    async def indexed(self, key: VersionKey, indexed: Indexed) -> Version:
        """Record that a version is in the index as a draft."""
        async with self.begin() as connection:
            await connection.execute(
                _at(key).values(
                    state=State.INDEXED,
                    format=indexed.format,
                    title=indexed.title,
                    language=indexed.language,
                    passages=indexed.passages,
                    reason=None,
                    detail=None,
                )
            )
            return await _version(connection, key)

    async def failed(self, key: VersionKey, *, reason: str, detail: str) -> Version:
        """Record why a version cannot be indexed."""
        async with self.begin() as connection:
            await connection.execute(_at(key).values(state=State.FAILED, reason=reason, detail=detail))
            return await _version(connection, key)

    async def approve(self, key: VersionKey, *, approver: str, now: float, zone: ZoneInfo) -> list[Window]:
        """Record an approval and return the windows it changes, predecessors first; the index has to be told next.

        Approving again changes nothing, and returns nothing.

        Raises:
            NotFound: there is no such version.
            Forbidden: the approver is the uploader.
            WrongState: the version is no draft, or comes too late (`ingest.timeline`).
        """
        async with self.begin() as connection:
            await _lock(connection, key, now)
            everyone = await _versions(connection, key.tenant, key.document_id)
            version = next((v for v in everyone if v.key == key), None)
            if version is None:
                raise NotFound("there is no such version")
            if version.state is State.APPROVED:
                return []
            _require_approvable(version, approver)
            windows = activate(version, [v for v in everyone if v.key != key], now=now, zone=zone)
            for window in windows:
                await connection.execute(_at(_of(key, window)).values(**rows.window(window), window_written=0))
            approval = {"state": State.APPROVED, "approved_by": approver, "approved_at": now}
            await connection.execute(_at(key).values(**approval))
            await connection.execute(insert(DECISIONS).values(**rows.decision(key, approver, now, windows[-1])))
            return windows

    async def windows_written(self, keys: Sequence[VersionKey]) -> None:
        """Record that the index has been told the windows of these versions."""
        async with self.begin() as connection:
            for key in keys:
                await connection.execute(_at(key).values(window_written=1))

    async def unwritten_windows(self) -> list[Version]:
        """Return versions whose window a crash kept from the index, in the order in which they were to be written."""
        wanted = select(VERSIONS).where(VERSIONS.c.window_written == 0)
        order = (VERSIONS.c.tenant, VERSIONS.c.document_id, VERSIONS.c.version)
        async with self.begin() as connection:
            found = (await connection.execute(wanted.order_by(*order))).mappings().all()
        return [rows.version(row) for row in found]

    async def everything(self) -> list[VersionKey]:
        """Return all versions that belong in the index."""
        keys = (VERSIONS.c.tenant, VERSIONS.c.document_id, VERSIONS.c.version)
        wanted = select(*keys).where(VERSIONS.c.state.in_([State.INDEXED, State.APPROVED])).order_by(*keys)
        async with self.begin() as connection:
            found = (await connection.execute(wanted)).all()
        return [VersionKey(tenant=row.tenant, document_id=row.document_id, version=row.version) for row in found]

    async def all_versions(self, tenant: str) -> list[Version]:
        """Return every version of a tenant, newest upload first (for `ingest status`)."""
        wanted = select(VERSIONS).where(VERSIONS.c.tenant == tenant).order_by(VERSIONS.c.uploaded_at.desc())
        async with self.begin() as connection:
            found = (await connection.execute(wanted)).mappings().all()
        return [rows.version(row) for row in found]


def _create(connection: Connection) -> None:
    METADATA.create_all(connection)


def _at(key: VersionKey) -> Update:
    return update(VERSIONS).where(
        VERSIONS.c.tenant == key.tenant,
        VERSIONS.c.document_id == key.document_id,
        VERSIONS.c.version == key.version,
    )


def _of(key: VersionKey, window: Window) -> VersionKey:
    return VersionKey(tenant=key.tenant, document_id=key.document_id, version=window.version)


async def _lock(connection: AsyncConnection, key: VersionKey, now: float) -> None:
    row = (DOCUMENTS.c.tenant == key.tenant) & (DOCUMENTS.c.document_id == key.document_id)
    await connection.execute(update(DOCUMENTS).where(row).values(updated_at=now))


def _require_approvable(version: Version, approver: str) -> None:
    if version.state is not State.INDEXED:
        raise WrongState(f"only an indexed draft can be approved; this version is {version.state}")
    if approver.strip().casefold() == version.uploaded_by.strip().casefold():
        raise Forbidden("whoever uploaded a version cannot approve it: a second person has to look")


async def _known(connection: AsyncConnection, upload: Upload) -> Version | None:
    """Return the version that has the upload's bytes.

    Raises:
        DuplicateContent: it has other metadata, or another document was named.
    """
    wanted = select(CONTENTS).where(CONTENTS.c.tenant == upload.tenant, CONTENTS.c.sha256 == upload.sha256)
    row = (await connection.execute(wanted)).mappings().one_or_none()
    if row is None:
        return None
    key = VersionKey(tenant=upload.tenant, document_id=row["document_id"], version=row["version"])
    known = await _version(connection, key)
    other_document = upload.document_id is not None and upload.document_id != key.document_id
    if other_document or known.fingerprint != upload.metadata.fingerprint:
        raise DuplicateContent(key.document_id, key.version)
    return known


async def _received_before(connection: AsyncConnection, known: Version, now: float) -> Received:
    if known.state is State.FAILED:
        await connection.execute(_at(known.key).values(state=State.RECEIVED, reason=None, detail=None))
        await connection.execute(rows.job_at(known.key).values(**rows.job_again(now)))
        known = await _version(connection, known.key)
    return Received(version=known, job=await _job_of(connection, known.key), is_new=False)


async def _next_version(connection: AsyncConnection, tenant: str, document_id: str, now: float) -> int:
    """Return the number of a document's next version, and make or lock its row."""
    row = (DOCUMENTS.c.tenant == tenant) & (DOCUMENTS.c.document_id == document_id)
    next_one = update(DOCUMENTS).where(row).values(latest=DOCUMENTS.c.latest + 1, updated_at=now)
    number = (await connection.execute(next_one.returning(DOCUMENTS.c.latest))).scalar_one_or_none()
    if number is not None:
        return int(number)
    first = {"tenant": tenant, "document_id": document_id, "latest": 1, "updated_at": now}
    await connection.execute(insert(DOCUMENTS).values(**first))
    return 1


async def _version(connection: AsyncConnection, key: VersionKey) -> Version:
    wanted = select(VERSIONS).where(
        VERSIONS.c.tenant == key.tenant,
        VERSIONS.c.document_id == key.document_id,
        VERSIONS.c.version == key.version,
    )
    row = (await connection.execute(wanted)).mappings().one_or_none()
    if row is None:
        raise NotFound("there is no such version")
    return rows.version(row)


async def _versions(connection: AsyncConnection, tenant: str, document_id: str) -> list[Version]:
    wanted = select(VERSIONS).where(VERSIONS.c.tenant == tenant, VERSIONS.c.document_id == document_id)
    found = (await connection.execute(wanted.order_by(VERSIONS.c.version))).mappings().all()
    return [rows.version(row) for row in found]


async def _job_of(connection: AsyncConnection, key: VersionKey) -> Job:
    return rows.job((await connection.execute(rows.jobs_at(key))).mappings().one())
