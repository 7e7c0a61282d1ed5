"""Documents: lists, passages as they would be cited, and what a second person decides about them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from ingest.api.auth import Approver, Staff
from ingest.api.dependencies import TheServices
from ingest.api.schemas import DocumentOut, DocumentsOut, PassageOut, PassagesOut, ReceivedOut, VersionOut, VersionsOut
from ingest.catalogue import ApprovalDecision, VersionKey
from ingest.jobs import deliver
from ingest.pipeline import activate, tell_index
from ingest.services import Services
from knowledge.identity import Principal

router = APIRouter(prefix="/v1/documents", tags=["documents"])

DocumentId = Annotated[str, Path(max_length=100)]
VersionNumber = Annotated[int, Path(ge=1, le=2**31 - 1)]


class Why(BaseModel):
    """Why somebody decides so; kept with the decision."""

    reason: str = Field("", max_length=400, pattern="^[^\\x00]*$")  # PostgreSQL stores no NUL


class RollBack(Why):
    """The version whose text is to answer again."""

    to_version: int = Field(ge=1, le=2**31 - 1)


@router.get("")
async def documents(
    who: Staff,
    services: TheServices,
    cursor: Annotated[str, Query(max_length=100)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> DocumentsOut:
    """List documents by id."""
    found = await services.catalogue.documents(who.tenant, limit=limit + 1, after=cursor)
    shown = [DocumentOut.of(summary, services.now()) for summary in found[:limit]]
    return DocumentsOut(documents=shown, next=shown[-1].document_id if len(found) > limit else None)


@router.get("/{document_id}")
async def document(document_id: DocumentId, who: Staff, services: TheServices) -> DocumentOut:
    """Return a document with its latest version."""
    versions = await services.catalogue.versions(who.tenant, document_id)
    latest = VersionOut.of(versions[-1], services.now())
    return DocumentOut(document_id=document_id, versions=len(versions), latest=latest)


@router.get("/{document_id}/versions")
async def versions_of(document_id: DocumentId, who: Staff, services: TheServices) -> VersionsOut:
    """List a document's versions, oldest first."""
    found = await services.catalogue.versions(who.tenant, document_id)
    return VersionsOut(document_id=document_id, versions=[VersionOut.of(v, services.now()) for v in found])


async def named_version(document_id: DocumentId, version: VersionNumber, who: Staff) -> VersionKey:
    """Return the version that the address names, of the caller's tenant."""
    return VersionKey(tenant=who.tenant, document_id=document_id, version=version)


@router.get("/{document_id}/versions/{version}")
async def version(key: Annotated[VersionKey, Depends(named_version)], services: TheServices) -> VersionOut:
    """Return one version with its state now."""
    return VersionOut.of(await services.catalogue.version(key), services.now())


@router.get("/{document_id}/versions/{version}/passages")
async def passages(
    key: Annotated[VersionKey, Depends(named_version)],
    services: TheServices,
    cursor: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> PassagesOut:
    """List a version's passages as they would be cited, drafts too."""
    await services.catalogue.version(key)
    found = await services.index.passages(tenant=key.tenant, document_id=key.document_id, version=key.version)
    rest = [passage for passage in found if passage.n > cursor]
    shown = [PassageOut.of(passage) for passage in rest[:limit]]
    return PassagesOut(passages=shown, next=shown[-1].n if len(rest) > limit else None)


@router.post("/{document_id}/versions/{version}/approve")
async def approve(
    key: Annotated[VersionKey, Depends(named_version)], who: Approver, services: TheServices
) -> VersionOut:
    """Let a draft answer from its effective date on, at the earliest in two seconds; never by its uploader."""
    return VersionOut.of(await activate(key, who.sub, services), services.now())


@router.post("/{document_id}/versions/{version}/reject")
async def reject(
    key: Annotated[VersionKey, Depends(named_version)], who: Approver, services: TheServices, body: Why | None = None
) -> VersionOut:
    """Withdraw a draft before anybody could read it."""
    decided = _decided(who, services, body)
    await tell_index(key, await services.decisions.reject(key, decided), services)
    return VersionOut.of(await services.catalogue.version(key), decided.at)


@router.post("/{document_id}/versions/{version}/expire")
async def expire(
    key: Annotated[VersionKey, Depends(named_version)], who: Approver, services: TheServices, body: Why | None = None
) -> VersionOut:
    """Let an approved version answer no more, everywhere, within seconds."""
    decided = _decided(who, services, body)
    await tell_index(key, await services.decisions.expire(key, decided), services)
    return VersionOut.of(await services.catalogue.version(key), decided.at)


@router.post("/{document_id}/rollback", status_code=202)
async def roll_back(document_id: DocumentId, who: Approver, services: TheServices, body: RollBack) -> ReceivedOut:
    """Withdraw what answers now and bring an earlier version back as a new one, which answers once it is indexed."""
    decided = _decided(who, services, body)
    received, changed = await services.decisions.roll_back(who.tenant, document_id, body.to_version, decided)
    await tell_index(received.version.key, changed, services)
    await deliver(received.job, services.delivery)
    return ReceivedOut.of(received, services.now())


@router.delete("/{document_id}")
async def delete(document_id: DocumentId, who: Approver, services: TheServices, body: Why | None = None) -> VersionsOut:
    """Withdraw all versions of a document, everywhere, within seconds; the catalogue keeps what they were."""
    decided = _decided(who, services, body)
    changed = await services.decisions.delete(who.tenant, document_id, decided)
    await tell_index(VersionKey(tenant=who.tenant, document_id=document_id, version=1), changed, services)
    return await versions_of(document_id, who, services)


def _decided(who: Principal, services: Services, body: Why | None) -> ApprovalDecision:
    return ApprovalDecision(by=who.sub, at=services.now(), reason=body.reason if body else "")
