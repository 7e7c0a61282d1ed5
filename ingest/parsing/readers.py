"""A pool of file-reading processes (`ingest.parsing.process`), so that a long scan doesn't block short files."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from ingest.parsing.chunking import ChunkedDocument, Chunking
from ingest.parsing.process import PROGRAM, Parser, ParserSettings
from ingest.parsing.sandbox import Restriction


class Readers:
    """A pool that reads one file per process at a time; further callers wait."""

    def __init__(self, settings: ParserSettings, program: Sequence[str]) -> None:
        # The last parser is used first, so the others start only when several files are read at once.
        self._idle_parsers = [Parser(settings, program) for _ in range(settings.processes)]
        self._idle_count = anyio.Semaphore(settings.processes)

    async def start(self) -> int:
        """Start a process before the first file; return its id."""
        return await self._idle_parsers[-1].start()

    async def restrictions(self) -> tuple[Restriction, ...]:
        """Return the restrictions on a reading process, as `Parser.restrictions` does."""
        return await self._idle_parsers[-1].restrictions()

    async def chunk(self, path: Path, chunking: Chunking) -> ChunkedDocument:
        """Return a file's passages; raise Unreadable with the reason."""
        async with self._idle_count:
            parser = self._idle_parsers.pop()
            try:
                return await parser.chunk(path, chunking)
            finally:
                self._idle_parsers.append(parser)

    async def stop(self) -> None:
        """Kill the processes; call only while no read is in progress."""
        for parser in self._idle_parsers:
            await parser.stop()


@asynccontextmanager
async def open_readers(settings: ParserSettings, program: Sequence[str] = PROGRAM) -> AsyncGenerator[Readers]:
    """Open a pool of readers."""
    readers = Readers(settings, program)
    try:
        yield readers
    finally:
        await readers.stop()
