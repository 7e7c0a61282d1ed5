"""Migrates SQL tables to this release's schema (alembic).

A package that owns tables has its steps in its own `migrations/versions`, and its revision in a table of its own: two
services share a database without needing each other's release. One process migrates at a time and the others wait for
it; without missing steps no lock is taken. A step only ever adds, so a database that a later release has migrated is
left as it is (docs/install.md).
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
"""For another process that migrates."""
_TABLE_LOCK_TIMEOUT = "5s"
"""For a table in use: later queries wait behind the step, so it gives up soon and is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The tables of one package, `owner`."""

    owner: str
    package: str
    """The package whose `migrations/versions` holds the steps."""
    tables: MetaData

    @property
    def version_table(self) -> str:
        """The table that holds the revision of these tables."""
        return f"{self.owner}_schema"


async def migrate(engine: AsyncEngine, *schemas: Schema) -> None:
    """Take the steps that the database lacks, all of an owner's steps in one transaction.

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
    """Return the last step that the database has taken for these tables.

    Raises:
        UNAVAILABLE: the database cannot be reached.
    """
    async with engine.connect() as connection:
        return await connection.run_sync(_revision, schema)


async def migrate_database(url: str, *schemas: Schema, tls: TlsSettings = SYSTEM_TLS) -> dict[str, str | None]:
    """Migrate a database from a command; return each owner's revision.

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
    present = _revision(connection, schema)
    known = _steps(schema.package)
    if present is not None and present not in known:
        log.warning("schema_newer_than_release", owner=schema.owner, revision=present, known=known[0])
    return present is None or present in known[1:]


def _upgrade(connection: Connection, schema: Schema) -> None:
    if not _is_behind(connection, schema):
        return  # the process that held the lock before has migrated
    config = _config(schema.package)
    config.attributes.update(connection=connection, version_table=schema.version_table)
    command.upgrade(config, "head")
    log.info("schema_migrated", owner=schema.owner, revision=_revision(connection, schema))


@cache
def _steps(package: str) -> tuple[str, ...]:
    """Return the package's revisions, the latest first."""
    return tuple(step.revision for step in ScriptDirectory.from_config(_config(package)).walk_revisions())


def _config(package: str) -> Config:
    config = Config()
    config.set_main_option("path_separator", "newline")
    for option, folder in (
        ("script_location", files("knowledge.storage") / "migrations"),
        ("version_locations", files(package) / "migrations" / "versions"),
    ):
        config.set_main_option(option, str(folder).replace("%", "%%"))
    return config
