"""Contains failures: restarts permanent tasks, and isolates independent pieces of work from each other."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio
import structlog

log = structlog.get_logger(__name__)

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""If a task ran this long before it failed, the wait starts at the first wait again."""

OnFailure = Callable[[str], None]
"""Counts a failure of the named task."""


def uncounted(_name: str) -> None:
    """Do not count the failure: the default `on_failure`."""


@contextmanager
def contained(name: str, on_failure: OnFailure = uncounted) -> Iterator[None]:
    """Suppress, log and count an exception of the block, so that the code after it still runs."""
    try:
        yield
    except Exception:
        log.exception("task_failed", task=name)
        on_failure(name)


async def supervise(name: str, work: Callable[[], Awaitable[None]], on_failure: OnFailure = uncounted) -> None:
    """Run `work` until it returns or this task is cancelled; restart it after an exception, with a growing wait."""
    wait = FIRST_WAIT_SECONDS
    while True:
        began = time.monotonic()
        with contained(name, on_failure):
            return await work()
        if time.monotonic() - began >= STEADY_SECONDS:
            wait = FIRST_WAIT_SECONDS
        await anyio.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)
