"""Looks at whole texts, which keep a core busy for seconds: one at a time in a process."""

from collections.abc import Callable
from typing import TypeVar

import anyio

from ingest.errors import Unavailable
from ingest.services import Services

T = TypeVar("T")

LOOK_SECONDS = 60.0  # 30 for a page, the rest behind others who look at one


async def in_turn(look: Callable[[], T], services: Services) -> T:
    """Return what a look comes to.

    Raises:
        Unavailable: too many look at this moment.
    """
    try:
        with anyio.fail_after(LOOK_SECONDS):
            return await anyio.to_thread.run_sync(look, limiter=services.looks)
    except TimeoutError as exc:
        raise Unavailable("many look at documents at this moment") from exc
