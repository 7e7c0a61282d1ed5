"""SQL: engines for SQLite and PostgreSQL, locks, and the migrations of every package's tables."""

from knowledge.storage.database import UNAVAILABLE, close_engine, open_engine, transaction_lock
from knowledge.storage.migrate import Schema, migrate, migrate_database, revision
from knowledge.storage.store_clock import StoreClock, open_clock

__all__ = [
    "UNAVAILABLE",
    "Schema",
    "StoreClock",
    "close_engine",
    "migrate",
    "migrate_database",
    "open_clock",
    "open_engine",
    "revision",
    "transaction_lock",
]
