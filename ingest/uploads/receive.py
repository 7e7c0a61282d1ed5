"""The first pipeline step: write an upload's bytes to the blob store, and its row and job to the catalogue."""

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from datetime import date
from pathlib import PurePath

import anyio
from pydantic import BaseModel, Field

from ingest.catalogue import Catalogue, Metadata, Received, Upload, is_line, is_plain, plain
from ingest.errors import Unprocessable
from ingest.uploads.blobs import Blobs
from knowledge.access import EVERY_CUSTOMER
from knowledge.passage import Language

MOST_FORMS = 6  # concurrent uploads through the API; each needs a copy on disk until it is stored

_DOCUMENT_ID = re.compile(r"\w[\w.\-]{0,99}")
_GROUP = re.compile(r"[^\s{}/]{1,100}")
_LINK = re.compile(r"https://[\w\-]+(\.[\w\-]+)+(:\d{1,5})?([/?#][^\s\"<>\\]*)?")
_LONGEST_LINK = 2000


class MetadataFields(BaseModel):
    """A document's metadata as a form or a manifest gives it; `Uploads.receive` checks the values."""

    document_id: str | None = Field(None, min_length=1, max_length=100)
    title: str | None = Field(None, max_length=300)
    product: str | None = Field(None, max_length=300)
    link: str | None = Field(None, max_length=2000)
    language: Language | None = None
    readers: list[str] = Field(default=[], max_length=100)
    effective_from: date | None = None
    effective_until: date | None = None

    @property
    def metadata(self) -> Metadata:
        """The metadata; without readers every customer may read the document."""
        readers = tuple(dict.fromkeys(self.readers)) or (EVERY_CUSTOMER,)
        return Metadata(**self.model_dump(include=_COPIED_FIELDS), readers=readers)


_COPIED_FIELDS = {field.name for field in fields(Metadata)} - {"readers"}


class Uploads:
    """Receive documents: bytes into the blob store, row and job into the catalogue."""

    def __init__(self, blobs: Blobs, catalogue: Catalogue, *, now: Callable[[], float]) -> None:
        self._blobs = blobs
        self._catalogue = catalogue
        self._now = now
        self.forms = anyio.Semaphore(MOST_FORMS)

    async def receive(self, upload: Upload, chunks: AsyncIterator[bytes]) -> Received:
        """Receive a document; on return, its bytes and job survive any crash.

        Raises:
            Unprocessable: the document id, a reader group, the title, product, link or dates are invalid.
            DuplicateContent: the tenant has the same bytes with other metadata or as another document.
            TooLarge, StorageFull, StorageUnavailable, CatalogueUnavailable: from the blob store and the catalogue.
        """
        _check(upload)
        blob = await self._blobs.write(chunks)
        name = plain(PurePath(upload.file_name.replace("\\", "/")).name)[:255] or "unnamed"
        stored = replace(upload, file_name=name, sha256=blob.sha256, size=blob.size)
        return await self._catalogue.receive(stored, now=self._now())


def _check(upload: Upload) -> None:
    if upload.document_id is not None and not _DOCUMENT_ID.fullmatch(upload.document_id):
        raise Unprocessable("document_id: letters, digits, '.', '-' and '_', at most 100")
    if not all(_GROUP.fullmatch(reader) and is_plain(reader) for reader in upload.metadata.readers):
        raise Unprocessable("readers: names of groups without spaces")
    for name, value in (("title", upload.metadata.title), ("product", upload.metadata.product)):
        if value is not None and not is_line(value):
            raise Unprocessable(f"{name}: 1 to 300 characters on one line")
    link = upload.metadata.link
    if link is not None and not (len(link) <= _LONGEST_LINK and is_plain(link) and _LINK.fullmatch(link)):
        raise Unprocessable(f"link: a public address that begins with https://, at most {_LONGEST_LINK} characters")
    begin, end = upload.metadata.effective_from, upload.metadata.effective_until
    if begin is not None and end is not None and end < begin:
        raise Unprocessable("effective_until lies before effective_from")
