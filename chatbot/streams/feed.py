"""The entries of one answer in this process, for any number of connections that follow it."""

from collections.abc import AsyncGenerator, Sequence

import anyio

from chatbot.errors import ChatError
from chatbot.streams.log import LogEntry


class Feed:
    """Entries from number 1 on; closed after the last one, or with the error that ended the feed."""

    def __init__(self, entries: Sequence[LogEntry] = ()) -> None:
        self.entries = list(entries)
        self.closed = False
        self._error: ChatError | None = None
        self._changed = anyio.Event()

    def add(self, entries: Sequence[LogEntry]) -> None:
        """Add entries and wake the followers."""
        self.entries += entries
        self._wake()

    def close(self, error: ChatError | None = None) -> None:
        """Close the feed; followers get the error after the last entry. A second call changes nothing."""
        if not self.closed:
            self.closed, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        changed = self._changed
        self._changed = anyio.Event()
        changed.set()

    async def follow(self, after: int) -> AsyncGenerator[LogEntry]:
        """Yield the entries after number `after` until the feed is closed.

        Raises:
            ChatError: the error with which the feed was closed.
        """
        n = after
        while True:
            while n < len(self.entries):
                n += 1
                yield self.entries[n - 1]
            if self.closed:
                if self._error is not None:
                    raise self._error
                return
            await self._changed.wait()
