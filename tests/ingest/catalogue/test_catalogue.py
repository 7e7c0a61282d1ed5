"""The catalogue on SQLite, which has one write lock."""

import anyio
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from ingest.catalogue import catalogue
from ingest.catalogue.catalogue import Catalogue
from ingest.errors import CatalogueUnavailable
from knowledge.storage import transaction_lock

pytestmark = pytest.mark.anyio


async def test_a_reader_waits_for_no_writer_and_a_writer_for_a_limited_time(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_sqlite = Catalogue(engine)
    monkeypatch.setattr(catalogue, "TURN_SECONDS", 0.05)

    async def write_too() -> None:
        with pytest.raises(CatalogueUnavailable):
            async with on_sqlite.write():
                pass

    async with on_sqlite.write() as connection:
        await transaction_lock(connection, "one")
        async with on_sqlite.read() as reading:
            await reading.execute(select(1))
        async with anyio.create_task_group() as others:
            others.start_soon(write_too)
    async with on_sqlite.write() as connection:
        await transaction_lock(connection, "one")
