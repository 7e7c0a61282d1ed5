"""Read files into passages in separate, limited processes, so that no file can take the service down.

`python -m ingest.parsing` is a fork server: it loads the parsers once and forks for each request on stdin. The fork
sets its limits (memory, CPU seconds), enters the sandbox, reads the file and exits, so a file cannot affect the next
one. In formats with pages, time limits apply per page. `Parser` is the client: it enforces wall-clock limits and kills
the whole process group on a timeout or when the caller is cancelled.

A frame on the server's stdout is the request number and a length in hexadecimal, a newline, and that many bytes of
JSON. Frame 0 lists the restrictions that the kernel grants to forks. A fork has no access to this channel, only to a
pipe to the server: one newline per page begun, then its answer. A fork that a file has taken over can only forge the
answer for that file, because the server numbers the answers.
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
from typing import BinaryIO, ClassVar, TypeVar

import anyio
import msgspec
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from pydantic import BaseModel, Field, PositiveInt

from ingest.parsing.chunking import ChunkedDocument, Chunking, chunk_document, open_chunker
from ingest.parsing.parsed import OnPage, Parsed, Reason, Unreadable
from ingest.parsing.preview import PagePreview, preview_page
from ingest.parsing.read import read_document
from ingest.parsing.sandbox import (
    Restriction,
    are_sufficient,
    available_restrictions,
    enter_sandbox,
    missing_restrictions,
)

log = logging.getLogger(__name__)  # not structlog, which would cost each reading process 12 MiB

MOST_OUTPUT = 64 * 1024 * 1024  # bytes of a frame
MOST_FRAMES = 100_000  # pages, and the answer
START_SECONDS = 60.0
NICENESS = 5  # chat requests on the same machine go first
_GREETING = 0  # request number of the greeting; requests count from 1
_MOST_HEADER = 32  # bytes
_PAGE = b"\n"  # our JSON never starts with a newline
_RESERVE_BYTES = 2 * 1024 * 1024  # freed to report that memory ran out


class ParserSettings(BaseModel, frozen=True):
    """Limits on reading: memory per file; time per page (or per file without pages) and per file.

    All pages together may take `page_seconds` each plus `slow_seconds`, so a file of slow pages ends long before a long
    scan. `require_walls`: read a file only in a process that cannot see other files, write files or reach the network.
    """

    memory_bytes: PositiveInt = Field(
        1024 * 1024 * 1024,
        description=(
            "bytes: The process that reads one file may use this much memory. Parsers and tokenizer take 300 MB of it."
        ),
    )
    cpu_seconds: ClassVar[int] = 28  # seconds of CPU time per page, or per file without pages
    wall_seconds: ClassVar[float] = 30.0  # seconds per page, or per file without pages
    most_wall_seconds: ClassVar[float] = 900.0  # seconds per file; the default allows a scan of about 200 pages
    # seconds per page on average; a scanned page takes 1 to 5 on a core of its own
    page_seconds: ClassVar[float] = 8.0
    # seconds that all pages together may exceed `page_seconds` each
    slow_seconds: ClassVar[float] = 120.0
    processes: PositiveInt = Field(  # bounded because each may take `memory_bytes`
        default_factory=lambda: min(max(2, len(os.sched_getaffinity(0))), 4),
        description="files: This many files are read at once. Default: one per core, 2 to 4.",
    )
    require_walls: bool = Field(
        default=False,
        description=(
            "With `true` the parser process must see no other files, write none and have no network; otherwise the "
            "service does not start."
        ),
    )

    def of_one_page(self) -> "ParserSettings":
        """Return the limits for previewing one page: the time of one page for the whole file."""
        return self.model_copy(update={"most_wall_seconds": self.wall_seconds})


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """A file that could not be read."""

    reason: Reason
    detail: str


class Read(msgspec.Struct, frozen=True, tag="read"):
    """The text of a file."""

    parsed: Parsed


class Chunked(msgspec.Struct, frozen=True, tag="chunked"):
    """The passages of a file."""

    document: ChunkedDocument


class Previewed(msgspec.Struct, frozen=True, tag="previewed"):
    """A preview of one page of a file."""

    shown: PagePreview


class ParseRequest(msgspec.Struct, frozen=True):
    """A file to read and the limits of its fork.

    The answer is the file's passages with `chunking`, a preview with `page`, or else its text.
    """

    number: int
    path: str
    memory_bytes: int
    cpu_seconds: int
    page: int | None = None
    chunking: Chunking | None = None


class PageBegun(msgspec.Struct, frozen=True, tag="page_begun"):
    """The file's next page has begun, with its own time limit."""


class Restrictions(msgspec.Struct, frozen=True, tag="walls"):
    """The first frame: the restrictions of the forks."""

    taken: tuple[Restriction, ...]


Answer = Read | Chunked | Previewed | Refused
Frame = Answer | PageBegun | Restrictions
_A = TypeVar("_A", Read, Chunked, Previewed)
ReadFile = Callable[[ParseRequest, OnPage], Answer]


class ProtocolViolated(Exception):
    """The fork server sent a malformed frame, or a frame for another request."""


class ParserUnavailable(Exception):
    """The fork server doesn't start, or lacks required restrictions; the message contains the remedy."""


PROGRAM = (sys.executable, "-m", "ingest.parsing")
_CRASHED = "the program that reads it crashed"

# A service's environment contains secrets; a fork only needs to find tesseract.
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "OMP_THREAD_LIMIT": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class Parser:
    """The client of one fork server; reads one file at a time, other callers wait."""

    def __init__(self, settings: ParserSettings, program: Sequence[str] = PROGRAM) -> None:
        self._settings = settings
        self._program = program
        self._number = 0
        self._greeted: Process | None = None
        self._restrictions: tuple[Restriction, ...] | None = None
        self._one_at_a_time = anyio.Lock()
        self._server: Process | None = None

    async def start(self) -> int:
        """Start the process before the first file; return its process id, also its session and process group id."""
        async with self._one_at_a_time:
            return (await self._started()).pid

    async def restrictions(self) -> tuple[Restriction, ...]:
        """Return the restrictions on the reading process.

        Raises:
            ParserUnavailable: it doesn't start, or required restrictions are missing.
        """
        async with self._one_at_a_time:
            await self._ready()
        return self._restrictions or ()

    async def parse(self, path: Path) -> Parsed:
        """Return a file's text.

        Raises:
            Unreadable: with the reason.
            ParserUnavailable: as `restrictions`.
        """
        return (await self._answer(Read, self._request(path))).parsed

    async def chunk(self, path: Path, chunking: Chunking) -> ChunkedDocument:
        """Return a file's passages; raises the same errors as `parse`."""
        request = msgspec.structs.replace(self._request(path), chunking=chunking)
        return (await self._answer(Chunked, request)).document

    async def preview(self, path: Path, page: int) -> PagePreview:
        """Preview one page of a file, counted from 1; raises the same errors as `parse`."""
        request = msgspec.structs.replace(self._request(path), page=page)
        return (await self._answer(Previewed, request)).shown

    def _request(self, path: Path) -> ParseRequest:
        limits = self._settings
        self._number += 1
        return ParseRequest(self._number, str(path), limits.memory_bytes, limits.cpu_seconds)

    async def _answer(self, kind: type[_A], request: ParseRequest) -> _A:
        async with self._one_at_a_time:
            server = await self._ready()
            try:
                with anyio.fail_after(self._settings.most_wall_seconds):
                    answer = await self._ask(server, request)
            except BaseException as exc:  # otherwise the next request would get this one's answer
                await self.stop()
                if isinstance(exc, TimeoutError):
                    limits = self._settings
                    raise Unreadable(
                        Reason.TOO_SLOW,
                        f"reading took over {limits.wall_seconds:.0f} s for a page, {limits.page_seconds:.0f} s on "
                        f"average, or {limits.most_wall_seconds:.0f} s for the file",
                    ) from exc
                if isinstance(exc, ProtocolViolated | anyio.BrokenResourceError):
                    raise Unreadable(Reason.MALFORMED, _CRASHED) from exc
                raise
        if isinstance(answer, Refused):
            raise Unreadable(answer.reason, answer.detail)
        if not isinstance(answer, kind):
            raise Unreadable(Reason.MALFORMED, _CRASHED)
        return answer

    async def _ask(self, server: Process, request: ParseRequest) -> Answer:
        if server.stdin is None or server.stdout is None:
            raise ProtocolViolated
        limits = self._settings
        await server.stdin.send(msgspec.json.encode(request) + b"\n")
        frames = BufferedByteReceiveStream(server.stdout)
        too_late = anyio.current_time() + limits.slow_seconds
        for begun in range(MOST_FRAMES):
            seconds_left = too_late + begun * limits.page_seconds - anyio.current_time()
            with anyio.fail_after(min(limits.wall_seconds, seconds_left)):
                frame = await _received(frames, request.number)
            if isinstance(frame, Restrictions):
                break
            if not isinstance(frame, PageBegun):
                return frame
        raise ProtocolViolated

    async def _ready(self) -> Process:
        """Return the server, started and greeted; its start-up doesn't count towards a file's time limit."""
        try:
            server = await self._started()
            if self._greeted is not server:
                await self._greet(server)
        except BaseException as exc:
            await self.stop()
            if isinstance(exc, ProtocolViolated | TimeoutError):
                raise ParserUnavailable(
                    "the process that reads files does not start; its messages on stderr say why"
                ) from exc
            raise
        return server

    async def _greet(self, server: Process) -> None:
        if server.stdout is None:
            raise ProtocolViolated
        with anyio.fail_after(START_SECONDS):
            greeting = await _received(BufferedByteReceiveStream(server.stdout), _GREETING)
        if not isinstance(greeting, Restrictions):
            raise ProtocolViolated
        missing = "; ".join(missing_restrictions(greeting.taken))
        if missing and greeting.taken != self._restrictions:
            log.warning("parser_sandbox_layers_missing: %s", missing)
        if self._settings.require_walls and not are_sufficient(greeting.taken):
            raise ParserUnavailable(f"PARSER__REQUIRE_WALLS is set, and the kernel or the container refuses: {missing}")
        self._greeted, self._restrictions = server, greeting.taken

    async def _started(self) -> Process:
        if self._server is not None and self._server.returncode is None:
            return self._server
        await self.stop()
        # Starting takes milliseconds; if cancelled halfway, anyio would leave a process that is never waited for.
        with anyio.CancelScope(shield=True):
            self._server = server = await anyio.open_process(
                self._program, stderr=None, start_new_session=True, env=_ENVIRONMENT
            )
        return server

    async def stop(self) -> None:
        """Kill the fork server and its fork; call only while no start or read is in progress."""
        server, self._server = self._server, None
        if server is None:
            return
        with anyio.CancelScope(shield=True):
            if server.returncode is None:
                with suppress(ProcessLookupError):  # already exited, but the event loop hasn't noticed
                    os.killpg(server.pid, signal.SIGKILL)
            await server.aclose()


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
            raise ProtocolViolated
        frame: Frame = msgspec.json.decode(await frames.receive_exactly(length), type=Frame)
    # An undecodable answer raises a ValueError, one nested too deep a RecursionError.
    except (anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound, ValueError, RecursionError) as exc:
        raise ProtocolViolated from exc
    return frame


def serve(read_file: ReadFile) -> None:
    """Run the fork server: answer each request in a fork until stdin closes (the client is gone)."""
    os.nice(NICENESS)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keep parsers' prints out of the frames
    # pdfminer warns about unusual fonts with parts of the text, and document text must not be logged.
    logging.disable(logging.CRITICAL)
    _send(out, _GREETING, msgspec.json.encode(Restrictions(available_restrictions())))
    for line in sys.stdin.buffer:
        request = msgspec.json.decode(line, type=ParseRequest)
        if request.chunking is not None:
            open_chunker(request.chunking)  # loaded once, shared by all later forks
        for frame in _forked(request, read_file, out.fileno()):
            _send(out, request.number, frame)


def _send(out: BinaryIO, number: int, frame: bytes) -> None:
    out.write(b"%08x %08x\n" % (number, len(frame)) + frame)
    out.flush()


def _forked(request: ParseRequest, read_file: ReadFile, out: int) -> Iterator[bytes]:
    """Read a file in a fork; yield its frames, or a Refused if it died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _close_the_conversation(out)
        _read_and_exit(request, read_file, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        while (first := pipe.read(1)) == _PAGE:
            yield msgspec.json.encode(PageBegun())
        answer = first + pipe.read(MOST_OUTPUT)
    if len(answer) > MOST_OUTPUT:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if len(answer) > MOST_OUTPUT:
        yield msgspec.json.encode(Refused(Reason.TOO_LARGE, "it holds more text than a document does"))
    else:
        yield answer if status == 0 and answer else msgspec.json.encode(_of_status(status))


def _close_the_conversation(out: int) -> None:
    """Close the fork's stdin and stdout channel, so that it can't answer for the server or read its requests."""
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


def _read_and_exit(request: ParseRequest, read_file: ReadFile, writer: int) -> None:
    reserve = bytearray(_RESERVE_BYTES)

    def on_page() -> None:
        _limit_cpu(request.cpu_seconds)
        os.write(writer, _PAGE)

    try:
        _limit(request)
        answer = msgspec.json.encode(read_file(request, on_page))
    except Unreadable as exc:
        answer = msgspec.json.encode(Refused(exc.reason, exc.detail))
    except MemoryError:
        del reserve
        answer = msgspec.json.encode(Refused(Reason.TOO_LARGE, "reading it took more memory than a file may"))
    except RecursionError:
        answer = msgspec.json.encode(Refused(Reason.HOSTILE, "it is nested deeper than any document"))
    except Exception as exc:  # noqa: BLE001 - the edge of the process: whatever a hostile file raises is its reason
        answer = msgspec.json.encode(Refused(Reason.MALFORMED, f"it could not be read ({type(exc).__name__})"))
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(answer)
    os._exit(0)


def read_as_requested(request: ParseRequest, on_page: OnPage) -> Answer:
    """Read a file as text or passages, or preview one of its pages, as the request asks."""
    path = Path(request.path)
    if request.page is not None:
        return Previewed(preview_page(path, request.page))
    parsed = read_document(path, on_page)
    if request.chunking is None:
        return Read(parsed)
    return Chunked(chunk_document(parsed, open_chunker(request.chunking)))


def _limit(request: ParseRequest) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (request.memory_bytes, request.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_cpu(request.cpu_seconds)
    enter_sandbox(Path(request.path))


def _limit_cpu(seconds: int) -> None:
    """Allow this many more CPU seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (ceil(used.ru_utime + used.ru_stime) + seconds, hard))
