"""Idempotency-Keys on a real Redis: however many ask, on however many replicas, one begins and the others join."""

import contextlib
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from functools import partial
from uuid import uuid4

import anyio
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import KeyReused, ModelUnavailable, Overloaded, RateLimited, StoreUnavailable, TooLarge, failed
from chatbot.events import Event, FinishReason, Token
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings, open_redis
from chatbot.streams import (
    AnswerId,
    AnswerLog,
    AnswerLogSettings,
    Answers,
    AnswerSettings,
    IdempotencyKeys,
    IdempotencySettings,
    LiveAnswer,
    LogOpening,
    StartedAnswer,
    open_answer_log,
)
from chatbot.streams.idempotency import KeyClaim, KeyRequest, _key
from knowledge.identity import Principal
from tests.answers import answers_of, customer, done
from tests.chatbot.conftest import PATIENT
from tests.chatbot.streams.conftest import events_of, log_append, never_resumed, new_answer
from tests.conftest import RedisServer
from tests.constants import settings_with, with_constants

pytestmark = [pytest.mark.anyio, pytest.mark.services]

Begin = Callable[[], Awaitable[StartedAnswer]]
MOMENTARILY_SLOW = with_constants(RedisBreakerSettings(slow_after=0.2), probe_every=0.1, probe_timeout=1)


def keys_of(
    redis: Redis, breaker: RedisBreaker | None = None, deferred: DeferredWrites | None = None, **settings: float
) -> IdempotencyKeys:
    """Return the keys of a replica, by default with a breaker that no busy machine opens."""
    deferred = deferred or DeferredWrites(DeferredSettings())
    configured = settings_with(IdempotencySettings, **settings)
    return IdempotencyKeys(redis, breaker or RedisBreaker(PATIENT), configured, deferred=deferred)


class Beginner:
    """Begins answers with a log, as the product does, and counts them."""

    def __init__(self, log: AnswerLog, who: Principal) -> None:
        self.log = log
        self.who = who
        self.begun: list[AnswerId] = []

    async def __call__(self) -> StartedAnswer:
        answer_id = AnswerId(uuid4().hex)
        self.begun.append(answer_id)
        await self.log.open(self.who, answer_id, LogOpening("c"))
        return StartedAnswer(answer_id, None)

    async def once(
        self, keys: IdempotencyKeys, *, key: str = "k", digest: str = "d", begin: Begin | None = None
    ) -> StartedAnswer:
        return await keys.begin_once(self.who, key, digest, begin or self)


@pytest.fixture
def begin(answer_log: AnswerLog) -> Beginner:
    return Beginner(answer_log, customer())


async def together(requests: list[Begin]) -> list[StartedAnswer]:
    results: list[StartedAnswer] = []

    async def one(request: Begin) -> None:
        results.append(await request())

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for request in requests:
                tasks.start_soon(one, request)
    return results


async def test_fifty_at_once_on_two_replicas_begin_one_answer(redis: Redis, begin: Beginner) -> None:
    replicas = [keys_of(redis), keys_of(redis)]
    results = await together([partial(begin.once, replicas[n % 2]) for n in range(50)])
    assert len(begin.begun) == 1
    assert [result.answer_id for result in results] == begin.begun * 50


async def test_a_key_belongs_to_its_customer_and_no_name_imitates_another(redis: Redis, answer_log: AnswerLog) -> None:
    tenant = f"bank-{uuid4().hex}"
    for who, key in (("lee", "k"), ("kim", "k"), ("lee:x", "k"), ("lee", "x:k"), ("another bank's", "k")):
        begin = Beginner(answer_log, customer(who, tenant if who != "another bank's" else None))
        assert not (await begin.once(keys_of(redis), key=key)).joined


async def test_another_body_is_refused_during_the_first_and_afterwards(redis: Redis, begin: Beginner) -> None:
    may_go_on = anyio.Event()

    async def slow() -> StartedAnswer:
        await may_go_on.wait()
        return await begin()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(begin.once, keys_of(redis), begin=slow))
        await claimed(redis, begin.who)
        with pytest.raises(KeyReused):
            await begin.once(keys_of(redis), digest="another")
        may_go_on.set()
    with pytest.raises(KeyReused):
        await begin.once(keys_of(redis), digest="another")
    assert len(begin.begun) == 1


@pytest.mark.parametrize(
    ("last", "is_free"),
    [(failed(ModelUnavailable()), True), (failed(TooLarge()), False), (done(), False), (Token(text="It"), False)],
    ids=["retryable", "final", "whole", "running"],
)
async def test_only_a_retryable_error_frees_a_key(redis: Redis, begin: Beginner, last: Event, *, is_free: bool) -> None:
    first = await begin.once(keys_of(redis))
    await begin.log.append(begin.who.tenant, first.answer_id, log_append(first=1, events=[last]), epoch=1)
    results = await together([partial(begin.once, keys_of(redis))] * 10)
    assert len(begin.begun) == 1 + is_free
    assert {result.answer_id for result in results} == {begin.begun[-1]}
    assert sorted(result.joined for result in results) == [not is_free] + [True] * 9


class Stopped(StrEnum):
    """Where an answer is stopped by its customer, if it is."""

    NOT = "its reader leaves"
    HERE = "its customer stops it"
    ELSEWHERE = "its customer stops it on another replica"


@pytest.mark.parametrize("stopped", Stopped)
async def test_a_key_is_free_once_its_readers_left(
    redis: Redis, answer_log: AnswerLog, tasks: TaskGroup, stopped: Stopped
) -> None:
    who, begun, ending, may_end = customer(), list[LiveAnswer](), anyio.Event(), anyio.Event()

    async def speak(live: LiveAnswer) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ending.set()
            with anyio.CancelScope(shield=True):
                await may_end.wait()
            live.emit(done(FinishReason.CANCELLED))

    registry, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    for process in (registry, other):
        tasks.start_soon(process.takeover.maintain_leases, never_resumed)

    async def begin() -> StartedAnswer:
        begun.append(new_answer(who))
        await registry.writers.start(begun[-1], speak, LogOpening("c"))
        return StartedAnswer(begun[-1].answer_id, None)

    first = await keys_of(redis).begin_once(who, "k", "d", begin)
    for _ in range(2):  # the second one comes while the answer is being ended
        with registry.readers.reading(who, first.answer_id, resumable=False):
            joined = await keys_of(redis).begin_once(who, "k", "d", begin)
            if stopped is not Stopped.NOT:
                await (registry if stopped is Stopped.HERE else other).takeover.cancel(who, first.answer_id)
        await ending.wait()
    may_end.set()
    assert await events_of(registry, begun[0]) == [done(FinishReason.CANCELLED)]
    again = await keys_of(redis).begin_once(who, "k", "d", begin)
    assert (joined.answer_id, joined.joined) == (first.answer_id, True)
    assert again.joined is (stopped is not Stopped.NOT)
    assert again.answer_id == begun[-1].answer_id
    assert len(begun) == (2 if stopped is Stopped.NOT else 1)


async def claimed(redis: Redis, who: Principal) -> None:
    with anyio.fail_after(5):
        while not await redis.keys(f"{{{who.tenant}}}:idempotency:*"):
            await anyio.sleep(0.01)


async def test_a_refusal_does_not_bind_the_key(redis: Redis, begin: Beginner) -> None:
    keys, tried, refusals = keys_of(redis), 0, 0

    async def refused_once() -> StartedAnswer:
        nonlocal tried
        tried += 1
        if tried == 1:
            await anyio.sleep(0.1)  # the others wait by now
            raise RateLimited(scope="user", dimension="concurrent", retry_after=1)
        return await begin()

    async def request() -> None:
        nonlocal refusals
        try:
            await begin.once(keys, begin=refused_once)
        except RateLimited:
            refusals += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(request)
    assert (refusals, tried, len(begin.begun)) == (1, 2, 1)


async def test_a_key_whose_request_is_cancelled_is_free_at_once(redis: Redis, begin: Beginner) -> None:
    with anyio.CancelScope() as request:

        async def begin_for_ever() -> StartedAnswer:
            request.cancel()
            await anyio.sleep_forever()
            raise AssertionError

        await begin.once(keys_of(redis, lease=60), begin=begin_for_ever)
    with anyio.fail_after(5):
        assert not (await begin.once(keys_of(redis))).joined


async def test_the_claim_of_a_dead_process_lapses_and_waiting_ends(redis: Redis, begin: Beginner) -> None:
    claim = KeyRequest(begin.who.tenant, _key(begin.who, "k"), KeyClaim("a token", "d"), begin)
    await keys_of(redis, lease=1)._claim(claim)
    with anyio.fail_after(5), pytest.raises(Overloaded):
        await begin.once(keys_of(redis, patience=0.2))
    with anyio.fail_after(5):
        joined = await begin.once(keys_of(redis))
    assert begin.begun == [joined.answer_id]


async def test_beginning_may_not_take_longer_than_its_claim_holds(redis: Redis, begin: Beginner) -> None:
    async def hang() -> StartedAnswer:
        await anyio.sleep_forever()
        raise AssertionError

    with anyio.fail_after(5), pytest.raises(Overloaded):
        await begin.once(keys_of(redis, lease=0.2), begin=hang)
    assert not (await begin.once(keys_of(redis))).joined


async def test_a_key_lives_as_long_as_the_log_of_its_answer(redis: Redis, begin: Beginner) -> None:
    keys = keys_of(redis)
    first = await begin.once(keys)
    assert (await begin.once(keys)).answer_id == first.answer_id
    await begin.log.delete_logs(begin.who.tenant, [first.answer_id])
    assert (await begin.once(keys, digest="another body")).answer_id != first.answer_id


async def trip(breaker: RedisBreaker) -> None:
    with contextlib.suppress(StoreUnavailable):
        await breaker.call(anyio.sleep_forever)
    assert breaker.is_open


@pytest.mark.parametrize("state", ["runs", "is being accepted", "was seen to be accepted"])
async def test_a_replica_cut_off_for_a_moment_joins_another(redis: Redis, begin: Beginner, state: str) -> None:
    breaker, go_on, joined = RedisBreaker(MOMENTARILY_SLOW), anyio.Event(), list[StartedAnswer]()

    async def first() -> StartedAnswer:
        begun = await begin()
        await go_on.wait()
        return begun

    async def second() -> None:
        joined.append(await begin.once(keys_of(redis, breaker)))

    if state == "runs":
        go_on.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(begin.once, keys_of(redis), begin=first))
        await claimed(redis, begin.who)
        if state == "was seen to be accepted":
            tasks.start_soon(second)
            await anyio.sleep(0.2)  # it has seen the claim
            await trip(breaker)
        else:
            await trip(breaker)
            tasks.start_soon(second)
            await anyio.wait_all_tasks_blocked()
        go_on.set()
    assert [result.answer_id for result in joined] == begin.begun


async def test_without_redis_a_key_binds_in_the_process_that_has_it(nowhere: Redis) -> None:
    keys, who, begun = keys_of(nowhere, RedisBreaker(RedisBreakerSettings())), customer(), list[StartedAnswer]()

    async def begin() -> StartedAnswer:
        begun.append(StartedAnswer(AnswerId(uuid4().hex), None))
        return begun[-1]

    results = await together([lambda: keys.begin_once(who, "k", "d", begin)] * 10)
    results.append(await keys.begin_once(who, "k", "d", begin))
    with pytest.raises(KeyReused):
        await keys.begin_once(who, "k", "another body", begin)
    assert {result.answer_id for result in results} == {begun[0].answer_id}
    assert len(begun) == 1


@asynccontextmanager
async def process(server: RedisServer, tasks: TaskGroup) -> AsyncGenerator[tuple[IdempotencyKeys, Answers]]:
    """Run the keys and the answers of a replica, at the product's own settings."""
    breaker, deferred = RedisBreaker(RedisBreakerSettings()), DeferredWrites(DeferredSettings())
    async with open_redis(server.url) as redis, open_answer_log(redis, breaker, AnswerLogSettings()) as answer_log:
        registry = answers_of(answer_log, tasks, AnswerSettings())
        tasks.start_soon(deferred.retry_forever)
        tasks.start_soon(registry.takeover.maintain_leases, never_resumed)
        await answer_log.ping()
        yield keys_of(redis, breaker, deferred), registry


async def forget_keys(redis: Redis, who: Principal) -> None:
    await redis.delete(*await redis.keys(f"{{{who.tenant}}}:idempotency:*"))


async def test_a_claim_that_redis_forgot_is_bound_all_the_same(redis: Redis, begin: Beginner) -> None:
    async def forgotten() -> StartedAnswer:
        await forget_keys(redis, begin.who)
        return await begin()

    await begin.once(keys_of(redis), begin=forgotten)
    assert (await begin.once(keys_of(redis))).joined


async def test_a_key_that_redis_forgot_is_bound_again(redis: Redis, begin: Beginner) -> None:
    deferred = DeferredWrites(DeferredSettings())
    await begin.once(keys_of(redis, deferred=deferred))
    await forget_keys(redis, begin.who)
    deferred.store_answered(lost_writes=True)
    await deferred.retry()
    assert (await begin.once(keys_of(redis))).joined


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [0.3, 2.5])
async def test_a_stall_makes_no_second_answer(
    server: RedisServer, tasks: TaskGroup, fault_round: int, seconds: float
) -> None:
    del fault_round
    who, go_on, begun = customer(), anyio.Event(), list[LiveAnswer]()
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(process(server, tasks)) for _ in range(2)]

        async def speak(live: LiveAnswer) -> None:
            live.emit(Token(text="one "))
            await go_on.wait()
            live.emit(done())

        async def post(n: int) -> StartedAnswer:
            keys, registry = replicas[n]

            async def begin() -> StartedAnswer:
                begun.append(new_answer(who))
                await registry.writers.start(begun[-1], speak, LogOpening("c"))
                return StartedAnswer(begun[-1].answer_id, None)

            return await keys.begin_once(who, "k", "d", begin)

        server.signal(signal.SIGSTOP)
        tasks.start_soon(_go_on_after, server, seconds)
        first = await post(0)
        assert (await post(0)).answer_id == first.answer_id, "at once"
        await anyio.sleep(seconds + 1.5)  # the breaker's probe, and the next round of what waits
        assert (await post(1)).answer_id == first.answer_id
        go_on.set()
        assert (await events_of(replicas[1][1], begun[0]))[-1] == done(), "it has a log by now"
        assert len(begun) == 1


async def _go_on_after(server: RedisServer, seconds: float) -> None:
    await anyio.sleep(seconds)  # the fault itself
    server.signal(signal.SIGCONT)
