"""Documents: lists, passages as they would be cited, and decisions by a second person."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from ingest.api.auth import Approver, Staff
from ingest.api.dependencies import LARGEST_VERSION, NO_NUL, TheServices
from ingest.api.schemas import (
    DocumentOut,
    DocumentsOut,
    HistoryOut,
    PassageOut,
    PassagesOut,
    ReceivedOut,
    VersionOut,
    VersionsOut,
)
from ingest.catalogue import ApprovalDecision, Listing, Order, Seen, State, VersionKey
from ingest.pipeline import activate, update_index
from ingest.services import Services
from knowledge.identity import Principal
from telemetry.ocsf import Code

router = APIRouter(prefix="/v1/documents", tags=["documents"])

DocumentId = Annotated[str, Path(max_length=100, pattern=NO_NUL)]
VersionNumber = Annotated[int, Path(ge=1, le=LARGEST_VERSION)]


class ReasonIn(BaseModel):
    """The reason for a decision, stored with it."""

    reason: str = Field("", max_length=400, pattern=NO_NUL)


class SeenIn(BaseModel):
    """The dates and title shown to the approver; the approval is refused if they have changed."""

    effective_from: date | None = None
    effective_until: date | None = None
    title: str | None = Field(None, max_length=300)


class RollBackIn(ReasonIn):
    """The version whose text should answer again."""

    to_version: int = Field(ge=1, le=LARGEST_VERSION)


async def listing_of(
    q: Annotated[str, Query(max_length=300, pattern=NO_NUL)] = "", state: State | None = None, sort: Order = Order.ID
) -> Listing:
    """Return the filter and order of a list of documents."""
    return Listing(words=q, state=state, order=sort)


@router.get("")
async def documents(
    who: Staff,
    services: TheServices,
    listing: Annotated[Listing, Depends(listing_of)],
    cursor: Annotated[str, Query(max_length=100, pattern=NO_NUL)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> DocumentsOut:
    """List documents by their latest version; `q`: every word must occur in the title, product, file name or id."""
    now = services.now()
    summaries = await services.catalogue.documents(who.tenant, listing, limit=limit + 1, now=now, after=cursor)
    page = [DocumentOut.of(summary, now) for summary in summaries[:limit]]
    return DocumentsOut(documents=page, next=page[-1].document_id if len(summaries) > limit else None)


@router.get("/{document_id}")
async def document(document_id: DocumentId, who: Staff, services: TheServices) -> DocumentOut:
    """Return a document with its latest version."""
    versions = await services.catalogue.versions(who.tenant, document_id)
    latest = VersionOut.of(versions[-1], services.now())
    return DocumentOut(document_id=document_id, versions=len(versions), latest=latest)


@router.get("/{document_id}/versions")
async def versions_of(document_id: DocumentId, who: Staff, services: TheServices) -> VersionsOut:
    """List a document's versions, oldest first."""
    versions = await services.catalogue.versions(who.tenant, document_id)
    listed = [VersionOut.of(version, services.now()) for version in versions]
    return VersionsOut(document_id=document_id, versions=listed)


async def named_version(document_id: DocumentId, version: VersionNumber, who: Staff) -> VersionKey:
    """Return the version in the path, for the caller's tenant."""
    return VersionKey(tenant=who.tenant, document_id=document_id, version=version)


Key = Annotated[VersionKey, Depends(named_version)]


@router.get("/{document_id}/versions/{version}")
async def version(key: Key, services: TheServices) -> VersionOut:
    """Return a version with its current state."""
    return VersionOut.of(await services.catalogue.version(key), services.now())


@router.get("/{document_id}/versions/{version}/passages")
async def passages(
    key: Key,
    services: TheServices,
    cursor: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> PassagesOut:
    """List a version's passages as they would be cited, including drafts."""
    version = await services.catalogue.version(key)
    page = await services.index.passages(
        tenant=key.tenant, document_id=key.document_id, version=key.version, after=cursor, most=limit
    )
    listed = [PassageOut.model_validate(passage) for passage in page]
    return PassagesOut(passages=listed, next=cursor + limit if cursor + limit < version.passages else None)


@router.get("/{document_id}/versions/{version}/history")
async def history(key: Key, services: TheServices) -> HistoryOut:
    """Return a version's upload and the decisions about it, oldest first."""
    version = await services.catalogue.version(key)
    return HistoryOut.of(version, await services.catalogue.decisions(key))


@router.post("/{document_id}/versions/{version}/approve")
async def approve(key: Key, who: Approver, services: TheServices, body: SeenIn | None = None) -> VersionOut:
    """Approve another person's draft, which answers from its effective date, at the earliest in two seconds."""
    seen = None
    if body is not None and body.model_fields_set:
        seen = Seen(effective_from=body.effective_from, effective_until=body.effective_until, title=body.title)
    approved = await activate(key, who.sub, services, seen)
    emit_event(Code.VERSION_APPROVED, who, key, services)
    return VersionOut.of(approved, services.now())


@router.post("/{document_id}/versions/{version}/reject")
async def reject(key: Key, who: Approver, services: TheServices, body: ReasonIn | None = None) -> VersionOut:
    """Withdraw a draft that customers have never seen."""
    decision = _decision(who, services.now(), body)
    rejected = await services.approvals.reject(key, decision)
    emit_event(Code.VERSION_REJECTED, who, key, services)
    await update_index(key, rejected, services)
    return VersionOut.of(await services.catalogue.version(key), decision.at)


@router.post("/{document_id}/versions/{version}/expire")
async def expire(key: Key, who: Approver, services: TheServices, body: ReasonIn | None = None) -> VersionOut:
    """Stop an approved version from answering, everywhere, within seconds."""
    decision = _decision(who, services.now(), body)
    expired = await services.approvals.expire(key, decision)
    emit_event(Code.VERSION_EXPIRED, who, key, services)
    await update_index(key, expired, services)
    return VersionOut.of(await services.catalogue.version(key), decision.at)


@router.post("/{document_id}/rollback", status_code=202)
async def roll_back(document_id: DocumentId, who: Approver, services: TheServices, body: RollBackIn) -> ReceivedOut:
    """Withdraw the active version and restore an earlier one as a new version, which answers once it is indexed.

    A version approved for a later date still starts on that date.
    """
    decision = _decision(who, services.now(), body)
    received, changed = await services.approvals.roll_back(who.tenant, document_id, body.to_version, decision)
    emit_event(Code.DOCUMENT_ROLLED_BACK, who, received.version.key, services, detail=f"from version {body.to_version}")
    await update_index(received.version.key, changed, services)
    return ReceivedOut.of(received, services.now())


@router.delete("/{document_id}")
async def delete(
    document_id: DocumentId, who: Approver, services: TheServices, body: ReasonIn | None = None
) -> VersionsOut:
    """Withdraw all versions of a document, everywhere, within seconds; the catalogue keeps their records."""
    decision = _decision(who, services.now(), body)
    changed = await services.approvals.delete(who.tenant, document_id, decision)
    services.siem.emit(Code.DOCUMENT_DELETED, tenant=who.tenant, by=who.sub, about=document_id)
    await update_index(VersionKey(tenant=who.tenant, document_id=document_id, version=1), changed, services)
    return await versions_of(document_id, who, services)


def emit_event(code: Code, who: Principal, key: VersionKey, services: Services, *, detail: str = "") -> None:
    """Report an action on a version to the bank's SIEM."""
    services.siem.emit(code, tenant=key.tenant, by=who.sub, about=f"{key.document_id}/{key.version}", detail=detail)


def _decision(who: Principal, at: float, body: ReasonIn | None) -> ApprovalDecision:
    return ApprovalDecision(by=who.sub, at=at, reason=body.reason if body else "")
