"""The review before a decision: pages of the original, screening findings, differences from another version."""

from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Path, Query, Response

from ingest.api.dependencies import TheServices
from ingest.api.routes.documents import VersionNumber, named_version
from ingest.api.schemas import DifferencesOut, FindingsOut
from ingest.catalogue import Catalogue, VersionKey
from ingest.errors import CannotShow, NotFound, Unavailable, Unprocessable, WrongState
from ingest.parsing import PagePreview, Parser, ParserUnavailable, Unreadable
from ingest.review import REVIEW_SECONDS, differences, lines_of, passage_findings, truncated
from ingest.uploads import Blobs
from knowledge.index import Index
from knowledge.passage import Passage

router = APIRouter(prefix="/v1/documents/{document_id}/versions/{version}", tags=["review"])

MOST_FINDINGS = 200
MOST_COMPARED = 10_000  # lines
MOST_SHOWN = 2_000  # lines

Key = Annotated[VersionKey, Depends(named_version)]


@router.get(
    "/pages/{page}",
    response_class=Response,
    responses={
        200: {
            "content": {"image/png": {}, "text/plain": {}},
            "description": "`X-Page-Count`: how many; `X-Picture-Incomplete`: letters that no font here draws",
        }
    },
)
async def page(key: Key, services: TheServices, page: Annotated[int, Path(ge=1, le=1_000_000)]) -> Response:
    """Return a page of the original: a PDF's as a picture, others as the text that was read of it."""
    version = await services.catalogue.version(key)
    preview = await _preview(version.sha256, page, services.blobs, services.previewer)
    if preview.picture is None and preview.text is None:
        raise NotFound(f"it has no page {page}")
    headers = {"x-page-count": str(preview.pages), "cache-control": "private, no-store"}
    if preview.is_incomplete:
        headers["x-picture-incomplete"] = "true"
    if preview.picture is not None:
        return Response(preview.picture, media_type="image/png", headers=headers)
    return Response(preview.text, media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/findings")
async def findings(key: Key, services: TheServices) -> FindingsOut:
    """Return what screening finds in a version's passages: identifiers of persons, instructions to the model."""
    passages = await _passages(key, services.catalogue, services.index)
    all_findings = await services.review_limiter.run(lambda check: passage_findings(passages, check))
    return FindingsOut.of(all_findings[:MOST_FINDINGS], passages=len(passages), more=len(all_findings) > MOST_FINDINGS)


@router.get("/diff")
async def diff(key: Key, services: TheServices, against: Annotated[VersionNumber, Query()]) -> DifferencesOut:
    """Return where a version's text differs from that of another version of the document."""
    other = VersionKey(tenant=key.tenant, document_id=key.document_id, version=against)
    old = lines_of(await _passages(other, services.catalogue, services.index))
    new = lines_of(await _passages(key, services.catalogue, services.index))
    if max(len(old), len(new)) > MOST_COMPARED:
        raise Unprocessable(f"versions of more than {MOST_COMPARED} lines are not compared")
    hunks, more = await services.review_limiter.run(lambda check: truncated(differences(old, new, check), MOST_SHOWN))
    return DifferencesOut.of(hunks, key, against=against, more=more)


async def _preview(digest: str, page: int, blobs: Blobs, previewer: Parser) -> PagePreview:
    try:
        with anyio.fail_after(REVIEW_SECONDS):
            async with blobs.on_disk(digest) as path:
                return await previewer.preview(path, page)
    except TimeoutError as exc:
        raise Unavailable("many look at documents at this moment") from exc
    except ParserUnavailable as exc:
        raise Unavailable("documents cannot be drawn at this moment") from exc
    except Unreadable as exc:
        raise CannotShow(exc.detail) from exc


async def _passages(key: VersionKey, catalogue: Catalogue, index: Index) -> list[Passage]:
    version = await catalogue.version(key)
    passages = await index.passages(tenant=key.tenant, document_id=key.document_id, version=key.version)
    if not passages:
        raise WrongState(f"version {key.version} has no passages in the index; it is {version.state}")
    return passages
