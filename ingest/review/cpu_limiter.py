"""A limit on reviews of whole texts, each of which keeps a core busy for seconds: one at a time in a process."""

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.from_thread

from ingest.errors import Unavailable

T = TypeVar("T")
Check = Callable[[], None]
"""Called by work in a thread, every second at least; raises where the caller has left."""

REVIEW_SECONDS = 60.0
"""The deadline of a review: 30 s for a page, the rest for the reviews before it."""


class CpuLimiter:
    """Runs CPU-bound work in a thread, one call at a time."""

    def __init__(self, *, seconds: float = REVIEW_SECONDS) -> None:
        self._seconds = seconds
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self, work: Callable[[Check], T]) -> T:
        """Return what `work` returns; it ends at its next check after the deadline or a cancellation.

        Raises:
            Unavailable: it did not end within the deadline, which includes the wait for its turn.
        """
        try:
            with anyio.fail_after(self._seconds):
                return await anyio.to_thread.run_sync(work, anyio.from_thread.check_cancelled, limiter=self._limiter)
        except TimeoutError as exc:
            raise Unavailable("too many reviews are in progress: try again") from exc
