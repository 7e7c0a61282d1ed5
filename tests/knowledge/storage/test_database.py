"""The SQL engine, where SQLite needs care."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from knowledge.storage.database import open_engine


@pytest.mark.anyio
async def test_a_file_that_another_process_reads_is_opened_though_its_mode_cannot_be_switched_now(
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
