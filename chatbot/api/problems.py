"""Errors before the first byte: RFC 9457 problem documents with a stable `code`; some paths have another format."""

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

_KNOWN: Mapping[int, type[ChatError]] = {404: NotFound, 405: MethodNotAllowed, 413: TooLarge}


class Problem(ProblemDocument, frozen=True, kw_only=True):
    """A problem document (RFC 9457); `param` is the field at fault, `scope` and `dimension` the limit used up.

    `handoff` is where to find a person while the service is away, in the customer's language.
    """

    param: str | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    dimension: str | UnsetType = UNSET
    handoff: str | UnsetType = UNSET


_DOCUMENTED: Final = {
    PROBLEM_JSON: {"schema": msgspec.json.schema_components([Problem])[1]["Problem"]},
    "application/json": {},  # of the paths with another format
}
Format = Callable[[Problem, Mapping[str, str]], Response]
"""Makes the response of a problem, with these headers."""


def problem_of(exc: ChatError, *, handoff: str = "") -> Problem:
    """Return the problem document of an error; `handoff`, which names a person to turn to, is part of a 5xx."""
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


def failed_reply(failed: Failed, form: Format = problem_json) -> Response:
    """Return the reply to who waited for a whole answer that failed, as its refusal would have been."""
    problem = Problem(
        title=failed.title,
        status=failed.status,
        code=failed.code,
        detail=failed.title,
        retryable=failed.retryable,
        trace_id=failed.trace_id or current_trace_id(),
        handoff=failed.handoff or UNSET,
    )
    waits = failed.retryable and failed.retry_after_ms is not None
    wait = max(1, math.ceil((failed.retry_after_ms or 0) / 1000))
    return form(problem, {"retry-after": str(wait)} if waits else {})


def person(request: Request) -> str:
    """Return the sentence that names the person to turn to, in the language of the question or of the client.

    In every language where neither is known.
    """
    services: Services = request.app.state.services
    asked: Language | None = getattr(request.state, "language", None)
    preferred = request.headers.get("accept-language", "")[:2].lower()
    languages = (asked,) if asked else tuple(name for name in LANGUAGES if name == preferred) or LANGUAGES
    who = getattr(request.state, "principal", None)
    bank = services.banks.first if who is None else services.banks.of(who.tenant)
    return " ".join(handoff(language, bank) for language in languages)


def one_too_many(request: Request) -> RateLimited | None:
    """Count a request that is refused for its form as one that asks; return the refusal of one beyond the limit."""
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
    """Return the headers of an error: `Retry-After` where waiting helps, `WWW-Authenticate` of 401, limits of 429."""
    headers = {} if exc.retry_after is None else {"retry-after": str(math.ceil(exc.retry_after))}
    if exc.status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(exc, RateLimited) and exc.limits is not None:
        headers.update(rate_limit_headers(exc.limits))
    return headers


def install_problems(app: FastAPI, formats: Mapping[str, Format]) -> None:
    """Make every refusal of the application a problem document.

    `formats` are the paths whose refusals, and those of the paths below them, have another format. Routes that are
    included afterwards document this response in OpenAPI.
    """
    app.router.responses["default"] = {"description": "a refusal", "content": _DOCUMENTED}

    def refusal(request: Request, problem: Problem, headers: Mapping[str, str]) -> Response:
        path = request.scope["path"]
        of_path = (form for prefix, form in formats.items() if path == prefix or path.startswith(f"{prefix}/"))
        return next(of_path, problem_json)(problem, headers)

    @app.exception_handler(ChatError)
    async def refused(request: Request, exc: ChatError) -> Response:
        metrics: Metrics = request.app.state.services.metrics
        metrics.refused.labels(exc.code).inc()
        if isinstance(exc, RateLimited):
            metrics.rate_limited.labels(exc.scope, exc.dimension).inc()
        handoff = person(request) if exc.status >= 500 else ""
        return refusal(request, problem_of(exc, handoff=handoff), headers_of(exc))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, exc: RequestValidationError) -> Response:
        detail = invalid_fields(exc)
        malformed = any(error["type"] == "json_invalid" for error in exc.errors())
        form = BadRequest(detail) if malformed else Unprocessable(detail)
        return await refused(request, one_too_many(request) or form)

    @app.exception_handler(HTTPException)
    async def http(request: Request, exc: HTTPException) -> Response:
        known = _KNOWN.get(exc.status_code, BadRequest if exc.status_code < 500 else ChatError)
        allowed = allowed_methods(request) if exc.status_code == 405 else {}
        return refusal(request, problem_of(known()), {**(exc.headers or {}), **allowed})

    @app.exception_handler(Exception)
    async def bug(request: Request, exc: Exception) -> Response:
        log.error("request_failed", exc_info=exc)
        return refusal(request, problem_of(ChatError(), handoff=person(request)), {})
