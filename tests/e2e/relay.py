"""A TCP relay between a client and a server, which a test may cut."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Wire:
    """Carries every connection to one server, until it is cut."""

    def __init__(self, server_url: str) -> None:
        self._host, self._port = urlsplit(server_url).hostname, urlsplit(server_url).port
        self._carried: set[asyncio.StreamWriter] = set()
        self._whole = True
        self.on_reply: Callable[[], None] | None = None
        """What is called once, in place of the next reply, which is lost."""
        self.url = ""

    def cut(self) -> None:
        """Break every connection and refuse new ones until `mend`."""
        self._whole = False
        self._break()

    def mend(self) -> None:
        """Carry connections again."""
        self._whole = True

    def lead_to(self, server_url: str) -> None:
        """Break every connection and carry new ones to another server."""
        self._host, self._port = urlsplit(server_url).hostname, urlsplit(server_url).port
        self._break()

    def _break(self) -> None:
        for end in self._carried:
            end.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection both ways until either end closes it."""
        if not self._whole:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(self._host, self._port)
        ends = {writer, back}
        self._carried |= ends
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_pour(reader, back))
                ways.create_task(_pour(there, writer, self._is_lost))
        finally:
            self._carried -= ends
            for end in ends:
                end.transport.abort()

    def _is_lost(self) -> bool:
        on_reply, self.on_reply = self.on_reply, None
        if on_reply is not None:
            on_reply()
        return on_reply is not None


async def _pour(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_lost: Callable[[], bool] = lambda: False
) -> None:
    with suppress(OSError):  # either end may be gone, also for the last word (ENOTCONN)
        while (piece := await source.read(65536)) and not is_lost():
            sink.write(piece)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
        else:  # TLS ends both ways at once
            sink.close()


@asynccontextmanager
async def wired(server_url: str, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Wire]:
    """Serve a wire to `server_url` on a free port; with a context its near end is encrypted."""
    wire = Wire(server_url)
    listener = await asyncio.start_server(wire.carry, "127.0.0.1", 0, ssl=tls)
    wire.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        listener.close()
        wire.cut()
        await listener.wait_closed()
