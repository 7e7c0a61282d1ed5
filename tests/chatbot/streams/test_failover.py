"""A failover forgets the last moments of Redis: writers send again what is missing, and nothing counts as deleted."""

import signal
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.deferred import DeferredSettings, DeferredWrites, WriteKind
from chatbot.events import Event, Failed
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings, open_redis
from chatbot.streams import AnswerLog, AnswerLogSettings, AnswerSettings, LiveAnswer, LogOpening, TakenOver
from chatbot.streams.log import answer_key, open_answer_log
from tests.answers import answers_of, done, length_of, text_of
from tests.chatbot.streams.conftest import TEXT, WORDS, Speaker, events_of, give_up_lease, never_resumed, new_answer
from tests.conftest import NOT_DURABLE, redis_server

pytestmark = [pytest.mark.anyio, pytest.mark.services, pytest.mark.faults]

OPENING = LogOpening("c", checkpoint=b"the turn")


def key_of(live: LiveAnswer) -> str:
    return answer_key(live.who.tenant, live.answer_id)


async def until_logged(redis: Redis, live: LiveAnswer) -> None:
    with anyio.fail_after(10):
        while not await redis.exists(f"{key_of(live)}:events"):
            await anyio.sleep(0.01)


async def test_an_end_that_redis_takes_late_or_loses_is_logged(tmp_path: Path) -> None:
    lost: list[WriteKind] = []
    deferred, breaker = DeferredWrites(DeferredSettings(), on_lost=lost.append), RedisBreaker(RedisBreakerSettings())
    with redis_server(tmp_path / "redis", *NOT_DURABLE) as server:
        async with (
            open_redis(server.url) as redis,
            open_answer_log(redis, breaker, AnswerLogSettings()) as log,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(deferred.retry_forever)
            registry, other = (answers_of(log, tasks, AnswerSettings(), deferred=deferred) for _ in range(2))
            tasks.start_soon(registry.takeover.maintain_leases, never_resumed)
            live, speak = new_answer(), Speaker()
            with registry.readers.reading(live.who, live.answer_id):
                await registry.writers.start(live, speak, OPENING)
                await speak.half.wait()
                server.signal(signal.SIGSTOP)
                speak.go_on.set()
                here = await events_of(registry, live)
            assert live.log_state != "whole"
            server.signal(signal.SIGCONT)
            with anyio.fail_after(10):
                await registry.writers.drained()
            assert registry.writers.find(live.who, live.answer_id) is None, "the log has it"
            assert text_of(await events_of(other, live)) == text_of(here) == TEXT
            server.restart()  # this one keeps nothing
            await until_logged(redis, live)
            with anyio.fail_after(10):
                await registry.writers.drained()
            assert text_of(await events_of(other, live)) == TEXT
            assert lost == []
            tasks.cancel_scope.cancel()


async def test_readers_wait_for_a_lost_log_and_not_for_a_deleted_one(
    answer_log: AnswerLog, tasks: TaskGroup, redis: Redis
) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live, speak, seen = new_answer(), Speaker(), list[Event]()

    async def read_elsewhere() -> None:
        seen.extend(await events_of(other, live))

    async with anyio.create_task_group() as reader:
        with writer.readers.reading(live.who, live.answer_id):
            await writer.writers.start(live, speak, OPENING)
            reader.start_soon(read_elsewhere)
            await speak.half.wait()
            await redis.flushdb()  # and nobody renews a lease: it is not there for longer than two leases
            await anyio.sleep(2 * AnswerLogSettings().lease)
            assert not seen
            tasks.start_soon(writer.takeover.maintain_leases, never_resumed)
            speak.go_on.set()
    assert (text_of(seen), seen[-1]) == (TEXT, done())
    gone = new_answer()
    await answer_log.open(gone.who, gone.answer_id, LogOpening("c"))

    async def delete() -> None:
        await anyio.sleep(0.1)
        await answer_log.delete_logs(gone.who.tenant, [gone.answer_id])

    async with anyio.create_task_group() as again:
        again.start_soon(delete)
        with anyio.fail_after(6):
            [event] = await events_of(other, gone)
    assert isinstance(event, Failed)
    assert event.code == "not_found"


async def test_a_successor_restores_its_takeover(answer_log: AnswerLog, tasks: TaskGroup, redis: Redis) -> None:
    registry, speak, live, read = (
        answers_of(answer_log, tasks, AnswerSettings()),
        Speaker(),
        new_answer(),
        list[Event](),
    )
    await answer_log.open(live.who, live.answer_id, OPENING)
    await give_up_lease(answer_log, live)

    async def resume(live: LiveAnswer, taken: TakenOver) -> None:
        assert (taken.epoch, taken.opening.checkpoint) == (2, b"the turn")
        await speak(live)

    async def read_here() -> None:
        read.extend(await events_of(registry, live))

    tasks.start_soon(registry.takeover.maintain_leases, resume)
    async with anyio.create_task_group() as reader:
        reader.start_soon(read_here)
        await speak.half.wait()
        await redis.flushdb()
        await answer_log.open(live.who, live.answer_id, OPENING)  # as before it
        speak.go_on.set()
    assert (text_of(read), read[-1]) == (TEXT, done())
    with anyio.fail_after(10):
        await registry.writers.drained()
    assert await redis.hget(key_of(live), "epoch") == b"2"
    assert await length_of(answer_log, live.who, live.answer_id) == (len(WORDS) + 1, True)
