"""The answer log in Redis: every event of an answer under its number, so that any replica can replay it.

An answer is a hash (whose it is, the writer's epoch, the passages shown) and a stream of events with ids `0-<n>`.
Both live for an hour after the last event.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import NewType, cast

import msgspec
from pydantic import BaseModel
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatbot.errors import NotFound, StoreUnavailable
from chatbot.events import LAST, Event, from_json, to_json
from chatbot.redis_breaker import RedisBreaker
from knowledge.identity import Principal

AnswerId = NewType("AnswerId", str)

# What redis-py gives when it decodes nothing.
_Entries = list[tuple[bytes, dict[bytes, bytes]]]
_Streams = list[tuple[bytes, _Entries]]


class AnswerLogSettings(BaseModel, frozen=True):
    """How long a log is kept after its last event, and how long a reader waits in Redis for the next one."""

    keep: int = 3600
    block: float = 2.0


class PassageRef(msgspec.Struct, frozen=True, kw_only=True):
    """Which passage stands behind a source's number."""

    document_id: str
    version: int
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event and its number in the answer, from 1 without gaps."""

    n: int
    event: Event


class WriterReplaced(Exception):
    """Another replica has taken the answer over: this writer must stop."""


class AnswerLog:
    """Reads and appends; one epoch at a time may write an answer."""

    def __init__(self, redis: Redis, breaker: RedisBreaker, settings: AnswerLogSettings) -> None:
        self._redis = redis
        self._breaker = breaker
        self._settings = settings
        self._append = redis.register_script((files("chatbot") / "answer_log.lua").read_text("utf-8"))

    async def open(
        self, who: Principal, answer_id: AnswerId, *, epoch: int, conversation_id: str, passages: Sequence[PassageRef]
    ) -> None:
        """Make the log, owned by the caller.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        fields = ("sub", who.sub, "epoch", epoch, "conversation", conversation_id)
        key = _hash(who.tenant, answer_id)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key, items=[*fields, "passages", msgspec.json.encode(passages)])
            pipe.expire(key, self._settings.keep)
            await self._breaker.call(pipe.execute)

    async def append(
        self, tenant: str, answer_id: AnswerId, *, epoch: int, first: int, events: Sequence[Event]
    ) -> None:
        """Append events numbered from `first`.

        Raises:
            WriterReplaced: the epoch is no longer the writer's.
            StoreUnavailable: Redis cannot be asked.
        """
        args: list[str | bytes | int] = [epoch, self._settings.keep]
        for n, event in enumerate(events, first):
            args += [n, event.name, to_json(event)]
        keys = [_hash(tenant, answer_id), _stream(tenant, answer_id)]
        written = await self._breaker.call(lambda: self._append(keys=keys, args=args))
        if not written:
            raise WriterReplaced(answer_id)

    async def passages(self, who: Principal, answer_id: AnswerId) -> tuple[PassageRef, ...]:
        """Return the passages behind the answer's sources, in their order.

        Raises:
            NotFound: no such answer, or somebody else's.
            StoreUnavailable: Redis cannot be asked.
        """
        key = _hash(who.tenant, answer_id)
        sub, refs = await self._breaker.call(lambda: self._redis.hmget(key, ["sub", "passages"]))
        if refs is None or sub != who.sub.encode():
            raise NotFound("there is no such answer")
        return msgspec.json.decode(refs, type=tuple[PassageRef, ...])

    async def read(self, who: Principal, answer_id: AnswerId, *, after: int) -> list[Entry]:
        """Return the entries after number `after`, waiting up to `block` seconds for the next; an empty list otherwise.

        Raises:
            NotFound: no such answer, or somebody else's.
            StoreUnavailable: Redis cannot be asked.
        """
        await self.passages(who, answer_id)
        key = _stream(who.tenant, answer_id)
        # Blocks in Redis on purpose, so not under the breaker's deadline.
        try:
            found = await self._redis.xread({key: f"0-{after}"}, block=int(self._settings.block * 1000))
        except RedisError as exc:
            raise StoreUnavailable from exc
        return [_entry(entry_id, fields) for _, entries in cast("_Streams", found) for entry_id, fields in entries]

    async def length(self, who: Principal, answer_id: AnswerId) -> tuple[int, bool]:
        """Return how many events the log holds and whether the last one ends it.

        Raises:
            NotFound: no such answer, or somebody else's.
            StoreUnavailable: Redis cannot be asked.
        """
        await self.passages(who, answer_id)
        stream = _stream(who.tenant, answer_id)
        newest = await self._breaker.call(lambda: self._redis.xrevrange(stream, count=1))
        if not newest:
            return 0, False
        entry = _entry(*cast("_Entries", newest)[0])
        return entry.n, isinstance(entry.event, LAST)

    async def forget(self, tenant: str, answer_ids: Sequence[str]) -> None:
        """Remove the logs of a conversation that its customer deletes.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        keys = [key(tenant, AnswerId(a)) for a in answer_ids for key in (_hash, _stream)]
        if keys:
            await self._breaker.call(lambda: self._redis.delete(*keys))


def answer_key(tenant: str, answer_id: AnswerId) -> str:
    """Return the key that exists for as long as the answer's log does."""
    return _hash(tenant, answer_id)


def _hash(tenant: str, answer_id: AnswerId) -> str:
    return f"{{{tenant}}}:answer:{answer_id}"


def _stream(tenant: str, answer_id: AnswerId) -> str:
    return f"{{{tenant}}}:answer:{answer_id}:events"


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    return Entry(n=int(entry_id.rpartition(b"-")[2]), event=from_json(fields[b"name"].decode(), fields[b"data"]))
