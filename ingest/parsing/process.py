"""Reads files in a process of its own with limits, so that no file can take the service down.

`python -m ingest.parsing.process` is a template: it loads the parsers once, and forks for every file it is told on
stdin. The fork sets its limits (memory, CPU seconds), gives up network and files (`sandbox`), reads the file and is
gone, so one file can leave nothing behind for the next. Where a format has pages, each has the time anew. `Parser` is
the side that asks: it keeps the wall clock, and kills the whole process group when a page or the file takes too long or
the asker is cancelled.

Frames on the template's stdout: the question's number and a length in hexadecimal, a newline, that many bytes of JSON.
The first, numbered 0, says which walls the kernel grants the forks.
The fork holds neither end of that conversation, only a pipe to the template: a newline for each page that begins, then
its answer. A reader taken over by a file can lie about that file, and the template puts the number on its lies.
"""

import logging
import os
import resource
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from math import ceil
from pathlib import Path
from typing import BinaryIO

import anyio
import msgspec
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt

from ingest.parsing.parsed import Parsed, Reason, Unreadable
from ingest.parsing.preview import PagePreview, show_page
from ingest.parsing.read import read_document
from ingest.parsing.sandbox import Walled, are_enough, close_in, lacking, walls_here

log = logging.getLogger(__name__)  # not structlog, which would make every process that reads 12 MiB larger

MOST_OUTPUT = 64 * 1024 * 1024
MOST_FRAMES = 100_000  # pages, and the answer
START_SECONDS = 60.0
_GREETING = 0  # its number; questions count from 1
_MOST_HEADER = 32  # bytes
_PAGE = b"\n"  # no JSON that we encode begins so
_OWN_RESERVE = 2 * 1024 * 1024  # the file is there, but the answer about it still needs memory


class ParserSettings(BaseModel, frozen=True):
    """What reading may cost: memory for a file, seconds for a page (or a file without pages), and for a whole file.

    `processes` may read at once, all but one of them files that take over `long_seconds` (`ingest.parsing.readers`).
    With `require_walls` no file is read by a process that could write files or speak TCP.
    """

    memory_bytes: PositiveInt = 1024 * 1024 * 1024
    cpu_seconds: PositiveInt = 28
    wall_seconds: PositiveFloat = 30.0
    most_wall_seconds: PositiveFloat = 900.0  # a scan of about 200 pages
    long_seconds: PositiveFloat = 5.0
    # One a core; not without end, because each may take `memory_bytes`.
    processes: PositiveInt = Field(default_factory=lambda: min(max(2, len(os.sched_getaffinity(0))), 4))
    require_walls: bool = False

    def of_one_page(self) -> "ParserSettings":
        """Return the limits for looking at one page: the whole file has the time of a page."""
        return self.model_copy(update={"most_wall_seconds": self.wall_seconds})


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """A file that could not be read."""

    reason: Reason
    detail: str


class Read(msgspec.Struct, frozen=True, tag="read"):
    """A file that was read."""

    parsed: Parsed


class Previewed(msgspec.Struct, frozen=True, tag="previewed"):
    """A file of which one page was drawn, or read."""

    shown: PagePreview


class ParseRequest(msgspec.Struct, frozen=True):
    """What the template is told: a file and its limits; with a `page` only that one is wanted, to be looked at."""

    number: int
    path: str
    memory_bytes: int
    cpu_seconds: int
    page: int | None = None


class PageBegun(msgspec.Struct, frozen=True, tag="page_begun"):
    """The file goes on with another page, which has the time of a page."""


class Walls(msgspec.Struct, frozen=True, tag="walls"):
    """What the template says first: what its forks can no longer do."""

    taken: tuple[Walled, ...]


Outcome = Read | Previewed | Refused
Frame = Read | Previewed | Refused | PageBegun | Walls
Reader = Callable[[ParseRequest, Callable[[], None]], Outcome]


class Garbled(Exception):
    """What came from the template is no frame, or one for another question."""


class NoParser(Exception):
    """The process that reads files does not start, or not behind the walls required; the message says what to do."""


PROGRAM = (sys.executable, "-m", "ingest.parsing.process")
_CRASHED = "the program that reads it crashed"

# A service's environment holds its secrets; a reader needs to find tesseract and nothing else.
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "OMP_THREAD_LIMIT": "1"}


class Parser:
    """Reads one file at a time; a second asker waits."""

    def __init__(self, settings: ParserSettings, program: Sequence[str] = PROGRAM) -> None:
        self._settings = settings
        self._program = program
        self._number = 0
        self._greeted: Process | None = None
        self._walls: tuple[Walled, ...] | None = None
        self._one_at_a_time = anyio.Lock()
        self._template: Process | None = None

    async def start(self) -> int:
        """Start the process before the first file; return its id, which is its session's and group's too."""
        return (await self._started()).pid

    async def walls(self) -> tuple[Walled, ...]:
        """Return what the process that reads a file can no longer do.

        Raises:
            NoParser: it does not start, or walls are required and missing.
        """
        async with self._one_at_a_time:
            try:
                await self._ready()
            except (Garbled, TimeoutError) as exc:
                await self.stop()
                raise NoParser("the process that reads files does not start; its messages on stderr say why") from exc
            except BaseException:
                await self.stop()
                raise
        return self._walls or ()

    async def parse(self, path: Path, page_begun: Callable[[], None] = lambda: None) -> Parsed:
        """Return what stands in a file; `page_begun` hears of each page, and ends the reading where it raises.

        Raises:
            Unreadable: with the reason.
            NoParser: walls are required and missing.
        """
        outcome = await self._outcome(path, page_begun, page=None)
        if not isinstance(outcome, Read):
            raise Unreadable(Reason.MALFORMED, _CRASHED)
        return outcome.parsed

    async def show(self, path: Path, page: int) -> PagePreview:
        """Return one page of a file, counted from 1, as somebody looks at it.

        Raises:
            Unreadable: with the reason.
        """
        outcome = await self._outcome(path, lambda: None, page=page)
        if not isinstance(outcome, Previewed):
            raise Unreadable(Reason.MALFORMED, _CRASHED)
        return outcome.shown

    async def _outcome(self, path: Path, page_begun: Callable[[], None], *, page: int | None) -> Read | Previewed:
        async with self._one_at_a_time:
            try:
                with anyio.fail_after(self._settings.most_wall_seconds):
                    outcome = await self._ask(path, page_begun, page)
            except TimeoutError as exc:
                await self.stop()
                raise Unreadable(Reason.TOO_SLOW, self._too_slow()) from exc
            except (Garbled, anyio.BrokenResourceError) as exc:
                await self.stop()
                raise Unreadable(Reason.MALFORMED, _CRASHED) from exc
            except BaseException:  # ended between question and answer: the next asker must not get this answer
                await self.stop()
                raise
        if isinstance(outcome, Refused):
            raise Unreadable(outcome.reason, outcome.detail)
        return outcome

    async def _ask(self, path: Path, page_begun: Callable[[], None], page: int | None) -> Outcome:
        template = await self._ready()
        if template.stdin is None or template.stdout is None:
            raise Garbled
        limits = self._settings
        self._number += 1
        asked = ParseRequest(self._number, str(path), limits.memory_bytes, limits.cpu_seconds, page)
        await template.stdin.send(msgspec.json.encode(asked) + b"\n")
        frames = BufferedByteReceiveStream(template.stdout)
        for _ in range(MOST_FRAMES):
            with anyio.fail_after(limits.wall_seconds):
                frame = await _received(frames, asked.number)
            if isinstance(frame, Walls):
                break
            if not isinstance(frame, PageBegun):
                return frame
            page_begun()
        raise Garbled

    def _too_slow(self) -> str:
        page, file = self._settings.wall_seconds, self._settings.most_wall_seconds
        return f"reading took over {page:.0f} s for a page or {file:.0f} s for the file"

    async def _ready(self) -> Process:
        template = await self._started()
        if self._greeted is template:
            return template
        if template.stdout is None:
            raise Garbled
        with anyio.fail_after(START_SECONDS):
            greeting = await _received(BufferedByteReceiveStream(template.stdout), _GREETING)
        if not isinstance(greeting, Walls):
            raise Garbled
        missing = "; ".join(lacking(greeting.taken))
        if missing and greeting.taken != self._walls:
            log.warning("parser walls missing: %s", missing)
        if self._settings.require_walls and not are_enough(greeting.taken):
            raise NoParser(f"PARSER__REQUIRE_WALLS is set, and the kernel or the container refuses: {missing}")
        self._greeted, self._walls = template, greeting.taken
        return template

    async def _started(self) -> Process:
        if self._template is None or self._template.returncode is not None:
            self._template = await anyio.open_process(
                self._program,
                stderr=None,
                start_new_session=True,
                env=_ENVIRONMENT,
            )
        return self._template

    async def stop(self) -> None:
        """Kill the template and whatever it is reading."""
        template, self._template = self._template, None
        if template is None:
            return
        with anyio.CancelScope(shield=True):
            if template.returncode is None:
                with suppress(ProcessLookupError):  # it has ended, and the loop has not heard of it yet
                    os.killpg(template.pid, signal.SIGKILL)
            await template.aclose()


@asynccontextmanager
async def open_parser(settings: ParserSettings, program: Sequence[str] = PROGRAM) -> AsyncGenerator[Parser]:
    """Open a parser; its process starts with the first file."""
    parser = Parser(settings, program)
    try:
        yield parser
    finally:
        await parser.stop()


async def _received(frames: BufferedByteReceiveStream, number: int) -> Frame:
    try:
        header = await frames.receive_until(b"\n", _MOST_HEADER)
        answered, length = (int(part, 16) for part in header.split())
        if answered != number or not 0 <= length <= MOST_OUTPUT:
            raise Garbled
        frame: Frame = msgspec.json.decode(await frames.receive_exactly(length), type=Frame)
    # An undecodable answer is a ValueError of some kind, one nested too deep a RecursionError.
    except (anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound, ValueError, RecursionError) as exc:
        raise Garbled from exc
    return frame


def serve(read: Reader) -> None:
    """Answer questions until stdin ends (the asker is gone); each is read in a fork."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints must not end up between the frames
    # pdfminer warns about every odd font, with pieces of the text: nothing of a document belongs in a log.
    logging.disable(logging.CRITICAL)
    _send(out, _GREETING, _encoded(Walls(walls_here())))
    for line in sys.stdin.buffer:
        asked = msgspec.json.decode(line, type=ParseRequest)
        for frame in _forked(asked, read, out.fileno()):
            _send(out, asked.number, frame)


def _send(out: BinaryIO, number: int, frame: bytes) -> None:
    out.write(b"%08x %08x\n" % (number, len(frame)) + frame)
    out.flush()


def _forked(asked: ParseRequest, read: Reader, out: int) -> Iterator[bytes]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _let_go_of_the_asker(out)
        _read_and_exit(asked, read, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        while (first := pipe.read(1)) == _PAGE:
            yield _encoded(PageBegun())
        answer = first + pipe.read(MOST_OUTPUT)
    if len(answer) > MOST_OUTPUT:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if len(answer) > MOST_OUTPUT:
        yield _encoded(Refused(Reason.TOO_LARGE, "it holds more text than a document does"))
    else:
        yield answer if status == 0 and answer else _encoded(_of_status(status))


def _let_go_of_the_asker(out: int) -> None:
    """Keep this fork from answering in the template's place, and from taking its next question."""
    os.close(out)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)


def _of_status(status: int) -> Refused:
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if ended_by == signal.SIGXCPU:
        return Refused(Reason.TOO_SLOW, "reading it took too much computing time")
    if ended_by == signal.SIGKILL:
        return Refused(Reason.TOO_LARGE, "reading it took more memory than a file may")
    return Refused(Reason.MALFORMED, _CRASHED)


def _read_and_exit(asked: ParseRequest, read: Reader, writer: int) -> None:
    reserve = bytearray(_OWN_RESERVE)

    def page_begun() -> None:
        _limit_cpu(asked.cpu_seconds)
        os.write(writer, _PAGE)

    try:
        _limit(asked)
        answer = _encoded(read(asked, page_begun))
    except Unreadable as exc:
        answer = _encoded(Refused(exc.reason, exc.detail))
    except MemoryError:
        del reserve
        answer = _encoded(Refused(Reason.TOO_LARGE, "reading it took more memory than a file may"))
    except RecursionError:
        answer = _encoded(Refused(Reason.HOSTILE, "it is nested deeper than any document"))
    except Exception as exc:  # noqa: BLE001 - the edge of the process: whatever a hostile file raises is its reason
        answer = _encoded(Refused(Reason.MALFORMED, f"it could not be read ({type(exc).__name__})"))
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(answer)
    os._exit(0)


def read_as_asked(asked: ParseRequest, page_begun: Callable[[], None]) -> Outcome:
    """Return what is asked of a file.

    Raises:
        Unreadable: with the reason.
    """
    path = Path(asked.path)
    if asked.page is None:
        return Read(read_document(path, page_begun))
    return Previewed(show_page(path, asked.page, page_begun))


def _limit(asked: ParseRequest) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (asked.memory_bytes, asked.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_cpu(asked.cpu_seconds)
    close_in()


def _limit_cpu(seconds: int) -> None:
    """Allow so many seconds from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (ceil(used.ru_utime + used.ru_stime) + seconds, hard))


def _encoded(frame: Frame) -> bytes:
    return msgspec.json.encode(frame)


if __name__ == "__main__":
    serve(read_as_asked)
