from collections.abc import Sequence

import anyio
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from chatbot.conversations.history import Feedback
from chatbot.conversations.ratings import RATINGS, Ratings
from chatbot.errors import StoreUnavailable

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

UP = Feedback(rating="up", reasons=("clear", "quick"), comment="고마워요", at=1.5)
DOWN = Feedback(rating="down", reasons=(), comment="", at=2.5)


@pytest.fixture
async def ratings(engine: AsyncEngine) -> Ratings:
    ratings = Ratings(engine)
    await ratings.prepare()
    return ratings


async def rows(engine: AsyncEngine) -> Sequence[tuple[object, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(select(RATINGS).order_by(RATINGS.c.answer_id))]


async def test_an_answer_has_one_rating_the_latest(ratings: Ratings, engine: AsyncEngine) -> None:
    await ratings.write("bank", "a1", UP)
    assert await rows(engine) == [("a1", "bank", "up", '["clear","quick"]', "고마워요", 1.5)]
    await ratings.write("bank", "a1", DOWN)
    assert await rows(engine) == [("a1", "bank", "down", "[]", "", 2.5)]


async def test_ratings_of_one_answer_at_once_leave_one_row(ratings: Ratings, engine: AsyncEngine) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(ratings.write, "bank", "a1", UP)
    assert len(await rows(engine)) == 1


async def test_what_is_forgotten_is_gone_and_the_rest_stays(ratings: Ratings, engine: AsyncEngine) -> None:
    for name in ("a1", "a2", "a3"):
        await ratings.write("bank", name, UP)
    await ratings.forget(["a1", "a3"])
    await ratings.forget([])
    assert [row[0] for row in await rows(engine)] == ["a2"]


async def test_the_table_may_be_there_already(ratings: Ratings) -> None:
    await ratings.prepare()


async def test_without_a_table_it_is_unavailable(engine: AsyncEngine) -> None:
    nowhere = Ratings(engine)
    with pytest.raises(StoreUnavailable):
        await nowhere.write("bank", "a1", UP)
    with pytest.raises(StoreUnavailable):
        await nowhere.forget(["a1"])
