from collections.abc import Sequence

import anyio
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from chatbot.conversations.history import Feedback
from chatbot.conversations.ratings import RATINGS, Ratings
from chatbot.tables import SCHEMA
from knowledge.storage import migrate

pytestmark = pytest.mark.anyio

UP = Feedback(rating="up", reasons=("clear", "quick"), comment="고마워요", at=1.5)


@pytest.fixture
async def ratings(engine: AsyncEngine) -> Ratings:
    await migrate(engine, SCHEMA)
    return Ratings(engine)


async def rows(engine: AsyncEngine) -> Sequence[tuple[object, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(select(RATINGS).order_by(RATINGS.c.answer_id))]


@pytest.mark.both_databases
async def test_ratings_of_one_answer_at_once_leave_one_row(ratings: Ratings, engine: AsyncEngine) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(ratings.write, "bank", "c1", "a1", UP)
    assert len(await rows(engine)) == 1


async def test_forgetting_a_conversation_removes_only_its_ratings(ratings: Ratings, engine: AsyncEngine) -> None:
    for conversation, name in (("c1", "a1"), ("c2", "a2"), ("c1", "a3")):
        await ratings.write("bank", conversation, name, UP)
    await ratings.write("other", "c1", "a4", UP)
    await ratings.delete_ratings("bank", "c1")
    await ratings.delete_ratings("bank", "c3")
    assert [row[0] for row in await rows(engine)] == ["a2", "a4"]
