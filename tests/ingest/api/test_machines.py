"""What a service key may do with documents: bring them, and approve none; nor may who made the key."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from ingest.services import Services
from knowledge.service_keys import NewKey, ServiceKeys, load_service_keys
from knowledge.storage import open_engine
from tests.clock import Clock
from tests.ingest import samples
from tests.ingest.staff import Staff, open_staff

pytestmark = pytest.mark.anyio

ADDRESS = "/v1/documents/term-deposit/versions/1"
Headers = dict[str, str]


@pytest.fixture
async def keys(services: Services, clock: Clock, database_url: str) -> AsyncGenerator[ServiceKeys]:  # noqa: ARG001  they migrate first
    engine = open_engine(database_url)
    yield await load_service_keys(engine, now=clock)
    await engine.dispose()


@pytest.fixture
async def staff(services: Services, keys: ServiceKeys, tmp_path: Path) -> AsyncGenerator[Staff]:
    async with open_staff(services, tmp_path, keys) as opened:
        yield opened


async def headers_of_key(keys: ServiceKeys, *roles: str, made_by: str = "hanbit/park") -> Headers:
    new = NewKey(tenant="hanbit", name="the nightly batch", roles=frozenset(roles), made_by=made_by)
    return {"authorization": f"Bearer {(await keys.make(new))[1]}"}


async def bring(staff: Staff, headers: Headers) -> None:
    """Upload a document and wait until it is a draft."""
    file = {"file": ("안내.md", samples.MARKDOWN.encode())}
    brought = await staff.http.post("/v1/documents", files=file, data={"document_id": "term-deposit"}, headers=headers)
    assert brought.status_code == 202, brought.text
    assert await staff.done(brought.json()["job_id"]) == "done"


async def test_a_machines_document_is_approved_by_a_person_who_did_not_make_its_key(
    staff: Staff, keys: ServiceKeys
) -> None:
    machine = await headers_of_key(keys, "staff", "admin")
    await bring(staff, machine)
    for headers in (machine, await headers_of_key(keys, "admin", made_by="hanbit/choi")):
        refused = await staff.http.post(f"{ADDRESS}/approve", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), "no machine approves"
    maker = await staff.http.post(f"{ADDRESS}/approve", headers=staff.headers("Park", "approver"))
    assert (maker.status_code, maker.json()["code"]) == (403, "second_person")
    approved = await staff.http.post(f"{ADDRESS}/approve", headers=staff.headers("lee", "approver"))
    assert approved.status_code == 200, approved.text
    assert approved.json()["approved_by"] == "lee"
    assert approved.json()["uploaded_by"].startswith("service:")
    expired = await staff.http.post(f"{ADDRESS}/expire", headers=machine)
    assert expired.status_code == 403


async def test_the_maker_of_a_key_cannot_approve_the_dates_that_it_set(staff: Staff, keys: ServiceKeys) -> None:
    await bring(staff, staff.headers("kim"))
    dates = {"effective_from": "2026-06-01", "effective_until": None}
    dated = await staff.http.put(f"{ADDRESS}/dates", json=dates, headers=await headers_of_key(keys, "staff"))
    assert dated.status_code == 200, dated.text
    for person, status in (("kim", 403), ("park", 403), ("lee", 200)):
        approved = await staff.http.post(f"{ADDRESS}/approve", headers=staff.headers(person, "approver"))
        assert approved.status_code == status, person
