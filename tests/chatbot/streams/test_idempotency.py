"""Idempotency-Keys on a real Redis: however many ask, on however many replicas, one begins and the others join."""

import contextlib
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from enum import StrEnum
from uuid import uuid4

import anyio
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import (
    KeyReused,
    ModelUnavailable,
    Overloaded,
    RateLimited,
    StoreUnavailable,
    TooLarge,
    failed,
)
from chatbot.events import Event, FinishReason, Token
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings, open_redis
from chatbot.streams.idempotency import IdempotencyKeys, IdempotencySettings, StartedAnswer
from chatbot.streams.live import LiveAnswer
from chatbot.streams.log import (
    AnswerId,
    AnswerLog,
    AnswerLogSettings,
    LogAppend,
    LogOpening,
    TakenOver,
    open_answer_log,
)
from chatbot.streams.pipelined_connection import PipelinedConnection
from chatbot.streams.readers import Answers
from chatbot.streams.writers import AnswerSettings
from knowledge.identity import Principal
from tests.answers import answers_of, customer, done
from tests.chatbot.conftest import PATIENT
from tests.chatbot.streams.conftest import log_append, new_answer
from tests.conftest import RedisServer
from tests.constants import settings_with, with_constants
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.services]

Begin = Callable[[], Awaitable[StartedAnswer]]


def replica(redis: Redis, **settings: float) -> IdempotencyKeys:
    return keys_of(redis, RedisBreaker(PATIENT), **settings)


def keys_of(redis: Redis, breaker: RedisBreaker, **settings: float) -> IdempotencyKeys:
    deferred = DeferredWrites(DeferredSettings())
    return IdempotencyKeys(redis, breaker, settings_with(IdempotencySettings, **settings), deferred=deferred)


class Beginner:
    """Begins answers with a log, as the product does, and counts them."""

    def __init__(self, redis: Redis, who: Principal) -> None:
        self.log = AnswerLog(
            redis, RedisBreaker(PATIENT), AnswerLogSettings(), pipelined=PipelinedConnection(redis, slow_after=20)
        )
        self.who = who
        self.begun: list[AnswerId] = []

    async def __call__(self) -> StartedAnswer:
        answer_id = AnswerId(uuid4().hex)
        self.begun.append(answer_id)
        await self.log.open(self.who, answer_id, LogOpening("c"))
        return StartedAnswer(answer_id, None)


async def together(requests: list[Begin]) -> list[StartedAnswer]:
    results: list[StartedAnswer] = []

    async def one(request: Begin) -> None:
        results.append(await request())

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for request in requests:
                tasks.start_soon(one, request)
    return results


def asking(keys: IdempotencyKeys, begin: "Beginner", key: str = "k", digest: str = "d") -> Begin:
    return lambda: keys.begin_once(begin.who, key, digest, begin)


async def test_fifty_at_once_on_two_replicas_begin_one_answer(redis: Redis) -> None:
    replicas, begin = [replica(redis), replica(redis)], Beginner(redis, customer())
    results = await together([asking(replicas[n % 2], begin) for n in range(50)])
    assert len(begin.begun) == 1
    assert {result.answer_id for result in results} == set(begin.begun)
    assert len(results) == 50


async def test_a_key_belongs_to_its_customer(redis: Redis) -> None:
    tenant = f"bank-{uuid4().hex}"
    people = [customer("lee", tenant), customer("kim", tenant), customer("lee")]
    beginners = [Beginner(redis, who) for who in people]
    results = await together([asking(replica(redis), begin) for begin in beginners])
    assert len({result.answer_id for result in results}) == 3


async def test_names_cannot_imitate_another_customers_key(redis: Redis) -> None:
    tenant = f"bank-{uuid4().hex}"
    first, second = Beginner(redis, customer("lee:x", tenant)), Beginner(redis, customer("lee", tenant))
    await replica(redis).begin_once(first.who, "k", "d", first)
    await replica(redis).begin_once(second.who, "x:k", "d", second)
    assert len(first.begun) == len(second.begun) == 1


async def test_another_body_is_refused_while_the_first_is_being_accepted_and_afterwards(redis: Redis) -> None:
    keys, begin, may_go_on = replica(redis), Beginner(redis, customer()), anyio.Event()
    refused = anyio.Event()

    async def slow() -> StartedAnswer:
        await may_go_on.wait()
        return await begin()

    async def other_body() -> None:
        with pytest.raises(KeyReused):
            await replica(redis).begin_once(begin.who, "k", "another", begin)
        refused.set()
        may_go_on.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keys.begin_once, begin.who, "k", "d", slow)
        await claimed(redis, begin.who)
        tasks.start_soon(other_body)
    assert refused.is_set()
    with pytest.raises(KeyReused):
        await keys.begin_once(begin.who, "k", "another", begin)
    assert len(begin.begun) == 1


def only(event: Event) -> LogAppend:
    return log_append(first=1, events=[event])


async def test_a_key_is_free_once_its_answer_failed_in_a_way_that_may_pass(redis: Redis, answer_log: AnswerLog) -> None:
    begin = Beginner(redis, customer())
    first = await replica(redis).begin_once(begin.who, "k", "d", begin)
    await answer_log.append(begin.who.tenant, first.answer_id, only(failed(ModelUnavailable())), epoch=1)
    results = await together([asking(replica(redis), begin) for _ in range(10)])
    assert len(begin.begun) == 2
    assert {result.answer_id for result in results} == {begin.begun[1]}
    assert sorted(result.joined for result in results) == [False] + [True] * 9


@pytest.mark.parametrize("last", [failed(TooLarge()), done(), Token(text="It")], ids=["for good", "whole", "running"])
async def test_a_key_stands_for_any_other_answer(redis: Redis, answer_log: AnswerLog, last: Event) -> None:
    begin = Beginner(redis, customer())
    first = await replica(redis).begin_once(begin.who, "k", "d", begin)
    await answer_log.append(begin.who.tenant, first.answer_id, only(last), epoch=1)
    again = await replica(redis).begin_once(begin.who, "k", "d", begin)
    assert (first.joined, again.joined, again.answer_id) == (False, True, first.answer_id)


class Stopped(StrEnum):
    """Where an answer is stopped by its customer, if it is."""

    NOT = "its reader leaves"
    HERE = "its customer stops it"
    ELSEWHERE = "its customer stops it on another replica"


@pytest.mark.parametrize("stopped", Stopped)
async def test_a_key_is_free_once_its_answer_was_cancelled_because_its_readers_left(
    server: RedisServer, tasks: TaskGroup, stopped: Stopped
) -> None:
    who, begun, ending, may_end = customer(), list[AnswerId](), anyio.Event(), anyio.Event()

    async def speak(live: LiveAnswer) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ending.set()
            with anyio.CancelScope(shield=True):
                await may_end.wait()
            live.emit(done(FinishReason.CANCELLED))

    async with process(server, tasks, PATIENT) as (keys, registry), process(server, tasks, PATIENT) as elsewhere:

        async def begin() -> StartedAnswer:
            live = new_answer(who)
            begun.append(live.answer_id)
            await registry.writers.start(live, speak, LogOpening("c"))
            return StartedAnswer(live.answer_id, None)

        first = await keys.begin_once(who, "k", "d", begin)
        for _ in range(2):  # the second one comes while the answer is being ended
            with registry.readers.reading(who, first.answer_id, resumable=False):
                joined = await keys.begin_once(who, "k", "d", begin)
                if stopped is not Stopped.NOT:
                    await (registry if stopped is Stopped.HERE else elsewhere[1]).takeover.cancel(who, first.answer_id)
            await ending.wait()
        may_end.set()
        async with aclosing(registry.readers.follow(who, first.answer_id, after=0)) as entries:
            assert [entry.event async for entry in entries] == [done(FinishReason.CANCELLED)]
        again = await elsewhere[0].begin_once(who, "k", "d", begin)
        assert (joined.answer_id, joined.joined) == (first.answer_id, True)
        assert (again.answer_id == first.answer_id) is again.joined is (stopped is not Stopped.NOT)
        assert len(begun) == (2 if stopped is Stopped.NOT else 1)


async def claimed(redis: Redis, who: Principal) -> None:
    with anyio.fail_after(5):
        while not await redis.keys(f"{{{who.tenant}}}:idempotency:*"):
            await anyio.sleep(0.01)


async def test_a_refusal_does_not_bind_the_key_and_one_of_the_waiting_tries(redis: Redis) -> None:
    keys, begin, tried = replica(redis), Beginner(redis, customer()), 0

    async def refused_once() -> StartedAnswer:
        nonlocal tried
        tried += 1
        if tried == 1:
            await anyio.sleep(0.1)  # the others wait by now
            raise RateLimited(scope="user", dimension="concurrent", retry_after=1)
        return await begin()

    refusals = 0

    async def request() -> None:
        nonlocal refusals
        try:
            await keys.begin_once(begin.who, "k", "d", refused_once)
        except RateLimited:
            refusals += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(request)
    assert (refusals, tried, len(begin.begun)) == (1, 2, 1)


async def test_a_key_whose_request_is_cancelled_is_free_at_once(redis: Redis) -> None:
    keys, begin = replica(redis, lease=60), Beginner(redis, customer())
    with anyio.CancelScope() as request:

        async def begin_for_ever() -> StartedAnswer:
            request.cancel()
            await anyio.sleep_forever()
            raise AssertionError

        await keys.begin_once(begin.who, "k", "d", begin_for_ever)
    with anyio.fail_after(5):
        begun = await replica(redis).begin_once(begin.who, "k", "d", begin)
    assert begin.begun == [begun.answer_id]


async def test_when_the_winner_dies_its_lease_lapses_and_another_begins(redis: Redis) -> None:
    begin, hangs = Beginner(redis, customer()), anyio.Event()

    async def hang() -> StartedAnswer:
        hangs.set()
        await anyio.sleep_forever()
        raise AssertionError

    async with anyio.create_task_group() as tasks:
        # A client of its own that dies with the winner: it cannot give the claim up any more.
        dying = Redis.from_url(f"redis://127.0.0.1:{redis.connection_pool.connection_kwargs['port']}/0")
        tasks.start_soon(replica(dying, lease=1).begin_once, begin.who, "k", "d", hang)
        await hangs.wait()
        await dying.connection_pool.disconnect()
        dying.connection_pool.connection_kwargs["port"] = 1
        tasks.cancel_scope.cancel()
    with anyio.fail_after(5):
        joined = await replica(redis).begin_once(begin.who, "k", "d", begin)
    assert begin.begun == [joined.answer_id]
    await dying.aclose()


async def test_beginning_may_not_take_longer_than_its_claim_holds(redis: Redis) -> None:
    begin = Beginner(redis, customer())

    async def hang() -> StartedAnswer:
        await anyio.sleep_forever()
        raise AssertionError

    with anyio.fail_after(5), pytest.raises(Overloaded):
        await replica(redis, lease=0.2).begin_once(begin.who, "k", "d", hang)
    await replica(redis).begin_once(begin.who, "k", "d", begin)
    assert len(begin.begun) == 1


async def test_nobody_waits_for_ever(redis: Redis) -> None:
    begin, entered = Beginner(redis, customer()), anyio.Event()

    async def hang() -> StartedAnswer:
        entered.set()
        await anyio.sleep_forever()
        raise AssertionError

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(replica(redis, lease=60).begin_once, begin.who, "k", "d", hang)
        await entered.wait()
        with anyio.fail_after(5), pytest.raises(Overloaded):
            await replica(redis, patience=0.2).begin_once(begin.who, "k", "d", begin)
        tasks.cancel_scope.cancel()


async def test_a_key_lives_as_long_as_the_log_of_its_answer(redis: Redis) -> None:
    keys, begin = replica(redis), Beginner(redis, customer())
    first = await keys.begin_once(begin.who, "k", "d", begin)
    assert (await keys.begin_once(begin.who, "k", "d", begin)).answer_id == first.answer_id
    await begin.log.forget(begin.who.tenant, [first.answer_id])
    assert (await keys.begin_once(begin.who, "k", "another body", begin)).answer_id != first.answer_id
    assert len(begin.begun) == 2


async def test_without_a_key_every_request_begins_an_answer(redis: Redis) -> None:
    keys, begin = replica(redis), Beginner(redis, customer())
    for _ in range(2):
        await keys.begin_once(begin.who, None, "d", begin)
    assert len(begin.begun) == 2


async def trip(breaker: RedisBreaker) -> None:
    with contextlib.suppress(StoreUnavailable):
        await breaker.call(anyio.sleep_forever)
    assert breaker.is_open


async def test_a_key_that_was_written_late_lives_no_longer_than_the_log_of_its_answer(redis: Redis) -> None:
    breaker = RedisBreaker(with_constants(RedisBreakerSettings(slow_after=0.1), probe_every=0.05, probe_timeout=1))
    deferred, begin = DeferredWrites(DeferredSettings()), Beginner(redis, customer())
    keys = IdempotencyKeys(redis, breaker, with_constants(IdempotencySettings(), insist=1e-06), deferred=deferred)
    await trip(breaker)
    first = await keys.begin_once(begin.who, "k", "d", begin)
    assert deferred.waiting
    with anyio.fail_after(patient(5)):
        while deferred.waiting:
            await deferred.retry()
            await anyio.sleep(0.01)
    assert (await replica(redis).begin_once(begin.who, "k", "d", begin)).answer_id == first.answer_id
    await begin.log.forget(begin.who.tenant, [first.answer_id])
    assert (await keys.begin_once(begin.who, "k", "d", begin)).answer_id != first.answer_id


async def test_a_redis_that_is_slow_for_a_moment_does_not_lose_what_was_begun(redis: Redis) -> None:
    breaker = RedisBreaker(with_constants(RedisBreakerSettings(slow_after=0.2), probe_every=0.1, probe_timeout=1))
    begin = Beginner(redis, customer())

    async def slow_moment() -> StartedAnswer:
        begun = await begin()
        await trip(breaker)
        return begun

    deferred = DeferredWrites(DeferredSettings())
    keys = IdempotencyKeys(redis, breaker, IdempotencySettings(), deferred=deferred)
    await keys.begin_once(begin.who, "k", "d", slow_moment)
    with anyio.fail_after(patient(5)):
        while deferred.waiting:
            await deferred.retry()
            await anyio.sleep(0.01)
    joined = await replica(redis).begin_once(begin.who, "k", "d", begin)
    assert begin.begun == [joined.answer_id]


async def test_who_waits_for_another_replica_does_not_begin_when_redis_is_slow_for_a_moment(redis: Redis) -> None:
    breaker = RedisBreaker(with_constants(RedisBreakerSettings(slow_after=0.2), probe_every=0.1, probe_timeout=1))
    waiting, begin, go_on = (
        keys_of(redis, breaker),
        Beginner(redis, customer()),
        anyio.Event(),
    )

    async def slow() -> StartedAnswer:
        await go_on.wait()
        return await begin()

    joined: list[StartedAnswer] = []

    async def wait() -> None:
        joined.append(await waiting.begin_once(begin.who, "k", "d", begin))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(replica(redis).begin_once, begin.who, "k", "d", slow)
        await claimed(redis, begin.who)
        tasks.start_soon(wait)
        await anyio.sleep(0.2)  # it has seen the claim
        await trip(breaker)
        go_on.set()
    assert [result.answer_id for result in joined] == begin.begun


@pytest.mark.parametrize("state", ["runs", "is being accepted"])
async def test_a_replica_that_cannot_ask_redis_for_a_moment_joins_the_answer_of_another(
    redis: Redis, state: str
) -> None:
    breaker = RedisBreaker(with_constants(RedisBreakerSettings(slow_after=0.2), probe_every=0.1, probe_timeout=1))
    begin, go_on, joined = Beginner(redis, customer()), anyio.Event(), list[StartedAnswer]()

    async def first() -> StartedAnswer:
        begun = await begin()
        await go_on.wait()
        return begun

    async def second() -> None:
        joined.append(await keys_of(redis, breaker).begin_once(begin.who, "k", "d", begin))

    if state == "runs":
        go_on.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(replica(redis).begin_once, begin.who, "k", "d", first)
        await claimed(redis, begin.who)
        await trip(breaker)
        tasks.start_soon(second)
        await anyio.wait_all_tasks_blocked()
        go_on.set()
    assert [result.answer_id for result in joined] == begin.begun


async def test_a_process_joins_what_it_began_itself_though_redis_went_away(redis: Redis, nowhere: Redis) -> None:
    keys = keys_of(nowhere, RedisBreaker(RedisBreakerSettings()))
    begin = Beginner(redis, customer())
    results = await together([asking(keys, begin)] * 10)
    assert {result.answer_id for result in results} == set(begin.begun)
    assert len(begin.begun) == 1


async def test_without_redis_a_key_binds_in_the_process_that_has_it(redis: Redis, nowhere: Redis) -> None:
    keys = keys_of(nowhere, RedisBreaker(RedisBreakerSettings()))
    begin = Beginner(redis, customer())
    for _ in range(2):
        assert (await keys.begin_once(begin.who, "k", "d", begin)).answer_id == begin.begun[0]
    with pytest.raises(KeyReused):
        await keys.begin_once(begin.who, "k", "another body", begin)
    assert len(begin.begun) == 1


@asynccontextmanager
async def process(
    server: RedisServer, tasks: TaskGroup, settings: RedisBreakerSettings | None = None
) -> AsyncGenerator[tuple[IdempotencyKeys, Answers]]:
    """Run the keys and the answers of a replica, at the product's own settings where no others are given."""
    breaker, deferred = RedisBreaker(settings or RedisBreakerSettings()), DeferredWrites(DeferredSettings())
    async with open_redis(server.url) as redis, open_answer_log(redis, breaker, AnswerLogSettings()) as answer_log:
        keys = IdempotencyKeys(redis, breaker, IdempotencySettings(), deferred=deferred)
        registry = answers_of(answer_log, tasks, AnswerSettings())
        tasks.start_soon(deferred.retry_forever)
        tasks.start_soon(registry.takeover.maintain_leases, never)
        await answer_log.ping()
        yield keys, registry


async def never(live: LiveAnswer, _: TakenOver) -> None:
    raise AssertionError(f"{live.answer_id} was taken over")


async def test_a_claim_that_redis_forgot_is_bound_all_the_same(redis: Redis) -> None:
    begin = Beginner(redis, customer())

    async def forgotten() -> StartedAnswer:
        await redis.delete(*await redis.keys(f"{{{begin.who.tenant}}}:idempotency:*"))
        return await begin()

    first = await replica(redis).begin_once(begin.who, "k", "d", forgotten)
    assert (await replica(redis).begin_once(begin.who, "k", "d", begin)).answer_id == first.answer_id
    assert begin.begun == [first.answer_id]


async def test_a_key_that_redis_forgot_is_bound_again(redis: Redis) -> None:
    begin, deferred = Beginner(redis, customer()), DeferredWrites(DeferredSettings())
    keys = IdempotencyKeys(redis, RedisBreaker(PATIENT), IdempotencySettings(), deferred=deferred)
    first = await keys.begin_once(begin.who, "k", "d", begin)
    await redis.delete(*await redis.keys(f"{{{begin.who.tenant}}}:idempotency:*"))
    deferred.store_seen(lost_writes=True)
    await deferred.retry()
    assert (await replica(redis).begin_once(begin.who, "k", "d", begin)).answer_id == first.answer_id


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.5])
async def test_a_stall_at_the_opening_makes_no_second_answer(
    server: RedisServer, tasks: TaskGroup, fault_round: int, seconds: float
) -> None:
    del fault_round
    who, go_on, begun = customer(), anyio.Event(), list[AnswerId]()
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(process(server, tasks)) for _ in range(2)]

        async def speak(live: LiveAnswer) -> None:
            live.emit(Token(text="one "))
            await go_on.wait()
            live.emit(done())

        async def post(n: int) -> StartedAnswer:
            keys, registry = replicas[n]

            async def begin() -> StartedAnswer:
                live = new_answer(who)
                begun.append(live.answer_id)
                await registry.writers.start(live, speak, LogOpening("c"))
                return StartedAnswer(live.answer_id, None)

            return await keys.begin_once(who, "k", "d", begin)

        server.signal(signal.SIGSTOP)
        tasks.start_soon(_go_on_after, server, seconds)
        first = await post(0)
        assert (await post(0)).answer_id == first.answer_id, "at once"
        await anyio.sleep(seconds + 1.5)  # the breaker's probe, and the next round of what waits
        assert (await post(1)).answer_id == first.answer_id
        go_on.set()
        with anyio.fail_after(10):
            async with aclosing(replicas[1][1].readers.follow(who, first.answer_id, after=0)) as entries:
                read = [entry.event async for entry in entries]
        assert read[-1] == done(), "it has a log by now"
        assert begun == [first.answer_id]


async def _go_on_after(server: RedisServer, seconds: float) -> None:
    await anyio.sleep(seconds)  # the fault itself
    server.signal(signal.SIGCONT)
