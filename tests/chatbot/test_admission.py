"""Slots are given in order, waiting is told, and a full queue refuses."""

import anyio
import anyio.lowlevel
import pytest

from chatbot.admission import Admission, AdmissionSettings
from chatbot.errors import Overloaded

pytestmark = pytest.mark.anyio


def not_told(position: int, seconds: float) -> None:
    pytest.fail(f"told to wait at {position} for {seconds} s with a slot free")


async def hold(admission: Admission, entered: list[str], name: str, until: anyio.Event) -> None:
    async with admission.slot(lambda _position, _seconds: None):
        entered.append(name)
        await until.wait()


async def until(condition: object) -> None:
    with anyio.fail_after(2):
        while not condition():  # type: ignore[operator]  # a plain predicate
            await anyio.lowlevel.checkpoint()


async def test_a_free_slot_is_given_at_once_and_taken_back() -> None:
    admission = Admission(AdmissionSettings(slots=1))
    for _ in range(3):
        async with admission.slot(not_told):
            assert admission.busy == 1
    assert admission.busy == 0


async def test_those_who_wait_are_told_their_place_and_served_in_order() -> None:
    admission = Admission(AdmissionSettings(slots=1, queue=5))
    leave, entered, told = anyio.Event(), list[str](), list[int]()

    async def wait_for_slot(name: str) -> None:
        async with admission.slot(lambda position, _seconds: told.append(position)):
            entered.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold, admission, entered, "first", leave)
        await until(lambda: admission.busy == 1)
        for n, name in enumerate(("second", "third"), 1):
            tasks.start_soon(wait_for_slot, name)
            await until(lambda n=n: admission.waiting == n)
        leave.set()
    assert entered == ["first", "second", "third"]
    assert told == [1, 2]
    assert (admission.busy, admission.waiting) == (0, 0)


async def test_a_full_queue_refuses_with_a_wait() -> None:
    admission = Admission(AdmissionSettings(slots=1, queue=1))
    leave, entered = anyio.Event(), list[str]()
    async with anyio.create_task_group() as tasks:
        for n, name in enumerate(("runs", "waits")):
            tasks.start_soon(hold, admission, entered, name, leave)
            await until(lambda n=n: admission.busy + admission.waiting == n + 1)
        with pytest.raises(Overloaded) as refused:
            admission.check()
        leave.set()
    assert refused.value.retry_after is not None
    assert refused.value.retry_after >= 1
    admission.check()


async def test_a_cancelled_wait_gives_its_place_back() -> None:
    admission = Admission(AdmissionSettings(slots=1, queue=2))
    leave, entered = anyio.Event(), list[str]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold, admission, entered, "runs", leave)
        await until(lambda: admission.busy == 1)
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(hold, admission, entered, "gives up", leave)
            await until(lambda: admission.waiting == 1)
            waiting.cancel_scope.cancel()
        assert admission.waiting == 0
        leave.set()
    assert entered == ["runs"]
    assert admission.busy == 0


async def test_a_slot_handed_to_somebody_who_was_cancelled_in_the_same_moment_is_not_lost() -> None:
    admission = Admission(AdmissionSettings(slots=1, queue=2))
    leave, entered = anyio.Event(), list[str]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold, admission, entered, "runs", leave)
        await until(lambda: admission.busy == 1)
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(hold, admission, entered, "handed and cancelled", leave)
            await until(lambda: admission.waiting == 1)
            leave.set()
            await until(lambda: admission.waiting == 0)
            waiting.cancel_scope.cancel()
    assert (admission.busy, admission.waiting) == (0, 0)
