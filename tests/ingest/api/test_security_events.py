"""Decisions of staff are events for the SIEM: person, decision and document, and no text that they wrote."""

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


async def test_each_decision_of_an_approver_is_an_event_and_no_refusal_is(staff: Staff, clock: Clock) -> None:
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
    async def decide(method: str, path: str, sub: str = "lee", /, **body: object) -> None:
        """Make a decision, which is refused to whoever is no approver."""
        for role, statuses in (("staff", {403}), ("approver", {200, 202, 204})):
            reply = await staff.http.request(method, f"{ADDRESS}{path}", headers=staff.headers(sub, role), json=body)
            assert reply.status_code in statuses, (path, reply.text)

    for text in ("2.35", "2.45"):
        data = samples.MARKDOWN.replace("2.35", text).encode()
        await staff.done(await staff.hand_in(data, document_id="rates", title="홍길동님의 금리"))
    dates = {"effective_from": "2026-05-01", "effective_until": None}
    await staff.http.put(f"{ADDRESS}/versions/1/dates", headers=staff.headers("lee"), json=dates)
    clock.pass_seconds(1)
    await decide("POST", "/versions/1/approve", "choi")
    await decide("POST", "/versions/2/reject", **REASON)
    clock.pass_seconds(10)
    await decide("POST", "/versions/1/expire", **REASON)
    clock.pass_seconds(10)
    await decide("POST", "/rollback", **REASON, to_version=1)
    await decide("DELETE", "", **REASON)
    versions = (await staff.http.get(f"{ADDRESS}/versions", headers=staff.headers())).json()["versions"]
    assert [version["state"] for version in versions] == ["withdrawn"] * 3
    assert (await staff.http.get("/v1/documents", headers={"authorization": "Bearer x.y.z"})).status_code == 401
