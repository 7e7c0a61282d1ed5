from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace

import anyio
import pytest
from httpx2 import ASGITransport, AsyncClient, Response

from ingest.app import create_app
from ingest.services import Services
from ingest.worker import Worker
from knowledge.identity import Authenticator, AuthSettings, KeyFile
from tests.ingest import samples
from tests.ingest.conftest import NOON, Clock
from tests.ingest.keys import ISSUER, key_and_token

pytestmark = pytest.mark.anyio

Token = Callable[..., str]


@dataclass(frozen=True)
class Staff:
    """The API with its worker, and a maker of tokens."""

    http: AsyncClient
    token: Token

    def headers(self, sub: str = "kim", *roles: str, tenant: str = "hanbit") -> dict[str, str]:
        return {"authorization": f"Bearer {self.token(sub, *(roles or ('staff',)), tenant=tenant)}"}

    async def upload(self, data: bytes, **fields: str) -> Response:
        return await self.http.post(
            "/v1/documents", files={"file": ("안내.md", data)}, data=fields, headers=self.headers()
        )

    async def done(self, job_id: str) -> str:
        with anyio.fail_after(30):
            while True:
                job = (await self.http.get(f"/v1/jobs/{job_id}", headers=self.headers())).json()
                if job["state"] in ("done", "failed"):
                    return str(job["state"])
                await anyio.sleep(0.01)


@pytest.fixture
async def staff(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Staff]:
    token, file = key_and_token(tmp_path_factory.mktemp("keys"))
    settings = AuthSettings(issuer=ISSUER, public_key_file=file)
    services = replace(services, authenticator=Authenticator(KeyFile(file.read_bytes()), settings))
    transport = ASGITransport(app=create_app(services))
    assert services.delivery is not None
    async with AsyncClient(transport=transport, base_url="http://staff") as http, anyio.create_task_group() as group:
        group.start_soon(Worker(services, services.delivery).run)
        yield Staff(http, token)
        group.cancel_scope.cancel()


async def test_an_upload_is_indexed_approved_by_another_and_found(staff: Staff, clock: Clock) -> None:
    accepted = await staff.upload(samples.MARKDOWN.encode(), product="정기예금", document_id="term-deposit")
    assert accepted.status_code == 202
    body = accepted.json()
    assert (body["document_id"], body["version"], body["state"]) == ("term-deposit", 1, "received")
    assert await staff.done(body["job_id"]) == "done"
    approve = "/v1/documents/term-deposit/versions/1/approve"
    assert (await staff.http.post(approve, headers=staff.headers("lee", "staff"))).status_code == 403
    assert (await staff.http.post(approve, headers=staff.headers("kim", "approver"))).status_code == 403
    approved = (await staff.http.post(approve, headers=staff.headers("lee", "approver"))).json()
    assert (approved["approved_by"], approved["visible_from"]) == ("lee", NOON + 2)
    search = {"q": "정기예금 12개월 금리"}
    assert (await staff.http.get("/v1/search", params=search, headers=staff.headers())).json()["hits"] == []
    clock.now = NOON + 3
    hits = (await staff.http.get("/v1/search", params=search, headers=staff.headers())).json()["hits"]
    assert {hit["passage"]["document_id"] for hit in hits} == {"term-deposit"}
    before = search | {"as_of": "2026-05-29T11:59:00"}
    assert (await staff.http.get("/v1/search", params=before, headers=staff.headers())).json()["hits"] == []


async def test_lists_show_versions_states_and_passages_page_by_page(staff: Staff) -> None:
    for name in ("a", "b", "c"):
        received = await staff.upload(samples.MARKDOWN.encode() + name.encode(), document_id=name)
        await staff.done(received.json()["job_id"])
    first = (await staff.http.get("/v1/documents?limit=2", headers=staff.headers())).json()
    assert [d["document_id"] for d in first["documents"]] == ["a", "b"]
    rest = (await staff.http.get(f"/v1/documents?cursor={first['next']}", headers=staff.headers())).json()
    assert ([d["document_id"] for d in rest["documents"]], rest["next"]) == (["c"], None)
    versions = (await staff.http.get("/v1/documents/a/versions", headers=staff.headers())).json()["versions"]
    assert [(v["version"], v["state"], v["format"]) for v in versions] == [(1, "indexed", "markdown")]
    passages = (await staff.http.get("/v1/documents/a/versions/1/passages", headers=staff.headers())).json()
    assert [p["n"] for p in passages["passages"]] == list(range(1, versions[0]["passages"] + 1))


async def test_a_broken_file_ends_in_a_failed_job_with_its_reason(staff: Staff) -> None:
    received = await staff.upload(samples.pdf(password="1234"))
    assert await staff.done(received.json()["job_id"]) == "failed"
    job = (await staff.http.get(f"/v1/jobs/{received.json()['job_id']}", headers=staff.headers())).json()
    assert (job["reason"], job["stage"]) == ("encrypted", "parse")


async def test_the_same_upload_gives_the_same_ids_and_other_metadata_a_conflict(staff: Staff) -> None:
    first = (await staff.upload(samples.MARKDOWN.encode())).json()
    again = (await staff.upload(samples.MARKDOWN.encode())).json()
    assert (again["document_id"], again["job_id"]) == (first["document_id"], first["job_id"])
    other = await staff.upload(samples.MARKDOWN.encode(), product="예금")
    assert (other.status_code, other.json()["code"]) == (409, "duplicate_content")
    assert other.json()["document_id"] == first["document_id"]


async def test_another_tenant_sees_nothing(staff: Staff) -> None:
    received = (await staff.upload(samples.MARKDOWN.encode())).json()
    foreign = staff.headers("kim", "staff", tenant="other")
    for address in (f"/v1/documents/{received['document_id']}", f"/v1/jobs/{received['job_id']}"):
        assert (await staff.http.get(address, headers=foreign)).status_code == 404
    assert (await staff.http.get("/v1/documents", headers=foreign)).json()["documents"] == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"effective_from": "soon"}, "invalid_request"),
        ({"language": "fr"}, "invalid_request"),
        ({"document_id": "a/b"}, "invalid_request"),
        ({"effective_from": "2026-02-01", "effective_until": "2026-01-01"}, "invalid_request"),
    ],
)
async def test_a_wrong_field_is_refused_as_a_problem_document(staff: Staff, fields: dict[str, str], code: str) -> None:
    refused = await staff.upload(b"text", **fields)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert refused.headers["content-type"] == "application/problem+json"


async def test_customers_and_strangers_are_refused(staff: Staff) -> None:
    assert (await staff.http.get("/v1/documents")).status_code == 401
    assert (await staff.http.get("/v1/documents", headers={"authorization": "Bearer x"})).status_code == 401
    assert (await staff.http.get("/v1/documents", headers=staff.headers("c", "customer"))).status_code == 403


async def test_probes_metrics_and_the_page_answer(staff: Staff) -> None:
    assert (await staff.http.get("/livez")).json() == {"status": "alive"}
    assert (await staff.http.get("/readyz")).json() == {"status": "ready", "catalogue": "ok", "index": "ok"}
    assert "ingest_jobs_waiting 0.0" in (await staff.http.get("/metrics")).text
    assert "문서 관리" in (await staff.http.get("/")).text
    missing = await staff.http.get("/nowhere")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
