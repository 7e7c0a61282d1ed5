"""Migrates SQL tables to this release's schema (alembic).

Each package that owns tables has its migrations in `migrations/versions` and its revision in a separate table, so that
two services can share a database without depending on each other's release. One process migrates at a time and the
others wait for it; without pending migrations no lock is acquired. Migrations only add, so a database migrated by a
later release is left unchanged (docs/install.md).
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import structlog
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData
from sqlalchemy.ext.asyncio import AsyncEngine

from knowledge.storage.database import open_engine, transaction_lock
from knowledge.tls import SYSTEM_TLS, TlsSettings

log = structlog.get_logger(__name__)

_MIGRATION_LOCK_TIMEOUT = "60s"
"""The wait for another process's migration."""
_TABLE_LOCK_TIMEOUT = "5s"
"""The wait for a table in use; short, because later queries queue behind the migration, which can be retried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The tables of one package, `owner`."""

    owner: str
    package: str
    """The package whose `migrations/versions` contains the migrations."""
    tables: MetaData

    @property
    def version_table(self) -> str:
        """The table that stores the revision of these tables."""
        return f"{self.owner}_schema"


async def migrate(engine: AsyncEngine, *schemas: Schema) -> None:
    """Run the pending migrations, all of one owner in one transaction.

    Raises:
        UNAVAILABLE: the database cannot be reached, or a table is locked for too long.
    """
    for schema in schemas:
        async with engine.connect() as connection:
            is_behind = await connection.run_sync(_is_behind, schema)
        if is_behind:
            async with engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_MIGRATION_LOCK_TIMEOUT}'")
                await transaction_lock(connection, "migration")
                if connection.dialect.name == "postgresql":
                    await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_TABLE_LOCK_TIMEOUT}'")
                await connection.run_sync(_upgrade, schema)


async def revision(engine: AsyncEngine, schema: Schema) -> str | None:
    """Return the database's revision of these tables.

    Raises:
        UNAVAILABLE: the database cannot be reached.
    """
    async with engine.connect() as connection:
        return await connection.run_sync(_revision, schema)


async def migrate_database(url: str, *schemas: Schema, tls: TlsSettings = SYSTEM_TLS) -> dict[str, str | None]:
    """Migrate a database by URL; return each owner's revision.

    Raises:
        UNAVAILABLE: the database cannot be reached, or a table is locked for too long.
    """
    engine = open_engine(url, tls)
    try:
        await migrate(engine, *schemas)
        return {schema.owner: await revision(engine, schema) for schema in schemas}
    finally:
        await engine.dispose()


def _revision(connection: Connection, schema: Schema) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": schema.version_table}).get_current_revision()


def _is_behind(connection: Connection, schema: Schema) -> bool:
    """Return whether this release has migrations that the database lacks; warn if a later release has migrated it."""
    current = _revision(connection, schema)
    latest, *earlier = _revisions(schema.package)
    if current is not None and current != latest and current not in earlier:
        log.warning("schema_newer_than_release", owner=schema.owner, revision=current, known=latest)
    return current is None or current in earlier


def _upgrade(connection: Connection, schema: Schema) -> None:
    if not _is_behind(connection, schema):
        return  # another process migrated while this one waited for the lock
    config = _config(schema.package)
    config.attributes.update(connection=connection, version_table=schema.version_table)
    command.upgrade(config, "head")
    log.info("schema_migrated", owner=schema.owner, revision=_revision(connection, schema))


@cache
def _revisions(package: str) -> tuple[str, ...]:
    """Return the package's revisions, latest first."""
    return tuple(step.revision for step in ScriptDirectory.from_config(_config(package)).walk_revisions())


def _config(package: str) -> Config:
    config = Config()
    config.set_main_option("path_separator", "newline")
    script, versions = files("knowledge.storage") / "migrations", files(package) / "migrations" / "versions"
    config.set_main_option("script_location", str(script).replace("%", "%%"))
    config.set_main_option("version_locations", str(versions).replace("%", "%%"))
    return config
