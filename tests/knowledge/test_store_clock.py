"""Processes whose clocks differ agree on the database's time."""

import time

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from knowledge.storage import UNAVAILABLE, StoreClock, open_engine

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

TWO_DAYS = 2 * 86400.0


async def test_a_machine_two_days_ahead_uses_the_databases_time(engine: AsyncEngine) -> None:
    ahead = StoreClock(engine, machine=lambda: time.time() + TWO_DAYS)
    assert ahead.now() - time.time() == pytest.approx(TWO_DAYS, abs=5), "nothing is known yet"
    await ahead.sync()
    expected = 0.0 if engine.dialect.name == "postgresql" else TWO_DAYS  # SQLite uses the machine's time
    assert ahead.now() - time.time() == pytest.approx(expected, abs=5)


async def test_a_step_of_the_machines_clock_moves_nothing_between_two_syncs(engine: AsyncEngine) -> None:
    machine, monotonic = [time.time()], [500.0]
    clock = StoreClock(engine, machine=lambda: machine[0], monotonic=lambda: monotonic[0])
    await clock.sync()
    before = clock.now()
    machine[0] += TWO_DAYS
    monotonic[0] += 7
    expected = 7 if engine.dialect.name == "postgresql" else TWO_DAYS
    assert clock.now() - before == pytest.approx(expected)


async def test_without_the_database_its_last_time_is_carried_on() -> None:
    engine = open_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    clock = StoreClock(engine, machine=lambda: 7.0)
    with pytest.raises(UNAVAILABLE):
        await clock.sync()
    assert clock.now() == 7.0
    await engine.dispose()
