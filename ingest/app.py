"""The staff API as an ASGI application; its caller opens the services."""

from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from edge import Api, add_response_headers, security_headers, serve_page
from edge.sign_in import sign_in_router
from ingest.api import ROUTERS, SignToken, demo_router, install_problems, problem
from ingest.errors import TooLarge
from ingest.services import Services
from knowledge.bank import Banks
from knowledge.identity import DEMO_TENANT

_FORM_BYTES = 1024 * 1024  # per form, in addition to its file


class DeclaredLengthLimit:
    """Reject a body whose Content-Length is too large before reading it."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        if length.isdecimal() and int(length) > self._most_bytes:
            await problem(TooLarge())(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def create_app(
    services: Services,
    banks: Banks,
    *,
    tracer_provider: TracerProvider | None = None,
    demo: SignToken | None = None,
    demo_tenant: str = DEMO_TENANT,
) -> FastAPI:
    """Return the application with the given banks' page; `demo` adds the demo sign-in.

    Jobs run where the services were opened (`ingest.wiring`).
    """
    most_bytes = services.blobs.most_bytes + _FORM_BYTES
    app = Api(
        title=f"{banks.first.names.en} documents",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a path with an empty document id must not redirect to the list
        middleware=[
            Middleware(DeclaredLengthLimit, most_bytes=most_bytes),
            Middleware(RequestBodyLimitMiddleware, max_body_size=most_bytes),
        ],
        telemetry={"logs": False, "operation_spans": False, "tracer_provider": tracer_provider},
    )
    add_response_headers(app, security_headers(image_sources="blob:"))
    app.state.services = services
    install_problems(app)
    for router in ROUTERS:
        app.include_router(router)
    if demo is not None:
        app.include_router(demo_router(demo, tenant=demo_tenant))
    if services.sign_in is not None:
        app.include_router(sign_in_router(services.sign_in))
    serve_page(app, "ingest.api", banks, demo=demo is not None, sign_in=services.sign_in is not None)
    return app
