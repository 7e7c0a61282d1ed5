"""The first pipeline step: write an upload's bytes to the blob store, and its row and job to the catalogue."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import PurePath

from ingest.catalogue import Catalogue, Metadata, Received, Upload, is_line, is_plain, plain
from ingest.errors import Unprocessable
from ingest.uploads.blobs import Blobs

_NAME = re.compile(r"\w[\w.\-]{0,99}")
_GROUP = re.compile(r"[^\s{}/]{1,100}")
_LINK = re.compile(r"https://[\w\-]+(\.[\w\-]+)+(:\d{1,5})?([/?#][^\s\"<>\\]*)?")
_MOST_LINK = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRequest:
    """An upload's metadata: file name, document metadata, uploader and tenant.

    `again`: see `ingest.catalogue.Upload`.
    """

    tenant: str
    file_name: str
    metadata: Metadata
    uploaded_by: str
    document_id: str | None = None
    again: bool = False


class Uploads:
    """Receive documents: bytes into the blob store, row and job into the catalogue."""

    def __init__(self, blobs: Blobs, catalogue: Catalogue, *, now: Callable[[], float]) -> None:
        self._blobs = blobs
        self._catalogue = catalogue
        self._now = now

    async def receive(self, request: UploadRequest, chunks: AsyncIterator[bytes]) -> Received:
        """Receive a document; on return, its bytes and job survive any crash.

        Raises:
            Unprocessable: the name, a reader group, the link or the dates are invalid.
            DuplicateContent: the tenant has the same bytes with other metadata.
            TooLarge, StorageFull, StorageUnavailable, CatalogueUnavailable: from the blob store and the catalogue.
        """
        _check(request)
        return await self.receive_streamed(lambda: request, chunks)

    async def receive_streamed(self, request_of: Callable[[], UploadRequest], chunks: AsyncIterator[bytes]) -> Received:
        """Receive a document whose request is known only after its bytes; for an invalid request no bytes are stored.

        Raises:
            As `receive`, and any error of `request_of`.
        """

        async def checked() -> AsyncGenerator[bytes]:
            async for chunk in chunks:
                yield chunk
            _check(request_of())

        async with aclosing(checked()) as checked_chunks:
            blob = await self._blobs.write(checked_chunks)
        request = request_of()
        upload = Upload(
            tenant=request.tenant,
            document_id=request.document_id,
            file_name=plain(PurePath(request.file_name.replace("\\", "/")).name)[:255] or "unnamed",
            sha256=blob.sha256,
            size=blob.size,
            metadata=request.metadata,
            uploaded_by=request.uploaded_by,
            again=request.again,
        )
        return await self._catalogue.receive(upload, now=self._now())


def _check(request: UploadRequest) -> None:
    if request.document_id is not None and not _NAME.fullmatch(request.document_id):
        raise Unprocessable("document_id: letters, digits, '.', '-' and '_', at most 100")
    if not all(_GROUP.fullmatch(reader) and is_plain(reader) for reader in request.metadata.readers):
        raise Unprocessable("readers: names of groups without spaces")
    for name, value in (("title", request.metadata.title), ("product", request.metadata.product)):
        if value is not None and not is_line(value):
            raise Unprocessable(f"{name}: 1 to 300 characters on one line")
    link = request.metadata.link
    if link is not None and not (len(link) <= _MOST_LINK and is_plain(link) and _LINK.fullmatch(link)):
        raise Unprocessable(f"link: a public address that begins with https://, at most {_MOST_LINK} characters")
    begin, end = request.metadata.effective_from, request.metadata.effective_until
    if begin is not None and end is not None and end < begin:
        raise Unprocessable("effective_until lies before effective_from")
