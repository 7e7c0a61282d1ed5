"""The staff API as an ASGI application over services that somebody else opened."""

from importlib.resources import files

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from opentelemetry.sdk.trace import TracerProvider
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingest.errors import TooLarge
from ingest.problems import install_problems, problem
from ingest.routes import dates, documents, jobs, me, probes, review, search, upload, versions
from ingest.services import Services

_FORM_BYTES = 1024 * 1024  # what a form may add to its file
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class SecurityHeaders:
    """Adds the security headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class DeclaredLength:
    """Refuses a body that says itself that it is too large, before any of it is read."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        if declared.isdecimal() and int(declared) > self._most_bytes:
            await problem(TooLarge())(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def create_app(services: Services, *, tracer_provider: TracerProvider | None = None) -> FastAPI:
    """Return the application; jobs are worked off by whoever opened the services (`ingest.wiring`)."""
    most_bytes = services.blobs.most_bytes + _FORM_BYTES
    app = FastAPI(
        title="Bank documents",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # an empty name is no document, and not the list of all
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(DeclaredLength, most_bytes=most_bytes),
            Middleware(RequestBodyLimitMiddleware, max_body_size=most_bytes),
        ],
        telemetry={"logs": False, "operation_spans": False, "tracer_provider": tracer_provider},
    )
    app.state.services = services
    install_problems(app)
    for routes in (upload, documents, dates, review, versions, jobs, search, me, probes):
        app.include_router(routes.router)
    _serve_page(app)
    return app


def _serve_page(app: FastAPI) -> None:
    web = str(files("ingest") / "web")
    app.mount("/web", StaticFiles(directory=web), name="web")

    @app.get("/", include_in_schema=False)
    async def page(_request: Request) -> Response:
        return FileResponse(f"{web}/index.html", headers={"cache-control": "no-cache"})
