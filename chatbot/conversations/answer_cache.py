"""Grounded answers of the last day, shown again only while no model can answer (decision 0006).

An answer is found by all that it stands on: tenant, readable groups, question, passages with their versions, prompt,
model and language. So a changed document, a new prompt or another reader never meets an old answer. Only answers to
first questions are kept: what was said before would change what a question means.
"""

import hashlib
import unicodedata
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog
from pydantic import BaseModel, PositiveInt
from redis.asyncio import Redis

from chatbot.errors import StoreUnavailable
from chatbot.events import Citation, PassageRef
from chatbot.redis_client import RedisBreaker
from knowledge.passage import Language

log = structlog.get_logger(__name__)


class AnswerCacheSettings(BaseModel, frozen=True):
    """How long an answer may be shown again, and how large one may be to be kept."""

    keep_seconds: PositiveInt = 86_400
    most_bytes: PositiveInt = 16_384


class CachedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as customers saw it; `answer_id` is the one that the audit trail knows it by, `at` is Unix seconds."""

    answer_id: str
    text: str
    citations: tuple[Citation, ...]
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """All that an answer to a first question stands on; `passages` in the order in which they are numbered."""

    tenant: str
    groups: frozenset[str]
    question: str
    passages: tuple[PassageRef, ...]
    prompt_version: str
    model: str
    language: Language

    @property
    def key(self) -> str:
        """The cache's key: of the question only a hash."""
        passages = [(ref.document_id, ref.version, ref.n) for ref in self.passages]
        said = (sorted(self.groups), normalised(self.question), passages)
        parts = msgspec.json.encode((*said, self.prompt_version, self.model, self.language))
        return f"answers:{{{self.tenant}}}:{hashlib.sha256(parts).hexdigest()}"


def normalised(question: str) -> str:
    """Return the question without what does not change its meaning: width and case of letters, spaces, end marks."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split()).rstrip(" ?!.。")


class AnswerCache:
    """The answers, in Redis; while that is away nothing is found and nothing kept."""

    def __init__(self, redis: Redis, breaker: RedisBreaker, settings: AnswerCacheSettings) -> None:
        self._redis = redis
        self._breaker = breaker
        self._settings = settings

    async def find(self, basis: Basis) -> CachedAnswer | None:
        """Return the answer that was given on the same basis, if it is still kept."""
        try:
            kept = await self._breaker.call(partial(self._redis.get, basis.key))
            return None if kept is None else msgspec.json.decode(kept, type=CachedAnswer)
        except StoreUnavailable:
            return None
        except msgspec.MsgspecError:  # another release wrote it
            log.warning("cached_answer_unreadable")
            return None

    async def keep(self, basis: Basis, answer: CachedAnswer) -> None:
        """Keep the answer in place of an earlier one, unless it is too large."""
        written = msgspec.json.encode(answer)
        if len(written) > self._settings.most_bytes:
            return
        try:
            await self._breaker.call(partial(self._redis.set, basis.key, written, ex=self._settings.keep_seconds))
        except StoreUnavailable:
            log.warning("answer_not_cached", answer_id=answer.answer_id)
