"""Rows of `ingest.catalogue.tables` to values of `ingest.catalogue.versions` and back.

The only module that maps column names to fields.
"""

from typing import TypeAlias

from sqlalchemy import ColumnElement, RowMapping, Table, Update, update

from ingest.catalogue.tables import JOBS
from ingest.catalogue.versions import (
    Decision,
    Job,
    JobState,
    Metadata,
    Stage,
    State,
    Upload,
    Version,
    VersionKey,
    Window,
    WindowWritten,
)

Values: TypeAlias = dict[str, object]


def to_version(row: RowMapping) -> Version:
    """Return a row of `document_versions` as a value."""
    return Version(
        key=VersionKey(tenant=row["tenant"], document_id=row["document_id"], version=row["version"]),
        file_name=row["file_name"],
        sha256=row["sha256"],
        size=row["size"],
        metadata=Metadata(
            title=row["title"],
            product=row["product"],
            link=row["link"],
            language=row["language"],
            readers=tuple(row["readers"]),
            effective_from=row["effective_from"],
            effective_until=row["effective_until"],
        ),
        fingerprint=row["fingerprint"],
        uploaded_by=row["uploaded_by"],
        uploaded_at=row["uploaded_at"],
        state=State(row["state"]),
        format=row["format"],
        reason=row["reason"],
        detail=row["detail"],
        passages=row["passages"],
        left_out=row["left_out"] or {},
        approved_by=row["approved_by"],
        approved_at=row["approved_at"],
        visible_from=row["visible_from"],
        visible_until=row["visible_until"],
        window_written=WindowWritten(row["window_written"]),
    )


def new_version(key: VersionKey, upload: Upload, now: float) -> Values:
    """Return the row of a version that has just been received."""
    metadata = upload.metadata
    return {
        "tenant": key.tenant,
        "document_id": key.document_id,
        "version": key.version,
        "file_name": upload.file_name,
        "sha256": upload.sha256,
        "size": upload.size,
        "fingerprint": metadata.fingerprint,
        "title": metadata.title,
        "product": metadata.product,
        "link": metadata.link,
        "language": metadata.language,
        "readers": list(metadata.readers),
        "effective_from": metadata.effective_from,
        "effective_until": metadata.effective_until,
        "state": State.RECEIVED,
        "passages": 0,
        "uploaded_by": upload.uploaded_by,
        "uploaded_at": now,
    }


def to_job(row: RowMapping) -> Job:
    """Return a row of `ingest_jobs` as a value."""
    return Job(
        id=row["id"],
        key=VersionKey(tenant=row["tenant"], document_id=row["document_id"], version=row["version"]),
        state=JobState(row["state"]),
        stage=Stage(row["stage"]),
        done=row["done"],
        total=row["total"],
        attempts=row["attempts"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        stage_began_at=row["stage_began_at"],
    )


def new_job(job_id: str, key: VersionKey, now: float) -> Values:
    """Return the row of a job that is queued for the first time."""
    identity = {"id": job_id, "tenant": key.tenant, "document_id": key.document_id, "version": key.version}
    return identity | {"created_at": now} | requeued(now)


def requeued(now: float) -> Values:
    """Return the columns that put a job into the queue (again), to be done from its beginning."""
    waiting = {"state": JobState.QUEUED, "stage": Stage.RECEIVE, "done": 0, "total": 0, "attempts": 0}
    return waiting | {"claimed_by": None, "claimed_until": 0.0, "updated_at": now, "stage_began_at": None}


def of_document(table: Table, tenant: str, document_id: str) -> ColumnElement[bool]:
    """Return the condition that a row is of a document."""
    return (table.c.tenant == tenant) & (table.c.document_id == document_id)


def of_version(table: Table, key: VersionKey) -> ColumnElement[bool]:
    """Return the condition that a row is of a version: its own, its job's, or a decision's about it."""
    return of_document(table, key.tenant, key.document_id) & (table.c.version == key.version)


def update_job(key: VersionKey) -> Update:
    """Return an update of the job of a version, without values yet."""
    return update(JOBS).where(of_version(JOBS, key))


def window_columns(window: Window) -> Values:
    """Return the two columns that hold a version's window."""
    return {"visible_from": window.visible_from, "visible_until": window.visible_until}


def new_decision(key: VersionKey, decision: Decision, by: str, at: float, detail: str) -> Values:
    """Return the row of a decision (`document_decisions`)."""
    return {
        "tenant": key.tenant,
        "document_id": key.document_id,
        "version": key.version,
        "decision": decision,
        "decided_by": by,
        "decided_at": at,
        "detail": detail or None,
    }
