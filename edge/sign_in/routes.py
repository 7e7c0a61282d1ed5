"""The routes of sign-in and sign-out, for the page and for the provider's back-channel logout."""

from typing import Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from edge.problems import ProblemDocument, problem_json
from edge.sign_in.cookies import cookie, host_of, origin_of, refuse_cross_site, set_cookie
from edge.sign_in.errors import CrossSite, SignInRefused, SignInUnavailable
from edge.sign_in.sign_in import CALLBACK, PENDING_SECONDS, SignIn, log
from knowledge.identity import KeysUnavailable, Principal, TokenRefused
from telemetry.setup import current_trace_id

SESSION: Final = "session"
_PENDING: Final = "sign-in"
_MOST_BYTES: Final = 32 * 1024
"""The most bytes of a logout request."""


def is_by_session(request: Request) -> bool:
    """Return whether a request has a session cookie and no token; a token takes precedence."""
    return "authorization" not in request.headers and bool(cookie(request, SESSION))


async def principal_of_session(request: Request, sign_in: SignIn) -> Principal:
    """Return the principal of the request's session.

    Raises:
        CrossSite: the call may come from another site.
        TokenRefused, SignInUnavailable, KeysUnavailable: as `SignIn.principal`.
    """
    refuse_cross_site(request)
    return await sign_in.principal(cookie(request, SESSION), host_of(request))


def sign_in_router(sign_in: SignIn) -> APIRouter:
    """Return the routes, which are not part of the public API."""
    routes = _Routes(sign_in)
    router = APIRouter(include_in_schema=False)
    router.add_api_route("/oidc/sign-in", routes.begin, methods=["GET"])
    router.add_api_route(CALLBACK, routes.complete, methods=["GET"])
    router.add_api_route("/oidc/session", routes.show_session, methods=["GET"])
    router.add_api_route("/oidc/sign-out", routes.sign_out, methods=["POST"])
    router.add_api_route("/oidc/backchannel-logout", routes.end_sessions, methods=["POST"])
    return router


class _Routes:
    def __init__(self, sign_in: SignIn) -> None:
        self._sign_in = sign_in

    async def begin(self, request: Request, place: str = "") -> Response:
        try:
            url, pending_cookie = await self._sign_in.begin(origin_of(request), place)
        except SignInUnavailable:
            return _redirect_to_page("unavailable")
        response = RedirectResponse(url, 303)
        set_cookie(request, response, _PENDING, pending_cookie, seconds=int(PENDING_SECONDS))
        return response

    async def complete(self, request: Request) -> Response:
        pending_cookie, former = cookie(request, _PENDING), cookie(request, SESSION)
        try:
            completed = await self._sign_in.complete(
                origin_of(request), pending_cookie, request.query_params, former=former
            )
        except SignInRefused as exc:
            log.warning("sign_in_refused", reason=str(exc))
            response = _redirect_to_page("refused")
        except SignInUnavailable:
            response = _redirect_to_page("unavailable")
        else:
            session_id, place = completed
            response = RedirectResponse(f"/#{place}" if place else "/", 303)
            set_cookie(request, response, SESSION, session_id)
            set_cookie(request, response, _PENDING, "", seconds=0)  # a rejected reply may belong to another tab
        return response

    async def show_session(self, request: Request) -> Response:
        """Return who is signed in, as JSON; verify the session first and renew its token if it is due."""
        try:
            await principal_of_session(request, self._sign_in)
            session = await self._sign_in.session(cookie(request, SESSION), host_of(request))
        except TokenRefused:
            return JSONResponse({"name": None})
        except (CrossSite, SignInUnavailable, KeysUnavailable) as exc:
            return _refusal(exc)
        return JSONResponse({"name": session.name, "person": self._sign_in.person_id(session)})

    async def sign_out(self, request: Request) -> Response:
        try:
            refuse_cross_site(request)
            url = await self._sign_in.sign_out(cookie(request, SESSION), origin_of(request), host_of(request))
        except CrossSite as exc:
            return _refusal(exc)
        except SignInUnavailable as exc:
            response = _refusal(exc)
        else:
            response = JSONResponse({"go_to": url})
        set_cookie(request, response, SESSION, "", seconds=0)
        return response

    async def end_sessions(self, request: Request) -> Response:
        try:
            await self._sign_in.process_logout_token(await _logout_token(request))
        except TokenRefused as exc:
            log.warning("logout_token_refused", reason=str(exc))
            return JSONResponse({"error": "invalid_request", "error_description": str(exc)}, 400)
        except (SignInUnavailable, KeysUnavailable) as exc:
            return _refusal(exc)
        return Response()


async def _logout_token(request: Request) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise TokenRefused("the request is too long")
    logout_tokens = parse_qs(body.decode("utf-8", "replace")).get("logout_token", [])
    if len(logout_tokens) != 1:
        raise TokenRefused("the request needs exactly one logout token")
    return logout_tokens[0]


def _redirect_to_page(outcome: str) -> Response:
    return RedirectResponse(f"/?sign-in={outcome}", 303)


def _refusal(exc: CrossSite | SignInUnavailable | KeysUnavailable) -> Response:
    """Return the problem document for an error, with the same codes as both APIs."""
    title, status, code = "Signing in is not possible now", 503, "unavailable"
    if isinstance(exc, CrossSite):
        title, status, code = "This is not allowed", 403, "forbidden"
    retryable = status == 503
    document = ProblemDocument(
        title=title, status=status, code=code, detail=str(exc), retryable=retryable, trace_id=current_trace_id()
    )
    return problem_json(document, {"retry-after": "5"} if retryable else None)
