"""A fork that a file has taken over spoils no other file; the limits of a page; the order of reading."""

from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from ingest.parsing.chunking import Chunking
from ingest.parsing.parsed import Reason, Unreadable
from ingest.parsing.process import MOST_OUTPUT, Parser, ParserSettings, open_parser
from ingest.parsing.readers import open_readers
from tests.constants import with_constants
from tests.ingest import samples
from tests.ingest.lying_fork_server import PROGRAM as LYING
from tests.ingest.lying_fork_server import answer_of
from tests.ingest.taken_over import PROGRAM as TAKEN_OVER
from tests.patience import patient

pytestmark = pytest.mark.anyio


async def reason_of(parser: Parser, path: Path) -> Reason:
    with pytest.raises(Unreadable) as refused:
        await parser.parse(path)
    return refused.value.reason


async def test_a_fork_that_writes_to_every_inherited_file_spoils_its_own_answer_only(tmp_path: Path) -> None:
    (good := tmp_path / "good").write_bytes(samples.MARKDOWN.encode())
    (bad := tmp_path / "bad").write_bytes(b"forge")
    async with open_parser(ParserSettings(), TAKEN_OVER) as parser:
        server = await parser.start()
        assert (await parser.parse(good)).title == "정기예금 안내"
        assert await reason_of(parser, bad) is Reason.MALFORMED
        assert await parser.start() != server
        assert (await parser.parse(good)).title == "정기예금 안내"


async def test_a_fork_reads_nothing_of_the_next_question(tmp_path: Path) -> None:
    (curious := tmp_path / "curious").write_bytes(b"listen to what comes next")
    async with open_parser(ParserSettings(), TAKEN_OVER) as parser:
        assert "listen" in (await parser.parse(curious)).pages[0].markdown


FRAMES = {
    "another request's answer": answer_of(0, "another"),
    "a length below nothing": b"NUMBER -1\n{}",
    "a length over all that there can be": b"NUMBER %x\n" % (MOST_OUTPUT + 1),
    "a line without an end": b"0" * 100,
    "no JSON": b"NUMBER 2\n{]",
    "JSON without a floor": b'NUMBER 30d43\n{"type":"refusal","a":' + b"[" * 200_000,
}


@pytest.mark.parametrize("name", FRAMES)
async def test_an_answer_that_is_none_is_the_error_of_this_file_only(tmp_path: Path, name: str) -> None:
    (good := tmp_path / "good").write_bytes(b"")
    (bad := tmp_path / "bad").write_bytes(b"raw " + FRAMES[name])
    async with open_parser(ParserSettings(), LYING) as parser:
        assert await reason_of(parser, bad) is Reason.MALFORMED
        assert (await parser.parse(good)).title == "good"


async def test_computing_without_end_is_too_slow(tmp_path: Path) -> None:
    (spin := tmp_path / "spin").write_bytes(b"spin")
    async with open_parser(with_constants(ParserSettings(), cpu_seconds=1, wall_seconds=300), TAKEN_OVER) as parser:
        assert await reason_of(parser, spin) is Reason.TOO_SLOW


@pytest.mark.parametrize("limits", [
    with_constants(ParserSettings(), wall_seconds=20, most_wall_seconds=600, slow_seconds=0.5, page_seconds=0.02),
    with_constants(ParserSettings(), wall_seconds=20, most_wall_seconds=1, slow_seconds=600, page_seconds=600),
], ids=["for its pages on average", "for the whole file"])  # fmt: skip
async def test_a_file_of_slow_pages_within_their_limit_has_an_end(tmp_path: Path, limits: ParserSettings) -> None:
    (slow := tmp_path / "slow").write_bytes(b"slow 1999 0.1")
    async with open_parser(limits, TAKEN_OVER) as parser:
        await parser.restrictions()
        with anyio.fail_after(patient(15)), pytest.raises(Unreadable, match="on average") as refused:
            await parser.parse(slow)
    assert refused.value.reason is Reason.TOO_SLOW


async def test_a_file_whose_pages_are_quick_on_average_may_take_longer(tmp_path: Path) -> None:
    limits = with_constants(ParserSettings(), wall_seconds=20, slow_seconds=1, page_seconds=0.5)
    (scan := tmp_path / "scan").write_bytes(b"slow 60 0.03")  # over one second in all
    async with open_parser(limits, TAKEN_OVER) as parser:
        assert "slow" in (await parser.parse(scan)).pages[0].markdown


def left_behind() -> set[str]:
    """Return the processes that this one started and has not waited for."""
    children = set[str]()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # the thread has ended
            children |= set((thread / "children").read_text("ascii").split())
    return children


@pytest.mark.parametrize("steps", range(12))
async def test_a_start_cancelled_at_any_step_leaves_no_process(steps: int) -> None:
    before = left_behind()
    async with open_parser(ParserSettings(), LYING) as parser, anyio.create_task_group() as group:
        group.start_soon(parser.restrictions)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert left_behind() <= before


async def test_two_starts_at_once_start_one_process() -> None:
    before = left_behind()
    async with open_parser(ParserSettings(), LYING) as parser:
        async with anyio.create_task_group() as group:
            group.start_soon(parser.start)
            group.start_soon(parser.restrictions)
        assert len(left_behind() - before) == 1
    assert left_behind() <= before


async def test_a_short_file_passes_a_long_one(tmp_path: Path, chunking: Chunking) -> None:
    (short := tmp_path / "short").write_text(samples.MARKDOWN, "utf-8")
    (long := tmp_path / "long").write_text(f"long {tmp_path / 'gate'}", "utf-8")
    async with open_readers(ParserSettings(processes=2), TAKEN_OVER) as readers, anyio.create_task_group() as group:
        group.start_soon(readers.chunk, long, chunking)
        for _ in range(3):
            assert (await readers.chunk(short, chunking)).title == "정기예금 안내"
        (tmp_path / "gate").touch()


async def test_a_cancelled_reading_releases_its_place(tmp_path: Path, chunking: Chunking) -> None:
    (short := tmp_path / "short").write_text(samples.MARKDOWN, "utf-8")
    (long := tmp_path / "long").write_text(f"long {tmp_path / 'gate'}", "utf-8")
    async with open_readers(ParserSettings(processes=1), TAKEN_OVER) as readers:
        with anyio.move_on_after(0.5):
            await readers.chunk(long, chunking)
        assert (await readers.chunk(short, chunking)).title == "정기예금 안내"
