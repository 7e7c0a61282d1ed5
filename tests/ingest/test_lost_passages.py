"""An index that lost passages is noticed, and what it lost is written again: embedded, and on a server."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path

import anyio
import pytest
from httpx2 import ASGITransport, AsyncClient
from prometheus_client import generate_latest
from rich.console import Console
from structlog.testing import capture_logs

from evals.sample_bank import sample_banks
from ingest.app import create_app
from ingest.catalogue import Version, VersionKey
from ingest.lost_passages import compare_index, ignore_progress, restore_versions
from ingest.maintenance import read_status, rebuild, show_status
from ingest.pipeline import write_draft
from ingest.services import Services
from ingest.settings import Settings
from ingest.uploads import Uploads
from ingest.wiring import open_services
from ingest.worker import Worker
from knowledge.index import Index, IndexSettings, open_index
from knowledge.passage import Passage
from knowledge.terms import Terms
from run import load_samples
from tests.clock import Clock
from tests.ingest import samples
from tests.ingest.conftest import Loaded
from tests.ingest.documents import name_of, original_in, publish
from tests.patience import patient
from tests.qdrant_server import FakeServer

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def index_on(engine: str, settings: IndexSettings, loaded: Loaded, terms: Terms) -> AsyncGenerator[Index]:
    if engine == "embedded":
        async with open_index(settings, loaded.embedder, terms) as index:
            yield index
        return
    server = FakeServer(dimensions=loaded.embedder.dimensions)
    await server.server.start_server()
    try:
        at = IndexSettings.model_validate({"url": str(server.server.make_url("/"))})
        async with open_index(at, loaded.embedder, terms) as index:
            yield index
    finally:
        await server.server.close()


@pytest.fixture(params=["embedded", "server"])
async def services(
    request: pytest.FixtureRequest,
    settings: Settings,
    index_settings: IndexSettings,
    clock: Clock,
    terms: Terms,
    loaded: Loaded,
) -> AsyncGenerator[Services]:
    async with (
        index_on(request.param, index_settings, loaded, terms) as index,
        open_services(settings, index=index, parser=loaded.readers, works_jobs=False) as opened,
    ):
        uploads = Uploads(opened.blobs, opened.catalogue, now=clock)
        yield replace(opened, now=clock, previewer=loaded.previewer, uploads=uploads)


def text(name: str) -> bytes:
    return f"{samples.MARKDOWN}\n\n{name}\n".encode()


async def three_documents(services: Services) -> list[Version]:
    return [await publish(services, text(name), document_id=name) for name in ("a", "b", "c")]


async def lose(services: Services, version: Version, *, keep: int = 0) -> list[Passage]:
    """Take a version's points out of the index but for so many; return its passages as they were."""
    passages = await services.index.passages(**name_of(version))
    await services.index.delete(**name_of(version))
    await services.index.upsert(passages[:keep])
    return passages


async def readiness(services: Services) -> tuple[int, str]:
    app = create_app(services, sample_banks())
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://staff") as http:
        reply = await http.get("/readyz")
    return reply.status_code, reply.json()["index"]


def gauge(services: Services, name: str = "ingest_missing_passages") -> str:
    lines = generate_latest(services.metrics.registry).decode().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name} ")]
    return line.partition(" ")[2]


async def status_of(services: Services) -> str:
    printed = StringIO()
    status = await read_status(services.catalogue, services.job_claims, services.blobs, "hanbit", now=services.now())
    show_status(status, Console(file=printed, width=200))
    return printed.getvalue()


async def test_an_index_that_holds_what_sql_says_lacks_nothing(services: Services, clock: Clock) -> None:
    versions = await three_documents(services)
    clock.now += 60
    with capture_logs() as logs:
        assert await compare_index(services) == {}
    state = await services.catalogue.index_state()
    assert (state.missing_passages, state.missing_versions) == (0, 0)
    assert state.visible_passages == sum(version.passages for version in versions)
    assert (logs, gauge(services)) == ([], "0.0")
    assert float(gauge(services, "ingest_index_compared_timestamp_seconds")) == clock.now
    assert await readiness(services) == (200, "ok")
    clock.now += 20
    assert "the index lacks nothing (compared with SQL 20 s ago)" in await status_of(services)


async def test_an_index_that_lost_some_passages_is_logged_counted_and_shown(services: Services, clock: Clock) -> None:
    whole, half, gone = await three_documents(services)
    clock.now += 60
    assert half.passages > 1
    await lose(services, half, keep=1)
    await lose(services, gone)
    more = [replace(passage, n=passage.n + 100) for passage in await services.index.passages(**name_of(whole))]
    await services.index.upsert(more)  # points that SQL does not know hide no loss
    missing = half.passages - 1 + gone.passages
    with capture_logs() as logs:
        assert await compare_index(services) == {half.key: half.passages - 1, gone.key: gone.passages}
    state = await services.catalogue.index_state()
    assert (state.missing_passages, state.missing_versions) == (missing, 2)
    (line,) = logs
    assert (line["event"], line["passages"], line["versions"]) == ("passages_lost", missing, 2)
    assert gauge(services) == f"{missing}.0"
    assert f"the index lacks {missing} passages of 2 versions (compared with SQL 0 s ago): run `ingest rebuild`" in (
        await status_of(services)
    )
    assert await readiness(services) == (200, "ok"), "some documents answer"


async def test_a_version_that_lost_passages_is_found_beside_another_of_its_document(
    services: Services, clock: Clock
) -> None:
    await publish(services, text("first"), document_id="a")
    clock.now += 60
    second = await publish(services, text("second"), document_id="a")
    await lose(services, second, keep=1)
    assert await compare_index(services) == {second.key: second.passages - 1}


async def test_a_service_whose_index_lost_everything_is_not_ready_until_it_is_rebuilt(
    services: Services, clock: Clock
) -> None:
    assert await readiness(services) == (200, "ok"), "a bank without documents"
    for version in await three_documents(services):
        await lose(services, version)
    clock.now += 60
    await compare_index(services)
    assert await readiness(services) == (503, "empty")
    tally = await rebuild(services, lambda *_report: None)
    assert (tally.written, tally.failed) == (3, [])
    assert await readiness(services) == (200, "ok")
    assert gauge(services) == "0.0"


async def test_a_version_of_which_sql_counts_too_many_passages_is_written_again_once(
    services: Services, clock: Clock
) -> None:
    version = (await three_documents(services))[0]
    clock.now += 60
    await services.catalogue.set_passage_count(version.key, version.passages + 1)
    assert [(await rebuild(services, lambda *_report: None)).written for _ in range(2)] == [1, 0]
    assert gauge(services) == "0.0"


@pytest.mark.services
async def test_a_worker_restores_what_two_comparisons_found_lost(
    services: Services, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.worker.COMPARE_SECONDS", 0.05)
    monkeypatch.setattr("ingest.worker.RECONNECT_SECONDS", 0.05)
    some, all_of_it, whole = await three_documents(services)
    clock.now += 60
    lost = {version.key: await lose(services, version, keep=keep) for version, keep in ((some, 1), (all_of_it, 0))}
    missing = some.passages - 1 + all_of_it.passages
    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Worker(services).run)
            with anyio.fail_after(patient(10)):
                while not any(line["event"] == "version_restored" for line in logs) or gauge(services) != "0.0":
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    found = [line["passages"] for line in logs if line["event"] == "passages_lost"]
    assert found[:2] == [missing, missing]
    restored = [line["document_id"] for line in logs if line["event"] == "version_restored"]
    assert sorted(restored) == sorted(key.document_id for key in lost)
    assert whole.key.document_id not in restored
    assert {key: await services.index.passages(**name_of(version)) for key, version in by_key(some, all_of_it)} == lost


@pytest.mark.services
async def test_a_version_whose_original_is_gone_stays_lost_and_stops_no_other(
    services: Services, clock: Clock, tmp_path: Path
) -> None:
    gone, other, _ = await three_documents(services)
    clock.now += 60
    for version in (gone, other):
        await lose(services, version)
    original_in(tmp_path, gone.sha256).unlink()
    with capture_logs() as logs:
        await restore_versions([gone.key, other.key], services, until=clock.now + 1)
        await restore_versions([gone.key], services, until=clock.now)
    assert sorted((line["event"], line["document_id"]) for line in logs) == [
        ("version_restore_failed", "a"),
        ("version_restored", "b"),
    ]


async def test_passages_that_are_written_again_have_their_window_before_it_is_written(
    services: Services, clock: Clock
) -> None:
    version = (await three_documents(services))[0]
    clock.now += 60
    lost = await lose(services, version)
    assert all(passage.visible_from is not None for passage in lost)
    await write_draft(await services.catalogue.version(version.key), services, ignore_progress)
    assert await services.index.passages(**name_of(version)) == lost


def by_key(*versions: Version) -> list[tuple[VersionKey, Version]]:
    return [(version.key, version) for version in versions]


async def test_make_run_writes_again_what_the_index_lost_of_its_samples_and_of_others(
    services: Services, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples_folder = tmp_path / "samples"
    samples_folder.mkdir()
    (samples_folder / "sample.md").write_bytes(text("sample"))
    monkeypatch.setattr("run.SAMPLES", samples_folder)
    own = await publish(services, text("own"), document_id="own")
    await load_samples(services)
    clock.now += 60
    versions = [await services.catalogue.version(v.key) for v in await services.catalogue.indexed_versions()]
    assert len(versions) == 2
    lost = {version.key: await lose(services, version) for version in versions}
    await load_samples(services)
    assert {v.key: await services.index.passages(**name_of(v)) for v in versions} == lost
    assert own.key in lost
    assert (await services.catalogue.index_state()).missing_passages == 0
