"""An answer is found again by all that it stands on, and by nothing less."""

from dataclasses import replace
from uuid import uuid4

import msgspec
import pytest
from redis.asyncio import Redis

from chatbot.conversations.answer_cache import AnswerCache, AnswerCacheSettings, Basis, CachedAnswer, normalised
from chatbot.events import Citation, PassageRef
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from tests.constants import with_constants

pytestmark = [pytest.mark.anyio, pytest.mark.services]

FEES = PassageRef(document_id="fees", version=1, n=0)
RATES = PassageRef(document_id="rates", version=3, n=2)
CITED = Citation(n=1, start=0, end=5, document_id="fees", version=1, page=None, quote="The fee is 5,000 won.")
ANSWER = CachedAnswer(answer_id="a-1", text="The fee is 5,000 won.", citations=(CITED,))


@pytest.fixture
def basis() -> Basis:
    return Basis(
        tenant=f"bank-{uuid4().hex}",
        groups=frozenset({"customers", "premium"}),
        question="What is the fee?",
        passages=(FEES, RATES),
        prompt_version="p1",
        model="m1",
        language="en",
        checks_version=1,
    )


def cache(redis: Redis, settings: AnswerCacheSettings | None = None) -> AnswerCache:
    return AnswerCache(redis, RedisBreaker(RedisBreakerSettings()), settings or AnswerCacheSettings())


@pytest.mark.parametrize(
    "question", ["what is  the fee", "What is the fee?!", " Ｗhat is the fee? ", "WHAT IS THE FEE。"]
)
async def test_the_same_question_however_it_is_typed_finds_the_answer(
    redis: Redis, basis: Basis, question: str
) -> None:
    answers = cache(redis)
    assert await answers.find(basis) is None
    await answers.keep(basis, ANSWER)
    assert await answers.find(replace(basis, question=question)) == ANSWER


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "another bank"},
        {"groups": frozenset({"customers"})},
        {"groups": frozenset({"customers", "premium", "staff"})},
        {"question": "What is the fee abroad?"},
        {"passages": (msgspec.structs.replace(FEES, version=2), RATES)},
        {"passages": (msgspec.structs.replace(FEES, n=1), RATES)},
        {"passages": (RATES, FEES)},
        {"checks_version": 2},
        {"passages": (FEES,)},
        {"prompt_version": "p2"},
        {"model": "m2"},
        {"language": "ko"},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_whatever_else_it_would_stand_on_finds_nothing(
    redis: Redis, basis: Basis, other: dict[str, object]
) -> None:
    answers = cache(redis)
    await answers.keep(basis, ANSWER)
    assert await answers.find(replace(basis, **other)) is None  # type: ignore[arg-type]  # fields of it


async def test_an_answer_is_kept_for_a_day_at_the_most_and_its_key_shows_no_question(
    redis: Redis, basis: Basis
) -> None:
    await cache(redis).keep(basis, ANSWER)
    assert 86_390 <= await redis.ttl(basis.key) <= 86_400
    assert basis.key.startswith(f"answers:{{{basis.tenant}}}:")
    assert "fee" not in basis.key


async def test_a_large_answer_is_not_kept(redis: Redis, basis: Basis) -> None:
    answers = cache(redis, with_constants(AnswerCacheSettings(), most_bytes=200))
    await answers.keep(basis, CachedAnswer(answer_id="a-2", text="x" * 200, citations=()))
    assert await answers.find(basis) is None


async def test_what_another_release_wrote_is_not_found(redis: Redis, basis: Basis) -> None:
    await redis.set(basis.key, b'{"text": "an answer without its citations"}')
    assert await cache(redis).find(basis) is None


async def test_with_redis_away_nothing_is_found_and_nothing_raised(basis: Basis) -> None:
    async with Redis.from_url("redis://127.0.0.1:1/0") as nobody:
        answers = cache(nobody)
        await answers.keep(basis, ANSWER)
        assert await answers.find(basis) is None


def test_numbers_and_words_keep_their_place() -> None:
    assert normalised("금리가 3.5%인가요?") != normalised("금리가 35%인가요?")
    assert normalised("A B") != normalised("B A")
