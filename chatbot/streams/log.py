"""The answer log in Redis: every event of an answer under its number, so that any replica can replay it or go on.

An answer is a hash (whose it is, the writer's epoch, the passages shown, the turn's frame), a stream of events with
ids `0-<n>` and, while it runs, its token ids. The tenant's open answers are a sorted set by the end of their writers'
leases, on Redis's time. Hash and stream live for an hour after the last event; what only a successor needs goes with
it (`docs/decisions/0005-leases-and-epochs.md`).
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from importlib.resources import files
from typing import Literal, NewType, cast

import msgspec
from pydantic import BaseModel
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatbot.errors import NotFound, StoreUnavailable
from chatbot.events import LAST, Event, PassageRef, from_json, to_json
from chatbot.redis_client import RedisBreaker
from chatbot.streams.pipelined_connection import PipelinedConnection
from knowledge.identity import Principal

AnswerId = NewType("AnswerId", str)

_TENANTS = "answers:tenants"
# A reader elsewhere says so at least every `block` seconds.
_READ_COUNTS = 2.5

# What redis-py gives when it decodes nothing.
_Entries = list[tuple[bytes, dict[bytes, bytes]]]
_Streams = list[tuple[bytes, _Entries]]


class AnswerLogSettings(BaseModel, frozen=True):
    """Seconds: a log is kept after its last event; a reader waits in Redis for the next one; a writer's lease lasts."""

    keep: int = 3600
    block: float = 2.0
    lease: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """An event and its number in the answer, from 1 without gaps."""

    n: int
    event: Event


class WriterReplaced(Exception):
    """Another replica has taken the answer over: this writer must stop."""


class WriterStanding(IntEnum):
    """How a writer stands with its answer."""

    REPLACED = 0
    OWNED = 1
    CANCELLED = 2
    FORGOTTEN = 3
    READ_ELSEWHERE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LogAppend:
    """What one append adds: events numbered from `first`, and the token ids from the `ids_before`-th on behind them."""

    first: int
    events: Sequence[Event]
    ids_before: int = 0
    token_ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerProgress:
    """How many events an answer has, and the seconds left of its writer's lease (None: it has ended)."""

    events: int
    lease_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """An answer that was taken over, as its log tells it; `frame` is the turn (`chatbot.transcript`)."""

    answer_id: AnswerId
    tenant: str
    sub: str
    conversation_id: str
    epoch: int
    frame: bytes
    cancelled: bool
    token_ids: tuple[int, ...]
    events: tuple[Event, ...]


class AnswerLog:
    """Reads and appends; one epoch at a time may write an answer."""

    def __init__(
        self,
        redis: Redis,
        breaker: RedisBreaker,
        settings: AnswerLogSettings,
        *,
        line: PipelinedConnection,
        readers: Redis | None = None,
    ) -> None:
        """`line` carries the appends, `readers` those who wait in Redis, so that they keep no command waiting."""
        self._redis = redis
        self._readers = readers or redis
        self._line = line
        self._breaker = breaker
        self._settings = settings
        self._lease = round(settings.lease * 1000)
        folder = files("chatbot.streams") / "lua"
        self._open, self._append, self._renew, self._touch, self._take = (
            redis.register_script((folder / f"answer_{name}.lua").read_text("utf-8"))
            for name in ("open", "append", "renew", "touch", "take")
        )

    async def open(
        self,
        who: Principal,
        answer_id: AnswerId,
        *,
        conversation_id: str,
        passages: Sequence[PassageRef],
        frame: bytes = b"",
    ) -> None:
        """Make the log, owned by the caller and written by epoch 1.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        fields = ("sub", who.sub, "conversation", conversation_id, "frame", frame)
        args: list[str | int | bytes] = [answer_id, self._lease, self._settings.keep, *fields]
        args += ["passages", msgspec.json.encode(passages)]
        async with self._redis.pipeline(transaction=False) as pipe:
            await self._open(keys=[_hash(who.tenant, answer_id), _open(who.tenant)], args=args, client=pipe)
            # After the set of open answers: `orphans` looks at them in the other order.
            pipe.sadd(_TENANTS, who.tenant)
            await self._breaker.call(pipe.execute)

    async def append(self, tenant: str, answer_id: AnswerId, written: LogAppend, *, epoch: int) -> WriterStanding:
        """Append what was written, and renew the lease; written twice, it is there once.

        Raises:
            WriterReplaced: the epoch is no longer the writer's.
            StoreUnavailable: Redis cannot be asked.
        """
        last = int(any(isinstance(event, LAST) for event in written.events))
        packed = struct.pack(f"<{len(written.token_ids)}I", *written.token_ids)
        args: list[str | bytes | int] = [answer_id, epoch, self._lease, self._settings.keep, last]
        args += [written.ids_before, packed]
        for n, event in enumerate(written.events, written.first):
            args += [n, event.name, to_json(event)]
        keys = [part(tenant, answer_id) for part in (_hash, _stream, _tokens)]
        keys.append(_open(tenant))
        standing = WriterStanding(
            await self._breaker.call_within(lambda left: self._line.run(self._append, keys, args, within=left))
        )
        if standing is WriterStanding.REPLACED:
            raise WriterReplaced(answer_id)
        return standing

    async def renew(self, tenant: str, epochs: Mapping[AnswerId, int]) -> dict[AnswerId, WriterStanding]:
        """Renew the leases of a tenant's answers, each written by its epoch, and return how they stand.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        return await self._set_leases(tenant, epochs, self._lease)

    async def give_up(self, tenant: str, epochs: Mapping[AnswerId, int]) -> None:
        """Let the leases lapse now, so that another replica may take the answers over at once.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        await self._set_leases(tenant, epochs, 0)

    async def _set_leases(
        self, tenant: str, epochs: Mapping[AnswerId, int], lease: int
    ) -> dict[AnswerId, WriterStanding]:
        keys = [_open(tenant), *(_hash(tenant, answer_id) for answer_id in epochs)]
        args: list[str | int] = [lease, round(_READ_COUNTS * 1000)]
        for answer_id, epoch in epochs.items():
            args += [answer_id, epoch]
        standings = await self._breaker.call(lambda: self._renew(keys=keys, args=args))
        return {answer_id: WriterStanding(n) for answer_id, n in zip(epochs, standings, strict=True)}

    async def touch(
        self, who: Principal, answer_id: AnswerId, word: Literal["read", "cancelled", ""]
    ) -> AnswerProgress:
        """Return how far an answer is, leaving its writer a word: that it is read elsewhere, or to be cancelled.

        Raises:
            NotFound: no such answer, or somebody else's.
            StoreUnavailable: Redis cannot be asked.
        """
        keys, args = [_hash(who.tenant, answer_id), _open(who.tenant)], [answer_id, who.sub, word]
        told = cast("list[int] | None", await self._breaker.call(lambda: self._touch(keys=keys, args=args)))
        if told is None:
            raise NotFound("there is no such answer")
        return AnswerProgress(events=told[0], lease_left=told[1] / 1000 if len(told) > 1 else None)

    async def take(self, tenant: str, answer_id: AnswerId) -> TakenOver | None:
        """Take an answer over, as its next epoch; nothing where its writer's lease holds or it has ended.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        keys = [part(tenant, answer_id) for part in (_hash, _stream, _tokens)]
        args: list[str | int] = [answer_id, self._lease]
        told = await self._breaker.call(lambda: self._take(keys=[*keys, _open(tenant)], args=args))
        if told is None:
            return None
        epoch, sub, conversation_id, frame, cancelled, packed, entries = told
        return TakenOver(
            answer_id=answer_id,
            tenant=tenant,
            sub=sub.decode(),
            conversation_id=conversation_id.decode(),
            epoch=epoch,
            frame=frame,
            cancelled=bool(cancelled),
            token_ids=struct.unpack(f"<{len(packed) // 4}I", packed),
            events=tuple(from_json(fields[1].decode(), fields[3]) for _, fields in entries),
        )

    async def orphans(self, *, lapsed_for: float) -> list[tuple[str, AnswerId]]:
        """Return the (tenant, answer) whose writers' leases have lapsed for so many seconds.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        seconds, micros = await self._breaker.call(self._redis.time)
        before = seconds * 1000 + micros // 1000 - round(lapsed_for * 1000)
        found: list[tuple[str, AnswerId]] = []
        for name in cast("set[bytes]", await self._breaker.call(lambda: self._redis.smembers(_TENANTS))):
            found += await self._orphans_of(name.decode(), before)
        return found

    async def _orphans_of(self, tenant: str, before: int) -> list[tuple[str, AnswerId]]:
        key = _open(tenant)
        late = cast(
            "list[bytes]",
            await self._breaker.call(lambda: self._redis.zrangebyscore(key, "-inf", before, start=0, num=100)),
        )
        if not late and not await self._breaker.call(lambda: self._redis.exists(key)):
            # In this order: one that is opened meanwhile is seen by the second look, or names its tenant anew.
            await self._breaker.call(lambda: self._redis.srem(_TENANTS, tenant))
            if await self._breaker.call(lambda: self._redis.exists(key)):
                await self._breaker.call(lambda: self._redis.sadd(_TENANTS, tenant))
        return [(tenant, AnswerId(answer_id.decode())) for answer_id in late]

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

    async def read(self, tenant: str, answer_id: AnswerId, *, after: int, wait: float) -> list[LogEntry]:
        """Return the entries after number `after`, waiting at most `wait` seconds for the next; nothing otherwise.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        key, block = _stream(tenant, answer_id), max(1, round(1000 * min(wait, self._settings.block)))
        # Blocks in Redis on purpose, so not under the breaker's deadline.
        try:
            found = await self._readers.xread({key: f"0-{after}"}, block=block)
        except RedisError as exc:
            raise StoreUnavailable from exc
        return [_entry(entry_id, fields) for _, entries in cast("_Streams", found) for entry_id, fields in entries]

    async def length(self, who: Principal, answer_id: AnswerId) -> tuple[int, bool]:
        """Return how many events the log holds and whether the last one ends it.

        Raises:
            NotFound: no such answer, or somebody else's.
            StoreUnavailable: Redis cannot be asked.
        """
        progress = await self.touch(who, answer_id, "")
        return progress.events, progress.lease_left is None

    async def forget(self, tenant: str, answer_ids: Sequence[str]) -> None:
        """Remove the logs of a conversation that its customer deletes.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        keys = [key(tenant, AnswerId(a)) for a in answer_ids for key in (_hash, _stream, _tokens)]
        if keys:
            await self._breaker.call(lambda: self._redis.delete(*keys))


def answer_key(tenant: str, answer_id: AnswerId) -> str:
    """Return the key that exists for as long as the answer's log does."""
    return _hash(tenant, answer_id)


def _hash(tenant: str, answer_id: AnswerId) -> str:
    return f"{{{tenant}}}:answer:{answer_id}"


def _stream(tenant: str, answer_id: AnswerId) -> str:
    return f"{{{tenant}}}:answer:{answer_id}:events"


def _tokens(tenant: str, answer_id: AnswerId) -> str:
    return f"{{{tenant}}}:answer:{answer_id}:tokens"


def _open(tenant: str) -> str:
    return f"{{{tenant}}}:answers:open"


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> LogEntry:
    return LogEntry(n=int(entry_id.rpartition(b"-")[2]), event=from_json(fields[b"name"].decode(), fields[b"data"]))
