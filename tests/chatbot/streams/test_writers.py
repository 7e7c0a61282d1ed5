"""Running answers: logged before shown, resumable, abandoned when nobody reads, unharmed by Redis being away."""

from contextlib import aclosing
from typing import Any
from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis
from structlog.testing import capture_logs

from chatbot.errors import ForeignEventId, LogLost, NotFound, StoreUnavailable
from chatbot.events import Done, FinishReason, Notice, Token, Usage, to_json
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from chatbot.streams.live import LiveAnswer
from chatbot.streams.log import AnswerId, AnswerLog, AnswerLogSettings, LogEntry, LogOpening, WriterStanding
from chatbot.streams.pipelined_connection import PipelinedConnection, open_pipelined_connection
from chatbot.streams.readers import Answers
from chatbot.streams.writers import AnswerSettings
from knowledge.identity import Principal
from tests.answers import answers_of, customer, done, length_of, text_of
from tests.chatbot.conftest import PATIENT
from tests.chatbot.streams.conftest import log_append, new_answer
from tests.constants import with_constants
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.services]


async def speak(live: LiveAnswer) -> None:
    for word in ("one ", "two ", "three"):
        live.emit(Token(text=word))
        await anyio.lowlevel.checkpoint()
    live.emit(done())


async def read_all(registry: Answers, live: LiveAnswer, after: int = 0) -> list[LogEntry]:
    async with aclosing(registry.readers.follow(live.who, live.answer_id, after=after)) as entries:
        return [entry async for entry in entries]


class LogAwayAtFirst(AnswerLog):
    """Cannot be opened the first time."""

    opened = 0

    async def open(self, *args: Any, **named: Any) -> bool:
        self.opened += 1
        if self.opened == 1:
            raise StoreUnavailable
        return await super().open(*args, **named)


async def test_an_answer_that_began_while_redis_was_away_is_logged_later_and_nothing_counts_as_lost(
    redis: Redis, tasks: TaskGroup
) -> None:
    async with open_pipelined_connection(redis, slow_after=20) as pipelined:
        answer_log = LogAwayAtFirst(redis, RedisBreaker(PATIENT), AnswerLogSettings(), pipelined=pipelined)
        registry, live = answers_of(answer_log, tasks, AnswerSettings()), new_answer(customer())
        with capture_logs() as logs:
            await registry.writers.start(live, speak, LogOpening("c"))
            entries = await read_all(registry, live)
        assert text_of(entry.event for entry in entries) == "one two three"
        assert await answer_log.all_events(live.who.tenant, live.answer_id) == [entry.event for entry in entries]
        assert [line["event"] for line in logs] == []
        await redis.delete(*[key async for key in redis.scan_iter(match=f"*{live.answer_id}*")])
        with capture_logs() as logs:
            await registry.writers.append(live)
        assert [line["event"] for line in logs] == ["event_log_lost"]


async def test_every_reader_gets_every_event_once_in_order(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    registry, live = answers_of(answer_log, tasks, AnswerSettings()), new_answer(customer())
    await registry.writers.start(live, speak, LogOpening("c"))
    with anyio.fail_after(5):
        first = await read_all(registry, live)
        replayed = await read_all(registry, live)
        rest = await read_all(registry, live, after=2)
    assert [entry.n for entry in first] == [1, 2, 3, 4]
    assert text_of(entry.event for entry in first) == "one two three"
    assert replayed == first
    assert rest == first[2:]


async def test_a_process_without_answers_ends_at_once(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    with anyio.fail_after(patient(1)):
        await answers_of(answer_log, tasks, AnswerSettings()).hand_over()


async def test_a_process_that_ends_cancels_the_answers_that_only_it_has(nowhere: Redis, tasks: TaskGroup) -> None:
    log = AnswerLog(
        nowhere,
        RedisBreaker(RedisBreakerSettings()),
        AnswerLogSettings(),
        pipelined=PipelinedConnection(nowhere, slow_after=1),
    )
    registry, live = answers_of(log, tasks, AnswerSettings(grace=60)), new_answer(customer())

    async def for_ever(_: LiveAnswer) -> None:
        await anyio.sleep_forever()

    await registry.writers.start(live, for_ever, LogOpening("c"))
    with anyio.fail_after(patient(5)):
        await registry.hand_over()
    assert live.scope.cancelled_caught


async def test_an_event_is_encoded_once_for_the_log_and_all_who_read(
    answer_log: AnswerLog, tasks: TaskGroup, redis: Redis
) -> None:
    registry, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live, is_read = new_answer(customer()), anyio.Event()
    seen: list[list[LogEntry]] = [[], []]

    async def speak_once_read(live: LiveAnswer) -> None:
        await is_read.wait()
        await speak(live)

    async def read(entries: list[LogEntry]) -> None:
        entries += await read_all(registry, live)

    await registry.writers.start(live, speak_once_read, LogOpening("c"))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as readers:
            for entries in seen:
                readers.start_soon(read, entries)
            await anyio.wait_all_tasks_blocked()
            is_read.set()
    assert [entry.data for entry in seen[0]] == [to_json(entry.event) for entry in seen[0]]
    assert all(one.data is another.data for one, another in zip(*seen, strict=True))
    stored: Any = await redis.xrange(f"{{{live.who.tenant}}}:answer:{live.answer_id}:events")
    assert [fields[b"data"] for _, fields in stored] == [entry.data for entry in seen[0]]
    assert await read_all(other, live) == seen[0]


async def test_another_replica_reads_the_same_stream_while_it_runs(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live, go_on = new_answer(customer()), anyio.Event()

    async def speak_in_two_parts(live: LiveAnswer) -> None:
        live.emit(Token(text="first "))
        await go_on.wait()
        live.emit(Token(text="second"), done())

    await writer.writers.start(live, speak_in_two_parts, LogOpening("c"))
    seen: list[LogEntry] = []
    with anyio.fail_after(5):
        async with aclosing(other.readers.follow(live.who, live.answer_id, after=0)) as entries:
            async for entry in entries:
                seen.append(entry)
                go_on.set()
    assert text_of(entry.event for entry in seen) == "first second"
    assert [entry.n for entry in seen] == [1, 2, 3]


async def test_somebody_elses_answer_is_not_found(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    registry, live = answers_of(answer_log, tasks, AnswerSettings()), new_answer(customer())
    await registry.writers.start(live, speak, LogOpening("c"))
    thief = Principal(tenant=live.who.tenant, sub="kim", roles=live.who.roles, groups=live.who.groups)
    with pytest.raises(NotFound):
        await registry.readers.resume_position(thief, live.answer_id, None)
    with pytest.raises(NotFound):
        await registry.takeover.cancel(thief, live.answer_id)
    await registry.writers.drained()
    with pytest.raises(NotFound):
        await registry.readers.resume_position(thief, live.answer_id, None)
    with pytest.raises(NotFound):
        await registry.readers.resume_position(customer(), live.answer_id, None)
    assert await answer_log.passages(live.who, live.answer_id) == ()
    for somebody_else in (thief, customer()):
        with pytest.raises(NotFound):
            await answer_log.passages(somebody_else, live.answer_id)


async def test_a_last_event_id_is_checked(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    registry, live = answers_of(answer_log, tasks, AnswerSettings()), new_answer(customer())
    await registry.writers.start(live, speak, LogOpening("c"))
    await registry.writers.drained()
    who, answer_id = live.who, live.answer_id
    assert await registry.readers.resume_position(who, answer_id, f"{answer_id}.4") == (4, True)
    assert await registry.readers.resume_position(who, answer_id, f"{answer_id}.2") == (2, False)
    assert await registry.readers.resume_position(who, answer_id, f"{answer_id}.000000004") == (4, True)
    for n in (5, 999_999_999):
        with pytest.raises(LogLost):
            await registry.readers.resume_position(who, answer_id, f"{answer_id}.{n}")
    for foreign in (f"{uuid4().hex}.1", f"{answer_id}.x", "nonsense", f"{answer_id}.-1", f"{answer_id}.0000000001"):
        with pytest.raises(ForeignEventId):
            await registry.readers.resume_position(who, answer_id, foreign)


async def test_an_answer_that_nobody_reads_is_cancelled_after_the_grace(
    answer_log: AnswerLog, tasks: TaskGroup
) -> None:
    registry, live = answers_of(answer_log, tasks, AnswerSettings(grace=0.05)), new_answer(customer())

    async def speak_for_ever(live: LiveAnswer) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            live.emit(Done(finish_reason=FinishReason.CANCELLED, usage=Usage(), grounded=False, limits=None))

    await registry.writers.start(live, speak_for_ever, LogOpening("c"))
    with anyio.fail_after(5):
        await registry.writers.drained()
    last = live.published[-1]
    assert isinstance(last, Done)
    assert last.finish_reason is FinishReason.CANCELLED


async def test_a_reader_who_comes_back_within_the_grace_keeps_the_answer_alive(
    answer_log: AnswerLog, tasks: TaskGroup
) -> None:
    registry, live, go_on = (
        answers_of(answer_log, tasks, AnswerSettings(grace=0.2)),
        new_answer(customer()),
        anyio.Event(),
    )

    async def speak_when_told(live: LiveAnswer) -> None:
        await go_on.wait()
        live.emit(Token(text="here"), done())

    await registry.writers.start(live, speak_when_told, LogOpening("c"))
    with registry.readers.reading(live.who, live.answer_id):
        pass
    with registry.readers.reading(live.who, live.answer_id):
        await anyio.sleep(0.5)  # longer than the grace: the second reader holds it
        go_on.set()
        with anyio.fail_after(5):
            entries = await read_all(registry, live)
    assert text_of(entry.event for entry in entries) == "here"


async def test_a_reader_that_cannot_resume_ends_the_answer_at_once(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    registry, live = answers_of(answer_log, tasks, AnswerSettings(grace=60)), new_answer(customer())
    stopped = anyio.Event()

    async def wait_for_ever(live: LiveAnswer) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()
            live.emit(done())

    await registry.writers.start(live, wait_for_ever, LogOpening("c"))
    with registry.readers.reading(live.who, live.answer_id, resumable=False):
        await anyio.lowlevel.checkpoint()
    with anyio.fail_after(patient(0.5)):
        await stopped.wait()


async def test_without_redis_the_stream_goes_on_with_a_notice(tasks: TaskGroup) -> None:
    nowhere = Redis(host="127.0.0.1", port=1)
    log = AnswerLog(
        nowhere,
        RedisBreaker(RedisBreakerSettings()),
        AnswerLogSettings(),
        pipelined=PipelinedConnection(nowhere, slow_after=1),
    )
    registry, live = answers_of(log, tasks, AnswerSettings()), new_answer(customer())
    await registry.writers.start(live, speak, LogOpening("c"))
    with anyio.fail_after(5):
        entries = await read_all(registry, live)
        again = await read_all(registry, live)
    events = [entry.event for entry in entries]
    assert text_of(events) == "one two three"
    assert [entry.n for entry in entries] == list(range(1, len(entries) + 1))
    assert sum(isinstance(event, Notice) for event in events) == 1
    assert again == entries
    await nowhere.aclose()


async def test_of_answers_without_a_log_only_the_last_ones_stay_in_memory(nowhere: Redis, tasks: TaskGroup) -> None:
    log = AnswerLog(
        nowhere,
        RedisBreaker(RedisBreakerSettings()),
        AnswerLogSettings(),
        pipelined=PipelinedConnection(nowhere, slow_after=1),
    )
    registry = answers_of(log, tasks, with_constants(AnswerSettings(), kept=2))
    lives = [new_answer(customer()) for _ in "abcd"]
    for live in lives:
        await registry.writers.start(live, speak, LogOpening("c"))
        with anyio.fail_after(5):
            await read_all(registry, live)
            while registry.writers.active:
                await anyio.sleep(0.01)
    assert [registry.writers.find(live.who, live.answer_id) for live in lives] == [None, None, *lives[2:]]


async def test_a_writer_with_an_old_epoch_may_not_append(answer_log: AnswerLog, redis: Redis) -> None:
    who, answer_id = customer(), AnswerId(uuid4().hex)
    await answer_log.open(who, answer_id, LogOpening("c"))
    await answer_log.append(who.tenant, answer_id, log_append(first=1, events=[Token(text="mine")]), epoch=1)
    await redis.hset(f"{{{who.tenant}}}:answer:{answer_id}", "epoch", "2")
    late = await answer_log.append(who.tenant, answer_id, log_append(first=2, events=[Token(text="late")]), epoch=1)
    assert late is WriterStanding.REPLACED
    assert await length_of(answer_log, who, answer_id) == (1, False)


async def test_a_forgotten_answer_is_gone(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    registry, live = answers_of(answer_log, tasks, AnswerSettings()), new_answer(customer())
    await registry.writers.start(live, speak, LogOpening("c"))
    await registry.writers.drained()
    await answer_log.forget(live.who.tenant, [live.answer_id])
    with pytest.raises(NotFound):
        await registry.readers.resume_position(live.who, live.answer_id, None)
