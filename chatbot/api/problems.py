"""Errors before the first byte as RFC 9457 problem documents with a stable `code`; some paths have another format."""

import math
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec import UNSET, UnsetType
from starlette.exceptions import HTTPException

from chatbot.api.rate_limit_headers import rate_limit_headers
from chatbot.errors import BadRequest, ChatError, MethodNotAllowed, NotFound, RateLimited, TooLarge, Unprocessable
from chatbot.events import Failed
from chatbot.limits import Caller
from chatbot.metrics import Metrics
from chatbot.questions import handoff
from chatbot.services import Services
from edge import PROBLEM_JSON, ProblemDocument, allowed_methods, invalid_fields, problem_json
from knowledge.identity import Principal
from knowledge.passage import LANGUAGES, Language
from telemetry.setup import current_trace_id

log = structlog.get_logger(__name__)

_ERRORS_BY_STATUS: Mapping[int, type[ChatError]] = {404: NotFound, 405: MethodNotAllowed, 413: TooLarge}


class Problem(ProblemDocument, frozen=True, kw_only=True):
    """A problem document (RFC 9457); `param` is the invalid field, `scope` and `dimension` name the reached limit.

    `handoff` is the bank's contact while the service is unavailable, in the customer's language.
    """

    param: str | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    dimension: str | UnsetType = UNSET
    handoff: str | UnsetType = UNSET


_DOCUMENTED: Final = {
    PROBLEM_JSON: {"schema": msgspec.json.schema_components([Problem])[1]["Problem"]},
    "application/json": {},  # for the paths with another format
}
Format = Callable[[Problem, Mapping[str, str]], Response]
"""Returns the response for a problem and its headers."""


def problem_of(exc: ChatError, *, handoff: str = "") -> Problem:
    """Return the problem document of an error; only that of a 5xx error contains `handoff`, the bank's contact."""
    limit = exc if isinstance(exc, RateLimited) else None
    return Problem(
        title=exc.title,
        status=exc.status,
        code=exc.code,
        detail=exc.detail,
        retryable=exc.retryable,
        trace_id=current_trace_id(),
        param=exc.param or UNSET,
        scope=limit.scope if limit else UNSET,
        dimension=limit.dimension if limit else UNSET,
        handoff=handoff if handoff and exc.status >= 500 else UNSET,
    )


def failed_reply(failed: Failed, render: Format = problem_json) -> Response:
    """Return the problem document for a failed non-streamed answer, as for an error before the first byte."""
    problem = Problem(
        title=failed.title,
        status=failed.status,
        code=failed.code,
        detail=failed.title,
        retryable=failed.retryable,
        trace_id=failed.trace_id or current_trace_id(),
        handoff=failed.handoff or UNSET,
    )
    if not failed.retryable or failed.retry_after_ms is None:
        return render(problem, {})
    retry_after = max(1, math.ceil(failed.retry_after_ms / 1000))
    return render(problem, {"retry-after": str(retry_after)})


def bank_contact(request: Request) -> str:
    """Return the bank's contact in the language of the question or of the client, or in all languages."""
    services: Services = request.app.state.services
    question_language: Language | None = getattr(request.state, "language", None)
    client_language = request.headers.get("accept-language", "")[:2].lower()
    if question_language is not None:
        languages: tuple[Language, ...] = (question_language,)
    else:
        languages = tuple(name for name in LANGUAGES if name == client_language) or LANGUAGES
    who = getattr(request.state, "principal", None)
    bank = services.banks.first if who is None else services.banks.of(who.tenant)
    return " ".join(handoff(language, bank) for language in languages)


def count_invalid_request(request: Request) -> RateLimited | None:
    """Count an invalid request towards its user's limit, if the user is known; return an error at the limit."""
    services: Services = request.app.state.services
    who: Principal | None = getattr(request.state, "principal", None)
    if who is None:
        return None
    try:
        services.ledger.count_request(Caller.of(who, services.models.model))
    except RateLimited as exc:
        return exc
    return None


def headers_of(exc: ChatError) -> dict[str, str]:
    """Return the headers of an error: `Retry-After`, `WWW-Authenticate` of a 401, and the limits of a 429."""
    headers = {} if exc.retry_after is None else {"retry-after": str(math.ceil(exc.retry_after))}
    if exc.status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(exc, RateLimited) and exc.limits is not None:
        headers.update(rate_limit_headers(exc.limits))
    return headers


def install_problems(app: FastAPI, formats: Mapping[str, Format]) -> None:
    """Reply to every error of the application with a problem document.

    `formats` maps a path to another format, which applies to the paths below it too. Routes that are included
    afterwards document this response in OpenAPI.
    """
    app.router.responses["default"] = {"description": "a refusal", "content": _DOCUMENTED}

    def response_for(request: Request, problem: Problem, headers: Mapping[str, str]) -> Response:
        path = request.scope["path"]
        path_formats = (render for prefix, render in formats.items() if path == prefix or path.startswith(f"{prefix}/"))
        render = next(path_formats, problem_json)
        return render(problem, headers)

    @app.exception_handler(ChatError)
    async def handle_chat_error(request: Request, exc: ChatError) -> Response:
        metrics: Metrics = request.app.state.services.metrics
        metrics.refused.labels(exc.code).inc()
        if isinstance(exc, RateLimited):
            metrics.rate_limited.labels(exc.scope, exc.dimension).inc()
        handoff = bank_contact(request) if exc.status >= 500 else ""
        return response_for(request, problem_of(exc, handoff=handoff), headers_of(exc))

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_request(request: Request, exc: RequestValidationError) -> Response:
        detail = invalid_fields(exc)
        malformed = any(error["type"] == "json_invalid" for error in exc.errors())
        error = BadRequest(detail) if malformed else Unprocessable(detail)
        return await handle_chat_error(request, count_invalid_request(request) or error)

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, exc: HTTPException) -> Response:
        default = BadRequest if exc.status_code < 500 else ChatError
        error_type = _ERRORS_BY_STATUS.get(exc.status_code, default)
        allowed = allowed_methods(request) if exc.status_code == 405 else {}
        return response_for(request, problem_of(error_type()), {**(exc.headers or {}), **allowed})

    @app.exception_handler(Exception)
    async def handle_bug(request: Request, exc: Exception) -> Response:
        log.error("request_failed", exc_info=exc)
        return response_for(request, problem_of(ChatError(), handoff=bank_contact(request)), {})
