"""A failover forgets the last moments of Redis: writers send again what is missing, and nothing counts as deleted."""

import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.deferred import DeferredSettings, DeferredWrites, WriteKind
from chatbot.events import Event, Failed, Notice, Token
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings, open_redis
from chatbot.streams.live import LiveAnswer
from chatbot.streams.log import (
    AnswerId,
    AnswerLog,
    AnswerLogSettings,
    LogAppend,
    LogOpening,
    TakenOver,
    WriterStanding,
)
from chatbot.streams.pipelined_connection import PipelinedConnection, open_pipelined_connection
from chatbot.streams.readers import Answers
from chatbot.streams.writers import AnswerSettings
from tests.answers import answers_of, customer, done, length_of, text_of
from tests.chatbot.streams.conftest import log_append, new_answer
from tests.conftest import NOT_DURABLE, RedisServer, redis_server
from tests.constants import with_constants

pytestmark = [pytest.mark.anyio, pytest.mark.services, pytest.mark.faults]

WORDS = tuple(f"word{n} " for n in range(20))


@pytest.fixture
async def redis(redis_url: str) -> AsyncGenerator[Redis]:
    """A database of its own: what a failover forgets is removed from it."""
    async with Redis.from_url(f"{redis_url.removesuffix('/0')}/12", max_connections=50) as client:
        await client.flushdb()
        yield client


class Speaker:
    """Says ten words, waits, and says the rest."""

    def __init__(self) -> None:
        self.half = anyio.Event()
        self.go_on = anyio.Event()

    async def __call__(self, live: LiveAnswer) -> None:
        for n, word in enumerate(WORDS):
            if n == len(WORDS) // 2:
                self.half.set()
                await self.go_on.wait()
            live.emit(output=bytes([n]))
            live.emit(Token(text=word))
            await live.confirm_ownership()
        live.emit(done())


async def never(live: LiveAnswer, taken: TakenOver) -> None:
    raise AssertionError(f"{live.answer_id} was taken over, after {len(taken.events)} events")


async def read_all(registry: Answers, live: LiveAnswer) -> list[Event]:
    with anyio.fail_after(15):
        async with aclosing(registry.readers.follow(live.who, live.answer_id, after=0)) as entries:
            return [entry.event async for entry in entries]


async def forget_the_end(redis: Redis, live: LiveAnswer) -> None:
    """Leave three events and two bytes of output, as a replica that lags has them."""
    key = f"{{{live.who.tenant}}}:answer:{live.answer_id}"
    await redis.xtrim(f"{key}:events", maxlen=0)
    await redis.delete(f"{key}:events")
    for n, word in enumerate(WORDS[:3], 1):
        await redis.xadd(f"{key}:events", {"name": "token", "data": f'{{"text":"{word}"}}'}, id=f"0-{n}")
    await redis.hset(key, "n", "3")
    await redis.set(f"{key}:output", b"\0\1")


async def forget_all(redis: Redis, _: LiveAnswer) -> None:
    await redis.flushdb()


@pytest.mark.parametrize("forget", [forget_the_end, forget_all])
async def test_the_log_is_whole_again_and_readers_elsewhere_read_everything(  # type: ignore[no-untyped-def]
    answer_log: AnswerLog, tasks: TaskGroup, redis: Redis, fault_round: int, forget
) -> None:
    del fault_round
    registry, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    for process in (registry, other):
        tasks.start_soon(process.takeover.maintain_leases, never)
    live, speak = new_answer(customer()), Speaker()
    with registry.readers.reading(live.who, live.answer_id):
        await registry.writers.start(live, speak, LogOpening("c", checkpoint=b"the turn"))
        await speak.half.wait()
        await forget(redis, live)
        speak.go_on.set()
        here = await read_all(registry, live)
    assert text_of(here) == "".join(WORDS)
    assert here[-1] == done()
    with anyio.fail_after(10):
        await registry.writers.drained()
    assert await read_all(other, live) == here
    with anyio.fail_after(10):  # the next heartbeat may have the end logged once more
        while live.log_state != "whole":
            await anyio.sleep(0.01)


async def test_a_quiet_writer_hears_it_from_its_heartbeat(
    answer_log: AnswerLog, tasks: TaskGroup, redis: Redis
) -> None:
    registry = answers_of(answer_log, tasks, AnswerSettings())
    tasks.start_soon(registry.takeover.maintain_leases, never)
    live, speak = new_answer(customer()), Speaker()
    with registry.readers.reading(live.who, live.answer_id):
        await registry.writers.start(live, speak, LogOpening("c", checkpoint=b"the turn"))
        await speak.half.wait()
        await redis.flushdb()
        with anyio.fail_after(5):
            while not await redis.exists(f"{{{live.who.tenant}}}:answer:{live.answer_id}:events"):
                await anyio.sleep(0.01)
        assert not live.scope.cancel_called, "nobody has deleted it"
        speak.go_on.set()
        assert text_of(await read_all(registry, live)) == "".join(WORDS)


async def test_a_writer_hears_from_its_next_append_that_its_customer_has_cancelled_elsewhere(
    answer_log: AnswerLog, tasks: TaskGroup
) -> None:
    """No heartbeat runs here."""
    registry, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live, speak = new_answer(customer()), Speaker()
    with registry.readers.reading(live.who, live.answer_id):
        await registry.writers.start(live, speak, LogOpening("c", checkpoint=b"the turn"))
        await speak.half.wait()
        assert await other.takeover.cancel(live.who, live.answer_id)
        speak.go_on.set()
        await read_all(registry, live)
    assert live.scope.cancel_called


@asynccontextmanager
async def forgetful_redis(folder: Path) -> AsyncGenerator[tuple[RedisServer, Redis, PipelinedConnection, TaskGroup]]:
    """A server of its own that a restart empties, its clients, and tasks that end with it."""
    with redis_server(folder / "redis", *NOT_DURABLE) as server:
        async with (
            open_redis(server.url) as redis,
            open_pipelined_connection(redis, slow_after=0.2) as pipelined,
            anyio.create_task_group() as tasks,
        ):
            yield server, redis, pipelined, tasks
            tasks.cancel_scope.cancel()


class Counting(AnswerLog):
    """Counts the appends that run at once."""

    under_way = most = 0

    async def append(self, tenant: str, answer_id: AnswerId, append: LogAppend, *, epoch: int) -> WriterStanding:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            return await super().append(tenant, answer_id, append, epoch=epoch)
        finally:
            self.under_way -= 1


async def test_the_ends_that_a_failover_forgot_come_back_one_by_one(tmp_path: Path) -> None:
    """A thousand at once would keep every running answer, and each new question, waiting for seconds."""
    async with forgetful_redis(tmp_path) as (server, redis, pipelined, tasks):
        log = Counting(redis, RedisBreaker(RedisBreakerSettings()), AnswerLogSettings(), pipelined=pipelined)
        registry = answers_of(log, tasks, AnswerSettings())
        tasks.start_soon(registry.takeover.maintain_leases, never)
        answers = [new_answer(customer()) for _ in range(60)]
        for live in answers:
            speak = Speaker()
            speak.go_on.set()
            await registry.writers.start(live, speak, LogOpening("c", checkpoint=b"the turn"))
            await read_all(registry, live)
        await registry.writers.drained()
        log.most = 0
        server.restart()
        with anyio.fail_after(20):
            for live in answers:
                while not await redis.exists(f"{{{live.who.tenant}}}:answer:{live.answer_id}:events"):
                    await anyio.sleep(0.01)
            await registry.writers.drained()
        assert log.most == 1, "one behind the other"


async def test_an_end_that_redis_takes_late_leaves_memory_and_comes_back_where_redis_forgets_it(tmp_path: Path) -> None:
    lost: list[WriteKind] = []
    deferred = DeferredWrites(DeferredSettings(), on_lost=lost.append)
    async with forgetful_redis(tmp_path) as (server, redis, pipelined, tasks):
        log = AnswerLog(redis, RedisBreaker(RedisBreakerSettings()), AnswerLogSettings(), pipelined=pipelined)
        tasks.start_soon(deferred.retry_forever)
        registry, other = (answers_of(log, tasks, AnswerSettings(), deferred=deferred) for _ in range(2))
        tasks.start_soon(registry.takeover.maintain_leases, never)
        live, speak = new_answer(customer()), Speaker()
        with registry.readers.reading(live.who, live.answer_id):
            await registry.writers.start(live, speak, LogOpening("c", checkpoint=b"the turn"))
            await speak.half.wait()
            server.signal(signal.SIGSTOP)
            speak.go_on.set()
            here = await read_all(registry, live)
        assert live.log_state != "whole"
        server.signal(signal.SIGCONT)
        with anyio.fail_after(10):
            await registry.writers.drained()
        assert registry.writers.find(live.who, live.answer_id) is None, "the log has it"
        assert text_of(await read_all(other, live)) == text_of(here) == "".join(WORDS)
        server.restart()
        with anyio.fail_after(10):
            while not await redis.exists(f"{{{live.who.tenant}}}:answer:{live.answer_id}:events"):
                await anyio.sleep(0.01)
            await registry.writers.drained()
        assert text_of(await read_all(other, live)) == "".join(WORDS)
        assert lost == []


async def test_an_end_comes_back_although_redis_forgets_it_some_heartbeats_later(tmp_path: Path) -> None:
    async with forgetful_redis(tmp_path) as (server, redis, pipelined, tasks):
        log = AnswerLog(redis, RedisBreaker(RedisBreakerSettings()), AnswerLogSettings(), pipelined=pipelined)
        registry, beats = answers_of(log, tasks, with_constants(AnswerSettings(), heartbeat=0.05)), 3
        tasks.start_soon(registry.takeover.maintain_leases, never)
        live, speak = new_answer(customer()), Speaker()
        speak.go_on.set()
        with registry.readers.reading(live.who, live.answer_id):
            await registry.writers.start(live, speak, LogOpening("c", checkpoint=b"the turn"))
            here = await read_all(registry, live)
        with anyio.fail_after(10):
            await registry.writers.drained()
            while await log.has_forgotten() or beats:
                beats -= 1
        server.restart()
        with anyio.fail_after(10):
            while not await redis.exists(f"{{{live.who.tenant}}}:answer:{live.answer_id}:events"):
                await anyio.sleep(0.01)
        other = answers_of(log, tasks, AnswerSettings())
        assert text_of(await read_all(other, live)) == text_of(here) == "".join(WORDS)


async def test_who_reads_elsewhere_waits_for_what_redis_forgot_and_not_for_what_was_deleted(
    answer_log: AnswerLog, tasks: TaskGroup, redis: Redis
) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live, speak = new_answer(customer()), Speaker()
    seen: list[Event] = []

    async def read_elsewhere() -> None:
        seen.extend(await read_all(other, live))

    async with anyio.create_task_group() as reader:
        with writer.readers.reading(live.who, live.answer_id):
            await writer.writers.start(live, speak, LogOpening("c", checkpoint=b"the turn"))
            reader.start_soon(read_elsewhere)
            await speak.half.wait()
            await redis.flushdb()  # and nobody renews a lease: it is not there for longer than two leases
            await anyio.sleep(2 * AnswerLogSettings().lease)
            assert not seen
            tasks.start_soon(writer.takeover.maintain_leases, never)
            speak.go_on.set()
    assert text_of(seen) == "".join(WORDS)
    assert seen[-1] == done()
    gone = new_answer(customer())
    await answer_log.open(gone.who, gone.answer_id, LogOpening("c"))
    async with (
        aclosing(other.readers.follow(gone.who, gone.answer_id, after=0)) as entries,
        anyio.create_task_group() as again,
    ):

        async def delete() -> None:
            await anyio.sleep(0.1)
            await answer_log.forget(gone.who.tenant, [gone.answer_id])

        again.start_soon(delete)
        with anyio.fail_after(6):
            [entry] = [entry async for entry in entries]
    assert isinstance(entry.event, Failed)
    assert entry.event.code == "not_found"


async def test_a_successor_brings_back_what_redis_forgot_with_its_takeover(
    answer_log: AnswerLog, tasks: TaskGroup, redis: Redis
) -> None:
    who, registry, speak = customer(), answers_of(answer_log, tasks, AnswerSettings()), Speaker()
    answer_id = new_answer(who).answer_id
    await answer_log.open(who, answer_id, LogOpening("c", checkpoint=b"the turn"))
    await answer_log.give_up({answer_id: (who.tenant, 1)})

    async def resume(live: LiveAnswer, taken: TakenOver) -> None:
        assert (taken.epoch, taken.opening.checkpoint) == (2, b"the turn")
        await speak(live)

    tasks.start_soon(registry.takeover.maintain_leases, resume)
    key = f"{{{who.tenant}}}:answer:{answer_id}"
    async with anyio.create_task_group() as reader:
        read: list[Event] = []

        async def read_here() -> None:
            with registry.readers.reading(who, answer_id), anyio.fail_after(15):
                async with aclosing(registry.readers.follow(who, answer_id, after=0)) as entries:
                    read.extend([entry.event async for entry in entries])

        reader.start_soon(read_here)
        await speak.half.wait()
        await redis.flushdb()
        await answer_log.open(who, answer_id, LogOpening("c", checkpoint=b"the turn"))  # as before it
        speak.go_on.set()
    assert (text_of(read), read[-1]) == ("".join(WORDS), done())
    with anyio.fail_after(10):
        await registry.writers.drained()
    assert await redis.hget(key, "epoch") == b"2"
    assert await length_of(answer_log, who, answer_id) == (len(WORDS) + 1, True)


async def test_an_answer_that_its_customer_deletes_is_cancelled_and_leaves_memory(
    answer_log: AnswerLog, tasks: TaskGroup
) -> None:
    registry = answers_of(answer_log, tasks, AnswerSettings())
    tasks.start_soon(registry.takeover.maintain_leases, never)
    live, speak = new_answer(customer()), Speaker()
    with registry.readers.reading(live.who, live.answer_id):
        await registry.writers.start(live, speak, LogOpening("c"))
        await speak.half.wait()
        await answer_log.forget(live.who.tenant, [live.answer_id])
        with anyio.fail_after(5):
            while not live.scope.cancel_called:
                await anyio.sleep(0.01)
        seen = await read_all(registry, live)
    assert not any(isinstance(event, Notice) for event in seen), "who has deleted it needs no warning"
    with anyio.fail_after(5):
        await registry.writers.drained()
    assert registry.writers.find(live.who, live.answer_id) is None


async def test_an_append_that_does_not_follow_changes_nothing(answer_log: AnswerLog) -> None:
    live = new_answer(customer())
    tenant, answer_id = live.who.tenant, live.answer_id
    await answer_log.open(live.who, answer_id, LogOpening("c"))
    first = log_append(first=1, events=[Token(text="one")], output=b"1")
    assert await answer_log.append(tenant, answer_id, first, epoch=1) is WriterStanding.OWNED
    for gap in (
        log_append(first=3, events=[Token(text="three")], output_before=1, output=b"3"),
        log_append(first=2, events=[Token(text="two")], output_before=2, output=b"3"),
    ):
        assert await answer_log.append(tenant, answer_id, gap, epoch=1) is WriterStanding.BEHIND
        assert await length_of(answer_log, live.who, answer_id) == (1, False)


async def test_opening_twice_changes_nothing_and_takes_nothing_back(answer_log: AnswerLog) -> None:
    live = new_answer(customer())
    tenant, answer_id = live.who.tenant, live.answer_id
    for _ in range(2):
        await answer_log.open(live.who, answer_id, LogOpening("c"))
        await answer_log.append(tenant, answer_id, log_append(first=1, events=[Token(text="one")]), epoch=1)
    assert await length_of(answer_log, live.who, answer_id) == (1, False)
    await answer_log.give_up({answer_id: (tenant, 1)})
    assert await answer_log.take_over(tenant, answer_id) is not None
    assert not await answer_log.open(live.who, answer_id, LogOpening("c"))
