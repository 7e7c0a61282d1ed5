"""A cache of grounded answers of the last day, used only while no model can answer (decision 0006).

The key includes all inputs of an answer: tenant, readable groups, question, passages with their versions, prompt,
model, language and checks. So a changed document, prompt or reader never gets an old answer. Only answers to first
questions are cached, because earlier messages change the meaning of a question.
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
    """The lifetime and the maximum size of cached answers."""

    # seconds: the lifetime of a cached answer
    keep_seconds: ClassVar[int] = 86_400
    most_bytes: ClassVar[int] = 16_384  # bytes: the largest cached answer


class CachedAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer as the customer saw it; `answer_id` is that of its audit record."""

    answer_id: str
    text: str
    citations: tuple[Citation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """All inputs of an answer to a first question; `passages` in the order of their numbers."""

    tenant: str
    groups: frozenset[str]
    question: str
    passages: tuple[PassageRef, ...]
    prompt_version: str
    model: str
    language: Language
    checks_version: int

    @property
    def key(self) -> str:
        """The key in Redis, with a hash of the question and the other inputs."""
        passages = [(ref.document_id, ref.version, ref.n) for ref in self.passages]
        asked = (sorted(self.groups), normalised(self.question), passages)
        hashed = msgspec.json.encode((*asked, self.prompt_version, self.model, self.language, self.checks_version))
        return f"answers:{{{self.tenant}}}:{hashlib.sha256(hashed).hexdigest()}"


def normalised(question: str) -> str:
    """Normalise a question: NFKC, case-folded, single spaces, no end marks."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split()).rstrip(" ?!.。")


class AnswerCache:
    """Cached answers in Redis; while Redis is unavailable, no answer is found or stored."""

    def __init__(self, redis: Redis, breaker: RedisBreaker, settings: AnswerCacheSettings) -> None:
        self._redis = redis
        self._breaker = breaker
        self._settings = settings

    async def find(self, basis: Basis) -> CachedAnswer | None:
        """Return the cached answer for the basis, or None."""
        try:
            cached = await self._breaker.call(partial(self._redis.get, basis.key))
            return None if cached is None else msgspec.json.decode(cached, type=CachedAnswer)
        except StoreUnavailable:
            return None
        except msgspec.MsgspecError:  # another release wrote it
            log.warning("cached_answer_unreadable")
            return None

    async def keep(self, basis: Basis, answer: CachedAnswer) -> None:
        """Cache the answer, replacing an earlier one, unless it is too large."""
        encoded = msgspec.json.encode(answer)
        if len(encoded) > self._settings.most_bytes:
            return
        try:
            await self._breaker.call(partial(self._redis.set, basis.key, encoded, ex=self._settings.keep_seconds))
        except StoreUnavailable:
            log.warning("answer_caching_failed", answer_id=answer.answer_id)
