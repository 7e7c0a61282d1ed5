"""One document's rows inside a transaction: read, locked, changed. Who decides what is in catalogue and decisions."""

from uuid import uuid4

from sqlalchemy import Update, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ingest.catalogue import rows
from ingest.catalogue.tables import CONTENTS, DOCUMENTS, JOBS, VERSIONS
from ingest.catalogue.versions import Job, Upload, Version, VersionKey
from ingest.errors import NotFound


def at(key: VersionKey) -> Update:
    return update(VERSIONS).where(
        VERSIONS.c.tenant == key.tenant,
        VERSIONS.c.document_id == key.document_id,
        VERSIONS.c.version == key.version,
    )


async def lock(connection: AsyncConnection, key: VersionKey, now: float) -> None:
    row = (DOCUMENTS.c.tenant == key.tenant) & (DOCUMENTS.c.document_id == key.document_id)
    await connection.execute(update(DOCUMENTS).where(row).values(updated_at=now))


async def next_version(connection: AsyncConnection, tenant: str, document_id: str, now: float) -> int:
    """Return the number of a document's next version, and make or lock its row."""
    row = (DOCUMENTS.c.tenant == tenant) & (DOCUMENTS.c.document_id == document_id)
    next_one = update(DOCUMENTS).where(row).values(latest=DOCUMENTS.c.latest + 1, updated_at=now)
    number = (await connection.execute(next_one.returning(DOCUMENTS.c.latest))).scalar_one_or_none()
    if number is not None:
        return int(number)
    first = {"tenant": tenant, "document_id": document_id, "latest": 1, "updated_at": now}
    await connection.execute(insert(DOCUMENTS).values(**first))
    return 1


async def version(connection: AsyncConnection, key: VersionKey) -> Version:
    wanted = select(VERSIONS).where(
        VERSIONS.c.tenant == key.tenant,
        VERSIONS.c.document_id == key.document_id,
        VERSIONS.c.version == key.version,
    )
    row = (await connection.execute(wanted)).mappings().one_or_none()
    if row is None:
        raise NotFound("there is no such version")
    return rows.version(row)


async def versions(connection: AsyncConnection, tenant: str, document_id: str) -> list[Version]:
    wanted = select(VERSIONS).where(VERSIONS.c.tenant == tenant, VERSIONS.c.document_id == document_id)
    found = (await connection.execute(wanted.order_by(VERSIONS.c.version))).mappings().all()
    return [rows.version(row) for row in found]


async def job_of(connection: AsyncConnection, key: VersionKey) -> Job:
    return rows.job((await connection.execute(rows.jobs_at(key))).mappings().one())


async def add_version(
    connection: AsyncConnection, key: VersionKey, upload: Upload, *, instead_of: VersionKey | None, now: float
) -> None:
    """Add a version with the job that indexes it; its content stands for it from now on.

    Raises:
        IntegrityError: somebody else was quicker with the same content.
    """
    await connection.execute(insert(VERSIONS).values(**rows.new_version(key, upload, now)))
    named = {"document_id": key.document_id, "version": key.version}
    where = (CONTENTS.c.tenant == key.tenant) & (CONTENTS.c.sha256 == upload.sha256)
    changed = 0
    if instead_of is not None:
        as_seen = (CONTENTS.c.document_id == instead_of.document_id) & (CONTENTS.c.version == instead_of.version)
        changed = (await connection.execute(update(CONTENTS).where(where, as_seen).values(**named))).rowcount
    if not changed:
        await connection.execute(insert(CONTENTS).values(tenant=key.tenant, sha256=upload.sha256, **named))
    await connection.execute(insert(JOBS).values(**rows.new_job(uuid4().hex, key, now)))


async def content_holder(connection: AsyncConnection, tenant: str, sha256: str) -> VersionKey | None:
    """Return the version that a content stands for."""
    wanted = select(CONTENTS).where(CONTENTS.c.tenant == tenant, CONTENTS.c.sha256 == sha256)
    row = (await connection.execute(wanted)).mappings().one_or_none()
    if row is None:
        return None
    return VersionKey(tenant=tenant, document_id=row["document_id"], version=row["version"])
