"""The first step: an upload's bytes into the blob store, its row and its job into the catalogue."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import PurePath

from ingest.catalogue import Catalogue, Metadata, Received, Upload
from ingest.errors import StorageUnavailable, Unprocessable
from ingest.uploads.blobs import Blobs

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


class Uploads:
    """Takes documents in: the bytes into the blob store, the row and the job into the catalogue."""

    def __init__(self, blobs: Blobs, catalogue: Catalogue, *, now: Callable[[], float]) -> None:
        self._blobs = blobs
        self._catalogue = catalogue
        self._now = now

    async def receive(self, offer: Offer, chunks: AsyncIterator[bytes]) -> Received:
        """Take a document in; when this returns, the bytes and the job outlive any crash.

        Raises:
            Unprocessable: the name, a reader group or the dates are not valid.
            DuplicateContent: the same bytes are there with other metadata.
            TooLarge, StorageFull, StorageUnavailable, CatalogueUnavailable: see there.
        """
        _check(offer)
        return await self.receive_streamed(lambda: offer, chunks)

    async def receive_streamed(self, offer_of: Callable[[], Offer], chunks: AsyncIterator[bytes]) -> Received:
        """Take a document in whose offer is known only once its bytes have arrived; an invalid one leaves no bytes.

        Raises:
            As `receive`, and what `offer_of` raises.
        """

        async def checked() -> AsyncGenerator[bytes]:
            async for chunk in chunks:
                yield chunk
            _check(offer_of())

        async with aclosing(checked()) as whole:
            blob = await self._blobs.write(whole)
        offer = offer_of()
        upload = Upload(
            tenant=offer.tenant,
            document_id=offer.document_id,
            file_name=_CONTROL.sub("", PurePath(offer.file_name.replace("\\", "/")).name)[:255] or "unnamed",
            sha256=blob.sha256,
            size=blob.size,
            metadata=offer.metadata,
            uploaded_by=offer.uploaded_by,
        )
        received = await self._catalogue.receive(upload, now=self._now())
        if not await self._blobs.has(blob.sha256):
            raise StorageUnavailable("an older copy of it was being removed: hand it in again")
        return received


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
