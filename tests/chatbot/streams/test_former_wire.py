"""Replicas of two releases share one Redis: this one reads what the former wrote, and writes the same."""

import base64
import json
import struct
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.conversations import (
    AnswerCache,
    AnswerCacheSettings,
    Basis,
    CachedAnswer,
    Feedback,
    History,
    HistorySettings,
    Owner,
    StoredMessage,
)
from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import ChatError, ModelUnavailable
from chatbot.events import Accepted, Done, Event, FinishReason, PassageRef, Token, Usage, from_json
from chatbot.limits import Caller, Ledger, LedgerSettings
from chatbot.redis_client import RedisBreaker
from chatbot.streams.idempotency import BegunAnswer, IdempotencyKeys, IdempotencySettings, KeyClaim
from chatbot.streams.live import LiveAnswer
from chatbot.streams.log import AnswerId, AnswerLog, AnswerLogSettings, TakenOver, WriterReplaced
from chatbot.streams.pipelined_connection import open_pipelined_connection
from chatbot.streams.registry import AnswerRegistry, AnswerRegistrySettings
from chatbot.transcript import checkpoint, outcome, state_of, turn_of
from knowledge.identity import Principal
from tests.chatbot.conftest import PATIENT
from tests.chatbot.streams.conftest import log_append

pytestmark = [pytest.mark.anyio, pytest.mark.services]

FOLDER = Path(__file__).parent / "former_wire"
LEE = Principal(tenant="hanbit", sub="lee", roles=frozenset({"customer"}), groups=frozenset())
OWNER = Owner("hanbit", "lee")
FINISHED = AnswerId("b0c7f4d7612e4ff281669542756b37e3")
UNFINISHED = AnswerId("996708f6d5c2443fac79d3bd00e09caf")
CONVERSATION = "6b0879051614ba008f3b07abfd73ea3f"
KEY = "{hanbit}:idempotency:3:lee:former-key"
QUESTION = "샘물 정기예금을 만기 전에 해지하면 금리가 어떻게 되나요?"
RUN_AT = 1_795_717_382.0  # when the former release answered, in Unix seconds
BOOKS_AT = 1_800_000_000.25  # the set clock of its ledger
TTL_SLACK = 90  # seconds that passed between writing and dumping, and that a loaded machine takes here


@dataclass(frozen=True, slots=True)
class Value:
    """What a key holds: its Redis type, its seconds to live (-1: for ever), and its content in Python."""

    kind: str
    ttl_seconds: int
    content: Any


def former(name: str) -> dict[str, Value]:
    """Return a dump of the fixture by key."""
    dumped = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return {key: Value(v["type"], v["ttl_seconds"], decoded(v["type"], v["value"])) for key, v in dumped.items()}


def decoded(kind: str, value: Any) -> Any:
    raw = base64.b64decode
    match kind:
        case "string":
            return raw(value)
        case "hash":
            return {field: raw(content) for field, content in value.items()}
        case "stream":
            return [(entry, [(field, raw(content)) for field, content in fields]) for entry, fields in value]
        case "zset":
            return [(raw(member), score) for member, score in value]
        case _:
            return [raw(member) for member in value]


ANSWERS, BOOKS = former("answers"), former("ledger")


async def restore(redis: Any, values: Mapping[str, Value]) -> None:
    """Write a dump into Redis."""
    write = {
        "string": redis.set,
        "hash": lambda key, content: redis.hset(key, mapping=content),
        "list": lambda key, content: redis.rpush(key, *content),
        "set": lambda key, content: redis.sadd(key, *content),
        "zset": lambda key, content: redis.zadd(key, dict(content)),
    }
    for key, value in values.items():
        if value.kind == "stream":
            for entry, fields in value.content:
                await redis.xadd(key, dict(fields), id=entry)
        else:
            await write[value.kind](key, value.content)
        if value.ttl_seconds > 0:
            await redis.expire(key, value.ttl_seconds)


async def dump(redis: Any) -> dict[str, Value]:
    """Return what Redis holds."""
    read = {
        "string": redis.get,
        "hash": redis.hgetall,
        "list": lambda key: redis.lrange(key, 0, -1),
        "set": redis.smembers,
        "zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
        "stream": redis.xrange,
    }
    values = {}
    async for key in redis.scan_iter(count=1000):
        kind = (await redis.type(key)).decode()
        values[key.decode()] = Value(kind, await redis.ttl(key), in_python(kind, await read[kind](key)))
    return values


def in_python(kind: str, reply: Any) -> Any:
    """Return redis-py's reply as `decoded` returns the fixture's content."""
    match kind:
        case "hash":
            return {field.decode(): value for field, value in reply.items()}
        case "stream":
            return [(entry.decode(), [(name.decode(), v) for name, v in fields.items()]) for entry, fields in reply]
        case "set":
            return sorted(reply)
        case "zset":
            return [tuple(pair) for pair in reply]
        case _:
            return reply


def covers(present: Any, former: Any) -> bool:
    """Return whether a value is what the former release wrote, but for fields that it passes over."""
    if isinstance(former, dict):
        return all(name in present and covers(present[name], value) for name, value in former.items())
    if isinstance(former, list | tuple):
        return len(present) == len(former) and all(covers(*pair) for pair in zip(present, former, strict=True))
    return bool(present == former)


def readable(value: Value) -> Any:
    """Return a value's content; events of a stream with their data decoded."""
    if value.kind != "stream":
        return value.content
    return [
        [entry, [(name, msgspec.json.decode(field) if name == "data" else field) for name, field in fields]]
        for entry, fields in value.content
    ]


def assert_same(written: Mapping[str, Value], expected: Mapping[str, Value]) -> None:
    """Check keys, types, contents as the former release reads them, and about the seconds to live."""
    assert written.keys() == expected.keys()
    for key, value in written.items():
        assert value.kind == expected[key].kind, key
        assert covers(readable(value), readable(expected[key])), key
        assert value.ttl_seconds == pytest.approx(expected[key].ttl_seconds, abs=TTL_SLACK), key
        assert (value.ttl_seconds < 0) == (expected[key].ttl_seconds < 0), key


def of(part: str) -> dict[str, Value]:
    """Return the former release's keys with this in their names."""
    return {key: value for key, value in ANSWERS.items() if part in key}


def events_of(answer_id: AnswerId) -> list[Event]:
    entries = ANSWERS[f"{{hanbit}}:answer:{answer_id}:events"].content
    return [from_json(dict(fields)["name"].decode(), dict(fields)["data"]) for _, fields in entries]


@pytest.fixture
async def redis(redis_url: str) -> AsyncGenerator[Redis]:
    """An empty database of its own: the fixture's names are not unique."""
    async with Redis.from_url(f"{redis_url.removesuffix('/0')}/10") as redis:
        await redis.flushdb()
        yield redis
        await redis.flushdb()


@pytest.fixture
def breaker() -> RedisBreaker:
    return RedisBreaker(PATIENT)


@pytest.fixture
async def answer_log(redis: Redis, breaker: RedisBreaker) -> AsyncGenerator[AnswerLog]:
    async with open_pipelined_connection(redis) as pipelined:
        yield AnswerLog(redis, breaker, AnswerLogSettings(block=0.2), pipelined=pipelined)


@pytest.fixture
async def lapsed(redis: Redis) -> None:
    """What the former release left, whatever this machine's clock says of its writer's lease."""
    await restore(redis, ANSWERS)
    await redis.zadd("{hanbit}:answers:open", {UNFINISHED: 1})


# --- it reads what the former release wrote --------------------------------------------------------------------------


@pytest.mark.usefixtures("lapsed")
async def test_an_unfinished_answer_is_taken_over_with_all_that_a_successor_needs(answer_log: AnswerLog) -> None:
    taken = await answer_log.take_over("hanbit", UNFINISHED)
    assert taken is not None
    stored = ANSWERS[f"{{hanbit}}:answer:{UNFINISHED}"].content
    packed = ANSWERS[f"{{hanbit}}:answer:{UNFINISHED}:tokens"].content
    assert (taken.epoch, taken.sub, taken.conversation_id) == (2, "lee", CONVERSATION)
    assert (taken.checkpoint, taken.cancelled) == (stored["frame"], False)
    assert list(taken.events) == events_of(UNFINISHED)
    assert taken.token_ids == struct.unpack(f"<{len(packed) // 4}I", packed)
    turn = turn_of(taken.checkpoint)
    assert (turn.answer_id, turn.conversation.id, turn.who.sub) == (UNFINISHED, CONVERSATION, "lee")
    former_fields, fields = (msgspec.msgpack.decode(frame) for frame in (stored["frame"], checkpoint(turn)))
    assert covers(fields, former_fields), "the former release can take it over"
    late = log_append(first=len(taken.events) + 1, events=[Token(text="late")])
    with pytest.raises(WriterReplaced):
        await answer_log.append("hanbit", UNFINISHED, late, epoch=1)


@pytest.mark.usefixtures("lapsed")
async def test_a_reader_of_the_unfinished_answer_gets_it_continued(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    logged = events_of(UNFINISHED)
    done = Done(finish_reason=FinishReason.STOP, usage=Usage(), grounded=True, limits=None)

    async def resume(live: LiveAnswer, taken: TakenOver) -> None:
        assert live.put(*taken.events) == []
        live.check_repeated()
        live.put(Token(text=" 더 있습니다."), done)

    registry = AnswerRegistry(answer_log, tasks, AnswerRegistrySettings())
    tasks.start_soon(registry.maintain_leases, resume)
    await anyio.wait_all_tasks_blocked()
    with anyio.fail_after(20), registry.reading(LEE, UNFINISHED):
        async with aclosing(registry.follow(LEE, UNFINISHED, after=5)) as entries:
            read = [entry async for entry in entries]
    assert [entry.n for entry in read] == list(range(6, len(logged) + 3))
    assert [entry.event for entry in read] == [*logged[5:], Token(text=" 더 있습니다."), done]


@pytest.mark.usefixtures("lapsed")
async def test_a_finished_answer_is_resumed_from_an_event_on(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    registry, logged = AnswerRegistry(answer_log, tasks, AnswerRegistrySettings()), events_of(FINISHED)
    assert await registry.resume_position(LEE, FINISHED, f"{FINISHED}.9") == (9, False)
    assert await registry.resume_position(LEE, FINISHED, f"{FINISHED}.{len(logged)}") == (len(logged), True)
    async with aclosing(registry.follow(LEE, FINISHED, after=9)) as entries:
        assert [(entry.n, entry.event) async for entry in entries] == [*enumerate(logged, 1)][9:]
    assert await answer_log.passages(LEE, FINISHED) != ()


@pytest.mark.usefixtures("lapsed")
async def test_a_conversation_is_loaded_listed_and_found_by_its_answer(redis: Redis, breaker: RedisBreaker) -> None:
    history = History(redis, breaker, HistorySettings())
    conversation = await history.load(OWNER, CONVERSATION)
    assert [message.role for message in conversation.messages] == ["user", "assistant", "user"]
    answer = conversation.message(FINISHED)
    assert answer.text == "".join(event.text for event in events_of(FINISHED) if isinstance(event, Token))
    assert answer.feedback is not None
    assert (answer.feedback.rating, answer.feedback.comment) == ("up", "고마워요")
    [summary] = (await history.list(OWNER, limit=10)).conversations
    assert (summary.id, summary.title) == (CONVERSATION, conversation.title) == (CONVERSATION, QUESTION)
    assert (summary.created_at, summary.updated_at) == (conversation.created_at, conversation.updated_at)
    assert (await history.containing(OWNER, FINISHED)).id == CONVERSATION
    await history.delete(OWNER, CONVERSATION)
    assert [key async for key in redis.scan_iter("history:*")] == [
        f"history:{{hanbit}}:lee:deleted:{CONVERSATION}".encode()
    ]


@pytest.mark.usefixtures("lapsed")
async def test_a_key_joins_the_answer_that_it_is_bound_to(redis: Redis, breaker: RedisBreaker) -> None:
    keys = IdempotencyKeys(redis, breaker, IdempotencySettings(), deferred=DeferredWrites(DeferredSettings()))
    claim = msgspec.json.decode(ANSWERS[KEY].content, type=KeyClaim)

    async def begin() -> BegunAnswer:
        raise AssertionError("it was begun before")

    assert (await keys.begin_once(LEE, "former-key", claim.digest, begin)).answer_id == FINISHED


@pytest.mark.usefixtures("lapsed")
async def test_a_cached_answer_is_found_by_the_same_basis(redis: Redis, breaker: RedisBreaker) -> None:
    cached = await AnswerCache(redis, breaker, AnswerCacheSettings()).find(former_basis())
    assert cached is not None
    assert cached.answer_id == FINISHED


def former_basis() -> Basis:
    accepted = events_of(FINISHED)[0]
    assert isinstance(accepted, Accepted)
    refs = ANSWERS[f"{{hanbit}}:answer:{FINISHED}"].content["passages"]
    turn = turn_of(ANSWERS[f"{{hanbit}}:answer:{UNFINISHED}"].content["frame"])
    return Basis(
        tenant="hanbit",
        groups=turn.who.groups,
        question=QUESTION,
        passages=msgspec.json.decode(refs, type=tuple[PassageRef, ...]),
        prompt_version=accepted.prompt_version,
        model=accepted.model,
        language="ko",
    )


@pytest.mark.usefixtures("lapsed")
async def test_the_ledger_goes_on_and_settles_the_unfinished_answer(redis: Redis, breaker: RedisBreaker) -> None:
    ledger = Ledger(
        redis, breaker, LedgerSettings(), clock=lambda: RUN_AT + 5, deferred=DeferredWrites(DeferredSettings())
    )
    caller = Caller(tenant="hanbit", sub="lee", model="scripted", roles=LEE.roles)
    uses = [spending.use for spending in await ledger.spending(caller)]
    assert [(use.tokens, use.requests, use.slots, use.today) for use in uses] == [(2425, 2, 1, 2425)] * 3
    reservation = turn_of(ANSWERS[f"{{hanbit}}:answer:{UNFINISHED}"].content["frame"]).reservation
    assert reservation.tokens == 1428
    longer = await ledger.extend(reservation, more_tokens=100)
    assert longer is not None
    assert await ledger.settle(longer, Usage(prompt_tokens=1000, answer_tokens=100)) is not None
    uses = [spending.use for spending in await ledger.spending(caller)]
    assert [(use.tokens, use.requests, use.slots, use.today) for use in uses] == [(2097, 2, 0, 2097)] * 3


async def test_the_ledgers_percentile_and_day_are_read(redis: Redis, breaker: RedisBreaker) -> None:
    await restore(redis, BOOKS)
    ledger = Ledger(
        redis, breaker, LedgerSettings(), clock=lambda: BOOKS_AT, deferred=DeferredWrites(DeferredSettings())
    )
    caller = Caller(tenant="은행", sub="lee {kim}", model="qwen/2.5")
    uses = [spending.use for spending in await ledger.spending(caller)]
    assert [(use.tokens, use.requests, use.slots, use.today) for use in uses] == [(1350 + 1128, 2, 1, 1350 + 1128)] * 3
    assert await ledger.expected_answer_tokens("은행", 400) == 150


# --- it writes what the former release wrote -------------------------------------------------------------------------


async def test_an_answer_is_written_as_before(redis: Redis, answer_log: AnswerLog) -> None:
    for answer_id in (FINISHED, UNFINISHED):
        stored = ANSWERS[f"{{hanbit}}:answer:{answer_id}"].content
        passages = msgspec.json.decode(stored["passages"], type=tuple[PassageRef, ...])
        await answer_log.open(
            LEE, answer_id, conversation_id=CONVERSATION, passages=passages, checkpoint=stored.get("frame", b"a turn")
        )
        packed = ANSWERS[f"{{hanbit}}:answer:{UNFINISHED}:tokens"].content
        ids, events = struct.unpack(f"<{len(packed) // 4}I", packed), events_of(answer_id)
        half = log_append(first=1, events=events[:7], token_ids=ids[:5])
        rest = log_append(first=8, events=events[7:], ids_before=5, token_ids=ids[5:])
        for part in (half, rest):
            await answer_log.append("hanbit", answer_id, part, epoch=1)
    leases = "{hanbit}:answers:open"
    seconds, _ = await redis.time()
    [(member, lease_end_ms)] = (await dump(redis))[leases].content
    assert member == UNFINISHED.encode()
    assert lease_end_ms / 1000 == pytest.approx(seconds, abs=TTL_SLACK), "milliseconds of Redis's time"
    [(_, former_lease_end_ms)] = ANSWERS[leases].content
    assert former_lease_end_ms / 1000 == pytest.approx(RUN_AT, abs=TTL_SLACK)
    await redis.zadd(leases, {UNFINISHED: former_lease_end_ms})
    expected = {key: value for key, value in ANSWERS.items() if key.startswith("{hanbit}:answer")}
    assert_same(await dump(redis), expected | {"answers:tenants": ANSWERS["answers:tenants"]})


async def test_a_conversation_is_written_as_before(redis: Redis, breaker: RedisBreaker) -> None:
    history, base = History(redis, breaker, HistorySettings()), "history:{hanbit}:lee"
    stored = ANSWERS[f"{base}:conversation:{CONVERSATION}"].content
    messages = [
        msgspec.json.decode(message, type=StoredMessage)
        for message in ANSWERS[f"{base}:messages:{CONVERSATION}"].content
    ]
    await history.append(OWNER, CONVERSATION, messages[:2], now=float(stored["created_at"]))
    await history.append(OWNER, CONVERSATION, messages[2:], now=float(stored["updated_at"]))
    feedback = ANSWERS[f"{base}:answers:{CONVERSATION}"].content[FINISHED]
    await history.rate(OWNER, CONVERSATION, FINISHED, msgspec.json.decode(feedback, type=Feedback))
    assert_same(await dump(redis), of("history:"))


async def test_a_key_is_claimed_and_bound_as_before(redis: Redis, breaker: RedisBreaker) -> None:
    claim = msgspec.json.decode(ANSWERS[KEY].content, type=KeyClaim)
    claimed: dict[str, Value] = {}

    async def begin() -> BegunAnswer:
        claimed.update(await dump(redis))
        return BegunAnswer(FINISHED, None)

    await IdempotencyKeys(
        redis, breaker, IdempotencySettings(), deferred=DeferredWrites(DeferredSettings())
    ).begin_once(LEE, "former-key", claim.digest, begin)
    assert json.loads(claimed[KEY].content).keys() == {"token", "digest"}, "no answer yet"
    assert claimed[KEY].ttl_seconds <= 15
    bound = await dump(redis)
    written = json.loads(bound[KEY].content)
    assert len(written["token"]) == len(claim.token)
    same = json.dumps(written | {"token": claim.token}, separators=(",", ":")).encode()
    assert_same({KEY: Value(bound[KEY].kind, bound[KEY].ttl_seconds, same)}, of("idempotency"))


async def test_a_cached_answer_is_written_as_before(redis: Redis, breaker: RedisBreaker) -> None:
    [value] = [value.content for key, value in ANSWERS.items() if key.startswith("answers:{")]
    answer = msgspec.json.decode(value, type=CachedAnswer)
    await AnswerCache(redis, breaker, AnswerCacheSettings()).keep(former_basis(), answer)
    assert_same(await dump(redis), of("answers:{"))


async def test_the_ledger_keeps_its_books_as_before(redis: Redis, breaker: RedisBreaker) -> None:
    ledger = Ledger(
        redis,
        breaker,
        LedgerSettings(answers_needed=1),
        clock=lambda: BOOKS_AT,
        deferred=DeferredWrites(DeferredSettings()),
    )
    caller = Caller(tenant="은행", sub="lee {kim}", model="qwen/2.5")
    settled = await ledger.reserve(caller, prompt_tokens=1200, answer_tokens=400, lease_seconds=60)
    await ledger.settle(settled, Usage(prompt_tokens=1200, answer_tokens=150))
    held = await ledger.reserve(caller, prompt_tokens=700, answer_tokens=300, lease_seconds=60)
    await ledger.extend(held, more_tokens=128)
    [former_id] = [key.rpartition(":")[2] for key in BOOKS if ":reservation:" in key]
    written = {
        key.replace(held.id, former_id): Value(
            value.kind, value.ttl_seconds, renamed(value.content, held.id, former_id)
        )
        for key, value in (await dump(redis)).items()
        if ":settled:" not in key  # a mark, which the former release passes over
    }
    assert len(held.id) == len(former_id)
    assert_same(with_records_read(written), with_records_read(BOOKS))


def renamed(content: Any, old: str, new: str) -> Any:
    """Return the content of a set of leases with one of them under another id."""
    if isinstance(content, list) and content and isinstance(content[0], tuple):
        return [(member.replace(old.encode(), new.encode()), score) for member, score in content]
    return content


def with_records_read(values: Mapping[str, Value]) -> dict[str, Value]:
    """Return the keys with reservations as JSON, whose order of fields Lua does not keep."""
    return {
        key: Value(value.kind, value.ttl_seconds, json.loads(value.content)) if ":reservation:" in key else value
        for key, value in values.items()
    }


def test_an_outcome_has_the_names_that_replicas_of_other_releases_read() -> None:
    usage = {"prompt_tokens": 5, "cached_tokens": 1, "answer_tokens": 3, "thinking_tokens": 2}
    written = {
        "finish_reason": "stop",
        "usage": usage,
        "grounded": True,
        "error": "model_unavailable",
        "retry_after": 2.0,
        "withheld": 1,
        "models": ["scripted"],
        "degradation_level": "quoted",
        "cached_answer_id": "a",
        "probes": [0.5],
        "repair": {"prompt_ids": [1, 2], "shares": [0.9]},
    }
    state = state_of(msgspec.msgpack.encode(written))
    assert (state.finish_reason, state.usage.generated_tokens, state.grounded) == (FinishReason.STOP, 5, True)
    assert isinstance(state.error, ModelUnavailable)
    assert msgspec.msgpack.decode(outcome(state)) == written
    least = {"finish_reason": "refused", "usage": usage, "of a later release": 1}
    assert msgspec.msgpack.decode(outcome(state_of(msgspec.msgpack.encode(least)))).items() <= least.items()
    unknown = state_of(msgspec.msgpack.encode({**least, "error": "of_a_later_release"})).error
    assert unknown is not None
    assert unknown.code == ChatError.code
