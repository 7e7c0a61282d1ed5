from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

import anyio
import pytest
from sqlalchemy import delete, event, update
from sqlalchemy.ext.asyncio import AsyncEngine

from knowledge.storage import open_engine
from knowledge.withdrawals import (
    WITHDRAWN,
    StopChange,
    Withdrawals,
    WithdrawalsSettings,
    load_withdrawals,
    open_withdrawals,
    remove_end,
    write_end,
    write_withdrawal,
)
from tests.clock import Clock

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

STOP = StopChange(action="stop", by="park", reason="the model misbehaves", at=1.0)
RESUME = StopChange(action="resume", by="kim", reason="it was the documents", at=2.0)

RATES = ("hanbit", "rates", 2)
LONGEST_AUTHOR = "t" * 100 + "/" + "s" * 200
"""The longest tenant and subject of a token."""


@pytest.fixture
async def withdrawals(engine: AsyncEngine) -> AsyncGenerator[Withdrawals]:
    async with open_withdrawals(engine, WithdrawalsSettings(every=0.01)) as withdrawals:
        yield withdrawals


async def withdraw(withdrawals: Withdrawals, version: int, *, at: float = 1.0) -> None:
    async with withdrawals._engine.begin() as connection:
        await write_withdrawal(connection, "hanbit", "rates", version, reason="wrong rate", at=at)
    await withdrawals.read()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.01)


async def test_a_poll_sees_the_withdrawals_and_stops_of_other_processes(
    withdrawals: Withdrawals, database_url: str
) -> None:
    engine = open_engine(database_url)
    other = Withdrawals(engine, WithdrawalsSettings())
    await withdraw(other, 2)
    await other.change(STOP)
    await until(lambda: withdrawals.withdrawn("hanbit", "rates", 2) and withdrawals.stopped())
    await other.change(RESUME)
    await until(lambda: not withdrawals.stopped())
    assert withdrawals.withdrawn("hanbit", "rates", 2)
    await engine.dispose()


async def test_a_row_that_is_committed_late_with_an_older_instant_is_seen(
    engine: AsyncEngine, database_url: str
) -> None:
    withdrawals = await load_withdrawals(engine)
    other = open_engine(database_url)
    await withdraw(withdrawals, 2, at=1_000_000.0)
    async with other.begin() as late:
        await write_withdrawal(late, "hanbit", "fees", 1, reason="wrong fee", at=1.0)
        await withdrawals.read()
        assert not withdrawals.withdrawn("hanbit", "fees", 1)
    await withdrawals.read()
    assert withdrawals.withdrawn("hanbit", "fees", 1)
    assert withdrawals.withdrawn("hanbit", "rates", 2)
    await other.dispose()


async def test_a_poll_reads_versions_after_a_change_or_a_minute(engine: AsyncEngine, database_url: str) -> None:
    clock, statements = Clock(1000.0), list[str]()
    await load_withdrawals(engine)
    withdrawals = Withdrawals(engine, WithdrawalsSettings(), clock=clock)
    other_engine = open_engine(database_url)
    other = Withdrawals(other_engine, WithdrawalsSettings())
    await withdraw(withdrawals, 1)

    def keep(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement)

    async def reads_versions() -> bool:
        statements.clear()
        await withdrawals.read()
        return any("tenant" in statement for statement in statements)

    event.listen(engine.sync_engine, "before_cursor_execute", keep)
    assert not await reads_versions()
    await withdraw(other, 2)
    assert await reads_versions()
    assert not await reads_versions()
    async with other_engine.begin() as connection:
        for version, ends_at in enumerate((0.1, 0.7, 0.3)):
            await write_end(connection, "hanbit", "fees", version, ends_at=ends_at)
    assert await reads_versions()
    async with other_engine.begin() as connection:  # PostgreSQL reads a row that was written again behind the others
        await connection.execute(update(WITHDRAWN).where(WITHDRAWN.c.name == "fees@0").values(reason=""))
    assert not await reads_versions()
    async with other_engine.begin() as connection:  # a backup is restored, then as many are withdrawn as were lost
        await connection.execute(delete(WITHDRAWN).where(WITHDRAWN.c.name == "rates@2"))
        await write_withdrawal(connection, "hanbit", "rates", 3, reason="wrong rate", at=1.0)
    clock.now += 61
    assert await reads_versions()
    assert [withdrawals.withdrawn("hanbit", "rates", n) for n in (1, 2, 3)] == [True, False, True]
    await other_engine.dispose()


async def test_several_people_may_stop_everything_at_once(withdrawals: Withdrawals) -> None:
    async with anyio.create_task_group() as people:
        for n in range(8):
            people.start_soon(withdrawals.change, replace(STOP, by=f"p{n}"))
    assert withdrawals.stopped()
    assert {change.by for change in await withdrawals.changes(limit=10)} == {f"p{n}" for n in range(8)}


async def test_every_change_is_recorded_with_author_time_and_reason(withdrawals: Withdrawals) -> None:
    changes = [STOP, replace(STOP, model="big", by=LONGEST_AUTHOR, reason="r" * 400), RESUME]
    for change in changes:
        await withdrawals.change(change)
    assert await withdrawals.changes(limit=10) == tuple(reversed(changes))
    assert await withdrawals.changes(limit=1) == (RESUME,)


async def test_a_stop_of_a_tenant_concerns_it_alone(withdrawals: Withdrawals) -> None:
    ours = replace(STOP, tenant="hanbit")
    await withdrawals.change(ours)
    assert (withdrawals.stopped("hanbit"), withdrawals.stopped("other"), withdrawals.stopped()) == (True, False, False)
    assert withdrawals.stopped_tenants() == {"hanbit"}
    assert not withdrawals.stopped_models()
    await withdrawals.change(STOP)
    assert withdrawals.stopped("other")
    await withdrawals.change(RESUME)
    assert (withdrawals.stopped("hanbit"), withdrawals.stopped("other")) == (True, False), (
        "each stop is ended by itself"
    )
    assert await withdrawals.changes(limit=10, tenant="hanbit") == (ours,)
    assert await withdrawals.changes(limit=10, tenant="other") == ()
    with pytest.raises(ValueError, match="a model or a tenant"):
        await withdrawals.change(replace(ours, model="big"))


@pytest.mark.parametrize(
    ("field", "text"),
    [("by", " "), ("by", LONGEST_AUTHOR + "s" * 10), ("reason", " "), ("reason", "r" * 401)],
    ids=["no author", "a longer author", "no reason", "a longer reason"],
)
async def test_a_change_without_a_valid_author_or_reason_is_refused(
    withdrawals: Withdrawals, field: str, text: str
) -> None:
    with pytest.raises(ValueError, match=r"who|at most"):
        await withdrawals.change(replace(STOP, **{field: text}))  # type: ignore[arg-type]  # a name of its fields
    assert not withdrawals.stopped()
    assert await withdrawals.changes(limit=10) == ()


async def test_listeners_hear_of_changes_only(withdrawals: Withdrawals, database_url: str) -> None:
    notified: list[tuple[bool, bool]] = []
    engine = open_engine(database_url)
    other = Withdrawals(engine, WithdrawalsSettings())
    with withdrawals.notifying(lambda: notified.append((withdrawals.stopped(), withdrawals.withdrawn(*RATES)))):
        await withdrawals.change(STOP)
        assert notified == [(True, False)]
        for _ in range(3):
            await withdrawals.read()
        assert len(notified) == 1
        await withdraw(other, 2)
        await until(lambda: notified[1:] == [(True, True)])
        await withdrawals.change(RESUME)
        assert notified[2:] == [(False, True)]
    await withdrawals.change(STOP)
    assert len(notified) == 3, "the listener is removed"
    await engine.dispose()


async def test_listeners_hear_when_the_last_poll_is_too_old_and_renewed(
    engine: AsyncEngine,
) -> None:
    notified: list[bool] = []
    async with open_withdrawals(engine, WithdrawalsSettings(known_for=0.3, every=600)) as withdrawals:
        with withdrawals.notifying(lambda: notified.append(withdrawals.readable())):
            await until(lambda: notified == [False])
            await withdrawals.read()
            assert notified == [False, True]


async def test_listeners_hear_of_an_old_poll_despite_a_bug_in_polling(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    notified: list[bool] = []
    async with open_withdrawals(engine, WithdrawalsSettings(known_for=0.5, every=0.1)) as withdrawals:
        with withdrawals.notifying(lambda: notified.append(withdrawals.readable())):
            monkeypatch.setattr("knowledge.withdrawals.select", None)  # each poll meets a TypeError
            await until(lambda: notified == [False])


async def test_withdrawals_are_readable_for_5_seconds_after_a_poll(engine: AsyncEngine) -> None:
    clock = Clock(1000.0)
    async with open_withdrawals(engine):
        pass
    withdrawals = Withdrawals(engine, WithdrawalsSettings(), clock=clock)
    assert not withdrawals.readable()
    await withdrawals.read()
    assert withdrawals.readable_for() == 5
    clock.now += 5
    assert withdrawals.readable()
    clock.now += 0.01
    assert not withdrawals.readable()
    assert withdrawals.readable_for() < 0


WEEK = 7 * 86400.0


async def test_an_ended_version_is_over_on_every_replica_at_its_instant(
    withdrawals: Withdrawals, database_url: str
) -> None:
    engine = open_engine(database_url)
    async with engine.begin() as connection:
        await write_end(connection, *RATES, ends_at=100.0)
    await until(lambda: withdrawals.has_ended(*RATES, now=100.0))
    assert not withdrawals.has_ended(*RATES, now=99.9)
    assert not withdrawals.has_ended("other", *RATES[1:], now=100.0)
    assert not withdrawals.withdrawn(*RATES), "answers that run go on"
    await engine.dispose()


async def test_another_end_of_as_many_versions_is_read_at_once(engine: AsyncEngine, database_url: str) -> None:
    withdrawals, other = await load_withdrawals(engine), open_engine(database_url)
    for ends, over in ((100.0, True), (200.0, False), (None, False), (50.0, True)):
        async with other.begin() as connection:
            await remove_end(connection, *RATES, now=98.0)
            if ends is not None:
                await write_end(connection, *RATES, ends_at=ends)
        await withdrawals.read()
        assert withdrawals.has_ended(*RATES, now=150.0) is over, ends
    await other.dispose()


async def test_ends_are_forgotten_after_a_week_and_withdrawals_never(engine: AsyncEngine) -> None:
    withdrawals = await load_withdrawals(engine)
    async with engine.begin() as connection:
        await write_withdrawal(connection, *RATES, reason="wrong rate", at=100.0)
        for version, ends in ((3, 100.0), (4, 101.0), (5, 10 * WEEK)):
            await write_end(connection, "hanbit", "rates", version, ends_at=ends)
        await remove_end(connection, "hanbit", "fees", 1, now=100.5 + WEEK)
    await withdrawals.read()
    assert [withdrawals.has_ended("hanbit", "rates", n, now=11 * WEEK) for n in (3, 4, 5)] == [False, True, True]
    assert withdrawals.withdrawn(*RATES)


async def test_a_version_withdrawn_twice_is_known_and_no_other(withdrawals: Withdrawals) -> None:
    for at in (1.0, 2.0):
        await withdraw(withdrawals, 2, at=at)
    assert withdrawals.withdrawn("hanbit", "rates", 2)
    for other in (("hanbit", "rates", 1), ("hanbit", "other", 2), ("other", "rates", 2)):
        assert not withdrawals.withdrawn(*other)


async def test_the_stop_flags_of_all_and_of_each_model_are_separate(withdrawals: Withdrawals) -> None:
    assert not withdrawals.stopped()
    await withdrawals.change(STOP)
    await withdrawals.change(STOP)
    assert withdrawals.stopped()
    assert withdrawals.stopped_models() == frozenset()
    for model in ("big", "small"):
        await withdrawals.change(replace(STOP, model=model))
    await withdrawals.change(RESUME)
    assert not withdrawals.stopped()
    await withdrawals.change(replace(RESUME, model="big"))
    assert withdrawals.stopped_models() == {"small"}


async def test_a_failing_listener_does_not_affect_the_others(withdrawals: Withdrawals) -> None:
    notified: list[bool] = []

    def fail() -> None:
        raise KeyError("a bug")

    with withdrawals.notifying(fail), withdrawals.notifying(lambda: notified.append(withdrawals.stopped())):
        await withdrawals.change(STOP)
    assert notified == [True]
