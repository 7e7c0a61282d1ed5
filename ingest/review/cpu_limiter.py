"""Run reviews of whole texts, each using a CPU core for seconds, one at a time per process."""

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.from_thread

from ingest.errors import Unavailable

T = TypeVar("T")
Check = Callable[[], None]
"""Work in a thread calls this at least every second. It raises if the work was cancelled or its deadline passed."""

REVIEW_SECONDS = 60.0  # the deadline of a review: 30 s for a page, the rest for the reviews queued before it


class CpuLimiter:
    """Run CPU-bound work in a thread, one call at a time."""

    def __init__(self, *, seconds: float = REVIEW_SECONDS) -> None:
        self._seconds = seconds
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self, work: Callable[[Check], T]) -> T:
        """Return the result of `work`; raise Unavailable if the deadline passes.

        The time includes the wait for other calls. After the deadline or a cancellation, `work` ends at its next check.
        """
        try:
            with anyio.fail_after(self._seconds):
                return await anyio.to_thread.run_sync(work, anyio.from_thread.check_cancelled, limiter=self._limiter)
        except TimeoutError as exc:
            raise Unavailable("too many reviews are in progress: try again") from exc
