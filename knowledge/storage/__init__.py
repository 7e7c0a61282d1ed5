"""SQL: engines for SQLite and PostgreSQL, and the migrations of every package's tables."""

from knowledge.storage.database import UNAVAILABLE, hold, open_engine
from knowledge.storage.migrate import Schema, migrate, migrate_database, revision

__all__ = ["UNAVAILABLE", "Schema", "hold", "migrate", "migrate_database", "open_engine", "revision"]
