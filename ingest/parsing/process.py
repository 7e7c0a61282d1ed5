"""Read files into passages in separate, limited processes, so that no file can take the service down.

`python -m ingest.parsing` is a fork server: it loads the parsers once and forks for each request on stdin. The fork
sets its limits (memory, CPU seconds), enters the sandbox, reads the file and exits, so a file cannot affect the next
one. In formats with pages, time limits apply per page. `Parser` is the client: it enforces wall-clock limits and kills
the whole process group on a timeout or when the caller is cancelled.

A frame on the server's stdout is the request number and a length in hexadecimal, a newline, and that many bytes of
JSON. Frame 0 lists the restrictions that the kernel grants to forks. A fork has no access to this channel, only to a
pipe to the server: one newline at the start of each page, then its answer. If a file takes control of its fork, it can
forge only its own answer, because the server numbers the answers.
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

    All pages together may take `page_seconds` each plus `slow_seconds`, so that a file of slow pages is given up early
    and a long scan is not.
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


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """The answer for a file that could not be read."""

    reason: Reason
    detail: str


class TextAnswer(msgspec.Struct, frozen=True, tag="text"):
    """The text of a file."""

    parsed: Parsed


class PassagesAnswer(msgspec.Struct, frozen=True, tag="passages"):
    """The passages of a file."""

    document: ChunkedDocument


class PreviewAnswer(msgspec.Struct, frozen=True, tag="preview"):
    """A preview of one page of a file."""

    preview: PagePreview


class ParseRequest(msgspec.Struct, frozen=True):
    """A file to read and the limits of its fork.

    With `page`, the answer is a preview of that page; with `chunking`, the file's passages; with neither, its text.
    """

    number: int
    path: str
    memory_bytes: int
    cpu_seconds: int
    page: int | None = None
    chunking: Chunking | None = None


class PageBegun(msgspec.Struct, frozen=True, tag="page_begun"):
    """The file's next page has begun, with its own time limit."""


class Restrictions(msgspec.Struct, frozen=True, tag="restrictions"):
    """The first frame: the restrictions that are in force in the forks."""

    in_force: tuple[Restriction, ...]


Answer = TextAnswer | PassagesAnswer | PreviewAnswer | Refusal
Frame = Answer | PageBegun | Restrictions
_A = TypeVar("_A", TextAnswer, PassagesAnswer, PreviewAnswer)
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
    """The client of one fork server; it reads one file at a time, and further callers wait."""

    def __init__(self, settings: ParserSettings, program: Sequence[str] = PROGRAM) -> None:
        self._settings = settings
        self._program = program
        self._last_number = 0
        self._greeted_server: Process | None = None
        self._restrictions: tuple[Restriction, ...] | None = None
        self._one_at_a_time = anyio.Lock()
        self._server: Process | None = None

    async def start(self) -> int:
        """Start the process before the first file; return its process id, which is its session and group id too."""
        async with self._one_at_a_time:
            server = await self._running_server()
            return server.pid

    async def restrictions(self) -> tuple[Restriction, ...]:
        """Return the restrictions on the server's forks; raise ParserUnavailable if it can't start, or lacks some."""
        async with self._one_at_a_time:
            await self._ready_server()
        return self._restrictions or ()

    async def parse(self, path: Path) -> Parsed:
        """Return a file's text; raise Unreadable, or ParserUnavailable as `restrictions` does."""
        answer = await self._answer(TextAnswer, self._next_request(path))
        return answer.parsed

    async def chunk(self, path: Path, chunking: Chunking) -> ChunkedDocument:
        """Return a file's passages; raises the same errors as `parse`."""
        request = msgspec.structs.replace(self._next_request(path), chunking=chunking)
        answer = await self._answer(PassagesAnswer, request)
        return answer.document

    async def preview(self, path: Path, page: int) -> PagePreview:
        """Preview one page of a file, counted from 1; raises the same errors as `parse`."""
        request = msgspec.structs.replace(self._next_request(path), page=page)
        answer = await self._answer(PreviewAnswer, request)
        return answer.preview

    def _next_request(self, path: Path) -> ParseRequest:
        limits = self._settings
        self._last_number += 1
        return ParseRequest(self._last_number, str(path), limits.memory_bytes, limits.cpu_seconds)

    async def _answer(self, kind: type[_A], request: ParseRequest) -> _A:
        """Return the answer to a request; raise Unreadable after a refusal, a timeout or an answer of another kind."""
        limits = self._settings
        async with self._one_at_a_time:
            server = await self._ready_server()
            answer: Answer | None = None
            try:
                with anyio.fail_after(limits.most_wall_seconds):
                    answer = await self._ask(server, request)
            except TimeoutError as exc:
                raise Unreadable(
                    Reason.TOO_SLOW,
                    f"reading took over {limits.wall_seconds:.0f} s for a page, {limits.page_seconds:.0f} s on "
                    f"average, or {limits.most_wall_seconds:.0f} s for the file",
                ) from exc
            except (ProtocolViolated, anyio.BrokenResourceError) as exc:
                raise Unreadable(Reason.MALFORMED, _CRASHED) from exc
            finally:
                if answer is None:  # failed or cancelled: a late answer must not reach the next request
                    await self.stop()
        if isinstance(answer, Refusal):
            raise Unreadable(answer.reason, answer.detail)
        if not isinstance(answer, kind):
            raise Unreadable(Reason.MALFORMED, _CRASHED)
        return answer

    async def _ask(self, server: Process, request: ParseRequest) -> Answer:
        """Send a request and return its answer; each page has a time limit, and all pages together have another."""
        if server.stdin is None or server.stdout is None:
            raise ProtocolViolated
        limits = self._settings
        await server.stdin.send(msgspec.json.encode(request) + b"\n")
        frames = BufferedByteReceiveStream(server.stdout)
        first_deadline = anyio.current_time() + limits.slow_seconds
        for pages_begun in range(MOST_FRAMES):
            deadline = first_deadline + pages_begun * limits.page_seconds
            seconds_left = deadline - anyio.current_time()
            with anyio.fail_after(min(limits.wall_seconds, seconds_left)):
                frame = await _receive_frame(frames, request.number)
            if isinstance(frame, Restrictions):
                raise ProtocolViolated
            if not isinstance(frame, PageBegun):
                return frame
        raise ProtocolViolated

    async def _ready_server(self) -> Process:
        """Return the server after its greeting; its start-up doesn't count towards a file's time limit."""
        is_ready = False
        try:
            server = await self._running_server()
            if server is not self._greeted_server:
                await self._receive_greeting(server)
            is_ready = True
        except (ProtocolViolated, TimeoutError) as exc:
            raise ParserUnavailable(
                "the process that reads files does not start; its messages on stderr say why"
            ) from exc
        finally:
            if not is_ready:
                await self.stop()
        return server

    async def _receive_greeting(self, server: Process) -> None:
        if server.stdout is None:
            raise ProtocolViolated
        with anyio.fail_after(START_SECONDS):
            greeting = await _receive_frame(BufferedByteReceiveStream(server.stdout), _GREETING)
        if not isinstance(greeting, Restrictions):
            raise ProtocolViolated
        missing = "; ".join(missing_restrictions(greeting.in_force))
        if missing and greeting.in_force != self._restrictions:
            log.warning("parser_sandbox_layers_missing: %s", missing)
        if self._settings.require_walls and not are_sufficient(greeting.in_force):
            raise ParserUnavailable(f"PARSER__REQUIRE_WALLS is set, and the kernel or the container refuses: {missing}")
        self._greeted_server = server
        self._restrictions = greeting.in_force

    async def _running_server(self) -> Process:
        """Return the server; start it if it is not running."""
        if self._server is not None and self._server.returncode is None:
            return self._server
        await self.stop()
        # Starting takes milliseconds; a cancellation during it would leave an orphaned process.
        with anyio.CancelScope(shield=True):
            self._server = server = await anyio.open_process(
                self._program, stderr=None, start_new_session=True, env=_ENVIRONMENT
            )
        return server

    async def stop(self) -> None:
        """Kill the fork server and its fork; call only while no start or read is in progress."""
        server = self._server
        self._server = None
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


async def _receive_frame(frames: BufferedByteReceiveStream, number: int) -> Frame:
    """Return the next frame; raise ProtocolViolated if it is malformed or not for request `number`."""
    try:
        header = await frames.receive_until(b"\n", _MOST_HEADER)
        frame_number, length = (int(part, 16) for part in header.split())
        if frame_number != number or not 0 <= length <= MOST_OUTPUT:
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
    os.dup2(2, 1)  # the prints of parsers go to stderr, not between the frames
    # pdfminer's warnings quote the document, whose text must not be logged.
    logging.disable(logging.CRITICAL)
    _send(out, _GREETING, msgspec.json.encode(Restrictions(available_restrictions())))
    for line in sys.stdin.buffer:
        request = msgspec.json.decode(line, type=ParseRequest)
        if request.chunking is not None:
            open_chunker(request.chunking)  # loaded once, shared by all later forks
        for frame in _read_in_fork(request, read_file, out.fileno()):
            _send(out, request.number, frame)


def _send(out: BinaryIO, number: int, frame: bytes) -> None:
    out.write(b"%08x %08x\n" % (number, len(frame)) + frame)
    out.flush()


def _read_in_fork(request: ParseRequest, read_file: ReadFile, out: int) -> Iterator[bytes]:
    """Read a file in a fork; yield its frames, the last of which is a Refusal if the fork died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _close_server_channels(out)
        _read_and_exit(request, read_file, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        first_byte = pipe.read(1)
        while first_byte == _PAGE:
            yield msgspec.json.encode(PageBegun())
            first_byte = pipe.read(1)
        answer = first_byte + pipe.read(MOST_OUTPUT)
    if len(answer) > MOST_OUTPUT:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if len(answer) > MOST_OUTPUT:
        yield msgspec.json.encode(Refusal(Reason.TOO_LARGE, "it holds more text than a document does"))
    elif status == 0 and answer:
        yield answer
    else:
        yield msgspec.json.encode(_refusal_of(status))


def _close_server_channels(out: int) -> None:
    """Close the frames' channel and stdin in a fork, so that it can't answer for the server or read its requests."""
    os.close(out)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)


def _refusal_of(status: int) -> Refusal:
    """Return the refusal for the exit status of a fork that did not answer."""
    killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if killed_by == signal.SIGXCPU:
        return Refusal(Reason.TOO_SLOW, "reading it took too much computing time")
    if killed_by == signal.SIGKILL:
        return Refusal(Reason.TOO_LARGE, "reading it took more memory than a file may")
    return Refusal(Reason.MALFORMED, _CRASHED)


def _read_and_exit(request: ParseRequest, read_file: ReadFile, writer: int) -> None:
    """In a fork: read the file within its limits, write the answer to the pipe `writer`, and exit."""
    reserve = bytearray(_RESERVE_BYTES)

    def on_page() -> None:
        _limit_cpu(request.cpu_seconds)
        os.write(writer, _PAGE)

    try:
        _apply_limits(request)
        answer = msgspec.json.encode(read_file(request, on_page))
    except Unreadable as exc:
        answer = msgspec.json.encode(Refusal(exc.reason, exc.detail))
    except MemoryError:
        del reserve
        answer = msgspec.json.encode(Refusal(Reason.TOO_LARGE, "reading it took more memory than a file may"))
    except RecursionError:
        answer = msgspec.json.encode(Refusal(Reason.HOSTILE, "it is nested deeper than any document"))
    except Exception as exc:  # noqa: BLE001 - the edge of the process: every error of a hostile file refuses that file
        answer = msgspec.json.encode(Refusal(Reason.MALFORMED, f"it could not be read ({type(exc).__name__})"))
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(answer)
    os._exit(0)


def read_as_requested(request: ParseRequest, on_page: OnPage) -> Answer:
    """Read a file as text or passages, or preview one of its pages, as the request asks."""
    path = Path(request.path)
    if request.page is not None:
        return PreviewAnswer(preview_page(path, request.page))
    parsed = read_document(path, on_page)
    if request.chunking is None:
        return TextAnswer(parsed)
    return PassagesAnswer(chunk_document(parsed, open_chunker(request.chunking)))


def _apply_limits(request: ParseRequest) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (request.memory_bytes, request.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_cpu(request.cpu_seconds)
    enter_sandbox(Path(request.path))


def _limit_cpu(seconds: int) -> None:
    """Allow this many more CPU seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (ceil(used.ru_utime + used.ru_stime) + seconds, hard))
