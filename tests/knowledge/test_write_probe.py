import pytest
from sqlalchemy import event, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from knowledge.storage import UNAVAILABLE
from knowledge.withdrawals import WITHDRAWN, load_withdrawals
from knowledge.write_probe import EVERY_SECONDS, WriteProbe
from tests.clock import Clock

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


async def set_read_only(engine: AsyncEngine, *, is_on: bool) -> None:
    """Make an engine's connections reject writes, or accept them again."""
    if engine.dialect.name == "sqlite":
        command = f"PRAGMA query_only = {int(is_on)}"
    else:
        command = f"SET SESSION CHARACTERISTICS AS TRANSACTION READ {'ONLY' if is_on else 'WRITE'}"
    await engine.dispose()

    def set_up(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]  # of a driver
        cursor.execute(command)
        cursor.close()
        connection.commit()  # type: ignore[attr-defined]  # of a driver

    event.listen(engine.sync_engine, "connect", set_up)


async def test_a_writable_database_is_ready_and_the_probe_leaves_nothing(engine: AsyncEngine) -> None:
    await load_withdrawals(engine)
    await WriteProbe(engine).ping()
    async with engine.connect() as connection:
        assert (await connection.execute(select(func.count()).select_from(WITHDRAWN))).scalar_one() == 0


async def test_a_database_that_is_read_only_is_not_ready(engine: AsyncEngine) -> None:
    await load_withdrawals(engine)
    clock = Clock(0.0)
    probe = WriteProbe(engine, clock=clock)
    await set_read_only(engine, is_on=True)
    with pytest.raises(UNAVAILABLE):
        await probe.ping()
    await set_read_only(engine, is_on=False)
    clock.pass_seconds(EVERY_SECONDS)
    await probe.ping()


async def test_frequent_probes_write_once_a_second(engine: AsyncEngine) -> None:
    await load_withdrawals(engine)
    clock = Clock(0.0)
    probe, statements = WriteProbe(engine, clock=clock), list[str]()

    def record(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    for writes, now in ((1, 0.0), (1, 0.9), (2, 1.0), (2, 1.9), (3, 2.0)):
        clock.now = now
        for _ in range(20):
            await probe.ping()
        assert sum(statement.startswith("INSERT") for statement in statements) == writes
