"""What the OpenAPI document says of refusals is what callers get."""

from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from fastapi import APIRouter, FastAPI, Request
from httpx2 import ASGITransport, AsyncClient

from chatbot.api.problems import Problem, install_problems
from chatbot.api.routes.chat import answer_document
from chatbot.events import Failed
from knowledge.bank import read_banks
from tests.bank import of_the_sample_bank, write_bank

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


async def test_a_refused_method_gets_the_allowed_methods() -> None:
    async with AsyncClient(transport=ASGITransport(app=small_app()), base_url="http://chat") as http:
        refused = await http.request("PUT", "/things/1")
    assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
    assert set(refused.headers["allow"].split(", ")) == {"GET", "DELETE"}


BUSY = Failed(
    code="overloaded", status=503, title="Busy", retryable=True, retry_after_ms=None, trace_id="t", handoff=""
)


@pytest.mark.parametrize(("milliseconds", "wait"), [(None, None), (0, "1"), (400, "1"), (1500, "2")])
def test_a_failed_whole_answer_is_the_documented_problem(milliseconds: int | None, wait: str | None) -> None:
    reply = answer_document([msgspec.structs.replace(BUSY, retry_after_ms=milliseconds)])
    responses = small_app().openapi()["paths"]["/things/{n}"]["get"]["responses"]
    schema = responses["default"]["content"]["application/problem+json"]["schema"]
    assert msgspec.json.decode(reply.body, type=Problem, strict=True).detail == "Busy"
    assert set(schema["required"]) | {"type"} <= set(msgspec.json.decode(reply.body)) <= set(schema["properties"])
    assert (reply.status_code, reply.media_type) == (503, "application/problem+json")
    assert reply.headers.get("retry-after") == wait
    for_good = answer_document(
        [msgspec.structs.replace(BUSY, code="internal", status=500, retryable=False, handoff="Call us.")]
    )
    assert "retry-after" not in for_good.headers
    assert msgspec.json.decode(for_good.body)["handoff"] == "Call us."


async def test_a_failure_names_the_person_of_the_caller_s_bank(tmp_path: Path) -> None:
    app, router = small_app(), APIRouter()
    app.state.services = SimpleNamespace(banks=read_banks(write_bank(tmp_path)))

    @router.get("/fails")
    async def fail(request: Request, tenant: str | None = None) -> None:
        if tenant is not None:
            request.state.principal = SimpleNamespace(tenant=tenant)
        raise RuntimeError

    app.include_router(router)
    transport = ASGITransport(app=app, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://chat") as http:
        for query, telephone in (("", "1800-7000"), ("?tenant=hanbit", "1800-7000"), ("?tenant=dusk", "1800-9000")):
            failed = await http.get(f"/fails{query}")
            assert failed.status_code == 500
            assert telephone in failed.json()["handoff"]
            assert of_the_sample_bank(failed.text) == []
