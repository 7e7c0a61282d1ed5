"""What staff do with documents is told to the SIEM: who, what and which, and nothing that they wrote."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ingest.services import Services
from telemetry.siem import Siem
from tests.clock import Clock
from tests.ingest import samples
from tests.ingest.staff import Staff, open_staff
from tests.ocsf import security_events

pytestmark = pytest.mark.anyio

ADDRESS = "/v1/documents/rates"
REASON = {"reason": "예금자 홍길동 민원"}


@pytest.fixture
async def staff(services: Services, clock: Clock, tmp_path: Path) -> AsyncGenerator[Staff]:
    async with open_staff(replace(services, siem=Siem("ingest", now=clock)), tmp_path) as opened:
        yield opened


async def test_each_decision_is_told_with_who_made_it_and_about_what(staff: Staff, clock: Clock) -> None:
    with capture_logs() as logs:
        await decide_everything(staff, clock)
    events = security_events(logs)
    assert [
        (event["metadata"]["event_code"], event["actor"]["user"]["uid"], event["entity"]["uid"])
        for event in events[:-1]
    ] == [
        ("document_uploaded", "kim", "rates/1"),
        ("document_uploaded", "kim", "rates/2"),
        ("version_dated", "lee", "rates/1"),
        ("version_approved", "choi", "rates/1"),
        ("version_rejected", "lee", "rates/2"),
        ("version_expired", "lee", "rates/1"),
        ("document_rolled_back", "lee", "rates/3"),
        ("document_deleted", "lee", "rates"),
    ]
    assert events[-1]["metadata"]["event_code"] == "sign_in_refused"
    assert "홍길동" not in str(events)


async def decide_everything(staff: Staff, clock: Clock) -> None:
    lee = staff.headers("lee", "approver")

    async def decide(method: str, path: str, **more: object) -> None:
        reply = await staff.http.request(method, f"{ADDRESS}{path}", headers=lee, **more)  # type: ignore[arg-type]  # json
        assert reply.status_code < 300, (path, reply.text)

    for text in ("2.35", "2.45"):
        data = samples.MARKDOWN.replace("2.35", text).encode()
        await staff.done(await staff.hand_in(data, document_id="rates", title="홍길동님의 금리"))
    await decide("PUT", "/versions/1/dates", json={"effective_from": "2026-05-01", "effective_until": None})
    clock.pass_seconds(1)
    other = staff.headers("choi", "approver")
    assert (await staff.http.post(f"{ADDRESS}/versions/1/approve", headers=other)).status_code == 200
    await decide("POST", "/versions/2/reject", json=REASON)
    clock.pass_seconds(10)
    await decide("POST", "/versions/1/expire", json=REASON)
    clock.pass_seconds(10)
    await decide("POST", "/rollback", json=REASON | {"to_version": 1})
    await decide("DELETE", "", json=REASON)
    assert (await staff.http.get("/v1/documents", headers={"authorization": "Bearer x.y.z"})).status_code == 401


async def test_what_was_refused_is_not_told_as_done(staff: Staff) -> None:
    with capture_logs() as logs:
        await staff.done(await staff.hand_in(samples.MARKDOWN.encode(), document_id="rates"))
        approve = f"{ADDRESS}/versions/1/approve"
        assert (await staff.http.post(approve, headers=staff.headers("kim", "approver"))).status_code == 403
        assert (await staff.http.post(approve, headers=staff.headers("lee"))).status_code == 403
    assert [event["metadata"]["event_code"] for event in security_events(logs)] == ["document_uploaded"]
