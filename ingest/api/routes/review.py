"""The review before a decision: page pictures, screening findings, changes, and the original as a download."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path as FilePath
from typing import Annotated, Final

import anyio
from fastapi import APIRouter, Depends, Path, Response
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from ingest.api.auth import Staff
from ingest.api.dependencies import TheServices
from ingest.api.routes.documents import Key, emit_event
from ingest.api.schemas import ChangesOut, FindingsOut
from ingest.catalogue import Catalogue, Version, VersionKey
from ingest.errors import CannotShow, NotFound, Unavailable, WrongState
from ingest.parsing import Format, PagePreview, Parser, ParserUnavailable, Unreadable
from ingest.review import REVIEW_SECONDS, changes, passage_findings
from ingest.uploads import Blobs
from knowledge.index import Index
from knowledge.passage import Passage
from telemetry.ocsf import Code

router = APIRouter(prefix="/v1/documents/{document_id}/versions/{version}", tags=["review"])

DOWNLOAD_SECONDS = 15 * 60.0
MOST_FINDINGS = 200
MOST_CHANGES = 2_000

_OFFICE = "application/vnd.openxmlformats-officedocument"
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    Format.MARKDOWN: "text/markdown",  # without a charset, because the catalogue stores none
    Format.TEXT: "text/plain",
    Format.HTML: "text/html",
    Format.PDF: "application/pdf",
    Format.DOCX: f"{_OFFICE}.wordprocessingml.document",
    Format.XLSX: f"{_OFFICE}.spreadsheetml.sheet",
    Format.PPTX: f"{_OFFICE}.presentationml.presentation",
    Format.CSV: "text/csv",
    Format.EML: "message/rfc822",
    Format.HWP: "application/x-hwp",
    Format.HWPX: "application/hwp+zip",
    Format.PNG: "image/png",
    Format.JPEG: "image/jpeg",
    Format.TIFF: "image/tiff",
}


@router.get(
    "/pages/{page}",
    response_class=Response,
    responses={
        200: {
            "content": {"image/png": {}},
            "description": "`X-Page-Count`: number of pages; `X-Picture-Incomplete`: true if letters lack a font",
        }
    },
)
async def page(key: Key, services: TheServices, page: Annotated[int, Path(ge=1, le=1_000_000)]) -> Response:
    """Return a picture of a page of a PDF or an image."""
    version = await services.catalogue.version(key)
    preview = await _preview(version.sha256, page, services.blobs, services.previewer)
    if preview.picture is None:
        raise NotFound(f"it has no page {page}")
    headers = {"x-page-count": str(preview.pages), "cache-control": "private, no-store"}
    if preview.is_incomplete:
        headers["x-picture-incomplete"] = "true"
    return Response(preview.picture, media_type="image/png", headers=headers)


@router.get("/findings")
async def findings(key: Key, services: TheServices) -> FindingsOut:
    """Return the screening findings in a version's passages: personal identifiers, instructions to the model."""
    passages = await _passages(key, services.catalogue, services.index)
    all_findings = await services.review_limiter.run(lambda check: passage_findings(passages, check))
    more = len(all_findings) > MOST_FINDINGS
    return FindingsOut(passages=len(passages), findings=all_findings[:MOST_FINDINGS], more=more)


@router.get("/changes", name="changes")
async def changes_of(key: Key, services: TheServices) -> ChangesOut:
    """Return the changes of a version's passages since the previous approved version."""
    new = await _passages(key, services.catalogue, services.index)
    for earlier in reversed(await services.catalogue.versions(key.tenant, key.document_id)):
        if earlier.key.version < key.version and earlier.visible_from is not None:
            old = await _indexed_passages(earlier.key, services.index)
            if old:
                break
    else:
        return ChangesOut(against=None, changes=[], more=False)
    first_changes = await services.review_limiter.run(
        lambda check: list(islice(changes(old, new, check), MOST_CHANGES + 1))
    )
    more = len(first_changes) > MOST_CHANGES
    return ChangesOut(against=earlier.key.version, changes=first_changes[:MOST_CHANGES], more=more)


class _Download(FileResponse):
    """A file that the client must download within DOWNLOAD_SECONDS; after that the connection is closed."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.move_on_after(DOWNLOAD_SECONDS):
            await super().__call__(scope, receive, send)


async def original_on_disk(key: Key, services: TheServices) -> AsyncGenerator[tuple[Version, FilePath]]:
    """Yield a version and a copy of its original until the response is sent; raise Unavailable on overload."""
    version = await services.catalogue.version(key)
    async with AsyncExitStack() as stack:
        try:
            services.downloads.acquire_nowait()
            stack.callback(services.downloads.release)
            with anyio.fail_after(REVIEW_SECONDS):
                path = await stack.enter_async_context(services.blobs.on_disk(version.sha256))
        except (anyio.WouldBlock, TimeoutError) as exc:
            raise Unavailable("too many originals are being downloaded: try again") from exc
        yield version, path


@router.get(
    "/original", response_class=Response, responses={200: {"content": {"*/*": {}}, "description": "an attachment"}}
)
async def original(
    key: Key, who: Staff, services: TheServices, file: Annotated[tuple[Version, FilePath], Depends(original_on_disk)]
) -> Response:
    """Return the uploaded original as an attachment, which no browser displays or runs."""
    version, path = file
    emit_event(Code.ORIGINAL_DOWNLOADED, who, key, services, detail=f"sha256:{version.sha256}")
    headers = {
        "content-type": _MEDIA_TYPES.get(version.format or "", "application/octet-stream"),
        "content-security-policy": "sandbox",
        "cache-control": "private, no-store",
    }
    return _Download(path, filename=version.file_name, headers=headers)


async def _preview(digest: str, page: int, blobs: Blobs, previewer: Parser) -> PagePreview:
    try:
        with anyio.fail_after(REVIEW_SECONDS):
            async with blobs.on_disk(digest) as path:
                return await previewer.preview(path, page)
    except TimeoutError as exc:
        raise Unavailable("too many pages are being drawn: try again") from exc
    except ParserUnavailable as exc:
        raise Unavailable("pages cannot be drawn now: try again") from exc
    except Unreadable as exc:
        raise CannotShow(exc.detail) from exc


async def _passages(key: VersionKey, catalogue: Catalogue, index: Index) -> list[Passage]:
    """Return a version's passages; raise WrongState if the index has none."""
    version = await catalogue.version(key)
    passages = await _indexed_passages(key, index)
    if not passages:
        raise WrongState(f"version {key.version} has no passages in the index; it is {version.state}")
    return passages


async def _indexed_passages(key: VersionKey, index: Index) -> list[Passage]:
    return await index.passages(tenant=key.tenant, document_id=key.document_id, version=key.version)
