"""Security headers of every response: pages, JSON and streams."""

from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Header = tuple[bytes, bytes]


def security_headers(*, image_sources: str) -> tuple[Header, ...]:
    """Return a strict Content Security Policy, with `image_sources` beside 'self' for images, and its companions."""
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' {image_sources}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return (
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    )


class ResponseHeaders:
    """Adds the same headers to every response (pure ASGI: streams pass untouched)."""

    def __init__(self, app: ASGIApp, *, headers: Sequence[Header]) -> None:
        self._app = app
        self._headers = tuple(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
