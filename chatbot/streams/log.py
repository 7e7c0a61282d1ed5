"""The event log of answers in Redis: all events of an answer by number, so that any replica can stream or continue it.

An answer is a hash (its owner, the writer's epoch, the passages shown, the turn's checkpoint, and its outcome once that
is decided), a stream of events with ids `0-<n>` and, while it runs, the model's output. A sorted set holds the open
answers by the end of their writers' leases, in Redis's time. The last event removes the data that only a successor
needs; hash and stream are kept for an hour after it (`docs/decisions/0005-leases-and-epochs.md`).
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

_OPEN = "answers:open"  # a sorted set of open answers (the keys of their hashes), by the end of their leases
_BEAT_KEEP_SECONDS = 3600  # how long the beat of `may_have_lost_writes` is kept
_READ_MARK_SECONDS = 2.5  # how long a mark "read" counts; a replica with readers of the answer renews it every second
_MOST_ENTRIES = 500  # events of an answer that one poll reads: more than most answers have
_MOST_LOGS = 100  # logs that one command reads
_MOST_LAPSED = 1000  # answers with a lapsed lease that are listed at once, the earliest lapse first

# The types of redis-py's replies without decoding.
_Entries = list[tuple[bytes, dict[bytes, bytes]]]
_Streams = list[tuple[bytes, _Entries]]


class AnswerLogSettings(BaseModel, frozen=True):
    """How long a log is kept after its answer's end, and how long a writer owns it without renewing its lease."""

    keep: int = Field(3600, description="seconds: A finished stream can be read again for this long.")
    lease: ClassVar[float] = 2.0  # seconds: after which another replica takes over a silent writer's answer


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """An event and its number in the answer, from 1 without gaps; `data` is its JSON, as it is logged and sent.

    n = 0 marks an error of this connection, which is not part of the answer.
    """

    n: int
    event: Event
    data: bytes


def entry_of(n: int, event: Event) -> LogEntry:
    """Return the entry of an event, encoded once for the log and all readers."""
    return LogEntry(n=n, event=event, data=to_json(event))


class WriterStanding(IntEnum):
    """Whether a writer still owns its answer; the scripts `answer_append` and `answer_renew` return it."""

    REPLACED = 0
    """Another replica has taken the answer over: this writer must stop."""
    OWNED = 1
    CANCELLED = 2
    """Owned, and marked as cancelled: this writer must end it."""
    DELETED = 3
    """The customer has deleted the answer."""
    READ_ELSEWHERE = 4
    """Owned, and read on another replica; only `answer_renew` returns it."""
    BEHIND = 5
    """Redis has lost the log or a part of it: this writer must append everything again."""


@dataclass(frozen=True, slots=True)
class LogOpening:
    """The content of a new log: its conversation, the passages of its sources, and the checkpoint for a successor."""

    conversation_id: str
    passages: Sequence[PassageRef] = ()
    checkpoint: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogAppend:
    """The content of one append: entries in order, and the model output from byte `output_before` on."""

    entries: Sequence[LogEntry]
    output_before: int = 0
    output: bytes = b""
    outcome: bytes = b""
    """The encoded result, empty until it is decided; it is appended before the last event."""
    unread: bool = False
    """Whether the answer was cancelled because nobody read it: its Idempotency-Key then starts a new answer."""


class AnswerProgress(msgspec.Struct, frozen=True):
    """The number of an answer's events and its writer's lease."""

    events: int | None = None
    """None if the customer has no such answer."""
    lease_left: float | None = None
    """The remaining seconds of the writer's lease, negative after its lapse; None if the answer has ended."""
    deleted: bool = False
    """Whether the customer has deleted the answer; Redis may have lost a missing answer that is not deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """An answer that was taken over, from its log; `chatbot.turns` decodes the checkpoint and the outcome.

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
    """Appends to and reads the logs of answers; only the writer of an answer's current epoch can append.

    Every method that calls Redis raises `StoreUnavailable` if Redis is unavailable. A script may run twice.
    """

    def __init__(
        self, redis: Redis, breaker: RedisBreaker, settings: AnswerLogSettings, *, pipelined: PipelinedConnection
    ) -> None:
        """`pipelined` runs the scripts for appends, lease renewals and marks."""
        self._redis = redis
        self._pipelined = pipelined
        self._breaker = breaker
        self._settings = settings
        self._lease_ms = round(settings.lease * 1000)
        self._beat_key = f"answers:beat:{uuid4().hex}"
        self._last_beat = 0
        self._confirmed_beat = 0
        self._server_run: bytes | None = None
        self._open = _script(redis, "answer_open.lua")
        self._append = _script(redis, "answer_append.lua")
        self._renew = _script(redis, "answer_renew.lua")
        self._touch = _script(redis, "answer_touch.lua")
        self._take = _script(redis, "answer_take.lua")
        self._beat = _script(redis, "answer_beat.lua")

    @property
    def lease_seconds(self) -> float:
        """How long a writer's lease lasts after a renewal."""
        return self._settings.lease

    @property
    def available_for(self) -> float:
        """Seconds since the end of the last Redis outage; infinite if there was none."""
        return self._breaker.available_for

    async def _run(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        return await self._breaker.call(lambda: self._pipelined.run(script, keys, args))

    async def ping(self) -> None:
        """Check that Redis accepts writes."""
        await self._breaker.call(lambda: self._redis.set("answers:ping", "", px=1000))

    async def may_have_lost_writes(self) -> bool:
        """Store this process's next beat, a counter; return whether Redis may have lost writes since the last call.

        A failover, a restart from an older file or a restore raises no error, but then the previous beat is missing, or
        another run of the server replies.
        """
        self._last_beat += 1
        beat = partial(self._beat, keys=[self._beat_key], args=[self._last_beat, _BEAT_KEEP_SECONDS])
        stored_beat, server_run = await self._breaker.call(beat)
        is_beat_lost = stored_beat < self._confirmed_beat
        is_other_run = self._server_run is not None and self._server_run != server_run
        self._confirmed_beat = self._last_beat
        self._server_run = server_run
        return is_beat_lost or is_other_run

    # --- writing -----------------------------------------------------------------------------------------------------

    async def open(self, who: Principal, answer_id: AnswerId, opening: LogOpening, *, epoch: int = 1) -> bool:
        """Create the log of a customer's answer, with its writer's epoch; a second call only renews the lease.

        Return False, and change nothing, if another replica has taken the answer over.
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
        ended = 0  # 0: continues; 1: ends; 2: ends because nobody read it
        if any(entry.event.ends for entry in append.entries):
            ended = 2 if append.unread else 1
        # In the order of the arguments of `answer_append.lua`.
        args: list[Argument] = [epoch, self._lease_ms, self._settings.keep, ended, append.output_before]
        args += [append.output, append.outcome]
        for entry in append.entries:
            args += [entry.n, entry.event.name, entry.data]
        return WriterStanding(await self._run(self._append, _script_keys(tenant, answer_id), args))

    async def renew(
        self, writers: Mapping[AnswerId, tuple[str, int]], *, lease_ms: int | None = None
    ) -> dict[AnswerId, WriterStanding]:
        """Renew the leases of answers, whose tenants and epochs are in `writers`; return the writers' standings."""
        options = {
            "lease_ms": self._lease_ms if lease_ms is None else lease_ms,
            "reader_ms": round(_READ_MARK_SECONDS * 1000),
            "epochs": [epoch for _, epoch in writers.values()],
        }
        keys = [_OPEN, *(answer_key(tenant, answer_id) for answer_id, (tenant, _) in writers.items())]
        standings = await self._run(self._renew, keys, [msgspec.msgpack.encode(options)])
        return dict(zip(writers, map(WriterStanding, standings), strict=True))

    async def end_leases(self, writers: Mapping[AnswerId, tuple[str, int]]) -> None:
        """End leases now, so that another replica may take the answers over at once."""
        await self.renew(writers, lease_ms=0)

    async def take_over(self, tenant: str, answer_id: AnswerId) -> TakenOver | None:
        """Take an answer over and begin its next epoch; return None if it has ended or its lease has not lapsed."""
        keys = _script_keys(tenant, answer_id)
        reply = await self._breaker.call(lambda: self._take(keys=keys, args=[self._lease_ms]))
        if reply is None:
            return None
        epoch, sub, conversation, checkpoint, cancelled, passages, outcome, output, entries = reply
        fields_of_events = (dict(zip(pairs[::2], pairs[1::2], strict=True)) for _, pairs in entries)
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
            events=tuple(_event(fields) for fields in fields_of_events),
        )

    async def delete_logs(self, tenant: str, answer_ids: Sequence[str]) -> None:
        """Delete the logs of answers whose conversation the customer deletes."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for answer_id in answer_ids:
                key = answer_key(tenant, answer_id)
                # The answer's writer has to distinguish a deleted log from one that Redis has lost.
                pipe.set(f"{key}:deleted", "", ex=self._settings.keep)
                pipe.delete(key, f"{key}:events", f"{key}:output")
            await self._breaker.call(pipe.execute)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def touch(
        self, who: Principal, answer_id: AnswerId, mark: Literal["read", "cancelled", ""]
    ) -> tuple[int, float | None]:
        """As `touch_all`, for one answer: return its number of events and `lease_left`, or raise `NotFound`."""
        progress = (await self.touch_all({answer_id: who}, mark))[answer_id]
        if progress.events is None:
            raise NotFound("answer not found")
        return progress.events, progress.lease_left

    async def touch_all(
        self, customers: Mapping[AnswerId, Principal], mark: Literal["read", "cancelled", ""]
    ) -> dict[AnswerId, AnswerProgress]:
        """Set a mark for the writers of answers; return the progress of the answers that belong to these customers.

        The mark is "read" (another replica has a reader of the answer), "cancelled" (cancel it) or "" (none).
        """
        keys = [_OPEN, *(answer_key(who.tenant, answer_id) for answer_id, who in customers.items())]
        options = {"mark": mark, "subs": [who.sub for who in customers.values()]}
        reply = await self._run(self._touch, keys, [msgspec.msgpack.encode(options)])
        return dict(zip(customers, msgspec.msgpack.decode(reply, type=list[AnswerProgress]), strict=True))

    async def lapsed_answers(self) -> list[tuple[str, AnswerId, float]]:
        """Return the answers with a lapsed lease: tenant, id and the seconds since the lapse."""
        seconds, micros = await self._breaker.call(self._redis.time)
        now_ms = seconds * 1000 + micros // 1000
        read = partial(self._redis.zrangebyscore, _OPEN, "-inf", now_ms, start=0, num=_MOST_LAPSED, withscores=True)
        lease_ends = cast("list[tuple[bytes, float]]", await self._breaker.call(read))
        return [(*_answer_of(key.decode()), (now_ms - lease_end) / 1000) for key, lease_end in lease_ends]

    async def running_answers(self, tenants: Mapping[AnswerId, str]) -> set[AnswerId]:
        """Return the answers in `tenants` that have not ended."""
        if not tenants:
            return set()
        keys = [answer_key(tenant, answer_id) for answer_id, tenant in tenants.items()]
        lease_ends = await self._breaker.call(lambda: self._redis.zmscore(_OPEN, keys))
        return {answer_id for answer_id, lease_end in zip(tenants, lease_ends, strict=True) if lease_end is not None}

    async def passages(self, who: Principal, answer_id: AnswerId) -> tuple[PassageRef, ...]:
        """Return the passages of the answer's sources, in their order.

        Raises:
            NotFound: the answer does not exist, or belongs to another customer.
        """
        key = answer_key(who.tenant, answer_id)
        sub, refs = await self._breaker.call(lambda: self._redis.hmget(key, ["sub", "passages"]))
        if refs is None or sub != who.sub.encode():
            raise NotFound("answer not found")
        return msgspec.json.decode(refs, type=tuple[PassageRef, ...])

    async def read_all(self, logs: Mapping[AnswerId, tuple[str, int]]) -> dict[AnswerId, list[LogEntry]]:
        """Return the new entries of each log, if there are any.

        `logs` has each answer's tenant, and the number of the last entry that was read before.
        """
        new_entries: dict[AnswerId, list[LogEntry]] = {}
        answer_of_key: dict[bytes, AnswerId] = {}
        positions: list[tuple[Any, Any]] = []
        for answer_id, (tenant, last_number) in logs.items():
            key = _events_key(tenant, answer_id).encode()
            answer_of_key[key] = answer_id
            positions.append((key, f"0-{last_number}"))
        for first in range(0, len(positions), _MOST_LOGS):
            read = partial(self._redis.xread, dict(positions[first : first + _MOST_LOGS]), count=_MOST_ENTRIES)
            for key, stored in cast("_Streams", await self._breaker.call(read)):
                new_entries[answer_of_key[key]] = [
                    entry_of(int(entry_id.removeprefix(b"0-")), _event(fields)) for entry_id, fields in stored
                ]
        return new_entries

    async def all_events(self, tenant: str, answer_id: AnswerId) -> list[Event]:
        """Return every event of an answer; none if its log does not exist any more."""
        key = _events_key(tenant, answer_id)
        stored = cast("_Entries", await self._breaker.call(lambda: self._redis.xrange(key)))
        return [_event(fields) for _, fields in stored]


@asynccontextmanager
async def open_answer_log(
    redis: Redis, breaker: RedisBreaker, settings: AnswerLogSettings
) -> AsyncGenerator[AnswerLog]:
    """Open the answer log, with a dedicated connection for the scripts that run for each token."""
    async with open_pipelined_connection(redis, slow_after=breaker.slow_after) as pipelined:
        yield AnswerLog(redis, breaker, settings, pipelined=pipelined)


def _script(redis: Redis, name: str) -> AsyncScript:
    return redis.register_script((files("chatbot.streams") / "lua" / name).read_text("utf-8"))


def answer_key(tenant: str, answer_id: str) -> str:
    """Return the key of an answer's hash, which exists for as long as the answer's log does."""
    return f"{{{tenant}}}:answer:{answer_id}"


def _answer_of(key: str) -> tuple[str, AnswerId]:
    """Return the tenant and the id of the answer whose hash has this key."""
    tenant, _, answer_id = key.rpartition(":answer:")
    return tenant[1:-1], AnswerId(answer_id)


def _events_key(tenant: str, answer_id: AnswerId) -> str:
    return f"{answer_key(tenant, answer_id)}:events"


@lru_cache(maxsize=4096)
def _script_keys(tenant: str, answer_id: AnswerId) -> tuple[str, ...]:
    """Return the keys of an answer's hash, events and output, and of the open answers; cached for use at each token."""
    key = answer_key(tenant, answer_id)
    return key, f"{key}:events", f"{key}:output", _OPEN


def _event(fields: Mapping[bytes, bytes]) -> Event:
    """Return the event of a stored entry, or `Unknown` if it cannot be decoded."""
    name = fields.get(b"name", b"").decode("ascii", "replace")
    return from_json(name if name.isidentifier() else "unknown", fields.get(b"data", b""))
