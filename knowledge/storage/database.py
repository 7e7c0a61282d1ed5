"""The SQL engine shared by catalogue, audit and withdrawals, and a lock between processes."""

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
"""The exceptions of the SQL drivers; SQLAlchemy wraps all except asyncpg's while it connects."""


def requires_tls(url: URL) -> bool:
    """Return whether a PostgreSQL URL requires an encrypted, verified connection (`?ssl=verify-full`)."""
    return url.query.get("ssl") == "verify-full"


def _checked_url(url: SecretStr) -> SecretStr:
    """Reject URLs that SQLAlchemy or the installed drivers don't support."""
    advice = "begin with postgresql+asyncpg://, as postgresql+asyncpg://user:password@host/name"
    try:
        parts = make_url(url.get_secret_value())
    except (ArgumentError, ValueError) as exc:
        raise ValueError(f"it is not a URL: {advice}") from exc
    if parts.drivername not in ("postgresql+asyncpg", "sqlite+aiosqlite"):
        raise ValueError(advice)
    if "sslmode" in parts.query:
        raise ValueError("write ?ssl= in place of ?sslmode=, with the same values: verify-full, require, disable, ...")
    return url


DatabaseUrl = Annotated[SecretStr, AfterValidator(_checked_url)]


def database_connection(url: str, tls: TlsSettings) -> Connection:
    """Return the database's address and TLS settings; the address is empty unless TLS is required."""
    parts = make_url(url)
    address = f"postgresql://{parts.host}:{parts.port or 5432}" if requires_tls(parts) else ""
    return Connection(part="the database", url=address, setting="DATABASE_TLS", tls=tls)


class DatabaseMissing(Exception):
    """The SQLite database does not exist; the message says what to do."""


def require_database(url: str) -> None:
    """Raise `DatabaseMissing` instead of letting a command's connection create an empty SQLite database."""
    parts = make_url(url)
    if parts.get_backend_name() == "sqlite" and parts.database and not Path(parts.database).exists():
        raise DatabaseMissing(
            f"the database {parts.database} does not exist: set DATA_DIR or DATABASE_URL, or run this in its folder"
        )


def open_engine(url: str, tls: TlsSettings = SYSTEM_TLS) -> AsyncEngine:
    """Return an engine; SQLite uses WAL mode, so that readers and a writer do not block each other.

    A PostgreSQL server has 5 s to accept a connection, and connections that it closed (a failover, a restart) are
    replaced before use. If the URL requires `verify-full`, `tls` has the trusted authorities.
    """
    is_sqlite = make_url(url).get_backend_name() == "sqlite"
    options: dict[str, Any] = {} if is_sqlite else {"pool_pre_ping": True, "connect_args": {"timeout": CONNECT_SECONDS}}
    if requires_tls(make_url(url)):
        options["connect_args"]["ssl"] = tls.context()
    # SQLAlchemy's error messages would bring the statements' parameters, which are customers' data, into the logs.
    engine = create_async_engine(url, hide_parameters=True, **options)
    if is_sqlite:
        if engine.url.database:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine.sync_engine, "connect", _stop_once)
        event.listen(engine.sync_engine, "connect", _use_write_ahead_log)
    return engine


async def close_engine(engine: AsyncEngine) -> None:
    """Close an engine's connections; abandon those of an unresponsive server after 5 s."""
    with anyio.move_on_after(CLOSE_SECONDS, shield=True):
        await engine.dispose()


async def transaction_lock(connection: AsyncConnection, name: str) -> None:
    """Acquire the lock `name` until the transaction ends: a PostgreSQL advisory lock, or SQLite's write lock.

    Call it before the transaction's first write.
    """
    if connection.dialect.name == "sqlite":
        await connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    number = int.from_bytes(sha256(f"bank-chatbot {name}".encode()).digest()[:8], signed=True)
    await connection.execute(select(func.pg_advisory_xact_lock(number)))


@asynccontextmanager
async def impatient_transaction(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
    """Run a transaction that waits at most 1 s for SQLite's write lock, instead of the usual 5 s."""
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
    """Make a second stop of a connection await the first one.

    SQLAlchemy stops a connection again if its closing was cancelled. aiosqlite's thread (0.22.1) ends with the first
    stop and never answers a second, so the task and the process would hang.
    """
    driver = connection.driver_connection
    driver.stop = functools.cache(driver.stop)


def _use_write_ahead_log(connection: object, _entry: ConnectionPoolEntry) -> None:
    """Switch SQLite to its write-ahead log, with a wait of up to 5 s for locks."""
    cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection, which SQLAlchemy does not type
    cursor.execute("PRAGMA busy_timeout=5000")
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        # SQLite sometimes fails at once instead of waiting while another process switches the mode. Then nothing is
        # left to do: the mode is stored in the file, so the other process's switch counts here too.
    cursor.close()
