"""Read limits of each customer: bytes a minute, one conversation at a time, few at once in a process.

They protect the process: writers and the answers of others share Redis and the event loop with its readers.
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
"""The limits on reading, beside those of `chatbot.limits`; `readers` are open streams."""
_MOST_CUSTOMERS = 10_000
_MINUTE = 60.0
_STREAMS = 256
"""How many repeated streams a minute's bytes suffice for, however short they are: each costs time of its own."""
_REFUSAL_SECONDS = 1.0
"""How long the refusal of a repeated stream takes: who asks again at once would cost as much as one who is served."""


class ReadSettings(BaseModel, frozen=True):
    """How much a customer reads, and how many read at once."""

    bytes_per_minute: PositiveInt = Field(
        16 * 1024 * 1024,
        description=(
            "bytes: of conversations and repeated answers that a customer reads from a process in a minute; "
            "each repeated stream counts a 256th of them beside its own"
        ),
    )
    at_once: ClassVar[int] = 4  # reads: of conversations at once in a process; a customer has one
    wait: ClassVar[float] = 2.0  # seconds: how long a read waits for its turn; then 503


@dataclass(slots=True)
class _Customer:
    """Bytes that a customer has read as of a time of the monotonic clock; they leave evenly within a minute."""

    spent: float = 0.0
    at: float = 0.0
    turn: anyio.Lock = field(default_factory=anyio.Lock)


class Reads:
    """Limits what customers read."""

    def __init__(self, settings: ReadSettings | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns monotonic seconds."""
        self._settings = settings or ReadSettings()
        self._clock = clock
        self._customers: OrderedDict[tuple[str, str], _Customer] = OrderedDict()
        self._turns = anyio.Semaphore(self._settings.at_once)

    def check(self, customer: tuple[str, str]) -> None:
        """Refuse a customer who has read too much.

        Raises:
            RateLimited: more than a minute's bytes were read; `retry_after` is when the next byte is free.
        """
        surplus = self._now(customer).spent - self._settings.bytes_per_minute
        if surplus >= 0:
            wait = (surplus + 1) * _MINUTE / self._settings.bytes_per_minute
            raise RateLimited(scope="user", dimension="bytes_read_per_minute", retry_after=wait)

    async def begin_stream(self, customer: tuple[str, str]) -> None:
        """Count a stream that is sent again; a customer who has read too much waits for a second before the refusal.

        Raises:
            RateLimited: as `check`.
        """
        try:
            self.check(customer)
        except RateLimited:
            await anyio.sleep(_REFUSAL_SECONDS)
            self.check(customer)
        self.count(customer, self._settings.bytes_per_minute // _STREAMS)

    def count(self, customer: tuple[str, str], size: int) -> None:
        """Count bytes that the customer has read."""
        self._now(customer).spent += size

    @asynccontextmanager
    async def turn(self, customer: tuple[str, str]) -> AsyncGenerator[None]:
        """Wait for the customer's turn to read, and hold it while the block runs.

        Raises:
            RateLimited: the customer has read too much.
            Overloaded: the turn did not come in time.
        """
        turn = self._now(customer).turn
        async with AsyncExitStack() as held:
            try:
                with anyio.fail_after(self._settings.wait):
                    await held.enter_async_context(turn)
                    await held.enter_async_context(self._turns)
            except TimeoutError:
                raise Overloaded("too much is read at once", retry_after=1) from None
            self.check(customer)
            yield

    def _now(self, customer: tuple[str, str]) -> _Customer:
        """Return the customer's count as of now."""
        now = self._clock()
        known = self._customers.setdefault(customer, _Customer(at=now))
        self._customers.move_to_end(customer)
        known.spent = max(0.0, known.spent - (now - known.at) * self._settings.bytes_per_minute / _MINUTE)
        known.at = now
        if len(self._customers) > _MOST_CUSTOMERS:
            self._customers.popitem(last=False)
        return known
