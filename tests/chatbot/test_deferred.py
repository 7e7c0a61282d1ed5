"""Writes that wait for their store: bounded, in order, tried until they are done, counted when they are lost."""

import anyio
import pytest

from chatbot.deferred import DeferredSettings, DeferredWrites, WriteKind
from chatbot.errors import StoreUnavailable
from tests.constants import with_constants

pytestmark = pytest.mark.anyio


class Store:
    """Takes writes once it is there."""

    def __init__(self) -> None:
        self.away = True
        self.taken: list[int] = []
        self.asked = 0

    async def take(self, n: int) -> int:
        self.asked += 1
        if self.away:
            raise StoreUnavailable
        self.taken.append(n)
        return n


async def test_an_outage_delays_writes_and_loses_none() -> None:
    lost: list[WriteKind] = []
    writes, store = DeferredWrites(DeferredSettings(), on_lost=lost.append), Store()
    for n in range(100):
        assert await writes.write("history", lambda n=n: store.take(n)) is None  # type: ignore[misc]
    assert writes.waiting == 100
    before = store.asked
    await writes.retry()
    assert store.asked == before + 1, "while the store is away, one write asks for all"
    store.away = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writes.retry_forever)
        with anyio.fail_after(10):
            await writes.drained()
        tasks.cancel_scope.cancel()
    assert (store.taken, lost) == ([*range(100)], [])


async def test_the_oldest_are_lost_where_too_many_wait_and_are_counted() -> None:
    lost: list[WriteKind] = []
    writes, store = DeferredWrites(with_constants(DeferredSettings(), most_waiting=3), on_lost=lost.append), Store()
    for n in range(5):
        await writes.write("settlement", lambda n=n: store.take(n))  # type: ignore[misc]
    assert (writes.waiting, lost) == (3, ["settlement"] * 2)
    store.away = False
    await writes.retry()
    assert store.taken == [2, 3, 4]


async def test_a_write_that_fails_by_a_bug_delays_no_other() -> None:
    lost, failures = list[WriteKind](), list[str]()
    writes = DeferredWrites(DeferredSettings(), on_lost=lost.append, on_failure=failures.append)
    store = Store()

    async def fail() -> None:
        raise StoreUnavailable if store.away else KeyError("a bug")

    await writes.write("settlement", fail)
    await writes.write("history", lambda: store.take(1))
    store.away = False
    await writes.retry()
    assert (store.taken, writes.waiting, lost, failures) == ([1], 0, ["settlement"], ["settlement"])
    await writes.write("settlement", fail)
    assert (writes.waiting, lost) == (0, ["settlement"] * 2)


async def test_recent_writes_are_repeated_after_data_loss() -> None:
    writes, store = DeferredWrites(with_constants(DeferredSettings(), repeat_within=60)), Store()
    store.away = False
    await writes.write("settlement", lambda: store.take(1))
    store.away = True
    await writes.write("history", lambda: store.take(2))
    store.away = False
    await writes.retry()
    writes.store_answered(lost_writes=False)
    await writes.retry()
    assert store.taken == [1, 2], "nothing was forgotten"
    writes.store_answered(lost_writes=True)
    await writes.retry()
    assert store.taken == [1, 2, 1, 2]
    writes.store_answered(lost_writes=True)
    await writes.retry()
    assert store.taken == [1, 2] * 3, "twice in a row"
    long_ago, store = DeferredWrites(with_constants(DeferredSettings(), repeat_within=1e-09)), Store()
    store.away = False
    await long_ago.write("settlement", lambda: store.take(1))
    for lost in (False, True):
        long_ago.store_answered(lost_writes=lost)
    await long_ago.retry()
    assert store.taken == [1]


async def test_writes_pending_at_the_end_of_a_process_are_counted_as_lost() -> None:
    lost: list[WriteKind] = []
    writes, store = DeferredWrites(DeferredSettings(), on_lost=lost.append), Store()
    await writes.write("history", lambda: store.take(1))
    writes.discard_waiting()
    assert (writes.waiting, lost) == (0, ["history"])
