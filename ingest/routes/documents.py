"""Documents: upload, lists, passages as they would be cited, approval by a second person."""

from collections.abc import AsyncIterator
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Path, Query, UploadFile
from pydantic import BaseModel, Field

from ingest.auth import Approver, Staff
from ingest.pipeline import activate
from ingest.receive import Offer, receive
from ingest.services import TheServices
from ingest.versions import JobState, Metadata, VersionKey
from ingest.wire import DocumentOut, DocumentsOut, PassageOut, PassagesOut, ReceivedOut, VersionOut, VersionsOut
from knowledge.access import EVERY_CUSTOMER
from knowledge.passage import Language

router = APIRouter(prefix="/v1/documents", tags=["documents"])

DocumentId = Annotated[str, Path(max_length=100)]
VersionNumber = Annotated[int, Path(ge=1, le=2**31 - 1)]
_CHUNK = 1024 * 1024


class UploadForm(BaseModel):
    """What comes with a file; an empty `readers` means every customer."""

    file: UploadFile
    title: str | None = Field(None, max_length=300)
    product: str | None = Field(None, max_length=300)
    language: Language | None = None
    readers: list[str] = Field(default=[], max_length=100)
    effective_from: date | None = None
    effective_until: date | None = None
    document_id: str | None = Field(None, max_length=100)


@router.post("", status_code=202)
async def upload(
    form: Annotated[UploadForm, Form(media_type="multipart/form-data")], who: Staff, services: TheServices
) -> ReceivedOut:
    """Take a document in; its job indexes it as a draft. The same bytes and metadata give the same ids again."""
    offer = Offer(
        tenant=who.tenant,
        file_name=form.file.filename or "unnamed",
        metadata=Metadata(
            title=form.title,
            product=form.product,
            language=form.language,
            readers=tuple(dict.fromkeys(form.readers)) or (EVERY_CUSTOMER,),
            effective_from=form.effective_from,
            effective_until=form.effective_until,
        ),
        uploaded_by=who.sub,
        document_id=form.document_id,
    )
    received = await receive(offer, _chunks(form.file), services)
    if received.job.state in (JobState.QUEUED, JobState.RUNNING):
        services.queue.wake()
    return ReceivedOut.of(received, services.now())


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
async def approve(document_id: DocumentId, version: VersionNumber, who: Approver, services: TheServices) -> VersionOut:
    """Let a draft answer from its effective date on, at the earliest in two seconds; never by its uploader."""
    key = VersionKey(tenant=who.tenant, document_id=document_id, version=version)
    now = services.now()
    return VersionOut.of(await activate(key, who.sub, services, now=now), now)


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(_CHUNK):
        yield chunk
