"""Reads, locks and writes one document's rows inside a caller's transaction.

The rules live in the callers: `ingest.catalogue.catalogue`, `ingest.catalogue.approvals`, `ingest.jobs.claims`.
"""

from uuid import uuid4

from sqlalchemy import Update, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ingest.catalogue import rows
from ingest.catalogue.tables import CONTENTS, DOCUMENTS, JOBS, VERSIONS
from ingest.catalogue.versions import Job, State, Upload, Version, VersionKey
from ingest.errors import NotFound


def update_version(key: VersionKey) -> Update:
    """Return an update of a version's row, without values yet."""
    return update(VERSIONS).where(rows.of_version(VERSIONS, key))


async def lock_document(connection: AsyncConnection, key: VersionKey, now: float) -> None:
    """Lock the document's row until the transaction ends."""
    row = rows.of_document(DOCUMENTS, key.tenant, key.document_id)
    await connection.execute(update(DOCUMENTS).where(row).values(updated_at=now))


async def take_next_number(connection: AsyncConnection, tenant: str, document_id: str, now: float) -> int:
    """Increment and return the number of a document's latest version; this inserts or locks the document's row."""
    row = rows.of_document(DOCUMENTS, tenant, document_id)
    increment = update(DOCUMENTS).where(row).values(latest=DOCUMENTS.c.latest + 1, updated_at=now)
    number = (await connection.execute(increment.returning(DOCUMENTS.c.latest))).scalar_one_or_none()
    if number is not None:
        return int(number)
    first = {"tenant": tenant, "document_id": document_id, "latest": 1, "updated_at": now}
    await connection.execute(insert(DOCUMENTS).values(**first))
    return 1


async def read_version(connection: AsyncConnection, key: VersionKey) -> Version:
    """Return a version; raise NotFound if there is none."""
    query = select(VERSIONS).where(rows.of_version(VERSIONS, key))
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise NotFound("there is no such version")
    return rows.to_version(row)


async def read_versions(connection: AsyncConnection, tenant: str, document_id: str) -> list[Version]:
    """Return a document's versions, oldest first."""
    query = select(VERSIONS).where(rows.of_document(VERSIONS, tenant, document_id))
    versions = (await connection.execute(query.order_by(VERSIONS.c.version))).mappings().all()
    return [rows.to_version(row) for row in versions]


async def read_job(connection: AsyncConnection, key: VersionKey) -> Job:
    """Return the job of a version."""
    query = select(JOBS).where(rows.of_version(JOBS, key))
    return rows.to_job((await connection.execute(query)).mappings().one())


async def add_version(
    connection: AsyncConnection, key: VersionKey, upload: Upload, *, replaces: VersionKey | None, now: float
) -> None:
    """Insert a version with its job, and record it as the last version with its bytes (`document_contents`).

    `replaces` is the version that is recorded for these bytes so far, if any. Raises IntegrityError if another
    transaction has recorded a version for them since `replaces` was read.
    """
    await connection.execute(insert(VERSIONS).values(**rows.new_version(key, upload, now)))
    last_version = {"document_id": key.document_id, "version": key.version}
    is_content = (CONTENTS.c.tenant == key.tenant) & (CONTENTS.c.sha256 == upload.sha256)
    is_updated = False
    if replaces is not None:
        is_unchanged = (CONTENTS.c.document_id == replaces.document_id) & (CONTENTS.c.version == replaces.version)
        replacement = update(CONTENTS).where(is_content, is_unchanged).values(**last_version)
        is_updated = (await connection.execute(replacement)).rowcount > 0
    if not is_updated:
        await connection.execute(insert(CONTENTS).values(tenant=key.tenant, sha256=upload.sha256, **last_version))
    await connection.execute(insert(JOBS).values(**rows.new_job(uuid4().hex, key, now)))


async def last_version_of_content(connection: AsyncConnection, tenant: str, sha256: str) -> VersionKey | None:
    """Return a tenant's last version with these bytes, of any document, or None."""
    query = select(CONTENTS).where(CONTENTS.c.tenant == tenant, CONTENTS.c.sha256 == sha256)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        return None
    return VersionKey(tenant=tenant, document_id=row["document_id"], version=row["version"])


async def version_of_upload(connection: AsyncConnection, upload: Upload) -> Version | None:
    """Return the newest version with an upload's bytes and metadata (and document id, if given), or None.

    Withdrawn versions don't count.
    """
    is_same = (VERSIONS.c.sha256 == upload.sha256) & (VERSIONS.c.fingerprint == upload.metadata.fingerprint)
    is_of_document = true() if upload.document_id is None else VERSIONS.c.document_id == upload.document_id
    is_candidate = (VERSIONS.c.tenant == upload.tenant) & (VERSIONS.c.state != State.WITHDRAWN)
    query = select(VERSIONS).where(is_candidate, is_same, is_of_document)
    newest = query.order_by(VERSIONS.c.uploaded_at.desc(), VERSIONS.c.version.desc()).limit(1)
    row = (await connection.execute(newest)).mappings().one_or_none()
    return None if row is None else rows.to_version(row)
