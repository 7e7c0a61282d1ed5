"""Refusals as RFC 9457 problem documents with a stable `code`."""

from typing import Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from ingest.errors import (
    BadRequest,
    DuplicateContent,
    IndexUnavailable,
    IngestError,
    NotFound,
    TooLarge,
    Unprocessable,
)
from ingest.parsing.parsed import Unreadable
from ingest.services import Services
from knowledge.embedding import EmbeddingUnavailable
from knowledge.index import IndexUnavailable as IndexAway
from telemetry.setup import current_trace_id

RETRY_AFTER_SECONDS = 5

_DOCUMENTED: Final = {
    "application/problem+json": {
        "schema": {
            "type": "object",
            "required": ["type", "title", "status", "code", "detail", "retryable", "trace_id"],
            "properties": {
                **{name: {"type": "string"} for name in ("type", "title", "code", "detail", "trace_id", "document_id")},
                "status": {"type": "integer"},
                "retryable": {"type": "boolean"},
                "version": {"type": "integer"},
            },
        }
    }
}

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")

log = structlog.get_logger(__name__)


def problem(exc: IngestError) -> JSONResponse:
    """Return the error as `application/problem+json`."""
    body: dict[str, str | int | bool] = {
        "type": "about:blank",
        "title": exc.title,
        "status": exc.status,
        "code": exc.code,
        "detail": exc.detail,
        "retryable": exc.retryable,
        "trace_id": current_trace_id(),
    }
    if isinstance(exc, DuplicateContent):
        body |= {"document_id": exc.document_id, "version": exc.version}
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if exc.retryable else {}
    if exc.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(body, status_code=exc.status, headers=headers, media_type="application/problem+json")


def install_problems(app: FastAPI) -> None:
    """Make every refusal of the application a problem document; routes that are included later say so in OpenAPI."""
    app.router.responses["default"] = {"description": "a refusal", "content": _DOCUMENTED}

    @app.exception_handler(IngestError)
    async def refused(request: Request, exc: IngestError) -> JSONResponse:
        services: Services = request.app.state.services
        services.metrics.refusals.labels(code=exc.code).inc()
        return problem(exc)

    @app.exception_handler(IndexAway)
    @app.exception_handler(EmbeddingUnavailable)
    async def index_away(request: Request, _exc: Exception) -> JSONResponse:
        return await refused(request, IndexUnavailable())

    @app.exception_handler(Unreadable)
    async def not_found_after_approval(request: Request, exc: Unreadable) -> JSONResponse:
        return await refused(request, IndexUnavailable(exc.detail))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, exc: RequestValidationError) -> JSONResponse:
        what = "; ".join(f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {e['msg']}" for e in exc.errors()[:5])
        return await refused(request, Unprocessable(what))

    @app.exception_handler(HTTPException)
    async def http(request: Request, exc: HTTPException) -> JSONResponse:
        return _plain_problem(request, exc)

    @app.exception_handler(Exception)
    async def bug(_request: Request, exc: Exception) -> JSONResponse:
        log.error("request_failed", exc_info=exc)
        return problem(IngestError())


def _allowed(request: Request, status: int) -> dict[str, str]:
    """Return every method that an address takes, where this one is refused: Starlette names its first route's alone."""
    if status != 405:
        return {}
    asked = ({**request.scope, "method": method} for method in _METHODS)
    takes = [one["method"] for one in asked if any(r.matches(one)[0] is Match.FULL for r in request.app.routes)]
    return {"Allow": ", ".join(takes)}


def _plain_problem(request: Request, exc: HTTPException) -> JSONResponse:
    """Return what the framework refuses by itself: unknown addresses, methods, bodies that are too large or broken."""
    ours = {400: BadRequest, 404: NotFound, 413: TooLarge}.get(exc.status_code)
    if ours is not None:
        return problem(ours())
    title = str(exc.detail)
    body = {"type": "about:blank", "title": title, "status": exc.status_code, "code": f"http_{exc.status_code}"}
    body |= {"detail": title, "retryable": False, "trace_id": current_trace_id()}
    headers = {**(exc.headers or {}), **_allowed(request, exc.status_code)}
    return JSONResponse(body, status_code=exc.status_code, headers=headers, media_type="application/problem+json")
