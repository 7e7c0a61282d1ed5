"""Several processes that read files (`ingest.parsing.process`), so that a long scan holds up no short file."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from ingest.parsing.chunking import ChunkedDocument, Chunking
from ingest.parsing.process import PROGRAM, Parser, ParserSettings
from ingest.parsing.sandbox import Restriction


class Readers:
    """Reads as many files at once as there are processes; others wait."""

    def __init__(self, settings: ParserSettings, program: Sequence[str]) -> None:
        # The last is used first: the others start when they are needed.
        self._idle = [Parser(settings, program) for _ in range(settings.processes)]
        self._places = anyio.Semaphore(settings.processes)

    async def start(self) -> int:
        """Start a process before the first file; return its id."""
        return await self._idle[-1].start()

    async def restrictions(self) -> tuple[Restriction, ...]:
        """Return the restrictions of a process that reads a file, as `Parser.restrictions` does."""
        return await self._idle[-1].restrictions()

    async def chunk(self, path: Path, chunking: Chunking) -> ChunkedDocument:
        """Return the passages of an original.

        Raises:
            Unreadable: with the reason.
        """
        async with self._places:
            parser = self._idle.pop()
            try:
                return await parser.chunk(path, chunking)
            finally:
                self._idle.append(parser)

    async def stop(self) -> None:
        """Kill the processes; nothing may be being read."""
        for parser in self._idle:
            await parser.stop()


@asynccontextmanager
async def open_readers(settings: ParserSettings, program: Sequence[str] = PROGRAM) -> AsyncGenerator[Readers]:
    """Open the readers."""
    readers = Readers(settings, program)
    try:
        yield readers
    finally:
        await readers.stop()
