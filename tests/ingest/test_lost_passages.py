"""An index that lost passages is noticed, and what it lost is written again: embedded, and on a server."""

from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from ingest.catalogue import Version
from ingest.lost_passages import compare_index, restore_versions
from ingest.maintenance import rebuild
from ingest.services import Services
from ingest.worker import Worker
from knowledge.passage import Passage
from tests.clock import Clock
from tests.ingest import samples
from tests.ingest.documents import name_of, original_in, printed_status, publish, readiness
from tests.patience import patient

pytestmark = pytest.mark.anyio


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


async def of_index(services: Services) -> tuple[int, str]:
    """Return the status of `/readyz`, and what it shows of the index."""
    status, parts = await readiness(services)
    return status, parts["index"]


def gauge(services: Services, name: str = "ingest_missing_passages") -> str:
    lines = generate_latest(services.metrics.registry).decode().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name} ")]
    return line.partition(" ")[2]


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
        await printed_status(services, now=clock.now)
    )
    assert await of_index(services) == (200, "ok"), "some documents answer"


async def test_a_service_whose_index_lost_everything_is_not_ready_until_it_is_rebuilt(
    services: Services, clock: Clock
) -> None:
    assert await of_index(services) == (200, "ok"), "a bank without documents"
    for version in await three_documents(services):
        await lose(services, version)
    clock.now += 60
    await compare_index(services)
    assert await of_index(services) == (503, "empty")
    tally = await rebuild(services, lambda *_report: None)
    assert (tally.written, tally.failed) == (3, [])
    assert await of_index(services) == (200, "ok")
    assert gauge(services) == "0.0"


@pytest.mark.services
async def test_a_worker_restores_passages_that_two_comparisons_found_lost(
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
    for version in (some, all_of_it):
        assert await services.index.passages(**name_of(version)) == lost[version.key]


@pytest.mark.services
async def test_a_version_without_its_original_stays_lost_and_stops_no_other(
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
