"""Security events reach a file or a collector, in order and whole, and never hold up who tells of them."""

import json
import os
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from pydantic import ValidationError

from telemetry.ocsf import Code
from telemetry.siem import Siem, SiemSettings, open_siem
from tests.certificates import certificates, server_context
from tests.ocsf import valid_event
from tests.patience import patient

pytestmark = pytest.mark.anyio


def told(siem: Siem, *names: str) -> None:
    for name in names:
        siem.tell(Code.ANSWER_REPLAYED, tenant="hanbit", by="park", about=name)


def names_in(text: str) -> list[str]:
    return [valid_event(line)["entity"]["uid"] for line in text.splitlines()]


async def test_events_are_appended_a_line_each_also_to_a_file_that_is_moved_away(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    siem = Siem("chatbot", SiemSettings(file=file))
    told(siem, "a", "b")
    await siem.write()
    file.rename(tmp_path / "events.jsonl.1")
    told(siem, "c")
    await siem.write()
    await siem.write()
    assert names_in((tmp_path / "events.jsonl.1").read_text("utf-8")) == ["a", "b"]
    assert names_in(file.read_text("utf-8")) == ["c"]
    assert file.stat().st_mode & 0o007 == 0, "not for everybody"


async def test_lines_of_processes_that_write_at_once_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    siems = [Siem("chatbot", SiemSettings(file=file)) for _ in range(4)]
    async with anyio.create_task_group() as group:
        for n, siem in enumerate(siems):
            told(siem, *(f"{n}-{m}" for m in range(1200)))
            group.start_soon(siem.write)
    names = names_in(file.read_text("utf-8"))
    assert len(names) == 4800
    for n in range(4):
        assert [name for name in names if name.startswith(f"{n}-")] == [f"{n}-{m}" for m in range(1200)]


async def test_what_cannot_be_written_waits_and_what_is_too_much_is_dropped_and_counted(tmp_path: Path) -> None:
    file, dropped = tmp_path / "events.jsonl", list[int]()
    file.mkdir()
    siem = Siem("chatbot", SiemSettings(file=file, most_waiting=3), on_dropped=dropped.append)
    told(siem, "a", "b")
    await siem.write()
    told(siem, "c", "d", "e")
    await siem.write()
    assert dropped == [1, 1]
    file.rmdir()
    await siem.write()
    assert names_in(file.read_text("utf-8")) == ["a", "b", "c"]
    told(siem, "f")
    await siem.write()
    assert names_in(file.read_text("utf-8")) == ["a", "b", "c", "f"]


async def test_a_pipe_that_nobody_reads_holds_nobody_up_and_gets_the_rest_of_a_line_later(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    siem = Siem("chatbot", SiemSettings(file=pipe))
    names = [f"n{n}" for n in range(2000)]
    told(siem, *names)
    with anyio.fail_after(patient(5)):
        await siem.write()  # nobody has opened it
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    read = b""
    with anyio.fail_after(patient(20)):
        while read.count(b"\n") < len(names):
            await siem.write()
            read += os.read(reading, 1_000_000)
    os.close(reading)
    assert names_in(read.decode()) == names


async def test_a_flood_of_refusals_is_one_event_a_reason_and_write(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    siem = Siem("chatbot", SiemSettings(file=file))
    for _ in range(10_000):
        siem.refused("the token is not valid")
    siem.refused("the token has expired")
    await siem.write()
    events = [valid_event(line) for line in file.read_text("utf-8").splitlines()]
    assert [(event["status_detail"], event.get("count", 1)) for event in events] == [
        ("the token is not valid", 10_000),
        ("the token has expired", 1),
    ]
    for n in range(1000):
        siem.refused(f"reason {n}")
    await siem.write()
    assert len(file.read_text("utf-8").splitlines()) < 60


async def test_without_a_place_nothing_is_kept() -> None:
    siem = Siem("chatbot", SiemSettings(), on_dropped=lambda _: pytest.fail("it is off"))
    async with open_siem(siem):
        told(siem, "a")
        siem.refused("no")
    assert (len(siem._waiting), len(siem._refusals)) == (0, 0)
    with pytest.raises(ValidationError, match="not both"):
        SiemSettings(file=Path("events"), otlp_endpoint="http://127.0.0.1:4318")


async def test_what_is_told_last_is_written_on_the_way_out_or_counted(tmp_path: Path) -> None:
    file, dropped = tmp_path / "events.jsonl", list[int]()
    async with open_siem(Siem("chatbot", SiemSettings(file=file))) as siem:
        told(siem, "a")
    assert names_in(file.read_text("utf-8")) == ["a"]
    away = Siem("chatbot", SiemSettings(file=tmp_path), on_dropped=dropped.append)
    async with open_siem(away) as siem:
        told(siem, "a", "b")
    assert dropped == [2]


@dataclass
class Collector:
    """A collector of logs on loopback, which may refuse."""

    status: int = 200
    url: str = ""
    leads_to: str | None = None
    services: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.leads_to is not None:
            return web.Response(status=307, headers={"location": self.leads_to})
        if self.status == 200:
            for of_resource in ExportLogsServiceRequest.FromString(body).resource_logs:
                attributes = {one.key: one.value.string_value for one in of_resource.resource.attributes}
                self.services.add(attributes["service.name"])
                for of_scope in of_resource.scope_logs:
                    self.lines += [record.body.string_value for record in of_scope.log_records]
        return web.Response(status=self.status)


@asynccontextmanager
async def collecting(tls: ssl.SSLContext | None = None) -> AsyncGenerator[Collector]:
    collector, app = Collector(), web.Application()
    app.router.add_post("/v1/logs", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    collector.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    yield collector
    await runner.cleanup()


async def test_events_follow_a_collector_s_redirect_to_no_other_address() -> None:
    async with collecting() as collector, collecting() as other:
        collector.leads_to = f"{other.url}/v1/logs"
        siem = Siem("ingest", SiemSettings(otlp_endpoint=collector.url, timeout=1))
        told(siem, "a")
        await siem.write()
        assert other.lines == []
        siem.close()


async def test_a_collector_gets_them_as_logs_and_later_what_it_refused() -> None:
    async with collecting() as collector:
        siem = Siem("ingest", SiemSettings(otlp_endpoint=collector.url, timeout=1))
        collector.status = 400
        told(siem, "a")
        await siem.write()
        assert collector.lines == []
        collector.status = 200
        told(siem, "b")
        await siem.write()
        assert names_in("\n".join(collector.lines)) == ["a", "b"]
        assert collector.services == {"ingest"}
        assert json.loads(collector.lines[0])["metadata"]["product"]["feature"] == {"name": "ingest"}
        siem.close()


async def test_a_collector_with_a_certificate_of_the_banks_authority_is_believed_and_no_other(tmp_path: Path) -> None:
    folder = certificates(tmp_path)
    async with collecting(server_context(folder)) as collector:
        settings = SiemSettings(otlp_endpoint=collector.url, timeout=1)
        strange = Siem("chatbot", settings, tls=ssl.create_default_context)
        told(strange, "a")
        await strange.write()
        assert collector.lines == []
        trusting = Siem("chatbot", settings, tls=lambda: ssl.create_default_context(cafile=folder / "ca.pem"))
        told(trusting, "b")
        await trusting.write()
        strange.close()
        trusting.close()
    assert names_in("\n".join(collector.lines)) == ["b"]
