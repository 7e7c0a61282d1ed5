"""What the OpenAPI document says of refusals is what callers get."""

import pytest
from fastapi import APIRouter, FastAPI
from httpx2 import ASGITransport, AsyncClient

from chatbot.api.problems import install_problems

pytestmark = pytest.mark.anyio


def small_app() -> FastAPI:
    app = FastAPI()
    install_problems(app, {})
    router = APIRouter()

    @router.get("/things/{n}")
    async def show(n: int) -> int:
        return n

    @router.delete("/things/{n}")
    async def remove(n: int) -> int:
        return n

    app.include_router(router)
    return app


async def test_a_refused_method_is_told_every_one_that_the_address_takes() -> None:
    async with AsyncClient(transport=ASGITransport(app=small_app()), base_url="http://chat") as http:
        refused = await http.request("PUT", "/things/1")
    assert (refused.status_code, refused.json()["code"]) == (405, "http_405")
    assert set(refused.headers["allow"].split(", ")) == {"GET", "DELETE"}


def test_every_address_documents_its_refusals() -> None:
    responses = small_app().openapi()["paths"]["/things/{n}"]["delete"]["responses"]
    assert "422" not in responses, "FastAPI's own form of it is not ours"
    schema = responses["default"]["content"]["application/problem+json"]["schema"]
    assert {"code", "status", "detail", "trace_id"} <= set(schema["required"])
