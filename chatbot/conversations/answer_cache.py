"""Grounded answers of the last day, shown again only while no model can answer (decision 0006).

An answer is found by everything it was derived from: tenant, readable groups, question, passages with their versions,
prompt, model, language and checks. So a changed document, a new prompt or another reader never gets an old answer.
Only answers to first questions are kept: earlier messages would change what a question means.
"""

import hashlib
import unicodedata
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import msgspec
import structlog
from pydantic import BaseModel
from redis.asyncio import Redis

from chatbot.errors import StoreUnavailable
from chatbot.events import Citation, PassageRef
from chatbot.redis_client import RedisBreaker
from knowledge.passage import Language

log = structlog.get_logger(__name__)


class AnswerCacheSettings(BaseModel, frozen=True):
    """How long an answer may be shown again, and how large one may be to be kept."""

    # seconds: how long a grounded answer may be shown again while no model can answer
    keep_seconds: ClassVar[int] = 86_400
    most_bytes: ClassVar[int] = 16_384  # bytes: the largest answer that is kept


class CachedAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer as customers saw it; `answer_id` as in its audit record."""

    answer_id: str
    text: str
    citations: tuple[Citation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """Everything that an answer to a first question is derived from; `passages` in the order of their numbers."""

    tenant: str
    groups: frozenset[str]
    question: str
    passages: tuple[PassageRef, ...]
    prompt_version: str
    model: str
    language: Language
    checks_version: int = 1
    """1: the checks before they had versions, whose keys have none."""

    @property
    def key(self) -> str:
        """The key in Redis; only a hash of the question."""
        passages = [(ref.document_id, ref.version, ref.n) for ref in self.passages]
        asked = (sorted(self.groups), normalised(self.question), passages)
        version = (self.checks_version,) if self.checks_version > 1 else ()
        hashed = msgspec.json.encode((*asked, self.prompt_version, self.model, self.language, *version))
        return f"answers:{{{self.tenant}}}:{hashlib.sha256(hashed).hexdigest()}"


def normalised(question: str) -> str:
    """Return the question in NFKC, case-folded, with single spaces and without end marks."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split()).rstrip(" ?!.。")


class AnswerCache:
    """The answers, in Redis; while it is away nothing is found and nothing is kept."""

    def __init__(self, redis: Redis, breaker: RedisBreaker, settings: AnswerCacheSettings) -> None:
        self._redis = redis
        self._breaker = breaker
        self._settings = settings

    async def find(self, basis: Basis) -> CachedAnswer | None:
        """Return the answer that is kept for the basis, if any."""
        try:
            cached = await self._breaker.call(partial(self._redis.get, basis.key))
            return None if cached is None else msgspec.json.decode(cached, type=CachedAnswer)
        except StoreUnavailable:
            return None
        except msgspec.MsgspecError:  # another release wrote it
            log.warning("cached_answer_unreadable")
            return None

    async def keep(self, basis: Basis, answer: CachedAnswer) -> None:
        """Keep the answer in place of an earlier one, unless it is too large."""
        encoded = msgspec.json.encode(answer)
        if len(encoded) > self._settings.most_bytes:
            return
        try:
            await self._breaker.call(partial(self._redis.set, basis.key, encoded, ex=self._settings.keep_seconds))
        except StoreUnavailable:
            log.warning("answer_caching_failed", answer_id=answer.answer_id)
