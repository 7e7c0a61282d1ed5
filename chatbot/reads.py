"""Read limits of each customer: bytes per minute, and one conversation at a time; a process reads only a few at once.

The limits protect the process, because running answers share Redis and the event loop with the readers.
"""

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import anyio
from pydantic import BaseModel, Field, PositiveInt

from chatbot.errors import Overloaded, RateLimited

ReadDimension = Literal["bytes_read_per_minute", "readers"]
"""The read limits, in addition to those of `chatbot.limits`; `readers` are open streams."""
_MOST_CUSTOMERS = 10_000
_MINUTE = 60.0
_STREAMS_PER_MINUTE = 256  # the most repeated streams: even a short one costs processor time
_REFUSAL_SECONDS = 1.0  # before a repeated stream is refused: an immediate retry would cost as much as a stream


class ReadSettings(BaseModel, frozen=True):
    """Read limits per customer and per process."""

    bytes_per_minute: PositiveInt = Field(
        16 * 1024 * 1024,
        description=(
            "bytes: A customer may read this much of conversations and repeated answers per minute from one "
            "process. Each repeated stream counts 1/256 of it besides its own bytes."
        ),
    )
    at_once: ClassVar[int] = 4  # reads: the most conversations that a process reads at once; one per customer
    wait: ClassVar[float] = 2.0  # seconds: the maximum wait of a read; then 503


@dataclass(slots=True)
class _Customer:
    """A leaky bucket of read bytes; a full bucket drains in a minute."""

    bytes_read: float = 0.0  # as of `at`
    at: float = 0.0  # in monotonic seconds
    lock: anyio.Lock = field(default_factory=anyio.Lock)  # of the customer's read in progress


class Reads:
    """Enforces the read limits."""

    def __init__(self, settings: ReadSettings | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns monotonic seconds."""
        self._settings = settings or ReadSettings()
        self._clock = clock
        self._customers: OrderedDict[tuple[str, str], _Customer] = OrderedDict()
        self._reads = anyio.Semaphore(self._settings.at_once)

    def check(self, customer: tuple[str, str]) -> None:
        """Refuse a customer who has used up the limit.

        Raises:
            RateLimited: the limit is used up; `retry_after` is the time until the next byte is free.
        """
        surplus = self._bucket(customer).bytes_read - self._settings.bytes_per_minute
        if surplus >= 0:
            wait = (surplus + 1) * _MINUTE / self._settings.bytes_per_minute
            raise RateLimited(scope="user", dimension="bytes_read_per_minute", retry_after=wait)

    async def begin_stream(self, customer: tuple[str, str]) -> None:
        """Count a repeated stream; delay the refusal of a customer over the limit by a second.

        Raises:
            RateLimited: as `check`.
        """
        try:
            self.check(customer)
        except RateLimited:
            await anyio.sleep(_REFUSAL_SECONDS)
            self.check(customer)
        self.count(customer, self._settings.bytes_per_minute // _STREAMS_PER_MINUTE)

    def count(self, customer: tuple[str, str], size: int) -> None:
        """Count bytes that the customer has read."""
        self._bucket(customer).bytes_read += size

    @asynccontextmanager
    async def exclusive_read(self, customer: tuple[str, str]) -> AsyncGenerator[None]:
        """Wait until the customer's other read ends and the process has room; the block is then the customer's read.

        Raises:
            RateLimited: the customer is over the limit.
            Overloaded: the wait took too long.
        """
        lock = self._bucket(customer).lock
        async with AsyncExitStack() as stack:
            try:
                with anyio.fail_after(self._settings.wait):
                    await stack.enter_async_context(lock)
                    await stack.enter_async_context(self._reads)
            except TimeoutError:
                raise Overloaded("too many reads in progress; try again", retry_after=1) from None
            self.check(customer)
            yield

    def _bucket(self, customer: tuple[str, str]) -> _Customer:
        """Return the customer's bucket, drained up to now."""
        now = self._clock()
        bucket = self._customers.setdefault(customer, _Customer(at=now))
        self._customers.move_to_end(customer)
        drained = (now - bucket.at) * self._settings.bytes_per_minute / _MINUTE
        bucket.bytes_read = max(0.0, bucket.bytes_read - drained)
        bucket.at = now
        if len(self._customers) > _MOST_CUSTOMERS:
            self._customers.popitem(last=False)
        return bucket
