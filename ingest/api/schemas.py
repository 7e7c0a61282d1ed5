"""The reply bodies of the staff API: pydantic models, built from the catalogue's values."""

from collections.abc import Sequence
from datetime import date
from typing import Self

from pydantic import BaseModel

from ingest.catalogue import DecisionRecord, DocumentSummary, Job, Received, State, Version
from ingest.parsing import LeftOut
from ingest.review import Change, FindingKind, PassageFinding
from knowledge.passage import Hit, Language, Passage


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
    """A version of a document; `left_out` counts the text pieces hidden in its file, by kind."""

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
        metadata = version.metadata
        return cls(
            document_id=version.key.document_id,
            version=version.key.version,
            state=version.state_at(now),
            reason=version.reason,
            detail=version.detail,
            title=metadata.title,
            product=metadata.product,
            link=metadata.link,
            language=metadata.language,
            readers=list(metadata.readers),
            file_name=version.file_name,
            format=version.format,
            size=version.size,
            sha256=version.sha256,
            passages=version.passages,
            left_out={LeftOut(kind): count for kind, count in version.left_out.items()},
            effective_from=metadata.effective_from,
            effective_until=metadata.effective_until,
            uploaded_by=version.uploaded_by,
            uploaded_at=version.uploaded_at,
            approved_by=version.approved_by,
            approved_at=version.approved_at,
            visible_from=version.visible_from,
            visible_until=version.visible_until,
        )


class EventOut(BaseModel):
    """An action on a version, its author and time; `detail` is the reason, or the new title or dates."""

    event: str
    by: str
    at: float
    detail: str | None


class HistoryOut(BaseModel):
    """The history of a version, oldest first: `uploaded`, and the decisions about it."""

    events: list[EventOut]

    @classmethod
    def of(cls, version: Version, decisions: Sequence[DecisionRecord]) -> Self:
        uploaded = EventOut(event="uploaded", by=version.uploaded_by, at=version.uploaded_at, detail=None)
        decided = [EventOut(event=d.decision, by=d.by, at=d.at, detail=d.detail) for d in decisions]
        return cls(events=[uploaded, *decided])


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


class PassageOut(BaseModel):
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

    @classmethod
    def of(cls, passage: Passage) -> Self:
        return cls(
            n=passage.n,
            document_id=passage.document_id,
            version=passage.version,
            title=passage.title,
            section=passage.section,
            page=passage.page,
            language=passage.language,
            text=passage.text,
            visible_from=passage.visible_from,
            visible_until=passage.visible_until,
        )


class PassagesOut(BaseModel):
    """The passages of a version, in the document's order."""

    passages: list[PassageOut]
    next: int | None


class FindingOut(BaseModel):
    """A finding in a passage: a personal identifier, an instruction to the model, or cells without values.

    A finding that `blocks` prevents the version's approval.
    """

    n: int
    page: int | None
    kind: FindingKind
    name: str
    excerpt: str
    blocks: bool


class FindingsOut(BaseModel):
    """The findings in `passages` passages; `more` if some are not listed."""

    passages: int
    findings: list[FindingOut]
    more: bool

    @classmethod
    def of(cls, findings: Sequence[PassageFinding], *, passages: int, more: bool) -> Self:
        listed = [
            FindingOut(n=f.n, page=f.page, kind=f.kind, name=f.name, excerpt=f.excerpt, blocks=f.blocks)
            for f in findings
        ]
        return cls(passages=passages, findings=listed, more=more)


class ChangeOut(BaseModel):
    """Code points `start` to `end` of passage `n`, which replace `removed`; either text may be empty."""

    n: int
    start: int
    end: int
    removed: str


class ChangesOut(BaseModel):
    """The changes since version `against`; `more` if some are not listed.

    `against` is null if no earlier version was approved.
    """

    against: int | None
    changes: list[ChangeOut]
    more: bool

    @classmethod
    def of(cls, changes: Sequence[Change], *, against: int | None, more: bool) -> Self:
        listed = [ChangeOut(n=c.n, start=c.start, end=c.end, removed=c.removed) for c in changes]
        return cls(against=against, changes=listed, more=more)


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
    seconds_left: float | None
    reason: str | None
    detail: str | None

    @classmethod
    def of(cls, job: Job, version: Version, now: float) -> Self:
        return cls(
            job_id=job.id,
            document_id=job.key.document_id,
            version=job.key.version,
            file_name=version.file_name,
            state=job.state,
            stage=job.stage,
            done=job.done,
            total=job.total,
            attempts=job.attempts,
            seconds_left=_seconds_left(job, now),
            reason=version.reason,
            detail=version.detail,
        )


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


class HitOut(BaseModel):
    """A passage found by a search."""

    score: float
    dense: float
    terms: float
    passage: PassageOut

    @classmethod
    def of(cls, hit: Hit) -> Self:
        return cls(score=hit.score, dense=hit.dense, terms=hit.terms, passage=PassageOut.of(hit.passage))


class SearchOut(BaseModel):
    """The passages that a customer of these groups would have found at an instant."""

    as_of: float
    as_groups: list[str]
    hits: list[HitOut]


def _seconds_left(job: Job, now: float) -> float | None:
    if job.state == "done":
        return 0.0
    if job.state != "running" or not job.done or not job.total or job.stage_began_at is None:
        return None
    return round(max(now - job.stage_began_at, 0.0) / job.done * (job.total - job.done), 1)
