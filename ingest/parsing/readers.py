"""Several processes that read files (`ingest.parsing.process`), so that a long scan holds up no short file.

One of them takes file after file, so that reading short files takes one core from embedding at most. A file that still
begins pages after `long_seconds` lets go of that turn, and another process reads the next file. All processes but one
may read such long files. A worker's long file that finds none of them free is `Occupied`: its job goes back, for any
worker. `ingest load`, which has nobody to leave it to, reads it in its turn.
"""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio

from ingest.parsing.parsed import Parsed
from ingest.parsing.process import PROGRAM, Parser, ParserSettings
from ingest.parsing.sandbox import Walled


class Occupied(Exception):
    """A long file, while every process that may read one does."""


class Readers:
    """Reads originals, long ones beside short ones; each process keeps to its own limits."""

    def __init__(self, settings: ParserSettings, program: Sequence[str], *, gives_back: bool) -> None:
        # The last is used first: the others start when they are needed.
        self._idle = [Parser(settings, program) for _ in range(settings.processes)]
        self._long_seconds = settings.long_seconds
        self._long_places = settings.processes - 1
        self._gives_back = gives_back and settings.processes > 1
        self._found_long: set[str] = set()
        self._turn = anyio.Semaphore(1)

    async def start(self) -> int:
        """Start a process before the first file; return its id."""
        return await self._idle[-1].start()

    async def walls(self) -> tuple[Walled, ...]:
        """Return what a process that reads a file can no longer do.

        Raises:
            NoParser: it does not start, or walls are required and missing.
        """
        return await self._idle[-1].walls()

    async def parse(self, path: Path) -> Parsed:
        """Return what stands in an original, whose file has its content's name.

        Raises:
            Unreadable: with the reason.
            Occupied: it takes long, and every process that may read such files does.
        """
        hold = await self._begin(path.name)
        parser = self._idle.pop()
        try:
            return await parser.parse(path, partial(self._page_begun, hold))
        finally:
            self._idle.append(parser)
            self._end(hold)

    async def stop(self) -> None:
        """Kill the processes; nothing is being read."""
        for parser in self._idle:
            await parser.stop()

    async def _begin(self, name: str) -> "_Hold":
        is_long = name in self._found_long and self._long_place(name)
        if not is_long:
            await self._turn.acquire()
        return _Hold(name, begun=time.monotonic(), is_long=is_long)

    def _page_begun(self, hold: "_Hold") -> None:
        if hold.is_long or time.monotonic() - hold.begun < self._long_seconds:
            return
        hold.is_long = self._long_place(hold.name)
        if hold.is_long:
            self._turn.release()

    def _end(self, hold: "_Hold") -> None:
        if hold.is_long:
            self._long_places += 1
        else:
            self._turn.release()

    def _long_place(self, name: str) -> bool:
        """Take a place for long files, and tell whether there was one.

        Raises:
            Occupied: there is none, and the file is left to others.
        """
        if self._long_places == 0 and self._gives_back:
            self._found_long.add(name)
            raise Occupied
        self._found_long.discard(name)
        if self._long_places == 0:
            return False
        self._long_places -= 1
        return True


@dataclass(slots=True)
class _Hold:
    """What a file holds while it is read: the turn, or a place for long files."""

    name: str
    begun: float
    is_long: bool


@asynccontextmanager
async def open_readers(
    settings: ParserSettings, program: Sequence[str] = PROGRAM, *, gives_back: bool = False
) -> AsyncGenerator[Readers]:
    """Open the processes; each starts with the first file it is needed for."""
    readers = Readers(settings, program, gives_back=gives_back)
    try:
        yield readers
    finally:
        await readers.stop()
