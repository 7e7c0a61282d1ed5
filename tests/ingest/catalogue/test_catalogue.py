"""The catalogue on SQLite, which has one write lock: writers of a process take turns, readers wait for nobody."""

from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest
from sqlalchemy import select

from ingest.catalogue import catalogue
from ingest.catalogue.catalogue import Catalogue
from ingest.errors import CatalogueUnavailable
from knowledge.storage import open_engine, transaction_lock

pytestmark = pytest.mark.anyio


@pytest.fixture
async def on_sqlite(tmp_path: Path) -> AsyncGenerator[Catalogue]:
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path / 'catalogue.db'}")
    try:
        yield Catalogue(engine)
    finally:
        await engine.dispose()


async def test_writers_that_meet_do_not_fail_but_take_turns(on_sqlite: Catalogue) -> None:
    written: list[int] = []

    async def write(n: int) -> None:
        async with on_sqlite.write() as connection:
            await connection.exec_driver_sql("PRAGMA busy_timeout=0")  # who meets another writer fails at once
            await transaction_lock(connection, "one")
            await connection.execute(select(1))
            written.append(n)

    async with anyio.create_task_group() as writers:
        for n in range(20):
            writers.start_soon(write, n)
    assert written == list(range(20))


async def test_a_reader_waits_for_no_writer_and_a_writer_not_for_ever(
    on_sqlite: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "TURN_SECONDS", 0.05)

    async def write_too() -> None:
        with pytest.raises(CatalogueUnavailable):
            async with on_sqlite.write():
                pass

    async with on_sqlite.write() as connection:
        await transaction_lock(connection, "one")
        async with on_sqlite.read() as reading:
            await reading.execute(select(1))
        async with anyio.create_task_group() as others:
            others.start_soon(write_too)
    async with on_sqlite.write() as connection:
        await transaction_lock(connection, "one")
