"""Problem documents (RFC 9457): the fields shared by both services, and details for the framework's own errors."""

from collections.abc import Mapping
from typing import Final

import msgspec
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.routing import Match

PROBLEM_JSON: Final = "application/problem+json"
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_MOST_FIELDS = 5


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of every error response; `code` is stable; with `retryable` the same request may succeed later."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    retryable: bool = False
    trace_id: str


def problem_json(problem: ProblemDocument, headers: Mapping[str, str] | None = None) -> Response:
    """Return the problem as `application/problem+json`."""
    return Response(msgspec.json.encode(problem), problem.status, headers=headers, media_type=PROBLEM_JSON)


def allowed_methods(request: Request) -> dict[str, str]:
    """Return the `Allow` header of a 405 with all methods of the path; Starlette lists only the first route's."""

    def is_served(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return {"Allow": ", ".join(filter(is_served, _METHODS))}


def invalid_fields(exc: RequestValidationError) -> str:
    """Return the first five invalid fields and the reasons, without values, which may be a customer's text."""
    return "; ".join(
        f"{'.'.join(map(str, error['loc'][1:])) or 'body'}: {error['msg']}" for error in exc.errors()[:_MOST_FIELDS]
    )
