"""The breaker of Redis: it opens at a late command, and closes after a probe that is answered."""

import anyio
import pytest
import redis.exceptions
from redis.exceptions import RedisError

from chatbot.errors import StoreUnavailable
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings, in_time
from tests.clock import Clock
from tests.constants import with_constants

pytestmark = pytest.mark.anyio


async def test_a_slow_command_opens_the_breaker_and_a_probe_closes_it() -> None:
    clock, asked = Clock(0), 0
    breaker = RedisBreaker(with_constants(RedisBreakerSettings(slow_after=0.05), probe_timeout=0.05), clock=clock)

    async def hang() -> None:
        nonlocal asked
        asked += 1
        await anyio.sleep_forever()

    async def answer() -> str:
        nonlocal asked
        asked += 1
        return "PONG"

    with pytest.raises(StoreUnavailable):
        await breaker.call(hang)
    for _ in range(50):
        with pytest.raises(StoreUnavailable):
            await breaker.call(answer)
    assert (asked, breaker.is_open) == (1, True)
    clock.pass_seconds(0.5)
    with pytest.raises(StoreUnavailable):
        await breaker.call(hang)
    clock.pass_seconds(0.49)
    with pytest.raises(StoreUnavailable):
        await breaker.call(answer)
    clock.pass_seconds(0.01)
    assert breaker.available_for == 0
    assert (await breaker.call(answer), breaker.is_open, asked) == ("PONG", False, 3)
    clock.pass_seconds(7)
    assert breaker.available_for == 7


async def test_a_late_event_loop_does_not_open_the_breaker() -> None:
    async def answered_while_the_loop_slept() -> str:
        await anyio.sleep(0.06)
        return "PONG"

    async def hold_the_loop() -> None:
        await anyio.sleep(0.01)
        deadline = anyio.current_time() + 0.1
        while anyio.current_time() < deadline:
            pass

    async with anyio.create_task_group() as group:
        group.start_soon(hold_the_loop)
        assert await in_time(answered_while_the_loop_slept, 0.05) == "PONG"


ERRORS = [
    error for error in vars(redis.exceptions).values() if isinstance(error, type) and issubclass(error, RedisError)
]


@pytest.mark.parametrize("error", [*ERRORS, ConnectionRefusedError, TimeoutError], ids=lambda error: error.__name__)
async def test_every_error_of_the_driver_is_translated(error: type[Exception]) -> None:
    async def fail() -> None:
        raise error.__new__(error)

    with pytest.raises(StoreUnavailable):
        await RedisBreaker(RedisBreakerSettings()).call(fail)
