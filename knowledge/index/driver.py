"""Where the Qdrant client runs (a server: in the loop, embedded: in a thread), and what becomes of its errors.

IndexUnavailable    the index, or the embedder it needs, cannot be asked now
"""

import asyncio
import json
import math
import sqlite3
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from knowledge.index.postings import score_by_postings

T = TypeVar("T")
Operation = Callable[[AsyncQdrantClient], Coroutine[Any, Any, T]]

# Everything the client raises when the index cannot be asked: its own two trees for a server (httpx is wrapped in
# them; a proxy's page instead of JSON is not), SQLite's and the file system's for the embedded one. TimeoutError is an
# OSError.
DRIVER_ERRORS = (ApiException, QdrantException, json.JSONDecodeError, sqlite3.Error, OSError)


class IndexUnavailable(Exception):
    """The index, or the embedder it needs, cannot be asked now."""


class Driver(Protocol):
    """Where the client's coroutines run."""

    async def run(self, operation: Operation[T]) -> T: ...

    async def aclose(self) -> None: ...


@asynccontextmanager
async def open_driver(place: Path | str, *, api_key: str | None, timeout: float) -> AsyncGenerator[Driver]:
    """Open a folder (embedded) or an address (a server) for as long as the context lasts."""
    driver: EmbeddedDriver | ServerDriver
    if isinstance(place, Path):
        driver = EmbeddedDriver(place)
        await driver.start()
    else:
        driver = ServerDriver(place, api_key=api_key, timeout=timeout)
    try:
        yield driver
    finally:
        await driver.aclose()


async def ask(driver: Driver, operation: Operation[T], *, timeout: float) -> T:
    """Run one operation; translate whatever the driver raises."""
    try:
        async with asyncio.timeout(timeout):
            return await driver.run(operation)
    except DRIVER_ERRORS as exc:
        raise IndexUnavailable(f"the index failed: {type(exc).__name__}") from exc


class ServerDriver:
    """A Qdrant server: the client waits for its sockets in this loop."""

    def __init__(self, url: str, *, api_key: str | None, timeout: float) -> None:
        self._client = AsyncQdrantClient(
            url=url.rstrip("/"),
            api_key=api_key,
            timeout=math.ceil(timeout),
            # The check is a blocking request in the constructor.
            check_compatibility=False,
        )

    async def run(self, operation: Operation[T]) -> T:
        return await operation(self._client)

    async def aclose(self) -> None:
        await self._client.close()


class EmbeddedDriver:
    """An embedded Qdrant in a thread of its own: it computes in Python and would hold the loop for a whole search."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="qdrant")

    async def start(self) -> None:
        """Load the folder; it belongs to this process from now on."""
        score_by_postings()
        try:
            self._client = await self._in_thread(lambda: AsyncQdrantClient(path=str(self._folder)))
        except (RuntimeError, ValueError, *DRIVER_ERRORS) as exc:
            self._thread.shutdown(wait=False)
            # RuntimeError: another process holds the folder. ValueError: its meta.json is damaged.
            raise IndexUnavailable(f"{self._folder} cannot be opened: {exc}") from exc

    async def run(self, operation: Operation[T]) -> T:
        return await self._in_thread(lambda: self._drive(operation))

    async def aclose(self) -> None:
        await self._in_thread(lambda: _to_the_end(self._client.close()))
        self._thread.shutdown(wait=False)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _drive(self, operation: Operation[T]) -> T:
        # The client answers from memory: without this look it would go on after its folder is lost.
        with (self._folder / "meta.json").open("rb"):
            return _to_the_end(operation(self._client))


def _to_the_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, without a loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("the embedded client waited for something")
