"""The SQL engine: SQLite's special cases, and unresponsive servers."""

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from sqlalchemy import text

from knowledge.storage.database import CLOSE_SECONDS, close_engine, open_engine
from tests.patience import patient
from tests.postgres import SHARED, served, stands_still


@pytest.mark.anyio
async def test_a_sqlite_file_in_use_is_opened_in_its_former_mode(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bank.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE tables (n INTEGER)")
        other.execute("BEGIN")
        other.execute("SELECT * FROM tables").fetchall()
        engine = open_engine(f"sqlite+aiosqlite:///{path}")
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM tables"))).scalar_one() == 0
        other.execute("COMMIT")
        await engine.dispose()
    engine = open_engine(f"sqlite+aiosqlite:///{path}")
    async with engine.connect() as connection:
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"
    await engine.dispose()


@pytest.mark.anyio
@pytest.mark.services
async def test_an_engine_is_closed_in_time_although_its_server_hangs() -> None:
    """A drained process has finished its work and must not wait for a lost server."""
    with served() as postgres:
        engine = open_engine(postgres.url(SHARED))
        async with engine.connect() as connection, engine.connect() as other:
            for one in (connection, other):
                await one.execute(text("SELECT 1"))
        with stands_still(postgres):
            began = time.monotonic()
            with anyio.fail_after(30):
                await close_engine(engine)
            assert time.monotonic() - began < patient(CLOSE_SECONDS + 1)


@pytest.mark.anyio
@pytest.mark.services
async def test_a_cancelled_query_ends_in_time_although_its_server_hangs() -> None:
    with served() as postgres:
        engine = open_engine(postgres.url(SHARED))

        async def ask() -> None:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT pg_sleep(60)"))

        async with engine.connect() as warm:
            await warm.execute(text("SELECT 1"))
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                while "pg_sleep" not in postgres.query("SELECT query FROM pg_stat_activity WHERE state = 'active'"):
                    await anyio.sleep(0.05)
                with stands_still(postgres):
                    began = time.monotonic()
                    tasks.cancel_scope.cancel()
                    with anyio.CancelScope(shield=True):
                        await close_engine(engine)
                    assert time.monotonic() - began < patient(CLOSE_SECONDS + 1)


def test_a_process_ends_despite_a_cancelled_query_of_sqlite(tmp_path: Path) -> None:
    """A second stop of a connection would wait forever for its ended thread, and block the loop's shutdown."""
    path = tmp_path / "bank.db"

    async def give_up() -> None:
        engine = open_engine(f"sqlite+aiosqlite:///{path}")
        async with engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA busy_timeout=500")
            with anyio.move_on_after(0.2) as waiting:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
        assert waiting.cancelled_caught

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        process = threading.Thread(target=asyncio.run, args=(give_up(),), daemon=True)
        process.start()
        process.join(patient(10))
        assert not process.is_alive()
