"""The SQL engine that catalogue, audit and withdrawals share, and a lock between their processes."""

import functools
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import asyncpg  # type: ignore[import-untyped]  # publishes no types
from pydantic import AfterValidator, SecretStr
from sqlalchemy import URL, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from knowledge.tls import SYSTEM_TLS, Connection, TlsSettings

CONNECT_SECONDS = CLOSE_SECONDS = 5.0
LOCK_SECONDS = 1.0

UNAVAILABLE: Final = (
    SQLAlchemyError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError,
)  # fmt: skip
"""The exceptions of the SQL drivers; SQLAlchemy wraps all but those of asyncpg while it connects."""


def speaks_tls(url: URL) -> bool:
    """Return whether a PostgreSQL's URL asks for an encrypted, verified connection: `?ssl=verify-full`."""
    return url.query.get("ssl") == "verify-full"


def _of_a_database(url: SecretStr) -> SecretStr:
    """Refuse what SQLAlchemy, or the driver that is installed, does not read."""
    begins = "begin with postgresql+asyncpg://, as postgresql+asyncpg://user:password@host/name"
    try:
        where = make_url(url.get_secret_value())
    except (ArgumentError, ValueError) as exc:
        raise ValueError(f"it is no URL: {begins}") from exc
    if where.drivername not in ("postgresql+asyncpg", "sqlite+aiosqlite"):
        raise ValueError(begins)
    if "sslmode" in where.query:
        raise ValueError("write ?ssl= in place of ?sslmode=, with the same values: verify-full, require, disable, ...")
    return url


DatabaseUrl = Annotated[SecretStr, AfterValidator(_of_a_database)]


def database_connection(url: str, tls: TlsSettings) -> Connection:
    """Return how the database is reached."""
    where = make_url(url)
    address = f"postgresql://{where.host}:{where.port or 5432}" if speaks_tls(where) else ""
    return Connection(part="the database", url=address, setting="DATABASE_TLS", tls=tls)


def open_engine(url: str, tls: TlsSettings = SYSTEM_TLS) -> AsyncEngine:
    """Return an engine; a SQLite file is put in WAL mode, so that readers and one writer do not wait for each other.

    A PostgreSQL server has 5 s to accept a connection, and a connection that it has closed (a failover, a restart) is
    replaced before use. Where the URL asks for `verify-full`, `tls` says whom we trust.
    """
    is_sqlite = make_url(url).get_backend_name() == "sqlite"
    options: dict[str, Any] = {} if is_sqlite else {"pool_pre_ping": True, "connect_args": {"timeout": CONNECT_SECONDS}}
    if speaks_tls(make_url(url)):
        options["connect_args"]["ssl"] = tls.context()
    # The parameters of a statement that failed are customers' and staff's: they would stand in its message, so in logs.
    engine = create_async_engine(url, hide_parameters=True, **options)
    if is_sqlite:
        if engine.url.database:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine.sync_engine, "connect", _stop_once)
        event.listen(engine.sync_engine, "connect", _write_ahead)
    return engine


async def close_engine(engine: AsyncEngine) -> None:
    """Close an engine's connections; those of a server that stands still and says no goodbye are left after 5 s."""
    with anyio.move_on_after(CLOSE_SECONDS, shield=True):
        await engine.dispose()


async def transaction_lock(connection: AsyncConnection, name: str) -> None:
    """Hold the lock `name` until the transaction ends: an advisory lock of PostgreSQL, SQLite's write lock.

    Called before the transaction's first write.
    """
    if connection.dialect.name == "sqlite":
        await connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    number = int.from_bytes(sha256(f"bank-chatbot {name}".encode()).digest()[:8], signed=True)
    await connection.execute(select(func.pg_advisory_xact_lock(number)))


@asynccontextmanager
async def impatient_transaction(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
    """Run a transaction that waits 1 s at most for SQLite's write lock; others of its connection wait for 5 s."""
    async with engine.begin() as connection:
        if engine.dialect.name != "sqlite":
            yield connection
            return
        usual = (await connection.exec_driver_sql("PRAGMA busy_timeout")).scalar_one()
        await connection.exec_driver_sql(f"PRAGMA busy_timeout={LOCK_SECONDS * 1000:.0f}")
        try:
            yield connection
        finally:
            if not connection.invalidated:  # cancelled inside a call
                await connection.exec_driver_sql(f"PRAGMA busy_timeout={usual}")


def _stop_once(connection: Any, _entry: ConnectionPoolEntry) -> None:
    """Have a second stop of a connection wait for the first one.

    SQLAlchemy stops a connection again whose closing was cancelled. aiosqlite's thread (0.22.1) ends with the first
    stop and answers no other, so that its task would never end, nor the process.
    """
    driver = connection.driver_connection
    driver.stop = functools.cache(driver.stop)


def _write_ahead(connection: object, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection, which SQLAlchemy gives no type
    cursor.execute("PRAGMA busy_timeout=5000")
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        # Another process is switching, for which SQLite does not always wait; the mode is a property of the file.
    cursor.close()
