"""Two replicas and one answer: leases, epochs, takeover, cancel and handing over, on a real Redis."""

import math
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from chatbot.errors import Draining, NotFound
from chatbot.events import Done, Failed, FinishReason, Token
from chatbot.redis_client import RedisBreaker
from chatbot.streams import AnswerId, AnswerLog, AnswerLogSettings, Answers, AnswerSettings, LiveAnswer, LogOpening
from chatbot.streams.log import LogAppend, LogEntry, TakenOver, WriterStanding, answer_key, open_answer_log
from chatbot.streams.pipelined_connection import PipelinedConnection
from chatbot.streams.writers import TakeoverReason
from tests.answers import answers_of, customer, done, length_of, text_of
from tests.chatbot.conftest import PATIENT
from tests.chatbot.streams.conftest import (
    HALF,
    TEXT,
    WORDS,
    LogOf,
    Speaker,
    entries_of,
    give_up_lease,
    log_append,
    new_answer,
)
from tests.conftest import RedisServer
from tests.constants import with_constants
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.services]

QUICK = with_constants(AnswerSettings(grace=0.4), heartbeat=0.05)
# On a busy machine a reader may be away for longer than that between two visits.
NEVER_ENDED = QUICK.model_copy(update={"grace": 60.0})
LEASE = 0.4
LOG = with_constants(AnswerLogSettings(), lease=LEASE)


@pytest.fixture
def log_settings() -> AnswerLogSettings:
    return LOG


@dataclass
class Replica:
    """A process with its answers; `finished` are those that it settled and recorded."""

    registry: Answers
    taken: list[TakeoverReason] = field(default_factory=list)
    finished: list[AnswerId] = field(default_factory=list)
    speaker: Speaker = field(default_factory=Speaker)

    async def start(self, live: LiveAnswer) -> None:
        await self.registry.writers.start(live, self.speak, LogOpening("c"))

    async def speak(self, live: LiveAnswer) -> None:
        reason = FinishReason.CANCELLED
        try:
            await self.speaker.speak(live)
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


Start = Callable[..., Replica]


@pytest.fixture
def replica(answer_log: AnswerLog, tasks: TaskGroup) -> Start:
    def start(settings: AnswerSettings = QUICK, *, waits: bool = True, log: AnswerLog = answer_log) -> Replica:
        taken: list[TakeoverReason] = []
        registry = answers_of(log, tasks, settings, on_taken=taken.append)
        started = Replica(registry, taken, speaker=Speaker(waits=waits))
        tasks.start_soon(registry.takeover.maintain_leases, started.resume)
        return started

    return start


async def half_said(answer_log: AnswerLog, words: int = 4) -> LiveAnswer:
    """Leave an answer behind as a process does that was killed after so many words."""
    live = new_answer()
    await answer_log.open(live.who, live.answer_id, LogOpening("c", checkpoint=b"the turn"))
    await append(answer_log, live, 1, WORDS[:words])
    return live


async def append(log: AnswerLog, live: LiveAnswer, first: int, words: tuple[str, ...], epoch: int = 1) -> object:
    """Append words and as many bytes of output."""
    events, output = [Token(text=word) for word in words], bytes(range(first - 1, first - 1 + len(words)))
    written = log_append(first=first, events=events, output_before=first - 1, output=output)
    return await log.append(live.who.tenant, live.answer_id, written, epoch=epoch)


async def append_end(log: AnswerLog, live: LiveAnswer) -> None:
    written = log_append(first=5, events=[done()], output_before=4)
    await log.append(live.who.tenant, live.answer_id, written, epoch=1)


async def test_only_a_lapsed_lease_is_taken_and_only_the_new_epoch_writes(answer_log: AnswerLog) -> None:
    live = await half_said(answer_log)
    who, answer_id = live.who, live.answer_id
    for _ in range(2):  # as after a reply that was lost
        assert await append(answer_log, live, 3, WORDS[2:6]) is WriterStanding.OWNED
    assert await answer_log.take_over(who.tenant, answer_id) is None
    await give_up_lease(answer_log, live)
    [(tenant, named, seconds)] = await answer_log.lapsed_answers()
    assert (tenant, named, 0 <= seconds < 5) == (who.tenant, answer_id, True)
    taken = await answer_log.take_over(who.tenant, answer_id)
    assert taken is not None
    assert (taken.epoch, taken.sub, taken.opening.conversation_id) == (2, who.sub, "c")
    assert (taken.opening.checkpoint, taken.output, taken.cancelled) == (b"the turn", bytes(range(6)), False)
    assert text_of(taken.events) == "".join(WORDS[:6])
    assert await answer_log.take_over(who.tenant, answer_id) is None, "the successor holds the lease"
    assert not await answer_log.open(who, answer_id, LogOpening("c"))
    assert await append(answer_log, live, 7, ("another",)) is WriterStanding.REPLACED
    assert await answer_log.renew({answer_id: (who.tenant, 1)}) == {answer_id: WriterStanding.REPLACED}
    assert await append(answer_log, live, 7, WORDS[6:], epoch=2) is WriterStanding.OWNED
    assert text_of(await answer_log.all_events(who.tenant, answer_id)) == TEXT


async def test_an_append_that_does_not_follow_changes_nothing(answer_log: AnswerLog) -> None:
    live = await half_said(answer_log)
    for gap in (
        log_append(first=6, events=[Token(text="six")], output_before=4, output=b"6"),
        log_append(first=5, events=[Token(text="five")], output_before=5, output=b"6"),
    ):
        assert await answer_log.append(live.who.tenant, live.answer_id, gap, epoch=1) is WriterStanding.BEHIND
        assert await length_of(answer_log, live.who, live.answer_id) == (4, False)


@pytest.mark.parametrize("late", ["its opening", "an append", "a renewal"])
async def test_a_command_after_the_end_opens_the_answer_to_nobody(answer_log: AnswerLog, late: str) -> None:
    live = await half_said(answer_log)
    await append_end(answer_log, live)
    if late == "its opening":
        await answer_log.open(live.who, live.answer_id, LogOpening("c", checkpoint=b"the turn"))
    elif late == "an append":
        await append(answer_log, live, 4, WORDS[3:4])
    else:
        await answer_log.renew({live.answer_id: (live.who.tenant, 1)})
    assert await length_of(answer_log, live.who, live.answer_id) == (5, True)
    assert await answer_log.running_answers({live.answer_id: live.who.tenant}) == set()
    await give_up_lease(answer_log, live)
    assert await answer_log.take_over(live.who.tenant, live.answer_id) is None


async def test_many_readers_on_two_replicas_take_an_answer_over_once(answer_log: AnswerLog, replica: Start) -> None:
    replicas = [replica(waits=False), replica(waits=False)]
    live, readings, began = await half_said(answer_log), list[list[LogEntry]](), anyio.current_time()

    async def read(at: Replica) -> None:
        readings.append(await entries_of(at.registry, live))

    async with anyio.create_task_group() as readers:
        for n in range(10):
            readers.start_soon(read, replicas[n % 2])
    assert anyio.current_time() - began < patient(LEASE + 1)
    assert [entry.n for entry in readings[0]] == list(range(1, len(WORDS) + 2))
    assert text_of(entry.event for entry in readings[0]) == TEXT
    assert all(entries == readings[0] for entries in readings)
    assert replicas[0].finished + replicas[1].finished == [live.answer_id]
    assert replicas[0].taken + replicas[1].taken == ["reader"]


async def test_a_replaced_writer_settles_nothing(answer_log: AnswerLog, replica: Start, tasks: TaskGroup) -> None:
    # `frozen` keeps no leases, as a process that stands still.
    frozen, other, live = Replica(answers_of(answer_log, tasks, QUICK)), replica(waits=False), new_answer()
    with frozen.registry.readers.reading(live.who, live.answer_id):
        await frozen.start(live)
        entries = await entries_of(other.registry, live)
        frozen.speaker.go_on.set()
        with anyio.fail_after(5):
            await frozen.registry.writers.drained()
    assert text_of(entry.event for entry in entries) == TEXT
    assert (frozen.finished, other.finished) == ([], [live.answer_id])
    assert await length_of(answer_log, live.who, live.answer_id) == (len(WORDS) + 1, True)


class CutOff(PipelinedConnection):
    """A connection that reaches no Redis until it is mended."""

    mended = False

    async def run(self, *args: Any, **named: Any) -> Any:
        if not self.mended:
            raise RedisConnectionError
        return await super().run(*args, **named)


@pytest.mark.parametrize("arrives_late", [True, False])
async def test_a_reader_of_unlogged_events_gets_no_other_answer(
    redis: Redis, answer_log: AnswerLog, replica: Start, tasks: TaskGroup, *, arrives_late: bool
) -> None:
    """The writer's appends do not arrive, until another has replaced it; one may arrive late after all."""
    connection, live, shown = CutOff(redis, slow_after=20), new_answer(), list[LogEntry]()
    tasks.start_soon(connection.serve)
    cut_off = AnswerLog(redis, RedisBreaker(PATIENT), LOG, pipelined=connection)
    writer, other = Replica(answers_of(cut_off, tasks, NEVER_ENDED)), replica(waits=False)

    async def read() -> None:
        async with aclosing(writer.registry.readers.follow(live.who, live.answer_id, after=0)) as followed:
            async for entry in followed:
                shown.append(entry)

    with anyio.fail_after(10), writer.registry.readers.reading(live.who, live.answer_id):
        await writer.start(live)
        async with anyio.create_task_group() as readers:
            readers.start_soon(read)
            while text_of(entry.event for entry in shown) != "".join(WORDS[:HALF]):
                await anyio.sleep(0.01)
            if arrives_late:
                await answer_log.append(live.who.tenant, live.answer_id, live.missing_append(), epoch=live.epoch)
            kept = await entries_of(other.registry, live)
            connection.mended = True
            tasks.start_soon(writer.registry.takeover.maintain_leases, writer.resume)
    assert text_of(entry.event for entry in kept) == TEXT
    assert [entry.n for entry in shown] == list(range(1, len(shown) + 1)), "its error ends the answer for this reader"
    if arrives_late:
        assert shown == kept
    else:
        assert [entry.event for entry in shown[:-1]] == live.published_events
        assert isinstance(shown[-1].event, Failed)
        assert shown[-1].event.code == "log_lost"


async def test_a_cancel_on_another_replica_stops_the_writer_at_once(replica: Start) -> None:
    writer, other, live = replica(), replica(), new_answer()
    with writer.registry.readers.reading(live.who, live.answer_id):
        await writer.start(live)
        began = anyio.current_time()
        assert await other.registry.takeover.cancel(live.who, live.answer_id)
        with anyio.fail_after(5):
            await writer.registry.writers.drained()
    assert anyio.current_time() - began < 0.5
    assert live.published_events[-1] == done(FinishReason.CANCELLED)
    assert not await other.registry.takeover.cancel(live.who, live.answer_id), "it has ended"
    with pytest.raises(NotFound):
        await other.registry.takeover.cancel(customer(), live.answer_id)


async def test_a_cancel_ends_the_answer_of_a_dead_replica(answer_log: AnswerLog, replica: Start) -> None:
    other, live = replica(), await half_said(answer_log)
    assert await other.registry.takeover.cancel(live.who, live.answer_id)
    with anyio.fail_after(patient(5)):
        while not other.finished:  # also where nobody reads it
            await anyio.sleep(0.01)
    entries = await entries_of(other.registry, live)
    assert text_of(entry.event for entry in entries) == "".join(WORDS[:4])
    assert entries[-1].event == done(FinishReason.CANCELLED)
    assert other.finished == [live.answer_id]


async def test_an_orphan_is_ended_once(answer_log: AnswerLog, replica: Start, redis: Redis) -> None:
    replicas, live = [replica(), replica()], await half_said(answer_log)
    tenant, answer_id = live.who.tenant, live.answer_id
    with anyio.fail_after(5):
        while not (await length_of(answer_log, live.who, answer_id))[1]:
            await anyio.sleep(0.02)
    assert replicas[0].finished + replicas[1].finished == [answer_id]
    assert "orphan" in replicas[0].taken + replicas[1].taken
    assert await redis.hexists(answer_key(tenant, answer_id), "abandoned"), "its key is free"
    assert text_of(await answer_log.all_events(tenant, answer_id)) == "".join(WORDS[:4]), "it is not gone on with"


async def test_a_reader_on_another_replica_keeps_the_answer_alive(replica: Start) -> None:
    patient = QUICK.model_copy(update={"grace": 2.0})  # longer than a busy machine keeps a reader from its next visit
    writer, other, live = replica(patient), replica(patient), new_answer()
    await writer.start(live)

    async def go_on() -> None:
        await anyio.sleep(1.5 * patient.grace)  # the grace itself is what passes here
        writer.speaker.go_on.set()

    async with anyio.create_task_group() as group:
        group.start_soon(go_on)
        entries = await entries_of(other.registry, live)
    assert entries[-1].event == done()
    assert text_of(entry.event for entry in entries) == TEXT


async def test_an_answer_that_is_handed_over_goes_on_elsewhere_at_once(replica: Start) -> None:
    writer, other, live, seen = replica(), replica(waits=False), new_answer(), list[LogEntry]()

    async def read_here() -> None:
        seen.extend(await entries_of(writer.registry, live))

    async with anyio.create_task_group() as group:
        await writer.start(live)
        group.start_soon(read_here)
        await writer.speaker.half.wait()
        writer.registry.writers.begin_draining()
        await writer.registry.hand_over()
    assert not any(isinstance(entry.event, Done) for entry in seen), "the connection ends without an end"
    with pytest.raises(Draining):
        await writer.registry.readers.resume_position(live.who, live.answer_id, None)
    began = anyio.current_time()
    seen += await entries_of(other.registry, live, after=len(seen))
    assert anyio.current_time() - began < LEASE / 2, "nobody waits for the lease"
    assert [entry.n for entry in seen] == list(range(1, len(WORDS) + 2))
    assert text_of(entry.event for entry in seen) == TEXT
    assert (writer.finished, other.finished) == ([], [live.answer_id])


class Slow(AnswerLog):
    """A log of which one kind of command waits until a test lets it go on."""

    slow: Literal["append", "take_over", "open"] = "append"

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.begun, self.go_on = anyio.Event(), anyio.Event()

    async def _wait(self, command: str) -> None:
        if self.slow == command:
            self.begun.set()
            await self.go_on.wait()

    async def open(self, *args: Any, **named: Any) -> bool:
        await self._wait("open")
        return await super().open(*args, **named)

    async def append(self, tenant: str, answer_id: AnswerId, append: LogAppend, *, epoch: int) -> WriterStanding:
        await self._wait("append")
        return await super().append(tenant, answer_id, append, epoch=epoch)

    async def take_over(self, tenant: str, answer_id: AnswerId) -> TakenOver | None:
        taken = await super().take_over(tenant, answer_id)
        await self._wait("take_over")  # its reply is under way
        return taken


@pytest.fixture
def slow_log(log_of: LogOf) -> Slow:
    log: Slow = log_of(Slow)
    return log


async def test_a_lease_is_given_up_behind_its_appends(answer_log: AnswerLog, slow_log: Slow, tasks: TaskGroup) -> None:
    live, handed, writer = new_answer(), anyio.Event(), Replica(answers_of(slow_log, tasks, NEVER_ENDED))

    async def hand_over() -> None:
        await writer.registry.hand_over()
        handed.set()

    await writer.start(live)
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


async def test_a_process_that_ends_waits_for_no_running_answer(answer_log: AnswerLog, slow_log: Slow) -> None:
    """The end of an answer is shielded, and waits for its log: with the writer cancelled it waited for ever."""
    live, confirmed = new_answer(), list[bool]()

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
    with anyio.fail_after(3 * LEASE):
        while await answer_log.take_over(live.who.tenant, live.answer_id) is None:
            await anyio.sleep(0.05)


async def test_a_process_that_has_handed_over_begins_no_answer(answer_log: AnswerLog, replica: Start) -> None:
    writer, live = replica(NEVER_ENDED), new_answer()
    await writer.registry.hand_over()
    with pytest.raises(Draining):
        await writer.start(live)
    with pytest.raises(NotFound):
        await length_of(answer_log, live.who, live.answer_id)
    await writer.registry.writers.drained()


async def test_an_answer_begun_in_a_hand_over_is_anothers(slow_log: Slow, tasks: TaskGroup, replica: Start) -> None:
    live, other, slow_log.slow = new_answer(), replica(waits=False), "open"
    writer = Replica(answers_of(slow_log, tasks, NEVER_ENDED))
    async with anyio.create_task_group() as begun:
        begun.start_soon(writer.start, live)
        await slow_log.begun.wait()
        await writer.registry.hand_over()
        slow_log.go_on.set()
    with anyio.fail_after(5):
        await writer.registry.writers.drained()
    assert text_of(entry.event for entry in await entries_of(other.registry, live)) == TEXT
    assert (writer.finished, other.finished) == ([], [live.answer_id])


async def test_a_settled_answer_is_not_handed_over(answer_log: AnswerLog, tasks: TaskGroup, replica: Start) -> None:
    writer, other, live = replica(NEVER_ENDED), replica(NEVER_ENDED), new_answer()
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
    assert (await entries_of(other.registry, live))[-1].event == done()
    assert (writer.finished, other.finished) == ([live.answer_id], [])


async def test_a_takeover_goes_on_without_its_reader(answer_log: AnswerLog, slow_log: Slow, replica: Start) -> None:
    slow_log.slow = "take_over"
    other, live = replica(NEVER_ENDED, waits=False, log=slow_log), await half_said(answer_log)
    async with anyio.create_task_group() as reader:
        reader.start_soon(entries_of, other.registry, live)
        with anyio.fail_after(5):
            await slow_log.begun.wait()
        reader.cancel_scope.cancel()
    slow_log.go_on.set()
    with anyio.fail_after(5):
        while not other.finished:
            await anyio.sleep(0.01)
    assert other.finished == [live.answer_id]


async def test_a_lease_that_lapsed_without_writes_is_not_taken(server: RedisServer, tasks: TaskGroup) -> None:
    """As with a full disk, or without the replica that it needs: it reads on, and nobody can renew."""
    settings, breaker = with_constants(AnswerLogSettings(), lease=1.0), RedisBreaker(PATIENT)
    async with Redis(port=server.port) as redis, open_answer_log(redis, breaker, settings) as log:
        writer, other = (Replica(answers_of(log, tasks, NEVER_ENDED)) for _ in "12")
        live, takeover = new_answer(), other.registry.takeover
        await writer.start(live)
        await give_up_lease(log, live)
        await redis.config_set("min-replicas-to-write", 1)
        tasks.start_soon(takeover.maintain_leases, other.resume)
        with anyio.fail_after(5):
            while takeover._no_renewal_at == -math.inf:
                await anyio.sleep(0.01)
        await redis.config_set("min-replicas-to-write", 0)
        assert not await takeover.take_over(live.who.tenant, live.answer_id, "reader")
        writer.speaker.go_on.set()
        assert (await entries_of(writer.registry, live))[-1].event == done()


async def test_every_key_of_an_answer_expires(answer_log: AnswerLog, redis: Redis) -> None:
    live, keep = await half_said(answer_log), AnswerLogSettings().keep
    key = answer_key(live.who.tenant, live.answer_id)
    for name in (key, f"{key}:events", f"{key}:output"):
        assert 0 < await redis.ttl(name) <= keep, name
        await redis.expire(name, 5)
    await append_end(answer_log, live)
    kept = {name.decode(): await redis.ttl(name) async for name in redis.scan_iter(f"{key}*")}
    assert kept.keys() == {key, f"{key}:events"}
    assert all(keep - 5 <= seconds <= keep for seconds in kept.values()), "an hour from its end on"
    assert await redis.hget(key, "frame") is None
    await answer_log.delete_logs(live.who.tenant, [live.answer_id])
    assert [await redis.ttl(name) > 0 async for name in redis.scan_iter(f"{key}*")] == [True]


async def test_a_redis_that_lost_a_number_of_the_count_has_lost_writes(answer_log: AnswerLog, redis: Redis) -> None:
    assert not await answer_log.may_have_lost_writes()
    [count] = await redis.keys("answers:beat:*")
    older = await redis.get(count) or b""
    assert not await answer_log.may_have_lost_writes()
    assert 0 < await redis.ttl(count) <= 3600
    for lost in (older, b"0"):
        await redis.set(count, lost)
        assert await answer_log.may_have_lost_writes()
        assert not await answer_log.may_have_lost_writes()
