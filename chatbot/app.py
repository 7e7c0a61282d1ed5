"""The chat API as an ASGI application over services that somebody else opened."""

import os
from contextlib import suppress
from importlib.resources import files

import anyio
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from opentelemetry.sdk.trace import TracerProvider
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatbot.errors import StoreUnavailable
from chatbot.local_identity import LocalSigner
from chatbot.problems import install_problems
from chatbot.routes import answers, chat, conversations, drift, limits, openai, probes, replays, stops
from chatbot.routes.demo import demo_router
from chatbot.routes.headers import headers_now
from chatbot.services import Services

_BODY_LIMIT = 64 * 1024
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


class SecurityHeaders:
    """Adds the security headers to every response (pure ASGI: streams pass untouched)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class RateLimitHeaders:
    """Adds the caller's limits to every reply that does not carry them; what is our own fault carries none."""

    def __init__(self, app: ASGIApp, *, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 500:
                who = scope.get("state", {}).get("principal")
                if who is not None and not any(name.startswith(b"x-ratelimit-") for name, _ in message["headers"]):
                    headers = await headers_now(who, self._services)
                    added = [(name.encode(), value.encode()) for name, value in headers.items()]
                    message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, send_with_limits if scope["type"] == "http" else send)


class BodyLimit:
    """Refuses a larger body as any other request is refused; Starlette's own limit would answer in plain text."""

    def __init__(self, app: ASGIApp, *, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most_bytes:
                raise HTTPException(413)
            return message

        await self._app(scope, receive_within_limit, send)


class FreshFiles(StaticFiles):
    """The page's files, asked for anew each time, so that no browser mixes modules of two releases."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["cache-control"] = "no-cache"
        return response


def create_app(
    services: Services,
    *,
    tracer_provider: TracerProvider | None = None,
    demo: LocalSigner | None = None,
    demo_tenant: str = "hanbit",
) -> FastAPI:
    """Return the application; `demo` adds the demo login."""
    app = FastAPI(
        title="Bank chatbot",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # an empty id is no conversation, and not the list of all
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(RateLimitHeaders, services=services),
            Middleware(BodyLimit, most_bytes=_BODY_LIMIT),
        ],
        # One span a request and none an event: the answer's own spans are made in turn.py and models.py.
        telemetry={"logs": False, "operation_spans": False, "tracer_provider": tracer_provider},
    )
    app.state.services = services
    app.state.draining = False
    install_problems(app, openai.FORMATS)
    for routes in (
        chat.router,
        answers.router,
        conversations.router,
        limits.router,
        openai.router,
        stops.router,
        replays.router,
        drift.router,
        probes.router,
    ):
        app.include_router(routes)
    if demo is not None:
        app.include_router(demo_router(demo, tenant=demo_tenant))
    _serve_page(app)
    return app


def _serve_page(app: FastAPI) -> None:
    web = str(files("chatbot") / "web")
    app.mount("/web", FreshFiles(directory=web), name="web")

    @app.get("/", include_in_schema=False)
    async def page(_request: Request) -> Response:
        return FileResponse(f"{web}/index.html", headers={"cache-control": "no-cache"})


async def drain(app: FastAPI, *, seconds: float) -> None:
    """Take no new questions, let running answers end for `seconds`, then hand the rest over to other replicas.

    Cancelled, it does not wait any longer, and hands over.
    """
    app.state.draining = True
    services: Services = app.state.services
    services.answers.take_no_more()
    try:
        with anyio.move_on_after(seconds):
            await services.answers.drained()
    finally:
        with anyio.move_on_after(services.settings.finish_timeout + 1, shield=True), suppress(StoreUnavailable):
            await services.answers.hand_over()
