"""Two replicas and one answer: leases, epochs, takeover, cancel and handing over, on a real Redis."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal
from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import Draining, NotFound, StoreUnavailable
from chatbot.events import Done, Failed, FinishReason, Token
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
    open_answer_log,
)
from chatbot.streams.pipelined_connection import PipelinedConnection, open_pipelined_connection
from chatbot.streams.readers import Answers
from chatbot.streams.writers import AnswerSettings, TakeoverReason
from knowledge.identity import Principal
from tests.answers import answers_of, customer, done, length_of, text_of
from tests.chatbot.conftest import PATIENT
from tests.chatbot.streams.conftest import log_append, new_answer
from tests.conftest import RedisServer
from tests.constants import with_constants
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.services]

WORDS = [f"word{n} " for n in range(12)]
QUICK = with_constants(AnswerSettings(grace=0.4), heartbeat=0.05)
# On a busy machine a reader may be away for longer than that between two visits.
NEVER_ENDED = QUICK.model_copy(update={"grace": 60.0})
LEASE = 0.4
LOG = with_constants(AnswerLogSettings(), lease=LEASE)


@dataclass
class Replica:
    """A process with its answers; `finished` are those that it settled and recorded."""

    registry: Answers
    finished: list[AnswerId] = field(default_factory=list)
    taken: list[TakeoverReason] = field(default_factory=list)
    go_on: anyio.Event = field(default_factory=anyio.Event)

    async def speak(self, live: LiveAnswer) -> None:
        """Say the words again from the first one, waiting in the middle unless told to go on."""
        reason = FinishReason.CANCELLED
        try:
            for n, word in enumerate(WORDS):
                if n >= len(live.output):
                    live.emit(output=bytes([n]))
                live.emit(Token(text=word))
                if n == len(WORDS) // 2:
                    await self.go_on.wait()
                await anyio.lowlevel.checkpoint()
            reason = FinishReason.STOP
        finally:
            await self.finish(live, reason)

    async def resume(self, live: LiveAnswer, taken: TakenOver) -> None:
        if taken.cancelled or taken.outcome:
            await self.finish(live, FinishReason(taken.outcome.decode() or "cancelled"))
        else:
            await self.speak(live)

    async def finish(self, live: LiveAnswer, reason: FinishReason) -> None:
        with anyio.CancelScope(shield=True):
            if await live.confirm_ownership(reason.encode()):
                self.finished.append(live.answer_id)
                live.emit(done(reason))


@pytest.fixture
async def redis(redis_url: str) -> AsyncGenerator[Redis]:
    """A database of its own: replicas also end the orphans that other tests leave."""
    async with Redis.from_url(f"{redis_url.removesuffix('/0')}/5", max_connections=200) as client:
        await client.flushdb()
        yield client


@pytest.fixture
async def answer_log(redis: Redis) -> AsyncGenerator[AnswerLog]:
    async with open_answer_log(redis, RedisBreaker(PATIENT), LOG) as log:
        yield log


@pytest.fixture
def replica(answer_log: AnswerLog, tasks: TaskGroup) -> Callable[..., Replica]:
    def start(settings: AnswerSettings = QUICK, *, alone: bool = False) -> Replica:
        taken: list[TakeoverReason] = []
        started = Replica(answers_of(answer_log, tasks, settings, on_taken=taken.append), taken=taken)
        if not alone:
            tasks.start_soon(started.registry.takeover.maintain_leases, started.resume)
        return started

    return start


async def read_all(replica: Replica, who: Principal, answer_id: AnswerId, after: int = 0) -> list[LogEntry]:
    with anyio.fail_after(10), replica.registry.readers.reading(who, answer_id):
        async with aclosing(replica.registry.readers.follow(who, answer_id, after=after)) as followed:
            return [entry async for entry in followed]


async def half_said(answer_log: AnswerLog, who: Principal, words: int = 4) -> AnswerId:
    """Leave an answer behind as a process does that was killed after so many words."""
    answer_id = AnswerId(uuid4().hex)
    await answer_log.open(who, answer_id, LogOpening("c", checkpoint=b"the turn"))
    events = [Token(text=word) for word in WORDS[:words]]
    written = log_append(first=1, events=events, output=bytes(range(words)))
    await answer_log.append(who.tenant, answer_id, written, epoch=1)
    return answer_id


async def test_only_a_lapsed_lease_may_be_taken_and_all_that_a_successor_needs_comes_with_it(
    answer_log: AnswerLog,
) -> None:
    who = customer()
    answer_id = await half_said(answer_log, who)
    assert await answer_log.take_over(who.tenant, answer_id) is None
    await answer_log.give_up({answer_id: (who.tenant, 1)})
    taken = await answer_log.take_over(who.tenant, answer_id)
    assert taken is not None
    assert (taken.epoch, taken.sub, taken.opening.conversation_id, taken.opening.checkpoint) == (
        2,
        who.sub,
        "c",
        b"the turn",
    )
    assert taken.output == bytes(range(4))
    assert taken.events == tuple(Token(text=word) for word in WORDS[:4])
    assert not taken.cancelled
    assert await answer_log.take_over(who.tenant, answer_id) is None, "the successor holds the lease"


async def test_a_lease_is_over_by_the_millisecond_of_the_stores_time(answer_log: AnswerLog, redis: Redis) -> None:
    who = customer()
    answer_id = await half_said(answer_log, who)
    with anyio.fail_after(5):
        while (await redis.time())[1] < 500_000:  # in the second half of a second, milliseconds count
            await anyio.sleep(0.01)
    await answer_log.give_up({answer_id: (who.tenant, 1)})
    await anyio.sleep(0.002)
    [seconds] = [
        lapsed for tenant, name, lapsed in await answer_log.lapsed() if (tenant, name) == (who.tenant, answer_id)
    ]
    assert 0 < seconds < 60


async def test_an_answer_that_has_ended_is_not_taken_and_keeps_nothing_for_a_successor(
    answer_log: AnswerLog, redis: Redis
) -> None:
    who = customer()
    answer_id = await half_said(answer_log, who)
    await answer_log.append(who.tenant, answer_id, log_append(first=5, events=[done()]), epoch=1)
    await answer_log.renew({answer_id: (who.tenant, 1)})
    await answer_log.give_up({answer_id: (who.tenant, 1)})
    assert await answer_log.take_over(who.tenant, answer_id) is None
    assert await length_of(answer_log, who, answer_id) == (5, True)
    assert await redis.hget(f"{{{who.tenant}}}:answer:{answer_id}", "frame") is None
    assert not await redis.exists(f"{{{who.tenant}}}:answer:{answer_id}:output")


@pytest.mark.parametrize("late", ["its opening", "an append"])
async def test_a_command_that_arrives_after_the_end_of_its_answer_opens_it_to_nobody(
    answer_log: AnswerLog, late: str
) -> None:
    who = customer()
    answer_id = await half_said(answer_log, who)
    await answer_log.append(who.tenant, answer_id, log_append(first=5, events=[done()]), epoch=1)
    if late == "its opening":
        await answer_log.open(who, answer_id, LogOpening("c", checkpoint=b"the turn"))
    else:
        events = [Token(text=WORDS[3])]
        await answer_log.append(who.tenant, answer_id, log_append(first=4, events=events, output_before=3), epoch=1)
    assert await length_of(answer_log, who, answer_id) == (5, True)
    assert await answer_log.running({answer_id: who.tenant}) == set()


async def test_an_append_that_is_sent_twice_is_there_once(answer_log: AnswerLog) -> None:
    who = customer()
    answer_id = await half_said(answer_log, who)
    again = log_append(first=3, events=[Token(text=w) for w in WORDS[2:6]], output_before=2, output=bytes((2, 3, 4, 5)))
    for _ in range(2):
        assert await answer_log.append(who.tenant, answer_id, again, epoch=1) is WriterStanding.OWNED
    await answer_log.give_up({answer_id: (who.tenant, 1)})
    taken = await answer_log.take_over(who.tenant, answer_id)
    assert taken is not None
    assert taken.events == tuple(Token(text=word) for word in WORDS[:6])
    assert taken.output == bytes(range(6))


WRITES = st.lists(st.tuples(st.sampled_from(["first", "second"]), st.integers(1, 3)), max_size=20)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.integers(0, 3), writes=WRITES)
async def test_of_two_writers_only_the_present_epoch_writes(
    answer_log: AnswerLog, before: int, writes: list[tuple[str, int]]
) -> None:
    who = customer()
    answer_id = await half_said(answer_log, who, before)
    await answer_log.give_up({answer_id: (who.tenant, 1)})
    taken = await answer_log.take_over(who.tenant, answer_id)
    assert taken is not None
    expected, epochs = [event for event in taken.events], {"first": 1, "second": taken.epoch}
    for writer, count in writes:
        events = [Token(text=writer) for _ in range(count)]
        written = log_append(first=len(expected) + 1, events=events)
        if writer == "first":
            standing = await answer_log.append(who.tenant, answer_id, written, epoch=epochs[writer])
            assert standing is WriterStanding.REPLACED
            assert await answer_log.renew({answer_id: (who.tenant, 1)}) == {answer_id: WriterStanding.REPLACED}
        else:
            await answer_log.append(who.tenant, answer_id, written, epoch=epochs[writer])
            expected += events
    entries = (await answer_log.read_all({answer_id: (who.tenant, 0)})).get(answer_id, [])
    assert [entry.n for entry in entries] == list(range(1, len(expected) + 1))
    assert [entry.event for entry in entries] == expected


async def test_who_reads_the_answer_of_a_dead_replica_gets_it_continued(
    answer_log: AnswerLog, replica: Callable[..., Replica]
) -> None:
    who, other = customer(), replica()
    other.go_on.set()
    answer_id = await half_said(answer_log, who)
    began = anyio.current_time()
    entries = await read_all(other, who, answer_id, after=2)
    assert anyio.current_time() - began < LEASE + 1
    assert [entry.n for entry in entries] == list(range(3, len(WORDS) + 2))
    assert text_of(entry.event for entry in entries) == "".join(WORDS[2:])
    assert entries[-1].event == done()
    assert (other.finished, other.taken) == ([answer_id], ["reader"])


async def test_many_readers_on_two_replicas_take_it_over_once(
    answer_log: AnswerLog, replica: Callable[..., Replica]
) -> None:
    who, replicas = customer(), [replica(), replica()]
    answer_id = await half_said(answer_log, who)
    readings: list[list[LogEntry]] = []

    async def read(at: Replica) -> None:
        at.go_on.set()
        readings.append(await read_all(at, who, answer_id))

    async with anyio.create_task_group() as readers:
        for n in range(10):
            readers.start_soon(read, replicas[n % 2])
    assert [entry.n for entry in readings[0]] == list(range(1, len(WORDS) + 2))
    assert all(entries == readings[0] for entries in readings)
    assert len(replicas[0].finished + replicas[1].finished) == 1


async def test_a_writer_that_was_replaced_stops_and_settles_nothing(
    answer_log: AnswerLog, replica: Callable[..., Replica]
) -> None:
    # `frozen` keeps no leases, as a process that stands still.
    who, frozen, other = customer(), replica(alone=True), replica()
    other.go_on.set()
    live = new_answer(who)
    with frozen.registry.readers.reading(live.who, live.answer_id):
        await frozen.registry.writers.start(live, frozen.speak, LogOpening("c"))
        entries = await read_all(other, who, live.answer_id)
        frozen.go_on.set()
        with anyio.fail_after(5):
            await frozen.registry.writers.drained()
    assert text_of(entry.event for entry in entries) == "".join(WORDS)
    assert (frozen.finished, other.finished) == ([], [live.answer_id])
    assert await length_of(answer_log, who, live.answer_id) == (len(WORDS) + 1, True)


@dataclass
class Forked:
    """A writer whose appends no longer arrive and who showed a reader what the log lacks, until another replaced it."""

    live: LiveAnswer
    read: list[LogEntry] = field(default_factory=list)
    """What the writer's reader read."""
    kept: list[LogEntry] = field(default_factory=list)
    """What the successor's reader read."""


class CutOff(PipelinedConnection):
    """A connection that reaches no Redis until it is mended."""

    mended = False

    async def run(self, *args: Any, **named: Any) -> Any:
        if not self.mended:
            raise RedisConnectionError
        return await super().run(*args, **named)


async def forked(
    redis: Redis, answer_log: AnswerLog, replica: Callable[..., Replica], tasks: TaskGroup, *, arrives_late: bool
) -> Forked:
    """Let a writer say half an answer into no log, and its successor all of it; an append may arrive late after all."""
    connection = CutOff(redis, slow_after=20)
    tasks.start_soon(connection.serve)
    cut_off = AnswerLog(redis, RedisBreaker(PATIENT), LOG, pipelined=connection)
    writer, other = Replica(answers_of(cut_off, tasks, NEVER_ENDED)), replica()
    other.go_on.set()
    fork = Forked(new_answer(customer()))
    live, who = fork.live, fork.live.who

    async def read() -> None:
        async with aclosing(writer.registry.readers.follow(who, live.answer_id, after=0)) as followed:
            async for entry in followed:
                fork.read.append(entry)

    with anyio.fail_after(10), writer.registry.readers.reading(who, live.answer_id):
        await writer.registry.writers.start(live, writer.speak, LogOpening("c"))
        async with anyio.create_task_group() as readers:
            readers.start_soon(read)
            while text_of(entry.event for entry in fork.read) != "".join(WORDS[: len(WORDS) // 2 + 1]):
                await anyio.sleep(0.01)
            if arrives_late:
                await answer_log.append(who.tenant, live.answer_id, live.unlogged(), epoch=live.epoch)
            fork.kept = await read_all(other, who, live.answer_id)
            connection.mended = True
            tasks.start_soon(writer.registry.takeover.maintain_leases, writer.resume)
    return fork


async def test_a_reader_who_was_shown_what_the_log_lacks_goes_on_elsewhere_where_the_log_got_it_after_all(
    redis: Redis, answer_log: AnswerLog, replica: Callable[..., Replica], tasks: TaskGroup
) -> None:
    fork = await forked(redis, answer_log, replica, tasks, arrives_late=True)
    assert fork.read == fork.kept
    assert [entry.n for entry in fork.read] == list(range(1, len(fork.read) + 1))


async def test_a_reader_who_was_shown_what_the_log_lacks_reads_no_other_answer_behind_it(
    redis: Redis, answer_log: AnswerLog, replica: Callable[..., Replica], tasks: TaskGroup
) -> None:
    fork = await forked(redis, answer_log, replica, tasks, arrives_late=False)
    *shown, last = fork.read
    assert [entry.event for entry in shown] == fork.live.published
    assert isinstance(last.event, Failed)
    assert last.event.code == "log_lost"
    assert last.n == len(shown) + 1, "it is the answer's end for this reader: behind that number is another text"
    assert text_of(entry.event for entry in fork.kept) == "".join(WORDS)


async def test_a_cancel_on_another_replica_stops_the_writer_at_once(replica: Callable[..., Replica]) -> None:
    who, writer, other = customer(), replica(), replica()
    live = new_answer(who)
    with writer.registry.readers.reading(live.who, live.answer_id):
        await writer.registry.writers.start(live, writer.speak, LogOpening("c"))
        began = anyio.current_time()
        assert await other.registry.takeover.cancel(who, live.answer_id)
        with anyio.fail_after(5):
            await writer.registry.writers.drained()
    assert anyio.current_time() - began < 0.5
    assert live.published[-1] == done(FinishReason.CANCELLED)
    assert not await other.registry.takeover.cancel(who, live.answer_id), "it has ended"
    with pytest.raises(NotFound):
        await other.registry.takeover.cancel(customer(), live.answer_id)


async def test_a_cancel_ends_the_answer_of_a_dead_replica(
    answer_log: AnswerLog, replica: Callable[..., Replica]
) -> None:
    who, other = customer(), replica()
    answer_id = await half_said(answer_log, who)
    assert await other.registry.takeover.cancel(who, answer_id)
    with anyio.fail_after(patient(5)):
        while not other.finished:  # also where nobody reads it
            await anyio.sleep(0.01)
    entries = await read_all(other, who, answer_id)
    assert text_of(entry.event for entry in entries) == "".join(WORDS[:4])
    assert entries[-1].event == done(FinishReason.CANCELLED)
    assert other.finished == [answer_id]


async def test_an_orphan_that_nobody_asks_for_is_ended_once(
    answer_log: AnswerLog, replica: Callable[..., Replica], redis: Redis
) -> None:
    who, replicas = customer(), [replica(), replica()]
    answer_id = await half_said(answer_log, who)
    with anyio.fail_after(5):
        while not (await length_of(answer_log, who, answer_id))[1]:
            await anyio.sleep(0.02)
    assert len(replicas[0].finished + replicas[1].finished) == 1
    assert "orphan" in replicas[0].taken + replicas[1].taken
    assert await redis.hexists(f"{{{who.tenant}}}:answer:{answer_id}", "abandoned"), "its key is free"
    assert text_of(await answer_log.all_events(who.tenant, answer_id)) == "".join(WORDS[:4]), "it is not gone on with"


async def test_a_reader_on_another_replica_keeps_the_answer_alive(replica: Callable[..., Replica]) -> None:
    patient = QUICK.model_copy(update={"grace": 2.0})  # longer than a busy machine keeps a reader from its next visit
    who, writer, other = customer(), replica(patient), replica(patient)
    live = new_answer(who)
    await writer.registry.writers.start(live, writer.speak, LogOpening("c"))
    entries: list[LogEntry] = []
    async with anyio.create_task_group() as group:

        async def read() -> None:
            entries.extend(await read_all(other, who, live.answer_id))

        group.start_soon(read)
        await anyio.sleep(1.5 * patient.grace)  # the grace itself is what passes here
        writer.go_on.set()
    assert entries[-1].event == done()
    assert text_of(entry.event for entry in entries) == "".join(WORDS)


async def test_an_answer_that_is_handed_over_goes_on_elsewhere_at_once(replica: Callable[..., Replica]) -> None:
    who, writer, other = customer(), replica(), replica()
    other.go_on.set()
    live = new_answer(who)
    seen: list[LogEntry] = []

    async def read_here() -> None:
        seen.extend(await read_all(writer, who, live.answer_id))

    async with anyio.create_task_group() as group:
        await writer.registry.writers.start(live, writer.speak, LogOpening("c"))
        group.start_soon(read_here)
        await anyio.sleep(0.1)
        writer.registry.writers.begin_draining()
        await writer.registry.hand_over()
    assert not any(isinstance(entry.event, Done) for entry in seen), "the connection ends without an end"
    with pytest.raises(Draining):
        await writer.registry.readers.resume_position(who, live.answer_id, None)
    began = anyio.current_time()
    seen += await read_all(other, who, live.answer_id, after=len(seen))
    assert anyio.current_time() - began < LEASE / 2, "nobody waits for the lease"
    assert [entry.n for entry in seen] == list(range(1, len(WORDS) + 2))
    assert text_of(entry.event for entry in seen) == "".join(WORDS)
    assert (writer.finished, other.finished) == ([], [live.answer_id])


class Slow(AnswerLog):
    """A log of which one kind of command waits until a test lets it go on."""

    slow: Literal["append", "take_over", "open"] = "append"

    def __init__(self, redis: Redis, pipelined: PipelinedConnection) -> None:
        super().__init__(redis, RedisBreaker(PATIENT), LOG, pipelined=pipelined)
        self.begun = anyio.Event()
        self.go_on = anyio.Event()

    async def open(self, who: Principal, answer_id: AnswerId, opening: LogOpening, *, epoch: int = 1) -> bool:
        if self.slow == "open":
            self.begun.set()
            await self.go_on.wait()
        return await super().open(who, answer_id, opening, epoch=epoch)

    async def append(self, tenant: str, answer_id: AnswerId, append: LogAppend, *, epoch: int) -> WriterStanding:
        if self.slow == "append":  # it is under way
            self.begun.set()
            await self.go_on.wait()
        return await super().append(tenant, answer_id, append, epoch=epoch)

    async def take_over(self, tenant: str, answer_id: AnswerId) -> TakenOver | None:
        taken = await super().take_over(tenant, answer_id)
        if self.slow == "take_over":  # its reply is under way
            self.begun.set()
            await self.go_on.wait()
        return taken


@pytest.fixture
async def slow_log(redis: Redis) -> AsyncGenerator[Slow]:
    async with open_pipelined_connection(redis, slow_after=20) as pipelined:
        yield Slow(redis, pipelined)


async def test_a_lease_is_given_up_behind_the_appends_that_are_under_way(
    answer_log: AnswerLog, slow_log: Slow, tasks: TaskGroup
) -> None:
    live, handed = new_answer(customer()), anyio.Event()
    writer = Replica(answers_of(slow_log, tasks, NEVER_ENDED))

    async def hand_over() -> None:
        await writer.registry.hand_over()
        handed.set()

    await writer.registry.writers.start(live, writer.speak, LogOpening("c"))
    with anyio.fail_after(5):
        await slow_log.begun.wait()
    tasks.start_soon(hand_over)
    with anyio.move_on_after(0.2):
        await handed.wait()
    slow_log.go_on.set()
    with anyio.fail_after(5):
        await handed.wait()
        await writer.registry.writers.drained()
    assert await answer_log.take_over(live.who.tenant, live.answer_id) is not None, "the append renewed the lease"


async def test_a_process_that_drains_waits_for_a_question_that_is_opened(replica: Callable[..., Replica]) -> None:
    writer, live, drained = replica(), new_answer(customer()), anyio.Event()

    async def drain() -> None:
        await writer.registry.writers.drained()
        drained.set()

    async with anyio.create_task_group() as group:
        with writer.registry.writers.accepting():
            group.start_soon(drain)
            await anyio.wait_all_tasks_blocked()
            assert not drained.is_set()
            await writer.registry.writers.start(live, writer.speak, LogOpening("c"))
        assert not drained.is_set(), "its answer is not written yet"
        writer.go_on.set()
    assert writer.finished == [live.answer_id]


async def test_a_process_that_ends_waits_for_no_answer_that_is_still_written(
    answer_log: AnswerLog, slow_log: Slow
) -> None:
    """The end of an answer is shielded, and waits for its log: with the writer cancelled it waited for ever."""
    live, confirmed = new_answer(customer()), list[bool]()

    async def speak_and_settle(live: LiveAnswer) -> None:
        live.emit(Token(text="all of it"))
        with anyio.move_on_after(10, shield=True):
            confirmed.append(await live.confirm_ownership())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as process:
            await answers_of(slow_log, process, NEVER_ENDED).writers.start(live, speak_and_settle, LogOpening("c"))
            await slow_log.begun.wait()
            process.cancel_scope.cancel()
    assert confirmed == [False], "it neither settles nor records"
    taken = None
    with anyio.fail_after(3 * LEASE):
        while taken is None:
            taken = await answer_log.take_over(live.who.tenant, live.answer_id)
            await anyio.sleep(0.05)


async def test_a_process_that_has_handed_over_begins_no_answer(
    answer_log: AnswerLog, replica: Callable[..., Replica]
) -> None:
    writer, live = replica(NEVER_ENDED), new_answer(customer())
    await writer.registry.hand_over()
    with pytest.raises(Draining):
        await writer.registry.writers.start(live, writer.speak, LogOpening("c"))
    with pytest.raises(NotFound):
        await length_of(answer_log, live.who, live.answer_id)
    await writer.registry.writers.drained()


async def test_an_answer_that_begins_while_its_process_hands_over_is_anothers(
    slow_log: Slow, tasks: TaskGroup, replica: Callable[..., Replica]
) -> None:
    live, other, slow_log.slow = new_answer(customer()), replica(), "open"
    writer = Replica(answers_of(slow_log, tasks, NEVER_ENDED))
    async with anyio.create_task_group() as begun:
        begun.start_soon(partial(writer.registry.writers.start, live, writer.speak, LogOpening("c")))
        await slow_log.begun.wait()
        await writer.registry.hand_over()
        slow_log.go_on.set()
    with anyio.fail_after(5):
        await writer.registry.writers.drained()
    other.go_on.set()
    entries = await read_all(other, live.who, live.answer_id)
    assert text_of(entry.event for entry in entries) == "".join(WORDS)
    assert (writer.finished, other.finished) == ([], [live.answer_id])


async def test_an_answer_that_is_settled_already_is_not_handed_over(
    answer_log: AnswerLog, tasks: TaskGroup, replica: Callable[..., Replica]
) -> None:
    writer, other, live = replica(NEVER_ENDED), replica(NEVER_ENDED), new_answer(customer())
    settling, settled = anyio.Event(), anyio.Event()

    async def speak_and_settle(live: LiveAnswer) -> None:
        live.emit(Token(text="all of it"))
        if await live.confirm_ownership():
            settling.set()
            with anyio.CancelScope(shield=True):
                await settled.wait()
            writer.finished.append(live.answer_id)
        live.emit(done())

    await writer.registry.writers.start(live, speak_and_settle, LogOpening("c"))
    with anyio.fail_after(5):
        await settling.wait()
    tasks.start_soon(writer.registry.hand_over)
    with anyio.move_on_after(0.2):
        await writer.registry.writers.drained()
    taken = await answer_log.take_over(live.who.tenant, live.answer_id)
    settled.set()
    assert taken is None
    entries = await read_all(other, live.who, live.answer_id)
    assert entries[-1].event == done()
    assert (writer.finished, other.finished) == ([live.answer_id], [])


async def test_a_takeover_goes_on_although_the_reader_who_asked_for_it_leaves(
    answer_log: AnswerLog, slow_log: Slow, tasks: TaskGroup
) -> None:
    who, slow_log.slow = customer(), "take_over"
    other = Replica(answers_of(slow_log, tasks, NEVER_ENDED))
    other.go_on.set()
    tasks.start_soon(other.registry.takeover.maintain_leases, other.resume)
    answer_id = await half_said(answer_log, who)
    async with anyio.create_task_group() as reader:
        reader.start_soon(read_all, other, who, answer_id)
        with anyio.fail_after(5):
            await slow_log.begun.wait()
        reader.cancel_scope.cancel()
    slow_log.go_on.set()
    with anyio.fail_after(5):
        while not other.finished:
            await anyio.sleep(0.01)
    assert other.finished == [answer_id]


class Refused(AnswerLog):
    """Tells when its Redis has refused a heartbeat."""

    async def has_forgotten(self) -> bool:
        try:
            return await super().has_forgotten()
        except StoreUnavailable:
            self.refused.set()
            raise

    refused: anyio.Event


async def test_a_lease_that_lapsed_while_redis_took_no_writes_is_no_sign_of_a_dead_writer(
    server: RedisServer, tasks: TaskGroup
) -> None:
    """As with a full disk, or without the replica that it needs: it reads on, and nobody can renew."""
    async with Redis(port=server.port) as redis, open_pipelined_connection(redis, slow_after=20) as pipelined:
        log = Refused(redis, RedisBreaker(PATIENT), with_constants(AnswerLogSettings(), lease=1.0), pipelined=pipelined)
        log.refused = anyio.Event()
        writer, other = (Replica(answers_of(log, tasks, NEVER_ENDED)) for _ in "12")
        live = new_answer(customer())
        await writer.registry.writers.start(live, writer.speak, LogOpening("c"))
        await log.give_up({live.answer_id: (live.who.tenant, live.epoch)})
        await redis.config_set("min-replicas-to-write", 1)
        tasks.start_soon(other.registry.takeover.maintain_leases, other.resume)
        with anyio.fail_after(5):
            await log.refused.wait()
        await redis.config_set("min-replicas-to-write", 0)
        assert not await other.registry.takeover.take_over(live.who.tenant, live.answer_id, "reader")
        writer.go_on.set()
        assert (await read_all(writer, live.who, live.answer_id))[-1].event == done()


async def test_nothing_of_an_answer_is_kept_for_good(answer_log: AnswerLog, redis: Redis) -> None:
    who = customer()
    prefix, keep = f"{{{who.tenant}}}", AnswerLogSettings().keep
    answer_id = await half_said(answer_log, who)
    key = f"{prefix}:answer:{answer_id}"
    for name in (key, f"{key}:events", f"{key}:output"):
        assert 0 < await redis.ttl(name) <= keep, name
        await redis.expire(name, 5)
    await answer_log.append(who.tenant, answer_id, log_append(first=5, events=[done()], output_before=4), epoch=1)
    kept = {name: await redis.ttl(name) async for name in redis.scan_iter(f"{prefix}*")}
    assert kept.keys() == {key.encode(), f"{key}:events".encode()}
    assert all(keep - 5 <= seconds <= keep for seconds in kept.values()), "an hour from its end on"
    await answer_log.forget(who.tenant, [answer_id])
    assert [await redis.ttl(name) > 0 async for name in redis.scan_iter(f"{prefix}*")] == [True]


VISITS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), max_size=12)


async def test_a_redis_that_has_lost_a_number_of_the_count_has_forgotten_its_last_moments(
    answer_log: AnswerLog, redis: Redis
) -> None:
    assert not await answer_log.has_forgotten()
    [count] = await redis.keys("answers:beat:*")
    older = await redis.get(count)
    assert not await answer_log.has_forgotten()
    assert 0 < await redis.ttl(count) <= 3600
    assert older is not None
    for lost in (older, b"0"):
        await redis.set(count, lost)
        assert await answer_log.has_forgotten()
        assert not await answer_log.has_forgotten()


class StoreSeen(DeferredWrites):
    """Records whether each heartbeat found that Redis has forgotten something."""

    def __init__(self, settings: DeferredSettings) -> None:
        super().__init__(settings)
        self.seen: list[bool] = []

    def store_seen(self, *, lost_writes: bool) -> None:
        super().store_seen(lost_writes=lost_writes)
        self.seen.append(lost_writes)


async def test_an_end_is_logged_again_only_for_a_while(answer_log: AnswerLog, redis: Redis, tasks: TaskGroup) -> None:
    settings = with_constants(DeferredSettings(), again=0.1)
    deferred = StoreSeen(settings)
    writer, seen = Replica(answers_of(answer_log, tasks, QUICK, deferred=deferred)), deferred.seen
    tasks.start_soon(writer.registry.takeover.maintain_leases, writer.resume)
    writer.go_on.set()
    live = new_answer(customer())
    await writer.registry.writers.start(live, writer.speak, LogOpening("c"))
    await writer.registry.writers.drained()
    over = anyio.current_time() + settings.again
    with anyio.fail_after(patient(5)):
        while anyio.current_time() < over or seen[-2:] != [False, False]:
            seen.clear()
            await anyio.sleep(3 * QUICK.heartbeat)
        await redis.flushdb()
        while seen[-2:] != [True, False]:
            await anyio.sleep(0.01)
    await writer.registry.writers.drained()
    assert not await redis.exists(answer_key(live.who.tenant, live.answer_id))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(visits=VISITS, writer=st.sampled_from(["lives", "dies"]))
async def test_however_often_a_reader_loses_the_connection_there_is_no_gap_and_no_double(
    answer_log: AnswerLog, replica: Callable[..., Replica], visits: list[tuple[int, int]], writer: str
) -> None:
    who, replicas = customer(), [replica(NEVER_ENDED), replica(NEVER_ENDED)]
    for each in replicas:
        each.go_on.set()
    if writer == "dies":
        answer_id = await half_said(answer_log, who)
    else:
        live = new_answer(who)
        answer_id = live.answer_id
        await replicas[0].registry.writers.start(live, replicas[0].speak, LogOpening("c"))
    seen: list[LogEntry] = []
    for at, length in visits:
        with anyio.move_on_after(0.01), replicas[at].registry.readers.reading(who, answer_id):
            after = seen[-1].n if seen else 0
            async with aclosing(replicas[at].registry.readers.follow(who, answer_id, after=after)) as entries:
                async for entry in entries:
                    seen.append(entry)
                    if len(seen) >= after + length:
                        break
        if seen and isinstance(seen[-1].event, Done):
            break
    if not (seen and isinstance(seen[-1].event, Done)):
        seen += await read_all(replicas[1], who, answer_id, after=seen[-1].n if seen else 0)
    assert [entry.n for entry in seen] == list(range(1, len(WORDS) + 2))
    assert text_of(entry.event for entry in seen) == "".join(WORDS)
    with suppress(NotFound):
        assert await length_of(answer_log, who, answer_id) == (len(WORDS) + 1, True)
    assert len(replicas[0].finished + replicas[1].finished) == 1
