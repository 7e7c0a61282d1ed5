"""Documents in lists: found, filtered and ordered; their titles, their links, and what was decided about them."""

import itertools

import pytest
from httpx2 import Response
from structlog.testing import capture_logs

from tests.clock import Clock
from tests.ingest import samples
from tests.ingest.staff import Staff
from tests.ocsf import security_events

pytestmark = pytest.mark.anyio

V1 = "/v1/documents/d/versions/1"
LINK = "https://www.hanbit.example/deposits?id=7#rates"


async def indexed(staff: Staff, document_id: str, rate: str = "2.35", **fields: str) -> None:
    await staff.index(f"# {document_id}\n\n기본 금리는 연 {rate}%입니다.".encode(), document_id=document_id, **fields)


async def post(staff: Staff, address: str, sub: str = "lee", role: str = "approver", /, **body: str | None) -> Response:
    return await staff.http.post(address, headers=staff.headers(sub, role), json=body)


async def put_title(staff: Staff, title: str, sub: str = "kim") -> Response:
    return await staff.http.put(f"{V1}/title", headers=staff.headers(sub), json={"title": title})


async def listed(staff: Staff, query: str) -> list[str]:
    """Return the ids of the documents of a query, asked one by one."""
    ids: list[str] = []
    for _ in itertools.count():
        address = f"/v1/documents?limit=1&cursor={ids[-1] if ids else ''}&{query}"
        page = (await staff.http.get(address, headers=staff.headers())).json()
        ids += [document["document_id"] for document in page["documents"]]
        if page["next"] is None:
            return ids
    return []


async def history(staff: Staff, address: str = V1) -> list[tuple[str, str, str | None]]:
    events = (await staff.http.get(f"{address}/history", headers=staff.headers())).json()["events"]
    return [(event["event"], event["by"], event["detail"]) for event in events]


@pytest.mark.both_databases
async def test_documents_are_found_by_their_words_filtered_by_state_and_ordered(staff: Staff, clock: Clock) -> None:
    await indexed(staff, "a", title="Fees 100%", product="카드")
    clock.now += 60
    await indexed(staff, "b", title="정기예금 안내", product="예금")
    clock.now += 60
    await indexed(staff, "c", title="deposit fees", product="예금")
    await staff.done(await staff.hand_in(samples.pdf(password="1234"), document_id="e"))
    await post(staff, "/v1/documents/c/versions/1/approve")
    await post(staff, "/v1/documents/b/versions/1/approve", effective_from=None)
    clock.now += 60
    await post(staff, "/v1/documents/b/versions/1/expire")
    assert await listed(staff, "q=FEES") == ["a", "c"]
    assert await listed(staff, "q=fees%20예금") == ["c"]
    assert (await listed(staff, "q=0%25"), await listed(staff, "q=_")) == (["a"], [])
    assert await listed(staff, "q=안내") == ["a", "b", "c", "e"], "they are all files named so"
    states = {"indexed": ["a"], "active": ["c"], "expired": ["b"], "failed": ["e"], "approved": []}
    assert {state: await listed(staff, f"state={state}") for state in states} == states
    assert await listed(staff, "sort=title") == ["c", "a", "e", "b"], "without a title by the file's name"
    assert await listed(staff, "sort=product") == ["e", "b", "c", "a"]
    assert await listed(staff, "sort=state") == ["a", "c", "b", "e"]
    assert (await listed(staff, "sort=newest"))[2:] == ["b", "a"]
    gone = await staff.http.get("/v1/documents?sort=newest&cursor=nobody", headers=staff.headers())
    assert (gone.status_code, gone.json()["code"]) == (422, "invalid_request")


@pytest.mark.both_databases
async def test_drafts_and_failures_are_counted_and_a_failed_upload_can_be_dismissed(staff: Staff) -> None:
    async def counts() -> object:
        return (await staff.http.get("/v1/versions/counts", headers=staff.headers())).json()

    async def failed() -> list[str]:
        jobs = (await staff.http.get("/v1/jobs?state=failed", headers=staff.headers())).json()["jobs"]
        return [job["job_id"] for job in jobs]

    await indexed(staff, "d")
    file = samples.pdf(password="1234")
    job = await staff.hand_in(file, document_id="e")
    assert await staff.done(job) == "failed"
    assert (await counts(), await failed()) == ({"drafts": 1, "failed": 1}, [job])
    with capture_logs() as logs:
        for _ in range(2):
            assert (await post(staff, f"/v1/jobs/{job}/dismiss", "kim", "staff")).status_code == 200
    assert [event["metadata"]["event_code"] for event in security_events(logs)] == ["version_dismissed"] * 2
    assert (await counts(), await failed()) == ({"drafts": 1, "failed": 0}, [])
    assert await history(staff, "/v1/documents/e/versions/1") == [("uploaded", "kim", None), ("dismissed", "kim", None)]
    again = await staff.upload(file, document_id="e")
    assert (again.status_code, again.json()["version"]) == (202, 2)
    await staff.done(again.json()["job_id"])
    draft = (await staff.http.get("/v1/jobs?state=done", headers=staff.headers())).json()["jobs"][0]["job_id"]
    assert (await post(staff, f"/v1/jobs/{draft}/dismiss")).status_code == 409


@pytest.mark.both_databases
async def test_a_drafts_title_changes_in_every_passage_and_whoever_set_it_cannot_approve(staff: Staff) -> None:
    await indexed(staff, "d")
    changed = await put_title(staff, "정기예금 상품설명서", "lee")
    assert (changed.status_code, changed.json()["version"]) == (202, 1)
    await staff.done(changed.json()["job_id"])
    passages = (await staff.http.get(f"{V1}/passages", headers=staff.headers())).json()["passages"]
    assert {passage["title"] for passage in passages} == {"정기예금 상품설명서"}
    refused = await post(staff, f"{V1}/approve")
    assert (refused.status_code, refused.json()["code"]) == (403, "second_person")
    seen: dict[str, str | None] = {"effective_from": None, "effective_until": None}
    assert (await post(staff, f"{V1}/approve", "park", **seen, title="d")).json()["code"] == "dates_changed"
    assert (await post(staff, f"{V1}/approve", "park", **seen, title="정기예금 상품설명서")).status_code == 200
    titled = ("titled", "lee", "정기예금 상품설명서")
    assert await history(staff) == [("uploaded", "kim", None), titled, ("approved", "park", None)]


async def test_an_approved_version_gets_another_title_as_the_draft_of_the_next_one(staff: Staff) -> None:
    await indexed(staff, "d", link=LINK)
    await post(staff, f"{V1}/approve")
    received = (await put_title(staff, "새 제목", "choi")).json()
    assert received["version"] == 2
    await staff.done(received["job_id"])
    versions = (await staff.http.get("/v1/documents/d/versions", headers=staff.headers())).json()["versions"]
    assert [(v["title"], v["state"], v["link"]) for v in versions] == [
        ("d", "approved", LINK),
        ("새 제목", "indexed", LINK),
    ]
    second = "/v1/documents/d/versions/2"
    assert await history(staff, second) == [("uploaded", "kim", None), ("titled", "choi", "새 제목")]
    assert (await post(staff, f"{second}/approve", "choi")).status_code == 403


async def test_an_invalid_or_unchanged_title_is_refused(staff: Staff) -> None:
    await indexed(staff, "d", title="제목")
    for title in ("", "  ", "두\n줄", "\u202e거꾸로", "가" * 301):
        assert (await put_title(staff, title)).status_code == 422
    assert (await put_title(staff, "제목")).status_code == 409
    await post(staff, f"{V1}/reject")
    assert (await put_title(staff, "다른 제목")).status_code == 409


@pytest.mark.parametrize(
    "link",
    [
        "http://www.hanbit.example/",
        "https://kim:secret@hanbit.example/",
        "https://localhost/",
        "https://hanbit.example/a b",
        'https://hanbit.example/">',
        f"https://hanbit.example/{'a' * 2000}",
    ],
)
async def test_a_link_is_a_public_https_address(staff: Staff, link: str) -> None:
    refused = await staff.upload(b"# a", link=link)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
