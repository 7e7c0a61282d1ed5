"""Every reply has the security headers: JSON, pages, refusals, and internal errors."""

import pytest
from fastapi import FastAPI, Response
from httpx2 import ASGITransport, AsyncClient

from edge import add_response_headers, security_headers

pytestmark = pytest.mark.anyio


def app_with_headers() -> FastAPI:
    app = FastAPI()
    add_response_headers(app, security_headers(image_sources="data:"))

    @app.get("/json")
    async def json() -> dict[str, int]:
        return {"balance": 1}

    @app.get("/page")
    async def page() -> Response:
        return Response("…", headers={"Cache-Control": "no-cache"})

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError

    return app


@pytest.mark.parametrize(
    ("path", "status", "cached"),
    [
        ("/json", 200, "no-store"),
        ("/page", 200, "no-cache"),
        ("/bug", 500, "no-store"),
        ("/nowhere", 404, "no-store"),
    ],
)
async def test_every_reply_has_security_and_cache_headers(path: str, status: int, cached: str) -> None:
    transport = ASGITransport(app=app_with_headers(), raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://chat") as http:
        reply = await http.get(path)
    assert reply.status_code == status
    assert reply.headers.get_list("cache-control") == [cached]
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    assert reply.headers["x-content-type-options"] == "nosniff"
