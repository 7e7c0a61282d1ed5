"""The last comparison of the passage index with SQL, in one row; `ingest` writes it and every readiness probe reads it.

Only `ingest` knows the documents. An index that was lost with its disk looks like one that never had any, so a probe
compares it with this row.
"""

from dataclasses import asdict, dataclass

from sqlalchemy import Column, Double, Integer, Table, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from knowledge.index import Index
from knowledge.withdrawals import METADATA

STATE = Table(
    "knowledge_index_state",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("visible_passages", Integer, nullable=False),
    Column("missing_passages", Integer, nullable=False),
    Column("missing_versions", Integer, nullable=False),
    Column("compared_at", Double, nullable=False),
)


class IndexEmpty(Exception):
    """The index holds no passage that customers could ever read, though SQL says there are some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexState:
    """The last comparison of the index with SQL, at `compared_at` (Unix seconds; 0: there was none).

    `visible_passages` counts what customers can read or could read once: such passages never leave the index.
    """

    visible_passages: int
    missing_passages: int
    missing_versions: int
    compared_at: float


async def read_index_state(connection: AsyncConnection) -> IndexState:
    """Return the last comparison."""
    row = (await connection.execute(select(STATE))).mappings().one()
    return IndexState(**{name: row[name] for name in IndexState.__slots__})


async def write_index_state(connection: AsyncConnection, state: IndexState) -> None:
    """Record a comparison in the caller's transaction."""
    await connection.execute(update(STATE).values(**asdict(state)))


async def require_passages(index: Index, state: IndexState, *, now: float) -> None:
    """Check that the index holds passages where it should; `now` is in Unix seconds.

    Raises:
        IndexEmpty: it holds none.
        IndexUnavailable: it does not answer.
    """
    if state.visible_passages and not await index.holds_visible_passages(now):
        raise IndexEmpty("the index is empty: run `ingest rebuild`")
