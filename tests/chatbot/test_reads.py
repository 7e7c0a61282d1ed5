"""A customer reads one page at a time, and so many bytes a minute."""

import anyio
import pytest

from chatbot.errors import Overloaded, RateLimited
from chatbot.reads import Reads, ReadSettings
from tests.clock import Clock
from tests.constants import with_constants

pytestmark = pytest.mark.anyio
LEE, KIM, PARK = (("hanbit", name) for name in ("lee", "kim", "park"))
SETTINGS = with_constants(ReadSettings(bytes_per_minute=600), at_once=2, wait=0.05)


async def test_bytes_of_a_minute_are_refused_with_the_true_wait() -> None:
    clock = Clock(1000.0)
    reads = Reads(SETTINGS, clock=clock)
    reads.count(LEE, 599)
    reads.check(LEE)
    reads.count(LEE, 1)
    with pytest.raises(RateLimited):
        reads.check(LEE)
    reads.count(LEE, 10)
    with pytest.raises(RateLimited) as refused:
        reads.check(LEE)
    assert (refused.value.scope, refused.value.dimension) == ("user", "bytes_read_per_minute")
    reads.check(KIM)
    clock.pass_seconds((refused.value.retry_after or 0) - 0.2)
    with pytest.raises(RateLimited):
        reads.check(LEE)
    clock.pass_seconds(0.2)
    reads.check(LEE)


async def test_repeated_streams_are_counted_and_refused_after_a_second() -> None:
    reads = Reads(ReadSettings(), clock=Clock(1000.0))
    for _ in range(256):
        await reads.begin_stream(LEE)
    began = anyio.current_time()
    with pytest.raises(RateLimited):
        await reads.begin_stream(LEE)
    assert anyio.current_time() - began >= 1
    await reads.begin_stream(KIM)
    clock = Clock(1000.0)
    reads = Reads(SETTINGS, clock=clock)
    reads.count(LEE, 600)
    with pytest.raises(RateLimited):
        async with reads.exclusive_read(LEE):
            pytest.fail("it was given a turn")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reads.begin_stream, LEE)
        await anyio.wait_all_tasks_blocked()
        clock.pass_seconds(1)  # its time comes within that second


async def test_a_customer_has_one_turn_and_leaves_the_others_to_others() -> None:
    reads, held = Reads(SETTINGS), anyio.Event()

    async def hold() -> None:
        async with reads.exclusive_read(LEE):
            await held.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        await anyio.wait_all_tasks_blocked()
        async with reads.exclusive_read(KIM):
            with pytest.raises(Overloaded):
                async with reads.exclusive_read(LEE):
                    pytest.fail("two turns of one customer")
            with pytest.raises(Overloaded):
                async with reads.exclusive_read(PARK):
                    pytest.fail("three turns in a process")
        held.set()
    async with reads.exclusive_read(LEE), reads.exclusive_read(PARK):
        pass
