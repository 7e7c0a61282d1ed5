"""The chat API as an ASGI application over the given services, and the drain at its end."""

import asyncio
import signal
from contextlib import suppress

import anyio
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatbot.api.local_identity import LocalSigner
from chatbot.api.problems import install_problems
from chatbot.api.routes import ROUTERS
from chatbot.api.routes.demo import demo_router
from chatbot.api.routes.openai import FORMATS
from chatbot.errors import StoreUnavailable
from chatbot.services import Services
from edge import Api, add_response_headers, security_headers, serve_page
from edge.sign_in import sign_in_router
from knowledge.identity import DEMO_TENANT

_ADMIN, _NOWHERE = "/v1/admin", "/nowhere"
_BODY_LIMIT = 64 * 1024
_HEADERS = (
    *security_headers(image_sources="data:"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


class BodyLimit:
    """Rejects a body of more than `most_bytes` with a problem document; Starlette's own limit replies in plain text."""

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


class AdminListener:
    """Serves `/v1/admin/…` on one port only, and no other path on that port; any other request gets a 404."""

    def __init__(self, app: ASGIApp, *, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            is_admin_path = scope["path"].startswith(_ADMIN)
            _, port = scope.get("server") or ("", None)
            is_admin_port = port == self._port
            if is_admin_path != is_admin_port:
                scope = {**scope, "path": _NOWHERE, "raw_path": _NOWHERE.encode()}
        await self._app(scope, receive, send)


def create_app(
    services: Services,
    *,
    admin_port: int | None = None,
    tracer_provider: TracerProvider | None = None,
    demo: LocalSigner | None = None,
    demo_tenant: str = DEMO_TENANT,
) -> FastAPI:
    """Return the application; `demo` (`chatbot.api.demo_signer`) adds the demo login.

    With an `admin_port`, the admins' paths are served on that port only.
    """
    app = Api(
        title=f"{services.banks.first.names.en} chatbot",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a path with an empty id must not redirect to the list
        middleware=[
            Middleware(BodyLimit, most_bytes=_BODY_LIMIT),
            *([Middleware(AdminListener, port=admin_port)] if admin_port is not None else []),
        ],
        # A span for each request but not for each event: chatbot.turns and chatbot.models make an answer's spans.
        telemetry={"logs": False, "operation_spans": False, "tracer_provider": tracer_provider},
    )
    add_response_headers(app, _HEADERS)
    app.state.services = services
    app.state.draining = False
    install_problems(app, FORMATS)
    for router in ROUTERS:
        app.include_router(router)
    if demo is not None:
        app.include_router(demo_router(demo, tenant=demo_tenant))
    if services.sign_in is not None:
        app.include_router(sign_in_router(services.sign_in))
    serve_page(app, "chatbot.api", services.banks, sign_in=services.sign_in is not None)
    return app


async def drain(app: FastAPI, *, seconds: float) -> None:
    """Reject new questions, wait up to `seconds` for running answers, then hand unfinished ones over to other replicas.

    If the drain is cancelled, hand them over at once.
    """
    app.state.draining = True
    services: Services = app.state.services
    services.answers.writers.begin_draining()
    try:
        with anyio.move_on_after(seconds):
            await services.answers.writers.drained()
    finally:
        with anyio.move_on_after(services.settings.finish_timeout + 1, shield=True), suppress(StoreUnavailable):
            await services.answers.hand_over()
            await services.deferred.retry()
        services.deferred.discard_waiting()


async def until_stopped(app: FastAPI, *, drain_seconds: float, refuse_seconds: float = 0.0) -> None:
    """Wait for SIGTERM or SIGINT, then drain for at most `drain_seconds`; a second signal ends the drain.

    Questions are rejected for at least `refuse_seconds`, so that a load balancer which has not yet seen `/readyz` fail
    still reaches a listener.
    """
    loop = asyncio.get_running_loop()
    first_signal, second_signal = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        if first_signal.is_set():
            second_signal.set()
        first_signal.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await first_signal.wait()
    async with anyio.create_task_group() as tasks:

        async def end_drain_on_second_signal() -> None:
            await second_signal.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(end_drain_on_second_signal)
        async with anyio.create_task_group() as minimum:
            minimum.start_soon(anyio.sleep, refuse_seconds)
            await drain(app, seconds=drain_seconds)
        tasks.cancel_scope.cancel()
