"""Security headers of every response: pages, JSON, streams and internal errors."""

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Header = tuple[bytes, bytes]
_NO_STORE: Header = (b"cache-control", b"no-store")


def security_headers(*, image_sources: str) -> tuple[Header, ...]:
    """Return a strict Content Security Policy, with `image_sources` besides 'self', and related security headers."""
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' {image_sources}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return (
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    )


def add_response_headers(app: FastAPI, headers: Sequence[Header]) -> None:
    """Add the headers to every response of the application, and `no-store` if a response has no `cache-control`.

    This wraps all middleware, because Starlette creates the response to an unhandled error outside the app's own.
    """
    inner = app.build_middleware_stack
    app.build_middleware_stack = lambda: ResponseHeaders(inner(), headers=headers)  # type: ignore[method-assign]  # Starlette calls it once


class ResponseHeaders:
    """Adds fixed headers to every response (pure ASGI, so streams are not buffered)."""

    def __init__(self, app: ASGIApp, *, headers: Sequence[Header]) -> None:
        self._app = app
        self._headers = tuple(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message["headers"]
                has_cache_control = any(name.lower() == b"cache-control" for name, _ in own)
                # Responses are private to customers and staff: no proxy or disk cache may store them.
                message["headers"] = [*own, *self._headers, *([] if has_cache_control else [_NO_STORE])]
            await send(message)

        if scope["type"] == "http":
            scope.setdefault("state", {})  # shared with the routes, which set values on it
        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
