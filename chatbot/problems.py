"""Errors before the first byte, as RFC 9457 problem documents with a stable `code`."""

import math
from collections.abc import Mapping

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from chatbot.errors import ChatError, NotFound, RateLimited, Unprocessable
from chatbot.services import Services
from telemetry.setup import current_trace_id

log = structlog.get_logger(__name__)

_TITLES: Mapping[int, str] = {404: NotFound.title, 405: "This address does not take that method"}


def problem(exc: ChatError) -> JSONResponse:
    """Return the error as `application/problem+json`, with a true `Retry-After` where waiting helps."""
    body: dict[str, str | int | float | bool] = {
        "type": "about:blank",
        "title": exc.title,
        "status": exc.status,
        "code": exc.code,
        "detail": exc.detail,
        "retryable": exc.retryable,
        "trace_id": current_trace_id(),
    }
    if isinstance(exc, RateLimited):
        body |= {"scope": exc.scope, "dimension": exc.dimension}
    headers = {} if exc.retry_after is None else {"retry-after": str(math.ceil(exc.retry_after))}
    if exc.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(body, status_code=exc.status, headers=headers, media_type="application/problem+json")


def install_problems(app: FastAPI) -> None:
    """Make every refusal of the application a problem document."""

    @app.exception_handler(ChatError)
    async def refused(request: Request, exc: ChatError) -> JSONResponse:
        services: Services = request.app.state.services
        services.metrics.refused.labels(exc.code).inc()
        return problem(exc)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, exc: RequestValidationError) -> JSONResponse:
        # Never the input itself: it may be a customer's words.
        what = "; ".join(f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {e['msg']}" for e in exc.errors()[:5])
        return await refused(request, Unprocessable(what))

    @app.exception_handler(HTTPException)
    async def http(_request: Request, exc: HTTPException) -> JSONResponse:
        title = _TITLES.get(exc.status_code, str(exc.detail))
        code = NotFound.code if exc.status_code == 404 else f"http_{exc.status_code}"
        body = {"type": "about:blank", "title": title, "status": exc.status_code, "code": code, "detail": title}
        body["trace_id"] = current_trace_id()
        headers = dict(exc.headers or {})
        return JSONResponse(body, status_code=exc.status_code, headers=headers, media_type="application/problem+json")

    @app.exception_handler(Exception)
    async def bug(_request: Request, exc: Exception) -> JSONResponse:
        log.error("request_failed", exc_info=exc)
        return problem(ChatError())
