"""The reply bodies of the staff API: pydantic models, built from the catalogue's values."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Self

from pydantic import BaseModel

from ingest.catalogue import DecisionRecord, DocumentSummary, Job, Received, State, Version
from ingest.parsing import LeftOut
from ingest.review import Change, PassageFinding
from knowledge.passage import Language


class ReceivedOut(BaseModel):
    """The reply to an upload."""

    document_id: str
    version: int
    job_id: str
    state: State

    @classmethod
    def of(cls, received: Received, now: float) -> Self:
        key = received.version.key
        state = received.version.state_at(now)
        return cls(document_id=key.document_id, version=key.version, job_id=received.job.id, state=state)


class VersionOut(BaseModel):
    """A version of a document; `left_out` is the number of hidden texts in its file, by kind."""

    document_id: str
    version: int
    state: State
    reason: str | None
    detail: str | None
    title: str | None
    product: str | None
    link: str | None
    language: Language | None
    readers: list[str]
    file_name: str
    format: str | None
    size: int
    sha256: str
    passages: int
    left_out: dict[LeftOut, int]
    effective_from: date | None
    effective_until: date | None
    uploaded_by: str
    uploaded_at: float
    approved_by: str | None
    approved_at: float | None
    visible_from: float | None
    visible_until: float | None

    @classmethod
    def of(cls, version: Version, now: float) -> Self:
        values = asdict(version)
        flat = values | values["key"] | values["metadata"]
        return cls.model_validate(flat | {"state": version.state_at(now)})


class HistoryOut(BaseModel):
    """The history of a version, oldest first: `uploaded`, and the decisions about it."""

    events: list[DecisionRecord]

    @classmethod
    def of(cls, version: Version, decisions: Sequence[DecisionRecord]) -> Self:
        uploaded = DecisionRecord(event="uploaded", by=version.uploaded_by, at=version.uploaded_at, detail=None)
        return cls(events=[uploaded, *decisions])


class CountsOut(BaseModel):
    """The number of versions in a tenant that need attention."""

    drafts: int
    failed: int


class DocumentOut(BaseModel):
    """A document in a list."""

    document_id: str
    versions: int
    latest: VersionOut

    @classmethod
    def of(cls, summary: DocumentSummary, now: float) -> Self:
        latest = VersionOut.of(summary.latest, now)
        return cls(document_id=latest.document_id, versions=summary.versions, latest=latest)


class DocumentsOut(BaseModel):
    """A page of documents; `next` is the cursor of the next page."""

    documents: list[DocumentOut]
    next: str | None


class VersionsOut(BaseModel):
    """All versions of a document, oldest first."""

    document_id: str
    versions: list[VersionOut]


class StateOut(BaseModel):
    """A page of versions in one state, of any document; `next` is the cursor of the next page."""

    versions: list[VersionOut]
    next: str | None


class PassageOut(BaseModel, from_attributes=True):
    """A passage as it would be cited."""

    n: int
    document_id: str
    version: int
    title: str
    section: str
    page: int | None
    language: Language
    text: str
    visible_from: float | None
    visible_until: float | None


class PassagesOut(BaseModel):
    """The passages of a version, in the document's order."""

    passages: list[PassageOut]
    next: int | None


class FindingsOut(BaseModel):
    """The findings in `passages` passages; `more` if some are not listed."""

    passages: int
    findings: list[PassageFinding]
    more: bool


class ChangesOut(BaseModel):
    """The changes since version `against`; `more` if some are not listed.

    `against` is null if no earlier version was approved.
    """

    against: int | None
    changes: list[Change]
    more: bool


class JobOut(BaseModel):
    """The progress of a job."""

    job_id: str
    document_id: str
    version: int
    file_name: str
    state: str
    stage: str
    done: int
    total: int
    attempts: int
    reason: str | None
    detail: str | None

    @classmethod
    def of(cls, job: Job, version: Version) -> Self:
        return cls.model_validate({**asdict(version), **asdict(job), **asdict(job.key), "job_id": job.id})


class JobsOut(BaseModel):
    """A page of jobs; `next` is the cursor of the next page."""

    jobs: list[JobOut]
    next: str | None


class MeOut(BaseModel):
    """The caller, their roles, and the bank's time zone."""

    sub: str
    tenant: str
    roles: list[str]
    zone: str


class HitOut(BaseModel, from_attributes=True):
    """A passage found by a search."""

    score: float
    dense: float
    terms: float
    passage: PassageOut


class SearchOut(BaseModel):
    """The passages that a customer of these groups would have found at an instant."""

    as_of: float
    as_groups: list[str]
    hits: list[HitOut]
