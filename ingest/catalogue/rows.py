"""Rows of `ingest.catalogue.tables` to values of `ingest.catalogue.versions` and back.

Columns have the names of the fields, those of a version's key and metadata included.
"""

from dataclasses import asdict
from typing import TypeAlias

import msgspec
from sqlalchemy import ColumnElement, RowMapping, Table, Update, update

from ingest.catalogue.tables import JOBS
from ingest.catalogue.versions import (
    Decision,
    IndexedVersion,
    Job,
    JobState,
    Stage,
    State,
    Upload,
    Version,
    VersionKey,
    Window,
)

Values: TypeAlias = dict[str, object]


def to_version(row: RowMapping) -> Version:
    """Return a row of `document_versions` as a value."""
    values = _values(row)
    return msgspec.convert(values | {"key": values, "metadata": values, "left_out": values["left_out"] or {}}, Version)


def to_indexed_version(row: RowMapping) -> IndexedVersion:
    """Return a row's key, number of passages and start as a value."""
    values = _values(row)
    return msgspec.convert(values | {"key": values}, IndexedVersion)


def new_version(key: VersionKey, upload: Upload, now: float) -> Values:
    """Return the row of a version that has just been received."""
    return {
        **asdict(key),
        **asdict(upload.metadata),
        "file_name": upload.file_name,
        "sha256": upload.sha256,
        "size": upload.size,
        "fingerprint": upload.metadata.fingerprint,
        "state": State.RECEIVED,
        "uploaded_by": upload.uploaded_by,
        "uploaded_at": now,
    }


def to_job(row: RowMapping) -> Job:
    """Return a row of `ingest_jobs` as a value."""
    values = _values(row)
    return msgspec.convert(values | {"key": values}, Job)


def _values(row: RowMapping) -> Values:
    # SQLAlchemy's column names are of a subclass of str, which msgspec rejects.
    return {str(name): value for name, value in row.items()}


def new_job(job_id: str, key: VersionKey, now: float) -> Values:
    """Return the row of a job that is queued for the first time."""
    return {"id": job_id, **asdict(key), "created_at": now} | requeued(now)


def requeued(now: float) -> Values:
    """Return the column values of a job that is queued to run from its beginning, with no attempts counted."""
    waiting = {"state": JobState.QUEUED, "stage": Stage.RECEIVE, "done": 0, "total": 0, "attempts": 0}
    return waiting | {"claimed_by": None, "claimed_until": 0.0, "updated_at": now}


def of_document(table: Table, tenant: str, document_id: str) -> ColumnElement[bool]:
    """Return the condition that a row belongs to a document."""
    return (table.c.tenant == tenant) & (table.c.document_id == document_id)


def of_version(table: Table, key: VersionKey) -> ColumnElement[bool]:
    """Return the condition that a row belongs to a version: the version's row, its job or a decision."""
    return of_document(table, key.tenant, key.document_id) & (table.c.version == key.version)


def update_job(key: VersionKey) -> Update:
    """Return an update of the job of a version, without values yet."""
    return update(JOBS).where(of_version(JOBS, key))


def window_columns(window: Window) -> Values:
    """Return the two columns that hold a version's window."""
    return {"visible_from": window.visible_from, "visible_until": window.visible_until}


def new_decision(key: VersionKey, decision: Decision, by: str, at: float, detail: str) -> Values:
    """Return the row of a decision (`document_decisions`)."""
    return {**asdict(key), "decision": decision, "decided_by": by, "decided_at": at, "detail": detail or None}
