"""Errors as RFC 9457 problem documents with a stable `code`."""

from collections.abc import Mapping
from typing import Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec import UNSET, UnsetType
from starlette.exceptions import HTTPException

from edge import PROBLEM_JSON, ProblemDocument, allowed_methods, invalid_fields, problem_json
from ingest.errors import (
    BadRequest,
    DuplicateContent,
    IndexUnavailable,
    IngestError,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unprocessable,
)
from ingest.parsing import Unreadable
from ingest.services import Services
from knowledge.embedding import EmbeddingUnavailable
from knowledge.index import IndexUnavailable as PassageIndexUnavailable
from telemetry.setup import current_trace_id

RETRY_AFTER_SECONDS = 5
_FRAMEWORK_ERRORS: Final[Mapping[int, type[IngestError]]] = {404: NotFound, 405: MethodNotAllowed, 413: TooLarge}
"""Errors for the framework's own rejections, by status; other statuses below 500 become BadRequest."""

_OPENAPI_CONTENT: Final = {
    PROBLEM_JSON: {
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


class Problem(ProblemDocument, frozen=True, kw_only=True):
    """A problem document (RFC 9457); for a duplicate, it names the version with the same bytes."""

    document_id: str | UnsetType = UNSET
    version: int | UnsetType = UNSET


log = structlog.get_logger(__name__)


def problem(exc: IngestError, extra_headers: Mapping[str, str] | None = None) -> Response:
    """Return the error as `application/problem+json`."""
    duplicate = exc if isinstance(exc, DuplicateContent) else None
    body = Problem(
        title=exc.title,
        status=exc.status,
        code=exc.code,
        detail=exc.detail,
        retryable=exc.retryable,
        trace_id=current_trace_id(),
        document_id=duplicate.document_id if duplicate else UNSET,
        version=duplicate.version if duplicate else UNSET,
    )
    headers = dict(extra_headers or {})
    if exc.retryable:
        headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    if exc.status == 401:
        headers["www-authenticate"] = "Bearer"
    return problem_json(body, headers)


def install_problems(app: FastAPI) -> None:
    """Return every error as a problem document; routes included later document this in OpenAPI."""
    app.router.responses["default"] = {"description": "a refusal", "content": _OPENAPI_CONTENT}

    @app.exception_handler(IngestError)
    async def count_and_return(request: Request, exc: IngestError) -> Response:
        services: Services = request.app.state.services
        services.metrics.refusals.labels(code=exc.code).inc()
        return problem(exc)

    @app.exception_handler(PassageIndexUnavailable)
    @app.exception_handler(EmbeddingUnavailable)
    async def index_unavailable(request: Request, _exc: Exception) -> Response:
        return await count_and_return(request, IndexUnavailable())

    @app.exception_handler(Unreadable)
    async def passages_missing(request: Request, exc: Unreadable) -> Response:
        return await count_and_return(request, IndexUnavailable(exc.detail))

    @app.exception_handler(RequestValidationError)
    async def request_invalid(request: Request, exc: RequestValidationError) -> Response:
        return await count_and_return(request, Unprocessable(invalid_fields(exc)))

    @app.exception_handler(HTTPException)
    async def framework_rejection(request: Request, exc: HTTPException) -> Response:
        """Return the framework's own rejections (unknown path or method, malformed or too large body) as problems."""
        default = BadRequest if exc.status_code < 500 else IngestError
        error = _FRAMEWORK_ERRORS.get(exc.status_code, default)
        allowed = allowed_methods(request) if exc.status_code == 405 else {}
        return problem(error(), {**(exc.headers or {}), **allowed})

    @app.exception_handler(Exception)
    async def unexpected_error(_request: Request, exc: Exception) -> Response:
        log.error("request_failed", exc_info=exc)
        return problem(IngestError())
