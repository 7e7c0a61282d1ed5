"""Storage: engines for SQLite and PostgreSQL, locks, migrations of every package's tables, a database clock, and S3."""

from knowledge.storage.database import (
    UNAVAILABLE,
    DatabaseMissing,
    DatabaseUrl,
    close_engine,
    database_connection,
    impatient_transaction,
    open_engine,
    require_database,
    transaction_lock,
)
from knowledge.storage.migrate import Schema, migrate, migrate_database, revision
from knowledge.storage.polling import polled
from knowledge.storage.s3 import open_s3, s3_address
from knowledge.storage.store_clock import StoreClock, open_clock

__all__ = [
    "UNAVAILABLE",
    "DatabaseMissing",
    "DatabaseUrl",
    "Schema",
    "StoreClock",
    "close_engine",
    "database_connection",
    "impatient_transaction",
    "migrate",
    "migrate_database",
    "open_clock",
    "open_engine",
    "open_s3",
    "polled",
    "require_database",
    "revision",
    "s3_address",
    "transaction_lock",
]
