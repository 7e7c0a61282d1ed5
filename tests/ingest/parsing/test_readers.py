"""Long files and short ones: who is read when."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from ingest.parsing.process import ParserSettings
from ingest.parsing.readers import Occupied, Readers, open_readers
from tests.ingest import samples
from tests.ingest.parsing.test_process import TAKEN_OVER

pytestmark = pytest.mark.anyio

AT_ONCE_LONG = ParserSettings(processes=2, long_seconds=0.001)


@pytest.fixture
def short(tmp_path: Path) -> Path:
    (file := tmp_path / "short").write_text(samples.MARKDOWN, "utf-8")
    return file


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Let long files end when it is there."""
    return tmp_path / "gate"


@pytest.fixture
def long(tmp_path: Path, gate: Path) -> list[Path]:
    files = [tmp_path / f"long-{n}" for n in range(2)]
    for file in files:
        file.write_text(f"long {gate}", "utf-8")
    return files


@asynccontextmanager
async def being_read(readers: Readers, file: Path, gate: Path) -> AsyncGenerator[None]:
    """Read a long file beside the block, to its end."""

    async def read() -> None:
        assert "long" in (await readers.parse(file)).pages[0].markdown

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        with anyio.fail_after(60):
            while readers._long_places:
                await anyio.sleep(0.01)
            yield
        await anyio.Path(gate).touch()


async def test_a_short_file_passes_a_long_one(short: Path, long: list[Path], gate: Path) -> None:
    async with open_readers(AT_ONCE_LONG, TAKEN_OVER) as readers, being_read(readers, long[0], gate):
        for _ in range(3):
            assert (await readers.parse(short)).title == "정기예금 안내"


async def test_a_workers_second_long_file_is_left_to_others_and_read_when_there_is_room(
    short: Path, long: list[Path], gate: Path
) -> None:
    async with open_readers(AT_ONCE_LONG, TAKEN_OVER, gives_back=True) as readers:
        async with being_read(readers, long[0], gate):
            begun = readers._idle[-1]._number
            for _ in range(3):
                with pytest.raises(Occupied):
                    await readers.parse(long[1])
            assert readers._idle[-1]._number == begun + 1, "what is known to be long is not begun again"
            assert (await readers.parse(short)).title == "정기예금 안내"
        assert "long" in (await readers.parse(long[1])).pages[0].markdown


async def test_a_load_reads_two_long_files_at_once(long: list[Path], gate: Path) -> None:
    async with (
        open_readers(AT_ONCE_LONG, TAKEN_OVER) as readers,
        being_read(readers, long[0], gate),
        anyio.create_task_group() as group,
    ):
        group.start_soon(readers.parse, long[1])
        while readers._idle:
            await anyio.sleep(0.01)
        await anyio.Path(gate).touch()


async def test_with_one_process_a_long_file_is_read_to_its_end(short: Path, long: list[Path], gate: Path) -> None:
    await anyio.Path(gate).touch()
    one = AT_ONCE_LONG.model_copy(update={"processes": 1})
    async with open_readers(one, TAKEN_OVER, gives_back=True) as readers:
        for file in (*long, short):
            await readers.parse(file)


async def test_an_asker_that_leaves_gives_its_place_back(short: Path, long: list[Path], gate: Path) -> None:
    async with open_readers(AT_ONCE_LONG, TAKEN_OVER, gives_back=True) as readers:
        async with anyio.create_task_group() as group:
            group.start_soon(readers.parse, long[0])
            while readers._long_places:
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        await anyio.Path(gate).touch()
        for file in (short, *long):
            await readers.parse(file)


def test_as_many_processes_as_cores_two_at_least_and_not_without_end() -> None:
    assert 2 <= ParserSettings().processes <= 4
