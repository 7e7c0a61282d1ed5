"""The SQL engine that catalogue, audit and withdrawals share."""

from pathlib import Path

from sqlalchemy import MetaData, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry


def open_engine(url: str) -> AsyncEngine:
    """Return an engine; a SQLite file is put in WAL mode, so that readers and one writer do not wait for each other."""
    engine = create_async_engine(url)
    if engine.dialect.name == "sqlite":
        if engine.url.database:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine.sync_engine, "connect", _write_ahead)
    return engine


async def create_tables(engine: AsyncEngine, tables: MetaData) -> None:
    """Make the tables that are not there yet.

    Raises:
        SQLAlchemyError, OSError: the database cannot be asked.
    """
    try:
        async with engine.begin() as connection:
            await connection.run_sync(tables.create_all)
    except SQLAlchemyError:
        # Two replicas started together: the second try finds the other's tables.
        async with engine.begin() as connection:
            await connection.run_sync(tables.create_all)


def _write_ahead(connection: object, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection, which SQLAlchemy gives no type
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()
