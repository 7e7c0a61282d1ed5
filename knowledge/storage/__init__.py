"""SQL: engines for SQLite and PostgreSQL, locks, and the migrations of every package's tables."""

from knowledge.storage.database import UNAVAILABLE, open_engine, transaction_lock
from knowledge.storage.migrate import Schema, migrate, migrate_database, revision

__all__ = ["UNAVAILABLE", "Schema", "migrate", "migrate_database", "open_engine", "revision", "transaction_lock"]
