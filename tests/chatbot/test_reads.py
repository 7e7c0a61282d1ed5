"""A customer reads one page at a time, and so many bytes a minute."""

import anyio
import pytest

from chatbot.errors import Overloaded, RateLimited
from chatbot.reads import Reads, ReadSettings
from tests.clock import Clock

pytestmark = pytest.mark.anyio
SETTINGS = ReadSettings(bytes_per_minute=600, at_once=2, wait=0.05)


async def test_bytes_of_a_minute_are_refused_with_the_true_wait() -> None:
    clock = Clock(1000.0)
    reads = Reads(SETTINGS, clock=clock)
    reads.count("lee", 599)
    reads.check("lee")
    reads.count("lee", 11)
    with pytest.raises(RateLimited) as refused:
        reads.check("lee")
    assert (refused.value.scope, refused.value.dimension) == ("user", "bytes_read_per_minute")
    reads.check("kim")
    clock.pass_seconds((refused.value.retry_after or 0) - 0.2)
    with pytest.raises(RateLimited):
        reads.check("lee")
    clock.pass_seconds(0.2)
    reads.check("lee")


async def test_a_turn_is_refused_before_anything_is_read_once_too_much_was() -> None:
    reads = Reads(SETTINGS)
    reads.count("lee", 700)
    with pytest.raises(RateLimited):
        async with reads.turn("lee"):
            pytest.fail("it was given a turn")


async def test_a_customer_has_one_turn_and_leaves_the_others_to_others() -> None:
    reads, held = Reads(SETTINGS), anyio.Event()

    async def hold() -> None:
        async with reads.turn("lee"):
            await held.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        await anyio.wait_all_tasks_blocked()
        async with reads.turn("kim"):
            with pytest.raises(Overloaded):
                async with reads.turn("lee"):
                    pytest.fail("two turns of one customer")
            with pytest.raises(Overloaded):
                async with reads.turn("park"):
                    pytest.fail("three turns in a process")
        held.set()
    async with reads.turn("lee"), reads.turn("park"):
        pass


async def test_customers_are_remembered_within_a_bound() -> None:
    reads = Reads(SETTINGS)
    for n in range(10_050):
        reads.count(f"customer-{n}", 1)
    assert len(reads) == 10_000
