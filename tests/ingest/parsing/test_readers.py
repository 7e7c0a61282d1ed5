"""Long files and short ones: who is read when."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from ingest.parsing.chunking import Chunking
from ingest.parsing.process import ParserSettings
from ingest.parsing.readers import Readers, ReadersBusy, open_readers
from tests.ingest import samples
from tests.ingest.taken_over import PROGRAM as TAKEN_OVER

pytestmark = pytest.mark.anyio

AT_ONCE_LONG = ParserSettings(processes=2, long_seconds=0.001)


class LongFile:
    """A file whose pages go on until it may end."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self._gate = folder / name, folder / f"gate-{name}"
        self.write()

    def write(self) -> None:
        self.path.write_text(f"long {self._gate}", "utf-8")

    def may_end(self) -> None:
        self._gate.touch()


@pytest.fixture
def short(tmp_path: Path) -> Path:
    (file := tmp_path / "short").write_text(samples.MARKDOWN, "utf-8")
    return file


@pytest.fixture
def long(tmp_path: Path) -> list[LongFile]:
    return [LongFile(tmp_path, f"long-{n}") for n in range(2)]


async def is_read(readers: Readers, file: Path, chunking: Chunking) -> None:
    assert "long" in (await readers.chunk(file, chunking)).chunks[0].text


@asynccontextmanager
async def being_read(readers: Readers, file: LongFile, short: Path, chunking: Chunking) -> AsyncGenerator[None]:
    """Read a long file beside the block, to its end."""
    async with anyio.create_task_group() as group:
        first = await readers.start()
        group.start_soon(is_read, readers, file.path, chunking)
        with anyio.fail_after(60):
            await until_another_process_is_next(readers, first)
            await readers.chunk(short, chunking)  # whose turn comes when the long file has left it
            yield
        file.may_end()


async def until_another_process_is_next(readers: Readers, first: int) -> None:
    while await readers.start() == first:
        await anyio.sleep(0.01)


async def test_a_short_file_passes_a_long_one(short: Path, long: list[LongFile], chunking: Chunking) -> None:
    async with open_readers(AT_ONCE_LONG, TAKEN_OVER) as readers, being_read(readers, long[0], short, chunking):
        for _ in range(3):
            assert (await readers.chunk(short, chunking)).title == "정기예금 안내"


async def test_a_workers_second_long_file_is_left_to_others_and_read_when_there_is_room(
    short: Path, long: list[LongFile], chunking: Chunking
) -> None:
    async with open_readers(AT_ONCE_LONG, TAKEN_OVER, gives_back=True) as readers:
        async with being_read(readers, long[0], short, chunking):
            with pytest.raises(ReadersBusy):
                await readers.chunk(long[1].path, chunking)
            long[1].path.unlink()  # what is known to be long is not begun again: nobody misses it
            for _ in range(2):
                with pytest.raises(ReadersBusy):
                    await readers.chunk(long[1].path, chunking)
            assert (await readers.chunk(short, chunking)).title == "정기예금 안내"
        long[1].write()
        long[1].may_end()
        await is_read(readers, long[1].path, chunking)


async def test_a_load_reads_two_long_files_at_once(short: Path, long: list[LongFile], chunking: Chunking) -> None:
    async with open_readers(AT_ONCE_LONG, TAKEN_OVER) as readers, being_read(readers, long[0], short, chunking):
        long[1].may_end()
        await is_read(readers, long[1].path, chunking)


async def test_with_one_process_a_long_file_is_read_to_its_end(
    short: Path, long: list[LongFile], chunking: Chunking
) -> None:
    one = AT_ONCE_LONG.model_copy(update={"processes": 1})
    async with open_readers(one, TAKEN_OVER, gives_back=True) as readers:
        for file in long:
            file.may_end()
            await is_read(readers, file.path, chunking)
        await readers.chunk(short, chunking)


async def test_an_asker_that_leaves_gives_its_place_back(short: Path, long: list[LongFile], chunking: Chunking) -> None:
    async with open_readers(AT_ONCE_LONG, TAKEN_OVER, gives_back=True) as readers:
        async with anyio.create_task_group() as group:
            first = await readers.start()
            group.start_soon(readers.chunk, long[0].path, chunking)
            with anyio.fail_after(60):
                await until_another_process_is_next(readers, first)
                await readers.chunk(short, chunking)
            group.cancel_scope.cancel()
        for file in long:
            file.may_end()
        for path in (short, *(file.path for file in long)):
            await readers.chunk(path, chunking)


def test_as_many_processes_as_cores_two_at_least_and_not_without_end() -> None:
    assert 2 <= ParserSettings().processes <= 4
