"""Where failures end: a task that must not end is started again, and one of many equal pieces of work ends alone."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio
import structlog

log = structlog.get_logger(__name__)

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A task that ran for so long without failing begins with the first wait again."""

OnFailure = Callable[[str], None]
"""Counts a failure of the task of this name."""


def uncounted(_name: str) -> None:
    """Count nothing."""


@contextmanager
def contained(name: str, on_failure: OnFailure = uncounted) -> Iterator[None]:
    """Leave the block at an exception, which is logged and counted: what comes after it must not suffer for it."""
    try:
        yield
    except Exception:
        log.exception("task_failed", task=name)
        on_failure(name)


async def supervise(name: str, work: Callable[[], Awaitable[None]], on_failure: OnFailure = uncounted) -> None:
    """Run `work` until it returns or this task is cancelled; after an exception again, and later each time."""
    wait = FIRST_WAIT_SECONDS
    while True:
        began = time.monotonic()
        with contained(name, on_failure):
            return await work()
        if time.monotonic() - began >= STEADY_SECONDS:
            wait = FIRST_WAIT_SECONDS
        await anyio.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)
