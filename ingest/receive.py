"""The first step: an upload's bytes into the blob store, its row and its job into the catalogue."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import PurePath

from ingest.errors import QueueUnavailable, StorageUnavailable, Unprocessable
from ingest.services import Services
from ingest.versions import Job, JobState, Metadata, Received, Upload

_NAME = re.compile(r"^\w[\w.\-]{0,99}$")
_GROUP = re.compile(r"^[^\s{}/]{1,100}$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What somebody hands in, apart from the bytes."""

    tenant: str
    file_name: str
    metadata: Metadata
    uploaded_by: str
    document_id: str | None = None


async def receive(offer: Offer, chunks: AsyncIterator[bytes], services: Services) -> Received:
    """Take a document in; when this returns, the bytes and the job outlive any crash.

    Raises:
        Unprocessable: a name, a group or the dates cannot be.
        DuplicateContent: the same bytes are there with other metadata.
        TooLarge, StorageFull, StorageUnavailable, CatalogueUnavailable: see there.
    """
    _check(offer)
    return await receive_told(lambda: offer, chunks, services)


async def receive_told(told: Callable[[], Offer], chunks: AsyncIterator[bytes], services: Services) -> Received:
    """Take a document in whose offer is known only when its bytes are through; where it cannot be, none is kept.

    Raises:
        As `receive`, and what `told` raises.
    """

    async def checked() -> AsyncGenerator[bytes]:
        async for chunk in chunks:
            yield chunk
        _check(told())

    async with aclosing(checked()) as whole:
        blob = await services.blobs.write(whole)
    offer = told()
    upload = Upload(
        tenant=offer.tenant,
        document_id=offer.document_id,
        file_name=_CONTROL.sub("", PurePath(offer.file_name.replace("\\", "/")).name)[:255] or "unnamed",
        sha256=blob.sha256,
        size=blob.size,
        metadata=offer.metadata,
        uploaded_by=offer.uploaded_by,
    )
    received = await services.catalogue.receive(upload, now=services.now())
    if not await services.blobs.has(blob.sha256):
        raise StorageUnavailable("an older copy of it was being removed: hand it in again")
    return received


async def deliver(job: Job, services: Services) -> None:
    """Let a worker hear of a job that is to be done.

    Raises:
        QueueUnavailable: none may have heard of it; the row stays, and is sent when Redis is back.
    """
    if job.state not in (JobState.QUEUED, JobState.RUNNING):
        return
    if services.delivery is None:
        raise QueueUnavailable("no queue is set (REDIS_URL)")
    await services.delivery.send([job.id])


def _check(offer: Offer) -> None:
    if offer.document_id is not None and not _NAME.match(offer.document_id):
        raise Unprocessable("document_id: letters, digits, '.', '-' and '_', at most 100")
    if not all(_GROUP.match(reader) for reader in offer.metadata.readers):
        raise Unprocessable("readers: names of groups without spaces")
    for name, value in (("title", offer.metadata.title), ("product", offer.metadata.product)):
        if value is not None and (not value.strip() or len(value) > 300 or _CONTROL.search(value)):
            raise Unprocessable(f"{name}: 1 to 300 characters on one line")
    begin, end = offer.metadata.effective_from, offer.metadata.effective_until
    if begin is not None and end is not None and end < begin:
        raise Unprocessable("effective_until lies before effective_from")
