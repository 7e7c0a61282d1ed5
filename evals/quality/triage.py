"""Customers' ratings as a list for staff to sort: what was asked, what was answered, what they disliked; not who.

Ratings come from SQL, the words from the history in Redis, found through the key that names an answer's conversation.
Nothing that identifies anybody goes into the list: no customer, no conversation, no answer id, the day instead of the
time, and every text is masked once more. A question whose conversation its customer has deleted is not there.
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

from chatbot.conversations import RATINGS, Conversation, History, HistorySettings, Owner, StoredMessage, path_to
from chatbot.errors import NotFound
from chatbot.redis_client import RedisBreaker, RedisSettings
from evals.questions import HistoryTurn
from knowledge.screening import mask
from knowledge.storage import open_engine

DAY = 86_400.0
_KEPT_BEFORE = 6
"""Messages of the conversation before the question that go with it."""


class TriageSettings(BaseSettings):
    """Where feedback lies: the same variables as the services'."""

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


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A rated answer, and below `decision` what a person fills in before `evals adopt`.

    `decision` is adopt or drop, and empty while nobody has looked; `answers` are what a right answer holds, `documents`
    where it stands; one that no document answers is `unanswerable`, with the `absent` words that prove it.
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


class _Rated(msgspec.Struct, frozen=True, kw_only=True):
    answer_id: str
    rating: str
    reasons: tuple[str, ...]
    comment: str
    at: float


async def bring(settings: TriageSettings, *, tenant: str, since: float, rating: str) -> list[Case]:
    """Open the stores that the settings name, and return their cases.

    Raises:
        SQLAlchemyError, RedisError, StoreUnavailable: a store cannot be asked.
    """
    engine = open_engine(settings.database)
    try:
        async with Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=30.0) as redis:
            return await triage(engine, redis, tenant=tenant, since=since, rating=rating)
    finally:
        await engine.dispose()


async def triage(engine: AsyncEngine, redis: Redis, *, tenant: str, since: float, rating: str) -> list[Case]:
    """Return the rated answers since an instant (Unix seconds), the question asked most often first.

    Raises:
        SQLAlchemyError, RedisError, StoreUnavailable: a store cannot be asked.
    """
    rated = await _ratings(engine, tenant, since, rating)
    owners = await _owners(redis, tenant, {one.answer_id for one in rated})
    history = History(redis, RedisBreaker(RedisSettings().breaker), HistorySettings())
    cases = []
    for one in rated:
        if (owner := owners.get(one.answer_id)) is None:
            continue
        try:
            conversation = await history.containing(owner, one.answer_id)
            cases.append(case_of(one, conversation))
        except NotFound:  # deleted meanwhile
            continue
    return grouped(cases)


async def _ratings(engine: AsyncEngine, tenant: str, since: float, rating: str) -> list[_Rated]:
    wanted = select(RATINGS).where(RATINGS.c.tenant == tenant, RATINGS.c.at >= since, RATINGS.c.rating == rating)
    async with engine.connect() as connection:
        return [_rated(row) for row in await connection.execute(wanted.order_by(RATINGS.c.at))]


def _rated(row: Row[tuple[object, ...]]) -> _Rated:
    return _Rated(
        answer_id=row.answer_id,
        rating=row.rating,
        reasons=msgspec.json.decode(row.reasons, type=tuple[str, ...]),
        comment=row.comment,
        at=row.at,
    )


async def _owners(redis: Redis, tenant: str, answer_ids: set[str]) -> dict[str, Owner]:
    """Return whose each answer is: one walk over the tenant's keys, since a rating does not say who gave it."""
    owners: dict[str, Owner] = {}
    prefix = f"history:{{{quote(tenant, safe='')}}}:"
    async for key in redis.scan_iter(match=f"{_literal(prefix)}*:answer:*", count=1000):
        sub, _, answer_id = key.decode().removeprefix(prefix).partition(":answer:")
        if answer_id in answer_ids:
            owners[answer_id] = Owner(tenant, unquote(sub))
    return owners


def _literal(pattern: str) -> str:
    return "".join(f"\\{c}" if c in r"*?[]\\" else c for c in pattern)


def case_of(rated: _Rated, conversation: Conversation) -> Case:
    """Return a rated answer as it may leave the bank's stores.

    Raises:
        NotFound: the conversation has lost the answer or its question.
    """
    answer = conversation.message(rated.answer_id)
    question = conversation.message(answer.parent_id)
    before = path_to(conversation.messages, question.parent_id)[-_KEPT_BEFORE:]
    return Case(
        # Tells cases apart from list to list; nobody finds the answer by it.
        id=f"fb-{hashlib.sha256(rated.answer_id.encode()).hexdigest()[:10]}",
        day=datetime.fromtimestamp(rated.at, UTC).date().isoformat(),
        rating=rated.rating,
        reasons=rated.reasons,
        comment=mask(rated.comment).text,
        times=1,
        question=mask(question.text).text,
        history=tuple(_said(message) for message in before),
        answer=mask(answer.text).text,
        finish_reason=answer.finish_reason or "",
        cited=tuple(dict.fromkeys(citation.document_id for citation in answer.citations)),
    )


def _said(message: StoredMessage) -> HistoryTurn:
    return HistoryTurn(message.role, mask(message.text).text)


def grouped(cases: Sequence[Case]) -> list[Case]:
    """Return one case for each question (with what came before it), its newest, with how often it was rated."""
    newest: dict[tuple[str, tuple[str, ...]], Case] = {}
    for case in cases:
        key = ("".join(case.question.lower().split()), tuple(said.text for said in case.history))
        times = newest[key].times + 1 if key in newest else 1
        newest[key] = msgspec.structs.replace(case, times=times)
    return sorted(newest.values(), key=lambda case: (-case.times, case.id))


class TriageBroken(Exception):
    """The file is no triage list; the message names the line."""


def merged(cases: Sequence[Case], kept: Sequence[Case]) -> list[Case]:
    """Return the new list with the decisions of an earlier one; what was decided on is never asked again."""
    decided = {case.id: case for case in kept if case.decision}
    fresh = [case for case in cases if case.id not in decided]
    return [*decided.values(), *fresh]


def write_cases(cases: Sequence[Case], path: Path) -> None:
    """Write a list, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(case) + b"\n" for case in cases))


def read_cases(path: Path) -> list[Case]:
    """Read a list; one that is not there yet is empty.

    Raises:
        TriageBroken: a line is no case.
    """
    return list(_lines(path)) if path.exists() else []


def _lines(path: Path) -> Iterator[Case]:
    decoder = msgspec.json.Decoder(Case)
    for n, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line.strip():
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError as exc:
                raise TriageBroken(f"{path.name}, line {n}: {exc}") from exc
