"""The calls of admins are on a port of their own, where one is set."""

import httpx2
import pytest
from fastapi import FastAPI

from chatbot.api.app import AdminListener

ADMIN_PORT = 8010


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("port", "path", "status"),
    [
        (8000, "/v1/admin/stops", 404),
        (8000, "/v1/%61dmin/stops", 404),
        (8000, "/v1/chat", 200),
        (ADMIN_PORT, "/v1/admin/stops", 200),
        (ADMIN_PORT, "/v1/chat", 404),
    ],
)
async def test_admins_calls_are_on_their_port_only(port: int, path: str, status: int) -> None:
    app = FastAPI()
    app.add_api_route("/v1/admin/stops", lambda: "stops")
    app.add_api_route("/v1/chat", lambda: "chat")
    transport = httpx2.ASGITransport(AdminListener(app, port=ADMIN_PORT))
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://bank.example:{port}") as client:
        assert (await client.get(path)).status_code == status
