"""Customers' ratings as a list of cases for staff to decide on: question, answer and comment, without the customer.

Ratings come from SQL, texts from the history in Redis, found through the key that names an answer's conversation. The
list holds nothing that identifies a person: no customer, conversation or answer id, the day instead of the time, and
every text is masked again. A question of a conversation that its customer has deleted is left out.
"""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.asyncio import Redis
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncEngine

from chatbot.conversations import RATINGS, Conversation, History, HistorySettings, StoredMessage, path_to
from chatbot.errors import NotFound
from chatbot.redis_client import RedisBreaker, RedisSettings
from evals.questions import HistoryTurn
from knowledge.identity import CustomerId
from knowledge.screening import mask
from knowledge.storage import open_engine

DAY = 86_400.0
"""Seconds."""
_HISTORY_MESSAGES = 6
"""Messages before the question that are part of its case."""


class TriageSettings(BaseSettings):
    """The stores of feedback, by the same variables as the services'."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    redis_url: SecretStr
    database_url: SecretStr | None = None
    data_dir: Path = Path(".data")

    @property
    def database(self) -> str:
        """The SQL database: SQLite in the data folder unless DATABASE_URL is set."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.data_dir.resolve() / 'bank.db'}"


class FeedbackCase(msgspec.Struct, frozen=True, kw_only=True):
    """A rated answer; the fields from `decision` on are filled in by staff before `evals adopt`.

    `decision` is adopt, drop or still empty; a correct answer holds one of `answers`, which stand in `documents`; a
    question that no document answers is `unanswerable`, proved by the `absent` words.
    """

    id: str
    day: str
    rating: str
    reasons: tuple[str, ...]
    comment: str
    times: int
    question: str
    history: tuple[HistoryTurn, ...]
    answer: str
    finish_reason: str
    cited: tuple[str, ...]
    decision: str = ""
    kind: str = ""
    answers: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    unanswerable: bool = False
    absent: tuple[str, ...] = ()


class _RatedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    answer_id: str
    rating: str
    reasons: tuple[str, ...]
    comment: str
    at: float


async def read_feedback(settings: TriageSettings, *, tenant: str, since: float, rating: str) -> list[FeedbackCase]:
    """Open the stores of the settings, and return the cases of `triage`.

    Raises:
        SQLAlchemyError, RedisError, StoreUnavailable: a store cannot be asked.
    """
    engine = open_engine(settings.database)
    try:
        async with Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=30.0) as redis:
            return await triage(engine, redis, tenant=tenant, since=since, rating=rating)
    finally:
        await engine.dispose()


async def triage(engine: AsyncEngine, redis: Redis, *, tenant: str, since: float, rating: str) -> list[FeedbackCase]:
    """Return the rated answers since `since` (Unix seconds) as cases, the most frequent question first.

    Raises:
        SQLAlchemyError, RedisError, StoreUnavailable: a store cannot be asked.
    """
    rated = await _ratings(engine, tenant, since, rating)
    owners = await _owners(redis, tenant, {answer.answer_id for answer in rated})
    history = History(redis, RedisBreaker(RedisSettings().breaker), HistorySettings())
    cases = []
    for answer in rated:
        if (owner := owners.get(answer.answer_id)) is None:
            continue
        try:
            containing = await history.containing(owner, answer.answer_id)
            conversation = await history.load(owner, containing.id)
            cases.append(case_of(answer, conversation))
        except NotFound:  # deleted meanwhile
            continue
    return group_by_question(cases)


async def _ratings(engine: AsyncEngine, tenant: str, since: float, rating: str) -> list[_RatedAnswer]:
    query = select(RATINGS).where(RATINGS.c.tenant == tenant, RATINGS.c.at >= since, RATINGS.c.rating == rating)
    async with engine.connect() as connection:
        return [_rated_answer(row) for row in await connection.execute(query.order_by(RATINGS.c.at))]


def _rated_answer(row: Row[tuple[object, ...]]) -> _RatedAnswer:
    return _RatedAnswer(
        answer_id=row.answer_id,
        rating=row.rating,
        reasons=msgspec.json.decode(row.reasons, type=tuple[str, ...]),
        comment=row.comment,
        at=row.at,
    )


async def _owners(redis: Redis, tenant: str, answer_ids: set[str]) -> dict[str, CustomerId]:
    """Return the owner of each answer by one scan of the tenant's keys: a rating does not name its customer."""
    owners: dict[str, CustomerId] = {}
    prefix = f"history:{{{quote(tenant, safe='')}}}:"
    async for key in redis.scan_iter(match=f"{_escaped(prefix)}*:answer:*", count=1000):
        sub, _, answer_id = key.decode().removeprefix(prefix).partition(":answer:")
        if answer_id in answer_ids:
            owners[answer_id] = CustomerId(tenant, unquote(sub))
    return owners


def _escaped(pattern: str) -> str:
    return "".join(f"\\{c}" if c in r"*?[]\\" else c for c in pattern)


def case_of(rated: _RatedAnswer, conversation: Conversation) -> FeedbackCase:
    """Return a rated answer as a case, without what identifies its customer.

    Raises:
        NotFound: the conversation no longer holds the answer or its question.
    """
    answer = conversation.message(rated.answer_id)
    question = conversation.message(answer.parent_id)
    history = path_to(conversation.messages, question.parent_id)[-_HISTORY_MESSAGES:]
    return FeedbackCase(
        # Identifies a case from list to list, and does not lead to the answer.
        id=f"fb-{hashlib.sha256(rated.answer_id.encode()).hexdigest()[:10]}",
        day=datetime.fromtimestamp(rated.at, UTC).date().isoformat(),
        rating=rated.rating,
        reasons=rated.reasons,
        comment=mask(rated.comment).text,
        times=1,
        question=mask(question.text).text,
        history=tuple(_history_turn(message) for message in history),
        answer=mask(answer.text).text,
        finish_reason=answer.finish_reason or "",
        cited=tuple(dict.fromkeys(citation.document_id for citation in answer.citations)),
    )


def _history_turn(message: StoredMessage) -> HistoryTurn:
    return HistoryTurn(message.role, mask(message.text).text)


def group_by_question(cases: Sequence[FeedbackCase]) -> list[FeedbackCase]:
    """Return the newest case of each question with its history, and how often it was rated."""
    newest: dict[tuple[str, tuple[str, ...]], FeedbackCase] = {}
    for case in cases:
        key = ("".join(case.question.lower().split()), tuple(turn.text for turn in case.history))
        times = newest[key].times + 1 if key in newest else 1
        newest[key] = msgspec.structs.replace(case, times=times)
    return sorted(newest.values(), key=lambda case: (-case.times, case.id))


class TriageBroken(Exception):
    """The file holds no triage list; the message names the line."""


def merge_decisions(cases: Sequence[FeedbackCase], earlier: Sequence[FeedbackCase]) -> list[FeedbackCase]:
    """Return the decided cases of an earlier list, then the new cases among `cases`."""
    decided = {case.id: case for case in earlier if case.decision}
    return [*decided.values(), *(case for case in cases if case.id not in decided)]


def write_cases(cases: Sequence[FeedbackCase], path: Path) -> None:
    """Write a list, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(case) + b"\n" for case in cases))


def read_cases(path: Path) -> list[FeedbackCase]:
    """Read a list; a file that does not exist is an empty one.

    Raises:
        TriageBroken: a line holds no case.
    """
    return list(_lines(path)) if path.exists() else []


def _lines(path: Path) -> Iterator[FeedbackCase]:
    decoder = msgspec.json.Decoder(FeedbackCase)
    for n, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line.strip():
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError as exc:
                raise TriageBroken(f"{path.name}, line {n}: {exc}") from exc
