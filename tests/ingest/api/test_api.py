import pytest

from tests.clock import Clock
from tests.ingest import samples
from tests.ingest.conftest import NOON
from tests.ingest.staff import Staff

pytestmark = pytest.mark.anyio


@pytest.mark.both_databases
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


@pytest.mark.both_databases
async def test_versions_are_listed_by_their_state_page_by_page(staff: Staff) -> None:
    for name in ("a", "b"):
        for text in ("# 가", "# 나"):
            await staff.index(f"{text}\n\n{name} 안내입니다.".encode(), document_id=name)
    approved = await staff.http.post("/v1/documents/a/versions/1/approve", headers=staff.headers("lee", "approver"))
    assert approved.status_code == 200, approved.text
    named, cursor = [], ""
    while True:
        page = (await staff.http.get(f"/v1/versions?limit=2&cursor={cursor}", headers=staff.headers())).json()
        named += [(version["document_id"], version["version"]) for version in page["versions"]]
        if page["next"] is None:
            break
        cursor = page["next"]
    assert named == [("a", 2), ("b", 1), ("b", 2)]
    listed = (await staff.http.get("/v1/versions?state=approved", headers=staff.headers())).json()["versions"]
    assert [(version["document_id"], version["version"]) for version in listed] == [("a", 1)]
    foreign = await staff.http.get("/v1/versions", headers=staff.headers("kim", tenant="other"))
    assert foreign.json() == {"versions": [], "next": None}
    for wrong in ("state=active", "cursor=a"):
        assert (await staff.http.get(f"/v1/versions?{wrong}", headers=staff.headers())).status_code == 422


@pytest.mark.both_databases
async def test_a_name_that_no_database_can_hold_is_refused(staff: Staff) -> None:
    names = ("documents/a%00b", "documents/a%00b/versions/1", "jobs/%00")
    cursors = ("documents?cursor=%00", "jobs?cursor=%00", "versions?cursor=a/9999999999")
    for path in (*names, *cursors):
        reply = await staff.http.get(f"/v1/{path}", headers=staff.headers())
        assert (reply.status_code, reply.json()["retryable"]) == (422, False), path


async def test_a_caller_reads_their_own_name_and_roles(staff: Staff) -> None:
    reply = await staff.http.get("/v1/me", headers=staff.headers("lee", "staff", "approver"))
    assert reply.json() == {"sub": "lee", "tenant": "hanbit", "roles": ["approver", "staff"], "zone": "Asia/Seoul"}


async def test_a_search_sees_what_a_customer_of_the_groups_could_read(staff: Staff, clock: Clock) -> None:
    for name, text, readers in (("all", "정기예금 금리 안내", "customers"), ("few", "정기예금 우대 금리", "vip")):
        await staff.index(f"# {text}\n\n{text}입니다.".encode(), document_id=name, readers=readers)
        await staff.http.post(f"/v1/documents/{name}/versions/1/approve", headers=staff.headers("lee", "approver"))
    clock.now += 10

    async def seen(**more: str | list[str]) -> set[str]:
        params = {"q": "정기예금 금리"} | more
        reply = (await staff.http.get("/v1/search", params=params, headers=staff.headers())).json()
        return {hit["passage"]["document_id"] for hit in reply["hits"]}

    assert await seen() == await seen(as_group="staff") == {"all"}
    assert await seen(as_group=["staff", "vip"]) == {"all", "few"}
    assert await seen(as_group="vip", as_of="2026-05-29T12:00:01") == set()


@pytest.mark.both_databases
async def test_a_failed_job_is_listed_and_retried_and_a_done_one_is_not(staff: Staff) -> None:
    broken = await staff.hand_in(samples.pdf(password="1234"))
    assert await staff.done(broken) == "failed"
    listed = (await staff.http.get("/v1/jobs?state=failed", headers=staff.headers())).json()["jobs"]
    assert [(job["job_id"], job["reason"]) for job in listed] == [(broken, "encrypted")]
    assert (await staff.http.get("/v1/jobs", headers=staff.headers())).json() == {"jobs": [], "next": None}
    again = await staff.http.post(f"/v1/jobs/{broken}/retry", headers=staff.headers())
    assert (again.status_code, again.json()["state"]) == (202, "queued")
    assert await staff.done(broken) == "failed"
    good = await staff.hand_in(samples.MARKDOWN.encode())
    await staff.done(good)
    assert (await staff.http.post(f"/v1/jobs/{good}/retry", headers=staff.headers())).status_code == 409


async def test_dates_are_changed_by_staff_before_and_by_approvers_after_the_approval(staff: Staff) -> None:
    await staff.index(samples.MARKDOWN.encode(), document_id="d")
    address, june = "/v1/documents/d/versions/1/dates", {"effective_from": "2026-06-01", "effective_until": None}
    dated = await staff.http.put(address, json=june, headers=staff.headers())
    assert (dated.status_code, dated.json()["effective_from"]) == (200, "2026-06-01")
    approved = await staff.http.post("/v1/documents/d/versions/1/approve", headers=staff.headers("lee", "approver"))
    assert approved.json()["visible_from"] == 1_780_239_600.0
    july = june | {"effective_from": "2026-07-01"}
    for who, role, code in (("park", "staff", "forbidden"), ("kim", "approver", "second_person")):
        refused = await staff.http.put(address, json=july, headers=staff.headers(who, role))
        assert (refused.status_code, refused.json()["code"]) == (403, code)
    moved = await staff.http.put(address, json=july, headers=staff.headers("park", "approver"))
    assert (moved.json()["effective_from"], moved.json()["state"]) == ("2026-07-01", "approved")
    for wrong in ({"effective_from": "2026-07-01"}, july | {"effective_until": "2026-06-30"}):
        assert (await staff.http.put(address, json=wrong, headers=staff.headers())).status_code == 422


async def test_another_tenant_sees_nothing(staff: Staff) -> None:
    received = (await staff.upload(samples.MARKDOWN.encode())).json()
    foreign = staff.headers("kim", "staff", tenant="other")
    for address in (f"/v1/documents/{received['document_id']}", f"/v1/jobs/{received['job_id']}"):
        assert (await staff.http.get(address, headers=foreign)).status_code == 404
    assert (await staff.http.get("/v1/documents", headers=foreign)).json()["documents"] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"effective_from": "soon"},
        {"effective_from": "2026-02-01", "effective_until": "2026-01-01"},
        {"language": "fr"},
        {"document_id": "a/b"},
        {"document_id": "deposit\n"},
        {"readers": "vip\u202e"},
        {"title": "two\nlines"},
        {"product": "dep\u200bosit"},
        {"link": "javascript:alert(1)"},
    ],
)
async def test_a_wrong_field_is_refused_as_a_problem_document(staff: Staff, fields: dict[str, str]) -> None:
    refused = await staff.upload(b"text", **fields)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert refused.headers["content-type"] == "application/problem+json"


async def test_customers_and_strangers_are_refused(staff: Staff) -> None:
    assert (await staff.http.get("/v1/documents")).status_code == 401
    assert (await staff.http.get("/v1/documents", headers={"authorization": "Bearer x"})).status_code == 401
    assert (await staff.http.get("/v1/documents", headers=staff.headers("c", "customer"))).status_code == 403


async def test_probes_metrics_and_the_page_answer(staff: Staff) -> None:
    assert (await staff.http.get("/livez")).json() == {"status": "alive"}
    assert (await staff.http.get("/readyz")).json() == {
        "status": "ready",
        "catalogue": "ok",
        "index": "ok",
        "embedder": "ok",
    }
    reply = (await staff.http.get("/metrics")).text
    assert all(f"ingest_{name} 0.0" in reply for name in ("jobs_waiting", "dead_jobs", "oldest_job_seconds"))
    assert 'ingest_parser_sandbox_layers{layer="file_writes"} 1.0' in reply
    assert "문서 관리" in (await staff.http.get("/")).text
    missing = await staff.http.get("/nowhere")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
