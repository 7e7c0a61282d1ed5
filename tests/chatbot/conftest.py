"""Redis as tests of the chatbot meet it: patient on a busy machine, or not there."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from chatbot.audit import Audit, open_audit
from chatbot.errors import StoreUnavailable
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from chatbot.tokens import TokenCounter
from llm_server.scripted import encode
from tests.audit import SETTINGS
from tests.conftest import DURABLE, RedisServer, redis_server
from tests.constants import with_constants

PATIENT = with_constants(RedisBreakerSettings(slow_after=20), probe_timeout=20)
"""Where what Redis holds is tested, not the deadline of a command (which has tests of its own)."""

T = TypeVar("T")


@pytest.fixture(scope="session")
def counter() -> TokenCounter:
    """Count tokens as the scripted model does."""
    return TokenCounter(exact=lambda text: len(encode(text)))


class LateBreaker(RedisBreaker):
    """A breaker that can give commands up at once, which Redis executes when the test delivers them."""

    def __init__(self) -> None:
        super().__init__(PATIENT)
        self.is_late = False
        self._commands: list[Callable[[], Awaitable[object]]] = []

    async def call(self, command: Callable[[], Awaitable[T]]) -> T:
        if self.is_late:
            self._commands.append(command)
            raise StoreUnavailable
        return await super().call(command)

    async def deliver(self) -> None:
        """Have Redis execute the commands that were given up, and be in time from now on."""
        self.is_late = False
        while self._commands:
            await self._commands.pop(0)()


@pytest.fixture
async def nowhere() -> AsyncGenerator[Redis]:
    """A client of a Redis that is not there."""
    async with Redis(host="127.0.0.1", port=1, socket_connect_timeout=1) as client:
        yield client


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, that may be stopped and killed."""
    with redis_server(tmp_path, *DURABLE) as server:
        yield server


@pytest.fixture
async def audit(engine: AsyncEngine) -> AsyncGenerator[Audit]:
    """An audit over the test's database."""
    async with open_audit(engine, SETTINGS) as audit:
        yield audit
