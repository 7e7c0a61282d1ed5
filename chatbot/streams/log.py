"""The answer log in Redis: every event of an answer under its number, so that any replica can stream or continue it.

An answer is a hash (its owner, the writer's epoch, the passages shown, the turn's checkpoint, and its outcome once that
is decided), a stream of events with ids `0-<n>` and, while it runs, the model's output. The tenant's open answers are a
sorted set by the end of their writers' leases, on Redis's time. Hash and stream live for an hour after the last event;
what only a successor needs leaves with it (`docs/decisions/0005-leases-and-epochs.md`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache, partial
from importlib.resources import files
from typing import Any, ClassVar, Literal, NewType, cast
from uuid import uuid4

import msgspec
from pydantic import BaseModel, Field
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from chatbot.errors import NotFound
from chatbot.events import Event, PassageRef, from_json, to_json
from chatbot.redis_client import RedisBreaker
from chatbot.streams.pipelined_connection import Argument, PipelinedConnection
from knowledge.identity import Principal

AnswerId = NewType("AnswerId", str)

_TENANTS = "answers:tenants"
_PING = "answers:ping"
_BEAT_KEEP_SECONDS = 3600
_READ_MARK_SECONDS = 2.5
"""How long a mark "read" counts; a replica whose readers follow the answer renews it every second."""
_MOST_ENTRIES = 500
"""How many events of an answer are read at once: more than most answers have."""
_MOST_LOGS = 100
"""How many logs one command reads."""
_MOST_ORPHANS = 100
"""How many of a tenant's orphans one sweep looks at."""

# What redis-py gives when it decodes nothing.
_Entries = list[tuple[bytes, dict[bytes, bytes]]]
_Streams = list[tuple[bytes, _Entries]]


class AnswerLogSettings(BaseModel, frozen=True):
    """How long a log is kept, read and owned."""

    keep: int = Field(3600, description="seconds: how long a finished stream can be read again")
    lease: ClassVar[float] = 2.0  # seconds: after which another replica may take a silent writer's answer over


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """An event and its number in the answer, from 1 without gaps; `data` is the event as log and wire have it.

    n = 0 marks an error of this connection; it is not part of the answer.
    """

    n: int
    event: Event
    data: bytes


def entry_of(n: int, event: Event) -> LogEntry:
    """Return an event under its number, encoded once for the log and all its readers."""
    return LogEntry(n=n, event=event, data=to_json(event))


class WriterStanding(IntEnum):
    """A writer's standing with its answer, as the scripts `answer_append` and `answer_renew` return it."""

    REPLACED = 0
    """Another replica has taken the answer over: this writer must stop."""
    OWNED = 1
    CANCELLED = 2
    """Owned, but to be cancelled."""
    DELETED = 3
    """Its customer has deleted the answer."""
    READ_ELSEWHERE = 4
    """Owned, and read on another replica; only `answer_renew` reports it."""
    BEHIND = 5
    """Redis lacks what it had, or all of it: everything is to be sent again."""


@dataclass(frozen=True, slots=True)
class LogOpening:
    """The content of a new log: its conversation, the passages behind the sources, and what a successor reads."""

    conversation_id: str
    passages: Sequence[PassageRef] = ()
    checkpoint: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogAppend:
    """The content of one append: entries in their order, and the output behind the first `output_before` bytes."""

    entries: Sequence[LogEntry]
    output_before: int = 0
    output: bytes = b""
    outcome: bytes = b""
    """How the answer ends, where that is decided: with the last of what comes before its last event."""
    abandoned: bool = False
    """Whether it was cancelled because nobody read it: a retry with its Idempotency-Key starts a new answer."""


class AnswerProgress(msgspec.Struct, frozen=True):
    """How many events an answer has, and the milliseconds left of its writer's lease (None: it has ended)."""

    events: int
    lease_left_ms: int | None = None

    @property
    def lease_left(self) -> float | None:
        """The seconds left of its writer's lease; None where it has ended."""
        return None if self.lease_left_ms is None else self.lease_left_ms / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """An answer that was taken over, as its log has it; `checkpoint` and `outcome` are read by `chatbot.turns`.

    There is an outcome where the writer before had decided how the answer ends, and may have settled and recorded it.
    """

    answer_id: AnswerId
    tenant: str
    sub: str
    conversation_id: str
    epoch: int
    checkpoint: bytes
    cancelled: bool
    output: bytes
    events: tuple[Event, ...]
    passages: tuple[PassageRef, ...] = ()
    outcome: bytes = b""


class AnswerLog:
    """Appends to and reads the logs of answers; an answer is written by one epoch at a time.

    Every method that asks Redis raises `StoreUnavailable` where that cannot be asked.
    """

    def __init__(
        self, redis: Redis, breaker: RedisBreaker, settings: AnswerLogSettings, *, pipelined: PipelinedConnection
    ) -> None:
        """`pipelined` carries appends, leases and marks."""
        self._redis = redis
        self._pipelined = pipelined
        self._breaker = breaker
        self._settings = settings
        self._lease_ms = round(settings.lease * 1000)
        self._beat_key = f"answers:beat:{uuid4().hex}"
        self._beats = self._confirmed_beat = 0
        self._server_run: bytes | None = None
        folder = files("chatbot.streams") / "lua"
        self._open, self._append, self._renew, self._touch, self._take = (
            redis.register_script((folder / f"answer_{name}.lua").read_text("utf-8"))
            for name in ("open", "append", "renew", "touch", "take")
        )
        self._beat = redis.register_script((folder / "beat.lua").read_text("utf-8"))

    async def open(self, who: Principal, answer_id: AnswerId, opening: LogOpening, *, epoch: int = 1) -> bool:
        """Make the log, owned by the caller and written by an epoch; a second time changes nothing.

        Return false where another replica has taken the answer over.
        """
        named = {
            "answer_id": answer_id,
            "epoch": epoch,
            "lease_ms": self._lease_ms,
            "keep_seconds": self._settings.keep,
            "sub": who.sub,
            "conversation": opening.conversation_id,
        }
        keys = [answer_key(who.tenant, answer_id), _open_answers_key(who.tenant)]
        args = [msgspec.msgpack.encode(named), opening.checkpoint, msgspec.json.encode(opening.passages)]
        async with self._redis.pipeline(transaction=False) as pipe:
            await self._open(keys=keys, args=args, client=pipe)
            pipe.sadd(_TENANTS, who.tenant)
            opened, _ = await self._breaker.call(pipe.execute)
        return bool(opened)

    @property
    def lease_seconds(self) -> float:
        """How long a writer's lease lasts."""
        return self._settings.lease

    @property
    def back_for(self) -> float:
        """For how many seconds Redis has been back since it was away last; infinite where it never was."""
        return self._breaker.back_for

    async def ping(self) -> None:
        """Ask Redis whether it takes writes."""
        await self._breaker.call(lambda: self._redis.set(_PING, "", px=1000))

    async def has_forgotten(self) -> bool:
        """Write the next number of a count of this process; return whether Redis may have forgotten its last moments.

        A failover, a restart from an older file or a restore does so without a word: it is another run of the server,
        or has lost a number that was confirmed.
        """
        self._beats += 1
        beat, confirmed = self._beats, self._confirmed_beat
        before, run = await self._breaker.call(
            lambda: self._beat(keys=[self._beat_key], args=[beat, _BEAT_KEEP_SECONDS])
        )
        is_another = self._server_run not in (None, run)
        self._confirmed_beat, self._server_run = beat, run
        return is_another or before < confirmed

    async def append(self, tenant: str, answer_id: AnswerId, append: LogAppend, *, epoch: int) -> WriterStanding:
        """Append events and model output, and renew the lease; the same append sent twice is there once."""
        ended = 0
        if any(entry.event.ends for entry in append.entries):
            ended = 2 if append.abandoned else 1  # 2: nobody has read its end
        # In the order in which `answer_append.lua` names them.
        args: list[Argument] = [answer_id, epoch, self._lease_ms, self._settings.keep, ended, append.output_before]
        args += [append.output, append.outcome]
        for entry in append.entries:
            args += [entry.n, entry.event.name, entry.data]
        return WriterStanding(await self._run(self._append, _append_keys(tenant, answer_id), args))

    async def _run(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Return a script's reply; it may run twice."""
        return await self._breaker.call_within(lambda left: self._pipelined.run(script, keys, args, within=left))

    async def renew(self, tenant: str, epochs: Mapping[AnswerId, int]) -> dict[AnswerId, WriterStanding]:
        """Renew the leases of a tenant's answers, each written by its epoch, and return the writers' standings."""
        return await self._set_leases(tenant, epochs, self._lease_ms)

    async def give_up(self, tenant: str, epochs: Mapping[AnswerId, int]) -> None:
        """Let the leases lapse now, so that another replica may take the answers over at once."""
        await self._set_leases(tenant, epochs, 0)

    async def _set_leases(
        self, tenant: str, epochs: Mapping[AnswerId, int], lease_ms: int
    ) -> dict[AnswerId, WriterStanding]:
        named = {
            "lease_ms": lease_ms,
            "reader_ms": round(_READ_MARK_SECONDS * 1000),
            "writers": [{"answer_id": answer_id, "epoch": epoch} for answer_id, epoch in epochs.items()],
        }
        keys = [_open_answers_key(tenant), *(answer_key(tenant, answer_id) for answer_id in epochs)]
        reply = await self._run(self._renew, keys, [msgspec.msgpack.encode(named)])
        standings = msgspec.msgpack.decode(reply, type=dict[str, WriterStanding])
        return {answer_id: standings[answer_id] for answer_id in epochs}

    async def touch(
        self, who: Principal, answer_id: AnswerId, mark: Literal["read", "cancelled", ""]
    ) -> AnswerProgress:
        """Return how far an answer is, and leave a mark for its writer: it is read elsewhere, or to be cancelled.

        Raises:
            NotFound: no such answer, or another customer's.
        """
        progress = (await self.touch_all(who.tenant, {answer_id: who.sub}, mark))[answer_id]
        if progress is None:
            raise NotFound("answer not found")
        return progress

    async def touch_all(
        self, tenant: str, subs: Mapping[AnswerId, str], mark: Literal["read", "cancelled", ""]
    ) -> dict[AnswerId, AnswerProgress | None]:
        """Touch answers of a tenant, each for its customer; None where that customer has no such answer."""
        keys = [_open_answers_key(tenant), *(answer_key(tenant, answer_id) for answer_id in subs)]
        answers = [{"answer_id": answer_id, "sub": sub} for answer_id, sub in subs.items()]
        reply = await self._run(self._touch, keys, [msgspec.msgpack.encode({"mark": mark, "answers": answers})])
        replies = msgspec.msgpack.decode(reply, type=list[AnswerProgress | bool])
        return {
            answer_id: reply if isinstance(reply, AnswerProgress) else None
            for answer_id, reply in zip(subs, replies, strict=True)
        }

    async def was_deleted(self, tenant: str, answer_id: AnswerId) -> bool:
        """Return whether an answer that is not there was deleted lately; else Redis may have forgotten it."""
        return bool(await self._breaker.call(lambda: self._redis.exists(_deleted_key(tenant, answer_id))))

    async def take_over(self, tenant: str, answer_id: AnswerId) -> TakenOver | None:
        """Take an answer over, as its next epoch; None where its writer's lease holds or it has ended."""
        keys = _append_keys(tenant, answer_id)
        args = [msgspec.msgpack.encode({"answer_id": answer_id, "lease_ms": self._lease_ms})]
        reply = await self._breaker.call(lambda: self._take(keys=keys, args=args))
        if reply is None:
            return None
        epoch, sub, conversation, checkpoint, cancelled, passages, outcome, output, entries = reply
        return TakenOver(
            answer_id=answer_id,
            tenant=tenant,
            sub=sub.decode(),
            conversation_id=conversation.decode(),
            epoch=epoch,
            checkpoint=checkpoint,
            cancelled=bool(cancelled),
            outcome=outcome,
            passages=msgspec.json.decode(passages, type=tuple[PassageRef, ...]),
            output=output,
            events=tuple(_event(dict(zip(pairs[::2], pairs[1::2], strict=True))) for _, pairs in entries),
        )

    async def orphans(self, *, lapsed_for: float) -> list[tuple[str, AnswerId]]:
        """Return the (tenant, answer) whose writers' leases lapsed at least `lapsed_for` seconds ago."""
        seconds, micros = await self._breaker.call(self._redis.time)
        before_ms = seconds * 1000 + micros // 1000 - round(lapsed_for * 1000)
        orphans: list[tuple[str, AnswerId]] = []
        for name in cast("set[bytes]", await self._breaker.call(lambda: self._redis.smembers(_TENANTS))):
            tenant = name.decode()
            lapsed = partial(self._redis.zrangebyscore, _open_answers_key(tenant), "-inf", before_ms)
            answer_ids = await self._breaker.call(partial(lapsed, start=0, num=_MOST_ORPHANS))
            orphans += [(tenant, AnswerId(answer_id.decode())) for answer_id in cast("list[bytes]", answer_ids)]
        return orphans

    async def passages(self, who: Principal, answer_id: AnswerId) -> tuple[PassageRef, ...]:
        """Return the passages behind the answer's sources, in their order.

        Raises:
            NotFound: no such answer, or another customer's.
        """
        key = answer_key(who.tenant, answer_id)
        sub, refs = await self._breaker.call(lambda: self._redis.hmget(key, ["sub", "passages"]))
        if refs is None or sub != who.sub.encode():
            raise NotFound("answer not found")
        return msgspec.json.decode(refs, type=tuple[PassageRef, ...])

    async def read_all(self, logs: Mapping[AnswerId, tuple[str, int]]) -> dict[AnswerId, list[LogEntry]]:
        """Return what logs have by now after an entry of each, by its number; `logs` names their tenants, too."""
        new: dict[AnswerId, list[LogEntry]] = {}
        names = {_events_key(tenant, answer_id).encode(): answer_id for answer_id, (tenant, _) in logs.items()}
        after: list[tuple[Any, Any]] = [(name, f"0-{logs[answer_id][1]}") for name, answer_id in names.items()]
        for first in range(0, len(after), _MOST_LOGS):
            read = partial(self._redis.xread, dict(after[first : first + _MOST_LOGS]), count=_MOST_ENTRIES)
            new |= {names[key]: _entries(entries) for key, entries in cast("_Streams", await self._breaker.call(read))}
        return new

    async def entries(self, tenant: str, answer_id: AnswerId, *, after: int, until: int) -> list[LogEntry]:
        """Return the entries from behind number `after` to `until`, so many as are read at once."""
        key = _events_key(tenant, answer_id)
        stored = await self._breaker.call(
            lambda: self._redis.xrange(key, f"0-{after + 1}", f"0-{until}", count=_MOST_ENTRIES)
        )
        return _entries(cast("_Entries", stored))

    async def all_events(self, tenant: str, answer_id: AnswerId) -> list[Event]:
        """Return every event of an answer, none where there is no log any more."""
        events: list[Event] = []
        while more := await self.entries(tenant, answer_id, after=len(events), until=len(events) + _MOST_ENTRIES):
            events += [entry.event for entry in more]
        return events

    async def running(self, tenant: str, answer_ids: Sequence[AnswerId]) -> set[AnswerId]:
        """Return which of a tenant's answers have not ended."""
        key = _open_answers_key(tenant)
        leases = await self._breaker.call(lambda: self._redis.zmscore(key, list(answer_ids)))
        pairs = zip(answer_ids, leases, strict=True)
        return {answer_id for answer_id, lease_end in pairs if lease_end is not None}

    async def length(self, who: Principal, answer_id: AnswerId) -> tuple[int, bool]:
        """Return how many events the log holds and whether the last one ends the answer.

        Raises:
            NotFound: no such answer, or another customer's.
        """
        progress = await self.touch(who, answer_id, "")
        return progress.events, progress.lease_left is None

    async def forget(self, tenant: str, answer_ids: Sequence[str]) -> None:
        """Remove the logs of a conversation that its customer deletes."""
        if not answer_ids:
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for answer_id in map(AnswerId, answer_ids):
                # So that its writer can tell a deletion from a log that Redis has lost.
                pipe.set(_deleted_key(tenant, answer_id), "", ex=self._settings.keep)
                pipe.delete(*_answer_keys(tenant, answer_id))
            await self._breaker.call(pipe.execute)


def answer_key(tenant: str, answer_id: AnswerId) -> str:
    """Return the key of an answer's hash, which exists for as long as the answer's log does."""
    return f"{{{tenant}}}:answer:{answer_id}"


def _answer_keys(tenant: str, answer_id: AnswerId) -> tuple[str, str, str]:
    """Return the keys of an answer: its hash, its events, the model's output."""
    key = answer_key(tenant, answer_id)
    return key, _events_key(tenant, answer_id), f"{key}:output"


@lru_cache(maxsize=4096)
def _append_keys(tenant: str, answer_id: AnswerId) -> tuple[str, ...]:
    """Return the keys of an answer and of its tenant's open answers; kept, since each token asks for them."""
    return *_answer_keys(tenant, answer_id), _open_answers_key(tenant)


def _events_key(tenant: str, answer_id: AnswerId) -> str:
    return f"{answer_key(tenant, answer_id)}:events"


def _deleted_key(tenant: str, answer_id: AnswerId) -> str:
    return f"{answer_key(tenant, answer_id)}:deleted"


def _open_answers_key(tenant: str) -> str:
    return f"{{{tenant}}}:answers:open"


def _entries(stored: _Entries) -> list[LogEntry]:
    return [entry_of(int(entry_id.rpartition(b"-")[2]), _event(fields)) for entry_id, fields in stored]


def _event(fields: Mapping[bytes, bytes]) -> Event:
    """Return the event of an entry; of one that is none, what stands for it under its number."""
    name = fields.get(b"name", b"").decode("ascii", "replace")
    return from_json(name if name.isidentifier() else "unknown", fields.get(b"data", b""))
