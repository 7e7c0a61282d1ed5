"""The last comparison of the passage index with SQL, in one row; `ingest` writes it and every readiness probe reads it.

Only `ingest` knows the documents. An index lost with its disk looks like a new, empty one, so readiness probes compare
the index with this row.
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
    """The index is empty, although SQL records passages that customers can read or could once read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexState:
    """The last comparison of the index with SQL, at `compared_at` (Unix seconds; 0: never).

    `visible_passages` counts passages that customers can read or could once read; these never leave the index.
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
    """Check that the index is not empty if SQL records visible passages; `now` is in Unix seconds.

    Raises:
        IndexEmpty: the index has no visible passages.
        IndexUnavailable: the index does not answer.
    """
    if state.visible_passages and not await index.holds_visible_passages(now):
        raise IndexEmpty("the index is empty: run `ingest rebuild`")
