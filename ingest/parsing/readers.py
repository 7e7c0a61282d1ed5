"""Several processes that read files (`ingest.parsing.process`), so that a long scan holds up no short file.

One of them reads file after file, in turn, so that reading short files takes one core from embedding at most. A file
that still begins pages after `long_seconds` leaves that turn, and another process reads the next file. All processes
but one may read such long files. A worker's long file that finds none of them free raises `ReadersBusy`: its job goes
back, for any worker. `ingest load`, which has no other worker, reads it in its turn.
"""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio

from ingest.parsing.chunking import ChunkedDocument, Chunking
from ingest.parsing.process import PROGRAM, Parser, ParserSettings
from ingest.parsing.sandbox import Restriction


class ReadersBusy(Exception):
    """A file is long, and every process that may read long files reads one."""


class Readers:
    """Reads originals, long ones beside short ones; each process keeps to its own limits."""

    def __init__(self, settings: ParserSettings, program: Sequence[str], *, gives_back: bool) -> None:
        # The last is used first: the others start when they are needed.
        self._idle = [Parser(settings, program) for _ in range(settings.processes)]
        self._long_seconds = settings.long_seconds
        self._long_places = settings.processes - 1
        self._gives_back = gives_back and settings.processes > 1
        self._known_long: set[str] = set()
        self._turn = anyio.Semaphore(1)

    async def start(self) -> int:
        """Start a process before the first file; return its id."""
        return await self._idle[-1].start()

    async def restrictions(self) -> tuple[Restriction, ...]:
        """Return the restrictions of a process that reads a file, as `Parser.restrictions` does."""
        return await self._idle[-1].restrictions()

    async def chunk(self, path: Path, chunking: Chunking) -> ChunkedDocument:
        """Return the passages of an original, whose file has the name of its content.

        Raises:
            Unreadable: with the reason.
            ReadersBusy: it takes long, and every process that may read long files reads one.
        """
        is_long = path.name in self._known_long and self._take_long_place(path.name)
        if not is_long:
            await self._turn.acquire()
        slot = _Slot(path.name, begun=time.monotonic(), is_long=is_long)
        parser = self._idle.pop()
        try:
            return await parser.chunk(path, chunking, partial(self._on_page, slot))
        finally:
            self._idle.append(parser)
            self._release(slot)

    async def stop(self) -> None:
        """Kill the processes; nothing may be being read."""
        for parser in self._idle:
            await parser.stop()

    def _on_page(self, slot: "_Slot") -> None:
        if slot.is_long or time.monotonic() - slot.begun < self._long_seconds:
            return
        slot.is_long = self._take_long_place(slot.name)
        if slot.is_long:
            self._turn.release()

    def _release(self, slot: "_Slot") -> None:
        if slot.is_long:
            self._long_places += 1
        else:
            self._turn.release()

    def _take_long_place(self, name: str) -> bool:
        """Take a place for long files, and tell whether there was one; ReadersBusy leaves the file to others."""
        if self._long_places == 0 and self._gives_back:
            self._known_long.add(name)
            raise ReadersBusy
        self._known_long.discard(name)
        if self._long_places == 0:
            return False
        self._long_places -= 1
        return True


@dataclass(slots=True)
class _Slot:
    """What a file holds while it is read: the turn, or a place for long files."""

    name: str
    begun: float
    is_long: bool


@asynccontextmanager
async def open_readers(
    settings: ParserSettings, program: Sequence[str] = PROGRAM, *, gives_back: bool = False
) -> AsyncGenerator[Readers]:
    """Open the readers; with `gives_back` a long file that finds every process busy raises ReadersBusy."""
    readers = Readers(settings, program, gives_back=gives_back)
    try:
        yield readers
    finally:
        await readers.stop()
