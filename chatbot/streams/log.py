"""The answer log in Redis: every event of an answer under its number, so that any replica can stream or continue it.

An answer is a hash (its owner, the writer's epoch, the passages shown, the turn's checkpoint, and its outcome once that
is decided), a stream of events with ids `0-<n>` and, while it runs, the model's output. The open answers are a sorted
set by the end of their writers' leases, on Redis's time. Hash and stream live for an hour after the last event; what
only a successor needs leaves with it (`docs/decisions/0005-leases-and-epochs.md`).
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
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
from chatbot.streams.pipelined_connection import Argument, PipelinedConnection, open_pipelined_connection
from knowledge.identity import Principal

AnswerId = NewType("AnswerId", str)

_OPEN = "answers:open"
"""The sorted set of the answers that have not ended: the keys of their hashes by the end of their leases."""
_BEAT_KEEP_SECONDS = 3600
_READ_MARK_SECONDS = 2.5
"""How long a mark "read" counts; a replica whose readers follow the answer renews it every second."""
_MOST_ENTRIES = 500
"""How many events of an answer one poll reads: more than most answers have."""
_MOST_LOGS = 100
"""How many logs one command reads."""
_MOST_LAPSED = 1000
"""How many answers without a writer are listed at once, the longest without one first."""

# What redis-py gives when it decodes nothing.
_Entries = list[tuple[bytes, dict[bytes, bytes]]]
_Streams = list[tuple[bytes, _Entries]]


class AnswerLogSettings(BaseModel, frozen=True):
    """How long a log is kept, read and owned."""

    keep: int = Field(3600, description="seconds: A finished stream can be read again for this long.")
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
    """Redis has lost the log or a part of it: everything must be sent again."""


@dataclass(frozen=True, slots=True)
class LogOpening:
    """The content of a new log: its conversation, the passages behind the sources, and what a successor reads."""

    conversation_id: str
    passages: Sequence[PassageRef] = ()
    checkpoint: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogAppend:
    """The content of one append: entries in order, and the model output after its first `output_before` bytes."""

    entries: Sequence[LogEntry]
    output_before: int = 0
    output: bytes = b""
    outcome: bytes = b""
    """The encoded result, once it is decided; it is appended before the last event."""
    unread: bool = False
    """Whether it was cancelled because nobody read it: a retry with its Idempotency-Key starts a new answer."""


class AnswerProgress(msgspec.Struct, frozen=True):
    """How far an answer is, as its customer may know."""

    events: int | None = None
    """None where the customer has no such answer."""
    lease_left: float | None = None
    """The seconds left of its writer's lease; None where it has ended."""
    deleted: bool = False
    """Whether it is not there because it was deleted; else Redis may have forgotten it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """An answer that was taken over, as its log has it; checkpoint and `outcome` are read by `chatbot.turns`.

    `outcome` is empty unless the previous writer had decided it; that writer may have settled and recorded the answer.
    """

    answer_id: AnswerId
    sub: str
    epoch: int
    opening: LogOpening
    cancelled: bool
    output: bytes
    events: tuple[Event, ...]
    outcome: bytes = b""


class AnswerLog:
    """Appends to and reads the logs of answers; an answer is written by one epoch at a time.

    Every method that asks Redis raises `StoreUnavailable` where that cannot be asked. A script may run twice.
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
        self._open, self._append, self._renew, self._touch, self._take, self._beat = (
            redis.register_script((folder / f"answer_{name}.lua").read_text("utf-8"))
            for name in ("open", "append", "renew", "touch", "take", "beat")
        )

    @property
    def lease_seconds(self) -> float:
        """How long a writer's lease lasts."""
        return self._settings.lease

    @property
    def back_for(self) -> float:
        """Seconds since the end of the last Redis outage; infinite if there was none."""
        return self._breaker.back_for

    async def _run(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        return await self._breaker.call(lambda: self._pipelined.run(script, keys, args))

    async def ping(self) -> None:
        """Ask Redis whether it takes writes."""
        await self._breaker.call(lambda: self._redis.set("answers:ping", "", px=1000))

    async def has_forgotten(self) -> bool:
        """Write the next number of this process's count; return whether Redis may have forgotten its last moments.

        A failover, a restart from an older file or a restore is silent: another run of the server answers, or a number
        that was confirmed is lost.
        """
        self._beats += 1
        beat = partial(self._beat, keys=[self._beat_key], args=[self._beats, _BEAT_KEEP_SECONDS])
        before, run = await self._breaker.call(beat)
        has_forgotten = before < self._confirmed_beat or self._server_run not in (None, run)
        self._confirmed_beat, self._server_run = self._beats, run
        return has_forgotten

    # --- writing -----------------------------------------------------------------------------------------------------

    async def open(self, who: Principal, answer_id: AnswerId, opening: LogOpening, *, epoch: int = 1) -> bool:
        """Make the log, owned by the caller and written by an epoch; a second time changes nothing.

        Return false where another replica has taken the answer over.
        """
        options = {
            "epoch": epoch,
            "lease_ms": self._lease_ms,
            "keep_seconds": self._settings.keep,
            "sub": who.sub,
            "conversation": opening.conversation_id,
        }
        args = [msgspec.msgpack.encode(options), opening.checkpoint, msgspec.json.encode(opening.passages)]
        keys = [answer_key(who.tenant, answer_id), _OPEN]
        return bool(await self._breaker.call(lambda: self._open(keys=keys, args=args)))

    async def append(self, tenant: str, answer_id: AnswerId, append: LogAppend, *, epoch: int) -> WriterStanding:
        """Append events and model output, and renew the lease."""
        ended = 0
        if any(entry.event.ends for entry in append.entries):
            ended = 2 if append.unread else 1  # 2: nobody has read its end
        # In the order in which `answer_append.lua` names them.
        args: list[Argument] = [epoch, self._lease_ms, self._settings.keep, ended, append.output_before]
        args += [append.output, append.outcome]
        for entry in append.entries:
            args += [entry.n, entry.event.name, entry.data]
        return WriterStanding(await self._run(self._append, _script_keys(tenant, answer_id), args))

    async def renew(
        self, writers: Mapping[AnswerId, tuple[str, int]], *, lease_ms: int | None = None
    ) -> dict[AnswerId, WriterStanding]:
        """Renew the leases of answers, each of a tenant and written by an epoch; return the writers' standings."""
        options = {
            "lease_ms": self._lease_ms if lease_ms is None else lease_ms,
            "reader_ms": round(_READ_MARK_SECONDS * 1000),
            "epochs": [epoch for _, epoch in writers.values()],
        }
        keys = [_OPEN, *(answer_key(tenant, answer_id) for answer_id, (tenant, _) in writers.items())]
        standings = await self._run(self._renew, keys, [msgspec.msgpack.encode(options)])
        return dict(zip(writers, map(WriterStanding, standings), strict=True))

    async def give_up(self, writers: Mapping[AnswerId, tuple[str, int]]) -> None:
        """Let the leases lapse now, so that another replica may take the answers over at once."""
        await self.renew(writers, lease_ms=0)

    async def take_over(self, tenant: str, answer_id: AnswerId) -> TakenOver | None:
        """Take an answer over, as its next epoch; None where its writer's lease holds or it has ended."""
        keys = _script_keys(tenant, answer_id)
        reply = await self._breaker.call(lambda: self._take(keys=keys, args=[self._lease_ms]))
        if reply is None:
            return None
        epoch, sub, conversation, checkpoint, cancelled, passages, outcome, output, entries = reply
        return TakenOver(
            answer_id=answer_id,
            sub=sub.decode(),
            epoch=epoch,
            opening=LogOpening(
                conversation.decode(), msgspec.json.decode(passages, type=tuple[PassageRef, ...]), checkpoint
            ),
            cancelled=bool(cancelled),
            outcome=outcome,
            output=output,
            events=tuple(_event(dict(zip(pairs[::2], pairs[1::2], strict=True))) for _, pairs in entries),
        )

    async def forget(self, tenant: str, answer_ids: Sequence[str]) -> None:
        """Remove the logs of a conversation that its customer deletes."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for answer_id in answer_ids:
                key = answer_key(tenant, answer_id)
                # So that its writer can tell a deletion from a log that Redis has lost.
                pipe.set(f"{key}:deleted", "", ex=self._settings.keep)
                pipe.delete(key, f"{key}:events", f"{key}:output")
            await self._breaker.call(pipe.execute)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def touch(
        self, who: Principal, answer_id: AnswerId, mark: Literal["read", "cancelled", ""]
    ) -> tuple[int, float | None]:
        """Return an answer's number of events and its lease's seconds (None: ended), and leave a mark for its writer.

        Raises:
            NotFound: no such answer, or another customer's.
        """
        progress = (await self.touch_all({answer_id: who}, mark))[answer_id]
        if progress.events is None:
            raise NotFound("answer not found")
        return progress.events, progress.lease_left

    async def touch_all(
        self, customers: Mapping[AnswerId, Principal], mark: Literal["read", "cancelled", ""]
    ) -> dict[AnswerId, AnswerProgress]:
        """Return the progress of answers that belong to these customers, and leave `mark` for their writers.

        "read": a reader follows the answer on another replica; "cancelled": cancel it; "": no mark.
        """
        keys = [_OPEN, *(answer_key(who.tenant, answer_id) for answer_id, who in customers.items())]
        options = {"mark": mark, "subs": [who.sub for who in customers.values()]}
        reply = await self._run(self._touch, keys, [msgspec.msgpack.encode(options)])
        return dict(zip(customers, msgspec.msgpack.decode(reply, type=list[AnswerProgress]), strict=True))

    async def lapsed(self) -> list[tuple[str, AnswerId, float]]:
        """Return the tenant and id of answers whose writers' leases have lapsed, and for how many seconds."""
        seconds, micros = await self._breaker.call(self._redis.time)
        now_ms = seconds * 1000 + micros // 1000
        lapsed = partial(self._redis.zrangebyscore, _OPEN, "-inf", now_ms, start=0, num=_MOST_LAPSED, withscores=True)
        stored = cast("list[tuple[bytes, float]]", await self._breaker.call(lapsed))
        return [(*_named_by(key.decode()), (now_ms - lease_end) / 1000) for key, lease_end in stored]

    async def running(self, tenants: Mapping[AnswerId, str]) -> set[AnswerId]:
        """Return which of the answers, each of a tenant, have not ended."""
        keys = [answer_key(tenant, answer_id) for answer_id, tenant in tenants.items()]
        leases = await self._breaker.call(lambda: self._redis.zmscore(_OPEN, keys)) if keys else []
        return {answer_id for answer_id, lease_end in zip(tenants, leases, strict=True) if lease_end is not None}

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
        """Return the new entries of logs, each of a tenant, after a number."""
        new: dict[AnswerId, list[LogEntry]] = {}
        names = {_events_key(tenant, answer_id).encode(): answer_id for answer_id, (tenant, _) in logs.items()}
        after: list[tuple[Any, Any]] = [(name, f"0-{logs[answer_id][1]}") for name, answer_id in names.items()]
        for first in range(0, len(after), _MOST_LOGS):
            read = partial(self._redis.xread, dict(after[first : first + _MOST_LOGS]), count=_MOST_ENTRIES)
            for key, stored in cast("_Streams", await self._breaker.call(read)):
                new[names[key]] = [entry_of(int(at.rpartition(b"-")[2]), _event(fields)) for at, fields in stored]
        return new

    async def all_events(self, tenant: str, answer_id: AnswerId) -> list[Event]:
        """Return every event of an answer, none where its log is gone."""
        key = _events_key(tenant, answer_id)
        stored = cast("_Entries", await self._breaker.call(lambda: self._redis.xrange(key)))
        return [_event(fields) for _, fields in stored]


@asynccontextmanager
async def open_answer_log(
    redis: Redis, breaker: RedisBreaker, settings: AnswerLogSettings
) -> AsyncGenerator[AnswerLog]:
    """Open the answer log, with a connection of its own for what each token needs."""
    async with open_pipelined_connection(redis, slow_after=breaker.slow_after) as pipelined:
        yield AnswerLog(redis, breaker, settings, pipelined=pipelined)


def answer_key(tenant: str, answer_id: str) -> str:
    """Return the key of an answer's hash, which exists for as long as the answer's log does."""
    return f"{{{tenant}}}:answer:{answer_id}"


def _named_by(key: str) -> tuple[str, AnswerId]:
    """Return the tenant and the answer of a hash's key."""
    tenant, _, answer_id = key.rpartition(":answer:")
    return tenant[1:-1], AnswerId(answer_id)


def _events_key(tenant: str, answer_id: AnswerId) -> str:
    return f"{answer_key(tenant, answer_id)}:events"


@lru_cache(maxsize=4096)
def _script_keys(tenant: str, answer_id: AnswerId) -> tuple[str, ...]:
    """Return an answer's hash, events and output, and the open answers; cached, since each token needs them."""
    key = answer_key(tenant, answer_id)
    return key, f"{key}:events", f"{key}:output", _OPEN


def _event(fields: Mapping[bytes, bytes]) -> Event:
    """Return the event of an entry, or an `Unknown` where it cannot be decoded."""
    name = fields.get(b"name", b"").decode("ascii", "replace")
    return from_json(name if name.isidentifier() else "unknown", fields.get(b"data", b""))
