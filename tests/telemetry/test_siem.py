"""Security events become log lines and OTLP records, and recording never blocks."""

import ssl
from functools import partial
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from telemetry.ocsf import Code
from telemetry.setup import TraceSettings
from telemetry.siem import Siem, open_siem
from tests.certificates import certificates, server_context
from tests.clock import Clock
from tests.collector import Collector, collecting
from tests.constants import with_constants
from tests.ocsf import security_events, valid_event

pytestmark = pytest.mark.anyio


def record(siem: Siem, *names: str) -> None:
    for name in names:
        siem.emit(Code.ANSWER_REPLAYED, tenant="hanbit", by="park", about=name)


def test_each_event_is_a_line_of_the_log() -> None:
    with capture_logs() as logs, open_siem("chatbot", TraceSettings()) as siem:
        record(siem, "a", "b")
    assert [event["entity"]["uid"] for event in security_events(logs)] == ["a", "b"]


def test_a_flood_of_refusals_is_one_event_a_second_and_reason() -> None:
    clock = Clock(1_800_000_000)
    with capture_logs() as logs, open_siem("chatbot", TraceSettings(), now=clock) as siem:
        for _ in range(10_000):
            siem.record_refusal("the token is not valid")
        siem.record_refusal("the token has expired")
        clock.pass_seconds(1)
        siem.record_refusal("the token is not valid")
        siem.record_refusal("the token is not valid")
    assert [(event["status_detail"], event.get("count", 1)) for event in security_events(logs)] == [
        ("the token is not valid", 1),
        ("the token has expired", 1),
        ("the token is not valid", 10_000),
        ("the token is not valid", 1),
    ], "the last one as the process ends"


def test_countless_reasons_become_few_events() -> None:
    with capture_logs() as logs, open_siem("chatbot", TraceSettings()) as siem:
        for n in range(1000):
            siem.record_refusal(f"reason {n}")
    assert len(security_events(logs)) < 60


async def export(collector: Collector, name: str, tls: ssl.SSLContext | None = None) -> None:
    """Record and export an event in another thread, because the collector runs in this one."""

    def recorded() -> None:
        with open_siem(
            "ingest", with_constants(TraceSettings(otlp_endpoint=collector.url), export_timeout=1), tls=tls
        ) as siem:
            record(siem, name)

    await anyio.to_thread.run_sync(recorded)


async def test_a_collector_gets_events_as_log_records() -> None:
    async with collecting() as collector:
        await export(collector, "a")
    (event,) = [valid_event(line) for line in collector.lines]
    assert (event["entity"]["uid"], collector.services) == ("a", {"ingest"})
    assert event["metadata"]["product"]["feature"] == {"name": "ingest"}


async def test_a_collector_s_redirect_is_not_followed() -> None:
    async with collecting() as collector, collecting() as other:
        collector.leads_to = f"{other.url}/v1/logs"
        await export(collector, "a")
    assert other.lines == []


async def test_an_absent_collector_stops_nothing() -> None:
    async with collecting() as collector:
        pass
    with anyio.fail_after(30):
        await export(collector, "a")


async def test_only_a_collector_with_a_trusted_certificate_gets_events(tmp_path: Path) -> None:
    folder = certificates(tmp_path)
    async with collecting(server_context(folder)) as collector:
        sent = partial(export, collector)
        await sent("a", ssl.create_default_context())
        await sent("b", ssl.create_default_context(cafile=folder / "ca.pem"))
    assert [valid_event(line)["entity"]["uid"] for line in collector.lines] == ["b"]
