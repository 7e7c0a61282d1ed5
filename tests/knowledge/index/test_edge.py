"""Qdrant Edge in a folder: the conformance suite, and what becomes of the folder when things go wrong."""

import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from knowledge.index.collection import ensure_collection
from knowledge.index.edge import EdgeEngine, open_edge
from knowledge.index.engine import Engine, IndexInUse, IndexUnavailable, Vectors
from tests.knowledge.index.conformance import EVERYTHING, EngineConformance, OpenAgain, holding, near
from tests.knowledge.index.points import VECTORS, point, point_id
from tests.knowledge.index.writer import PASSAGES, of_version, points_of, shown

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]


def opened(folder: Path) -> AbstractAsyncContextManager[EdgeEngine]:
    return open_edge(folder, read_timeout=10, write_timeout=30)


class TestEdge(EngineConformance):
    @pytest.fixture
    def alias(self) -> str:
        return "kb"

    @pytest.fixture
    async def stack(self) -> AsyncGenerator[AsyncExitStack]:
        async with AsyncExitStack() as stack:
            yield stack

    @pytest.fixture
    async def engine(self, stack: AsyncExitStack, tmp_path: Path) -> Engine:
        return await stack.enter_async_context(opened(tmp_path))

    @pytest.fixture
    def again(self, stack: AsyncExitStack, tmp_path: Path) -> OpenAgain:
        @asynccontextmanager
        async def again() -> AsyncGenerator[Engine]:
            await stack.aclose()
            async with opened(tmp_path) as engine:
                yield engine

        return again


@asynccontextmanager
async def filled(folder: Path, points: int = 20) -> AsyncGenerator[EdgeEngine]:
    """Open a folder with points 0 … points - 1."""
    async with opened(folder) as engine:
        name = await ensure_collection(engine, alias="kb", vectors=VECTORS)
        await engine.upsert(name, [point(n) for n in range(points)])
        yield engine


async def test_a_read_of_a_dropped_collection_continues(tmp_path: Path) -> None:
    """A re-index drops a former collection while a late reader is still in it."""
    async with filled(tmp_path) as engine:
        late = engine._shard("kb-1")
        await engine.create("kb-2", VECTORS)
        await engine.point_alias("kb", "kb-2")
        await engine.drop("kb-1")
        assert late.info().points_count == 20
        del late
        assert await engine.collections() == ["kb-2"]


async def test_a_second_opener_is_refused_with_a_sentence(tmp_path: Path) -> None:
    async with filled(tmp_path) as engine:
        with pytest.raises(IndexInUse, match=r"is open in another process: stop it, or work through its API$"):
            async with opened(tmp_path):
                pass
        assert await engine.count("kb-1", EVERYTHING) == 20
    async with opened(tmp_path) as engine:
        assert await engine.count("kb-1", EVERYTHING) == 20


async def test_a_lost_folder_is_unavailable_until_it_is_back(tmp_path: Path) -> None:
    async with filled(tmp_path / "index") as engine:
        (tmp_path / "index").rename(tmp_path / "elsewhere")
        for call in (
            lambda: engine.search("kb-1", [near()]),
            lambda: engine.upsert("kb-1", [point(50)]),
            lambda: engine.alias_target("kb"),
        ):
            with pytest.raises(IndexUnavailable):
                await call()
        (tmp_path / "elsewhere").rename(tmp_path / "index")
        assert await engine.count("kb-1", EVERYTHING) == 20


async def test_a_damaged_folder_is_named_and_not_changed(tmp_path: Path) -> None:
    async with filled(tmp_path / "whole"):
        pass
    for file in ("aliases.json", "kb-1/collection.json", "kb-1/shard/edge_config.json", "kb-1/shard"):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / file.replace("/", "-"))
        path = folder / file
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.write_text('{"a"')
        sentence = rf"(the index failed: .+|/kb-1/shard is missing); if {folder} is damaged, remove it and run `ingest"
        with pytest.raises(IndexUnavailable, match=sentence):
            async with opened(folder):
                pass
        assert path.name == "shard" or path.read_text() == '{"a"'


async def test_a_full_disk_refuses_writes_and_answers_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with filled(tmp_path) as engine:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=127 * 2**20))
        with pytest.raises(IndexUnavailable, match="MiB are free"):
            await engine.upsert("kb-1", [point(30)])
        (scores,) = await engine.search("kb-1", [near(limit=30)])
        assert len(scores) == 20
        monkeypatch.undo()
        await engine.upsert("kb-1", [point(30)])
        assert await engine.count("kb-1", EVERYTHING) == 21


async def test_an_unfinished_collection_is_removed_at_the_start(tmp_path: Path) -> None:
    async with filled(tmp_path):
        pass
    (tmp_path / "kb-2.partial" / "shard").mkdir(parents=True)
    async with opened(tmp_path) as engine:
        assert await engine.collections() == ["kb-1"]
        await engine.create("kb-2", VECTORS)
        assert await engine.collections() == ["kb-1", "kb-2"]
        assert {path.name for path in tmp_path.iterdir()} == {"lock", "aliases.json", "kb-1", "kb-2"}  # noqa: ASYNC240


async def test_searches_are_answered_while_a_long_write_runs(tmp_path: Path) -> None:
    async with filled(tmp_path) as engine:
        written, answered_meanwhile = anyio.Event(), 0

        async def write() -> None:
            await engine.upsert("kb-1", [point(n, text="가" * 2000) for n in range(100, 3100)])
            written.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            while not written.is_set():
                await engine.search("kb-1", [near()])
                answered_meanwhile += not written.is_set()
        assert answered_meanwhile >= 3


async def test_a_failed_create_blocks_no_later_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        with pytest.raises(IndexUnavailable):
            await engine.create("kb-1", Vectors("e5-small", -1))
        await engine.create("kb-1", VECTORS)
        await engine.drop("kb-1")
        await engine.create("kb-1", VECTORS)
    (tmp_path / "kb-1" / "collection.json").unlink()
    with pytest.raises(
        IndexUnavailable, match=r"kb-1/collection.json is missing; .* remove it and run `ingest rebuild`"
    ):
        async with opened(tmp_path):
            pass


async def test_a_cancelled_close_releases_the_folder(tmp_path: Path) -> None:
    busy = threading.Event()
    with anyio.CancelScope() as scope:
        async with filled(tmp_path) as engine:
            engine._writer.submit(busy.wait, 1.0)
            scope.cancel()
            await anyio.sleep_forever()
    with pytest.raises(IndexUnavailable, match="is closed"):
        await engine.count("kb-1", EVERYTHING)
    async with opened(tmp_path) as again:
        assert await again.count("kb-1", EVERYTHING) == 20


async def test_a_lost_folder_is_released_at_the_close(tmp_path: Path) -> None:
    async with filled(tmp_path / "index") as engine:
        shutil.rmtree(tmp_path / "index")
    assert engine._lock is None


@pytest.mark.faults
def test_an_acknowledged_write_survives_kill_9_at_any_moment(tmp_path: Path, fault_round: int) -> None:
    """A process writes versions, shows them and deletes older ones; what it acknowledged is there after a kill.

    What was not acknowledged is there whole or not at all as far as a reader sees: a version is drafted, then shown.
    """
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "tests.knowledge.index.writer", str(tmp_path / "index")], stdout=output, cwd=ROOT
        )
        deadline = time.monotonic() + 60
        while log.read_bytes().count(b"\n") < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(random.Random(fault_round).uniform(0, 1.5))  # noqa: S311  the moment of the kill
        process.send_signal(signal.SIGKILL)
        process.wait()
    acknowledged = [line.split() for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    anyio.run(_compare, tmp_path / "index", [(word, int(version)) for word, version in acknowledged])


async def _compare(folder: Path, acknowledged: list[tuple[str, int]]) -> None:
    done = {
        word: [version for each, version in acknowledged if each == word] for word in ("written", "shown", "deleted")
    }
    async with opened(folder) as engine:
        assert await engine.alias_target("kb") == "kb-1"
        for version in range(max(done["written"]) + 2):
            stored = (await engine.page("kb-1", of_version(version), limit=1000))[0]
            visible = await engine.count("kb-1", shown(version))
            if version in done["deleted"]:
                assert stored == []
            elif version in done["written"]:
                deleting = version == max(done["deleted"], default=-1) + 1
                assert len(stored) == PASSAGES or (deleting and not stored), version
            # Nothing is visible that should not be: a version is shown whole or not at all.
            assert visible in (0, PASSAGES), version
            if version in done["shown"] and stored:
                assert visible == PASSAGES
            written = {expected.id: expected for expected in points_of(version)}
            for read in await engine.read("kb-1", [read.id for read in stored], dense=True):
                expected = written[read.id]
                assert {**read.payload, "visible_from": None} == {**expected.payload, "visible_from": None}
                assert list(read.dense) == pytest.approx(list(expected.dense), abs=1e-6)
            if len(stored) == PASSAGES:
                (with_term,) = await engine.search("kb-1", [holding(version * PASSAGES)])
                assert list(with_term) == [point_id(version * PASSAGES)]
        # The second alias stands for a whole collection, whatever moment of its re-index was cut off.
        beside = await engine.alias_target("beside")
        if beside is not None:
            assert await engine.vectors_of(beside) == VECTORS
            assert await engine.count(beside, EVERYTHING) == PASSAGES
