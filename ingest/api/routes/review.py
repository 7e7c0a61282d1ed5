"""What somebody looks at before deciding: pages as they are, what screening found, what another version said."""

from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Path, Query, Response

from ingest.api.dependencies import TheServices
from ingest.api.routes.documents import VersionNumber, named_version
from ingest.api.schemas import DifferencesOut, FindingsOut
from ingest.catalogue import VersionKey
from ingest.errors import CannotShow, NotFound, Unavailable, Unprocessable, WrongState
from ingest.parsing import PagePreview, Unreadable
from ingest.review import REVIEW_SECONDS, differences, first, lines_of, passage_findings
from ingest.services import Services
from knowledge.passage import Passage

router = APIRouter(prefix="/v1/documents/{document_id}/versions/{version}", tags=["review"])

MOST_FINDINGS = 200
MOST_COMPARED = 10_000  # lines
MOST_SHOWN = 2_000  # lines

Key = Annotated[VersionKey, Depends(named_version)]


@router.get(
    "/pages/{page}",
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "text/plain": {}}, "description": "`X-Page-Count`: how many"}},
)
async def page(key: Key, services: TheServices, page: Annotated[int, Path(ge=1, le=1_000_000)]) -> Response:
    """Return a page of the original: a PDF's as a picture, others as the text that was read of it."""
    version = await services.catalogue.version(key)
    shown = await _shown(version.sha256, page, services)
    if shown.picture is None and shown.text is None:
        raise NotFound(f"it has no page {page}")
    headers = {"x-page-count": str(shown.pages), "cache-control": "private, no-store"}
    if shown.picture is not None:
        return Response(shown.picture, media_type="image/png", headers=headers)
    return Response(shown.text, media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/findings")
async def findings(key: Key, services: TheServices) -> FindingsOut:
    """Return what screening finds in a version's passages: identifiers of persons, instructions to the model."""
    passages = await _passages(key, services)
    found = await services.review_limiter.run(lambda: passage_findings(passages))
    return FindingsOut.of(found[:MOST_FINDINGS], passages=len(passages), more=len(found) > MOST_FINDINGS)


@router.get("/diff")
async def diff(key: Key, services: TheServices, against: Annotated[VersionNumber, Query()]) -> DifferencesOut:
    """Return where a version's text differs from that of another version of the document."""
    other = VersionKey(tenant=key.tenant, document_id=key.document_id, version=against)
    old, new = lines_of(await _passages(other, services)), lines_of(await _passages(key, services))
    if max(len(old), len(new)) > MOST_COMPARED:
        raise Unprocessable(f"versions of more than {MOST_COMPARED} lines are not compared")
    places, more = await services.review_limiter.run(lambda: first(differences(old, new), MOST_SHOWN))
    return DifferencesOut.of(places, key, against=against, more=more)


async def _shown(digest: str, page: int, services: Services) -> PagePreview:
    try:
        with anyio.fail_after(REVIEW_SECONDS):
            async with services.blobs.on_disk(digest) as path:
                return await services.previewer.show(path, page)
    except TimeoutError as exc:
        raise Unavailable("many look at documents at this moment") from exc
    except Unreadable as exc:
        raise CannotShow(exc.detail) from exc


async def _passages(key: VersionKey, services: Services) -> list[Passage]:
    version = await services.catalogue.version(key)
    found = await services.index.passages(tenant=key.tenant, document_id=key.document_id, version=key.version)
    if not found:
        raise WrongState(f"version {key.version} has no passages in the index; it is {version.state}")
    return found
