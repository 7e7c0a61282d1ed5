"""Run reviews of whole texts, each using a CPU core for seconds, one at a time per process."""

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.from_thread

from ingest.errors import Unavailable

T = TypeVar("T")
Check = Callable[[], None]
"""Called at least every second by work in a thread; raises if the caller was cancelled."""

REVIEW_SECONDS = 60.0  # the deadline of a review: 30 s for a page, the rest for the reviews queued before it


class CpuLimiter:
    """Run CPU-bound work in a thread, one call at a time."""

    def __init__(self, *, seconds: float = REVIEW_SECONDS) -> None:
        self._seconds = seconds
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self, work: Callable[[Check], T]) -> T:
        """Return the result of `work`; raise Unavailable at its next check after the deadline.

        The deadline includes the wait for its turn. A cancellation ends it at its next check too.
        """
        try:
            with anyio.fail_after(self._seconds):
                return await anyio.to_thread.run_sync(work, anyio.from_thread.check_cancelled, limiter=self._limiter)
        except TimeoutError as exc:
            raise Unavailable("too many reviews are in progress: try again") from exc
