"""A re-index: readers always find a whole text, writes go to both collections, stopped it goes on where it was."""

from dataclasses import replace
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from structlog.testing import capture_logs

from ingest.catalogue import IndexedVersion, JobState, Version, VersionKey
from ingest.maintenance.rebuild import reindex
from ingest.parsing import Chunking
from ingest.services import Services
from ingest.worker import Worker
from knowledge.embedding import Embedder, EmbedderSettings, open_embedder
from knowledge.index import Index
from tests.clock import Clock
from tests.embedding_server import embedding_server
from tests.ingest import samples
from tests.ingest.documents import EndlessParser, original_in, points_of, publish, readiness, receive, versions_found
from tests.tiny_embedder import Renamed

pytestmark = pytest.mark.anyio


def unprinted(_key: VersionKey, _n: int, _of: int, _result: str) -> None:
    pass


@pytest.fixture
def finer(services: Services, chunking: Chunking) -> Services:
    """The same services, which cut texts smaller."""
    return replace(services, chunking=Chunking(chunking.tokenizer, tokens=60))


async def shown(services: Services, document_id: str, text: str) -> Version:
    return await publish(services, text.encode(), document_id=document_id)


async def test_smaller_passages_and_a_document_uploaded_meanwhile_answer_after_the_switch(
    services: Services, finer: Services, clock: Clock
) -> None:
    old = await shown(services, "old", samples.MARKDOWN)
    coarse = await points_of(services, old)
    clock.now += 60
    filling, during = anyio.Event(), list[Version]()

    async def write() -> None:
        await filling.wait()
        during.append(await shown(services, "new", samples.MARKDOWN.replace("2.35", "2.75")))

    async with anyio.create_task_group() as writers:
        writers.start_soon(write)
        tally = await reindex(finer, lambda *_report: filling.set())
    assert tally.failed == []
    assert await versions_found(services, at=clock.now) == {1}
    assert services.index.collection == "kb-2"
    assert await points_of(services, old) > coarse
    assert await points_of(services, during[0]) > 0
    assert (await services.catalogue.version(old.key)).passages == await points_of(services, old)


def with_embedder(services: Services, embedder: Embedder, collection: str) -> Services:
    """The services of another process, as it opens the index: with its embedder, and what the alias stands for."""
    present = services.index
    index = Index(present._engine, embedder, present.terms, present._settings, collection=collection)
    return replace(services, index=index)


async def done_by(worker: Worker, job_id: str, services: Services) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        with anyio.fail_after(60):
            while (await services.catalogue.job("hanbit", job_id)).state is not JobState.DONE:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()


async def of_embedder(services: Services) -> tuple[int, str]:
    """Return the status of `/readyz`, and what it shows of the embedder."""
    status, parts = await readiness(services)
    return status, parts["embedder"]


@pytest.mark.services
async def test_a_worker_of_the_former_embedder_releases_its_jobs_and_claims_no_more(services: Services) -> None:
    file = EndlessParser()
    await shown(services, "old", samples.MARKDOWN)
    received = await receive(services, samples.MARKDOWN.replace("2.35", "2.75").encode())
    present = services.index
    embedder = Renamed(present._embedder, name="another", dimensions=present._embedder.dimensions)
    renewed = with_embedder(services, embedder, present.collection)
    former = Worker(replace(services, parser=file))  # type: ignore[arg-type]  # a long file
    with capture_logs() as logs:
        async with anyio.create_task_group() as group:
            group.start_soon(former.run)
            with anyio.fail_after(60):
                await file.begun.wait()
                assert await of_embedder(services) == (200, "ok")
                await reindex(renewed, unprinted)
                while not any(line["event"] == "embedder_mismatch_not_taking_jobs" for line in logs):
                    await anyio.sleep(0.01)
            assert await of_embedder(services) == (503, "former")
            job = await services.catalogue.job("hanbit", received.job.id)
            assert (job.state, job.attempts) == (JobState.QUEUED, 0)
            await done_by(Worker(renewed), job.id, services)
            group.cancel_scope.cancel()
    assert await points_of(renewed, received.version) > 0


async def test_a_version_that_cannot_be_read_keeps_the_present_collection(
    services: Services, finer: Services, clock: Clock, tmp_path: Path
) -> None:
    version = await shown(services, "old", samples.MARKDOWN)
    original_in(tmp_path, version.sha256).unlink()
    clock.now += 60
    assert (await reindex(finer, unprinted)).failed == [version.key]
    assert await versions_found(services, at=clock.now) == {1}
    assert services.index.collection == "kb-1"


async def test_a_version_uploaded_meanwhile_that_cannot_be_read_keeps_the_present_collection(
    services: Services, finer: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shown(services, "old", samples.MARKDOWN)
    new = await shown(services, "new", samples.MARKDOWN + "new")
    original_in(tmp_path, new.sha256).unlink()
    listed = finer.catalogue.indexed_versions

    async def listed_before_the_upload() -> list[IndexedVersion]:
        monkeypatch.undo()
        return [version for version in await listed() if version.key != new.key]

    monkeypatch.setattr(finer.catalogue, "indexed_versions", listed_before_the_upload)
    assert (await reindex(finer, unprinted)).failed == [new.key]
    assert services.index.collection == "kb-1"


async def test_a_stopped_reindex_continues_where_it_was(services: Services, finer: Services) -> None:
    for name in ("a", "b"):
        await shown(services, name, samples.MARKDOWN + name)

    class Stopped(Exception):
        pass

    def stop(_key: VersionKey, _n: int, _of: int, _result: str) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        await reindex(finer, stop)
    tally = await reindex(finer, unprinted)
    assert (tally.total, tally.written, tally.failed) == (2, 1, [])


async def test_a_reindex_to_an_endpoint_and_back_fails_no_search(services: Services, clock: Clock) -> None:
    """Customers of both embedders read all the time, as replicas of two rollouts do."""
    in_process = services.index._embedder
    async with (
        embedding_server(in_process.embed_passages) as server,
        open_embedder(EmbedderSettings.model_validate({"url": server.url, "model": server.name})) as served,
    ):
        version = await shown(services, "old", samples.MARKDOWN)
        clock.now += 60
        searches = dict.fromkeys((in_process.name, served.name), 0)
        collections: dict[str, str] = {}

        async def read(reader: Services) -> None:
            while True:
                assert await versions_found(reader, at=clock.now) == {version.key.version}
                collections[reader.index.embedder] = reader.index.collection
                searches[reader.index.embedder] += 1

        async def until_read(embedder: str, collection: str) -> None:
            with anyio.fail_after(60):
                while collections.get(embedder) != collection:
                    await anyio.sleep(0.01)

        async with anyio.create_task_group() as readers:
            readers.start_soon(read, services)
            assert (await reindex(with_embedder(services, served, "kb-1"), unprinted)).failed == []
            renewed = with_embedder(services, served, "kb-2")
            readers.start_soon(read, renewed)
            await until_read(served.name, "kb-2")
            assert collections[in_process.name] == "kb-1", "who has the former embedder reads the former collection"
            assert (await reindex(with_embedder(services, in_process, "kb-2"), unprinted)).failed == []
            await until_read(in_process.name, "kb-3")
            assert collections[served.name] == "kb-2"
            readers.cancel_scope.cancel()
        assert min(searches.values()) > 2
        assert await points_of(services, version) == version.passages
        assert await of_embedder(renewed) == (503, "former")
