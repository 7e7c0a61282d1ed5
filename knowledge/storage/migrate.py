"""Brings SQL tables to this release's shape (alembic).

A package that owns tables keeps its steps in its own `migrations/versions`, and its revision in a table of its own: so
two services share a database, and neither needs the other's release. One process migrates at a time and the others
wait for it; where nothing is to be done nobody locks anything. A step only ever adds, so a database that a later
release has migrated is left as it is (docs/operations.md).
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

from knowledge.storage.database import hold, open_engine

log = structlog.get_logger(__name__)

_WAIT = "60s"
"""For the process that migrates."""
_TABLE_WAIT = "5s"
"""For a table that somebody uses: whoever comes later waits behind the step, so it gives up and is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The tables of one package, `owner`."""

    owner: str
    package: str
    """The package whose `migrations/versions` holds the steps."""
    tables: MetaData

    @property
    def version_table(self) -> str:
        """Where the database keeps the revision of these tables."""
        return f"{self.owner}_schema"


async def migrate(engine: AsyncEngine, *schemas: Schema) -> None:
    """Take the steps that the database lacks, each owner's as a whole or not at all.

    Raises:
        knowledge.database.UNAVAILABLE: the database cannot be asked, or a table is not let go in time.
    """
    for schema in schemas:
        async with engine.connect() as connection:
            is_behind = await connection.run_sync(_is_behind, schema)
        if is_behind:
            async with engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_WAIT}'")
                await hold(connection, "migration")
                if connection.dialect.name == "postgresql":
                    await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_TABLE_WAIT}'")
                await connection.run_sync(_upgrade, schema)


async def revision(engine: AsyncEngine, schema: Schema) -> str | None:
    """Return the last step that the database has taken for these tables.

    Raises:
        knowledge.database.UNAVAILABLE: the database cannot be asked.
    """
    async with engine.connect() as connection:
        return await connection.run_sync(_revision, schema)


async def migrate_database(url: str, *schemas: Schema) -> dict[str, str | None]:
    """Migrate a database from a command; return each owner's revision.

    Raises:
        knowledge.database.UNAVAILABLE: the database cannot be asked, or a table is not let go in time.
    """
    engine = open_engine(url)
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
        log.warning("schema_is_newer", owner=schema.owner, revision=present, known=known[0])
    return present is None or present in known[1:]


def _upgrade(connection: Connection, schema: Schema) -> None:
    if not _is_behind(connection, schema):
        return  # whoever held the lock before has done it
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
