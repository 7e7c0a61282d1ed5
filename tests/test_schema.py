"""Migrations create the tables of the code and run once, on SQLite and on PostgreSQL."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from chatbot import audit, conversations  # noqa: F401  their tables are in the chatbot's schema
from chatbot import tables as chatbot
from ingest import catalogue
from knowledge import service_keys, withdrawals  # noqa: F401  both tables are in one schema
from knowledge.storage import Schema, migrate, open_engine, revision

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

SCHEMAS = (withdrawals.SCHEMA, catalogue.SCHEMA, chatbot.SCHEMA)
OWNERS = pytest.mark.parametrize("schema", SCHEMAS, ids=[schema.owner for schema in SCHEMAS])


def differences(schema: Schema) -> Callable[[Connection], list[Any]]:
    """Return an inspection that lists the changes that would bring this owner's tables to the code's schema."""

    def compare(connection: Connection) -> list[Any]:
        def ours(name: str | None, kind: str, _parents: object) -> bool:
            return kind != "table" or name in schema.tables.tables or name not in everybodys

        options = {"version_table": schema.version_table, "include_name": ours}
        changes: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), schema.tables)
        return changes

    everybodys = {name for each in SCHEMAS for name in (*each.tables.tables, each.version_table)}
    return compare


async def look(engine: AsyncEngine, inspection: Callable[[Connection], list[Any]]) -> list[Any]:
    async with engine.connect() as connection:
        return await connection.run_sync(inspection)


@OWNERS
async def test_the_steps_make_the_tables_that_the_code_uses(engine: AsyncEngine, schema: Schema) -> None:
    assert await look(engine, differences(schema)) != []
    await migrate(engine, schema)
    assert await look(engine, differences(schema)) == []


async def test_processes_that_start_together_take_each_step_once(engine: AsyncEngine, database_url: str) -> None:
    async def start() -> None:
        own = open_engine(database_url)
        await migrate(own, *SCHEMAS)
        await own.dispose()

    with capture_logs() as logs:
        async with anyio.create_task_group() as processes:
            for _ in range(5):
                processes.start_soon(start)
        await migrate(engine, *SCHEMAS)
    assert [log["owner"] for log in logs if log["event"] == "schema_migrated"] == [s.owner for s in SCHEMAS]


async def test_a_schema_of_a_later_release_is_left_unchanged(engine: AsyncEngine) -> None:
    await migrate(engine, catalogue.SCHEMA)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE ingest_schema SET version_num = '9999'"))
    with capture_logs() as logs:
        await migrate(engine, *SCHEMAS)
    assert [log["revision"] for log in logs if log["event"] == "schema_newer_than_release"] == ["9999"]
    assert await revision(engine, catalogue.SCHEMA) == "9999"


async def test_a_step_that_fails_leaves_nothing(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE document_versions (tenant VARCHAR(100))"))
    with pytest.raises(DBAPIError):
        await migrate(engine, catalogue.SCHEMA)
    assert await look(engine, lambda connection: inspect(connection).get_table_names()) == ["document_versions"]
