"""One bad answer ends by itself, with an error that its readers see; every other answer of the process goes on."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.errors import ChatError, StoreUnavailable
from chatbot.events import Event, Failed, FinishReason, Token, Unknown, from_json, to_json
from chatbot.redis_client import RedisBreaker
from chatbot.streams.live import LiveAnswer
from chatbot.streams.log import (
    AnswerId,
    AnswerLog,
    AnswerLogSettings,
    LogAppend,
    LogEntry,
    LogOpening,
    TakenOver,
    WriterStanding,
    answer_key,
)
from chatbot.streams.pipelined_connection import PipelinedConnection, open_pipelined_connection
from chatbot.streams.readers import Answers
from chatbot.streams.writers import AnswerSettings
from tests.answers import answers_of, customer, done, length_of, text_of
from tests.chatbot.conftest import PATIENT
from tests.chatbot.streams.conftest import log_append, new_answer
from tests.constants import with_constants

pytestmark = [pytest.mark.anyio, pytest.mark.services, pytest.mark.faults]

SURROGATE = "\ud800"
"""Text that cannot be encoded, as a careless decoder may leave it."""


@pytest.fixture
async def redis(redis_url: str) -> AsyncGenerator[Redis]:
    """A database of its own: the sweep also ends the orphans that other tests leave."""
    async with Redis.from_url(f"{redis_url.removesuffix('/0')}/11", max_connections=50) as client:
        await client.flushdb()
        yield client


async def read_all(registry: Answers, live: LiveAnswer) -> list[Event]:
    with anyio.fail_after(10):
        async with aclosing(registry.readers.follow(live.who, live.answer_id, after=0)) as entries:
            return [entry.event async for entry in entries]


async def speak(live: LiveAnswer) -> None:
    live.emit(Token(text="one "))
    await anyio.lowlevel.checkpoint()
    live.emit(Token(text="two"), done())


async def a_text_that_cannot_be_encoded(live: LiveAnswer) -> None:
    live.emit(Token(text="one "))
    await live.confirm_ownership()
    live.emit(Token(text=SURROGATE))
    await anyio.sleep_forever()


async def an_end_that_cannot_be_encoded(live: LiveAnswer) -> None:
    live.emit(Token(text="one "))
    await live.confirm_ownership()
    live.emit(Token(text=SURROGATE), done())


async def an_exception(live: LiveAnswer) -> None:
    live.emit(Token(text="one "))
    await anyio.lowlevel.checkpoint()
    raise KeyError("a bug")


async def no_last_event(live: LiveAnswer) -> None:
    live.emit(Token(text="one "))
    await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    "work",
    [
        a_text_that_cannot_be_encoded,
        an_end_that_cannot_be_encoded,
        an_exception,
        no_last_event,
    ],
)
async def test_it_ends_in_an_error_and_the_others_go_on(answer_log: AnswerLog, tasks: TaskGroup, work) -> None:  # type: ignore[no-untyped-def]
    failures: list[str] = []
    registry = answers_of(answer_log, tasks, AnswerSettings(), on_failure=failures.append)
    bad, good = new_answer(customer()), new_answer(customer())
    await registry.writers.start(bad, work, LogOpening("c"))
    await registry.writers.start(good, speak, LogOpening("c"))
    events = await read_all(registry, bad)
    assert text_of(events) == "one "
    assert isinstance(events[-1], Failed)
    assert (events[-1].code, len([event for event in events if event.ends])) == (ChatError.code, 1)
    assert events[-1].retryable
    assert text_of(await read_all(registry, good)) == "one two"
    with anyio.fail_after(5):
        await registry.writers.drained()
    elsewhere = answers_of(answer_log, tasks, AnswerSettings())
    assert await read_all(elsewhere, bad) == events, "the log says the same"
    assert failures == ([] if work is no_last_event else ["answer" if work is an_exception else "writer"])


class LogWithABug(AnswerLog):
    """Takes no append."""

    async def append(self, tenant: str, answer_id: AnswerId, append: LogAppend, *, epoch: int) -> WriterStanding:
        raise KeyError(tenant, answer_id, append, epoch)


async def test_an_answer_of_which_nothing_can_be_written_ends_in_an_error_all_the_same(
    redis: Redis, tasks: TaskGroup
) -> None:
    failures: list[str] = []
    async with open_pipelined_connection(redis, slow_after=20) as pipelined:
        log = LogWithABug(redis, RedisBreaker(PATIENT), AnswerLogSettings(), pipelined=pipelined)
        registry = answers_of(log, tasks, AnswerSettings(), on_failure=failures.append)
        live = new_answer(customer())
        await registry.writers.start(live, speak, LogOpening("c"))
        [event] = await read_all(registry, live)
        assert isinstance(event, Failed)
        with anyio.fail_after(5):
            await registry.writers.drained()
        assert [entry.n for entry in live.entries] == [1]
        assert failures == ["writer", "log"], "its end is lost, and counted"


class AnswerWithABug(LiveAnswer):
    """Gives out nothing that was put."""

    async def next_batch(self) -> list[LogEntry]:
        raise KeyError(self.answer_id)


async def test_an_answer_whose_events_cannot_even_be_taken_ends_in_an_error(
    answer_log: AnswerLog, tasks: TaskGroup
) -> None:
    failures: list[str] = []
    registry = answers_of(answer_log, tasks, AnswerSettings(), on_failure=failures.append)
    live = AnswerWithABug(AnswerId(uuid4().hex), customer())
    await registry.writers.start(live, speak, LogOpening("c"))
    [event] = await read_all(registry, live)
    assert isinstance(event, Failed)
    with anyio.fail_after(5):
        await registry.writers.drained()
    assert failures == ["writer"]


async def test_the_work_of_an_answer_that_cannot_be_written_settles_it_as_one_that_ended(
    answer_log: AnswerLog, tasks: TaskGroup
) -> None:
    registry, live = answers_of(answer_log, tasks, AnswerSettings()), new_answer(customer())
    settled = anyio.Event()

    async def work(live: LiveAnswer) -> None:
        live.emit(Token(text="one "))
        await live.confirm_ownership()
        try:
            live.emit(Token(text=SURROGATE))
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                assert await live.confirm_ownership()
                assert live.ended
                live.emit(done(FinishReason.CANCELLED))
                settled.set()

    await registry.writers.start(live, work, LogOpening("c"))
    first, last = await read_all(registry, live)
    with anyio.fail_after(5):
        await settled.wait()
    assert first == Token(text="one ")
    assert isinstance(last, Failed)
    assert live.published == [first, last], "its own end comes too late"


async def test_no_process_takes_its_own_live_answer_over(answer_log: AnswerLog, tasks: TaskGroup, redis: Redis) -> None:
    taken, go_on = list[str](), anyio.Event()
    registry = answers_of(answer_log, tasks, AnswerSettings(), on_taken=taken.append)

    async def wait(live: LiveAnswer) -> None:
        live.emit(Token(text="one "))
        await go_on.wait()
        live.emit(done())

    async def resume(live: LiveAnswer, _: TakenOver) -> None:
        live.emit(done(FinishReason.CANCELLED))

    live, dead = new_answer(customer()), new_answer(customer())
    await registry.writers.start(live, wait, LogOpening("c"))
    await answer_log.open(dead.who, dead.answer_id, LogOpening("c"))
    await redis.zadd("answers:open", {answer_key(dead.who.tenant, dead.answer_id): 1})
    tasks.start_soon(registry.takeover.maintain_leases, resume)
    with anyio.fail_after(10):
        while not (await length_of(answer_log, dead.who, dead.answer_id))[1]:
            await anyio.sleep(0.01)
    # As after an outage that outlasted the lease.
    await redis.zadd("answers:open", {answer_key(live.who.tenant, live.answer_id): 1})
    assert not await registry.takeover.take_over(live.who.tenant, live.answer_id, "orphan")
    go_on.set()
    assert (await read_all(registry, live))[-1] == done()
    assert taken == ["orphan"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("thought", b'{"text":"a later release"}'),
        ("notice", b'{"code":"of a later release","text":"news"}'),
        ("token", b"\xff no JSON"),
        ("", b""),
    ],
)
async def test_a_reader_passes_on_what_it_does_not_know(
    answer_log: AnswerLog, tasks: TaskGroup, redis: Redis, name: str, data: bytes
) -> None:
    registry, live = answers_of(answer_log, tasks, AnswerSettings()), new_answer(customer())
    await answer_log.open(live.who, live.answer_id, LogOpening("c"))
    first = log_append(first=1, events=[Token(text="one ")])
    await answer_log.append(live.who.tenant, live.answer_id, first, epoch=1)
    key = f"{{{live.who.tenant}}}:answer:{live.answer_id}"
    await redis.xadd(f"{key}:events", {"name": name, "data": data} if name else {"other": "x"}, id="0-2")
    await redis.hset(key, "n", "2")
    rest = log_append(first=3, events=[Token(text="two"), done()])
    await answer_log.append(live.who.tenant, live.answer_id, rest, epoch=1)
    events = await read_all(registry, live)
    assert text_of(events) == "one two"
    assert len(events) == 4, "its number is not left out"
    expected = data if name and data.startswith(b"{") else b"null"
    assert events[1] == Unknown(name=name or "unknown", data=expected)
    assert to_json(events[1]) == expected


async def test_a_successor_gets_what_stands_for_entries_that_it_cannot_read(
    answer_log: AnswerLog, redis: Redis
) -> None:
    who, answer_id = customer(), AnswerId(uuid4().hex)
    await answer_log.open(who, answer_id, LogOpening("c"))
    await redis.xadd(f"{{{who.tenant}}}:answer:{answer_id}:events", {"name": "later", "data": "{}"}, id="0-1")
    await redis.hset(f"{{{who.tenant}}}:answer:{answer_id}", "n", "1")
    await redis.set(f"{{{who.tenant}}}:answer:{answer_id}:output", b"\1\2")
    await answer_log.give_up({answer_id: (who.tenant, 1)})
    taken = await answer_log.take_over(who.tenant, answer_id)
    assert taken is not None
    assert taken.events == (Unknown(name="later", data=b"{}"),)
    assert taken.output == b"\1\2"


def test_a_field_of_a_later_release_is_passed_over() -> None:
    assert from_json("token", b'{"text":"one","since":2}') == Token(text="one")
    assert from_json("done", b'{"finish_reason":"of a later release"}').ends


class Held(AnswerLog):
    """Refuses the appends of one answer, and holds those of another until it may go on."""

    refused: AnswerId | None = None
    held: AnswerId | None = None

    def __init__(self, redis: Redis, pipelined: PipelinedConnection) -> None:
        super().__init__(redis, RedisBreaker(PATIENT), AnswerLogSettings(), pipelined=pipelined)
        self.is_held, self.go_on = anyio.Event(), anyio.Event()

    async def append(self, tenant: str, answer_id: AnswerId, append: LogAppend, *, epoch: int) -> WriterStanding:
        if answer_id == self.refused:
            raise StoreUnavailable(retry_after=1)
        if answer_id == self.held:
            self.is_held.set()
            await self.go_on.wait()
        return await super().append(tenant, answer_id, append, epoch=epoch)


async def test_an_end_whose_place_in_memory_another_took_while_it_was_logged_is_no_failure(
    redis: Redis, tasks: TaskGroup
) -> None:
    """After a failover that forgot a thousand ends this ended every replica at once."""
    failed: list[str] = []
    async with open_pipelined_connection(redis, slow_after=20) as pipelined:
        log = Held(redis, pipelined)
        settings = with_constants(AnswerSettings(), kept=1, heartbeat=0.05)
        registry = answers_of(log, tasks, settings, on_failure=failed.append)
        first, second = (new_answer(customer()) for _ in range(2))
        log.refused = first.answer_id
        await registry.writers.start(first, speak, LogOpening("c", checkpoint=b"the turn"))
        await read_all(registry, first)
        log.refused, log.held = second.answer_id, first.answer_id
        with anyio.fail_after(5):
            await log.is_held.wait()
        await registry.writers.start(second, speak, LogOpening("c", checkpoint=b"the turn"))
        await read_all(registry, second)
        assert registry.writers.find(first.who, first.answer_id) is None, "memory has a place for one"
        log.refused = None
        log.go_on.set()
        with anyio.fail_after(5):
            await registry.writers.drained()
        assert text_of(await read_all(registry, first)) == text_of(await read_all(registry, second)) == "one two"
    assert failed == []


async def test_an_end_that_another_replica_has_taken_over_is_logged_no_more(
    redis: Redis, tasks: TaskGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the log of it meets a bug each time: nobody waits for it."""
    async with open_pipelined_connection(redis, slow_after=20) as pipelined:
        log = Held(redis, pipelined)
        registry = answers_of(log, tasks, with_constants(AnswerSettings(), heartbeat=0.05))
        live = new_answer(customer())
        log.refused = live.answer_id
        await registry.writers.start(live, speak, LogOpening("c", checkpoint=b"the turn"))
        await read_all(registry, live)
        monkeypatch.setattr(Held, "append", LogWithABug.append)
        live.stop_writing()
        with anyio.fail_after(5):
            await registry.writers.drained()
    assert not live.owes_log
