"""Running answers: logged before shown, resumable, drained at the end of a process, unharmed by Redis being away."""

from functools import partial
from typing import Any
from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis
from structlog.testing import capture_logs

from chatbot.errors import Draining, ForeignEventId, LogLost, NotFound, StoreUnavailable
from chatbot.events import FinishReason, Notice
from chatbot.streams import AnswerLog, AnswerSettings, LiveAnswer, LogOpening
from knowledge.identity import Principal
from tests.answers import answers_of, customer, done, text_of
from tests.chatbot.streams.conftest import TEXT, LogOf, Speaker, entries_of, events_of, new_answer
from tests.constants import with_constants
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.services]
speak = Speaker(waits=False)


class LogAwayAtFirst(AnswerLog):
    """Cannot be opened the first time."""

    opened = 0

    async def open(self, *args: Any, **named: Any) -> bool:
        self.opened += 1
        if self.opened == 1:
            raise StoreUnavailable
        return await super().open(*args, **named)


async def test_an_answer_begun_without_redis_is_logged_later(redis: Redis, log_of: LogOf, tasks: TaskGroup) -> None:
    answer_log, live = log_of(LogAwayAtFirst), new_answer()
    registry = answers_of(answer_log, tasks, AnswerSettings())
    with capture_logs() as logs:
        await registry.writers.start(live, speak, LogOpening("c"))
        events = await events_of(registry, live)
    assert text_of(events) == TEXT
    assert await answer_log.all_events(live.who.tenant, live.answer_id) == events
    assert [line["event"] for line in logs] == [], "nothing counts as lost"
    await redis.flushdb()
    with capture_logs() as logs:
        await registry.writers.append(live)
    assert [line["event"] for line in logs] == ["event_log_lost"]


async def test_somebody_elses_answer_is_not_found(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    registry, live, who = answers_of(answer_log, tasks, AnswerSettings()), new_answer(), customer()
    await registry.writers.start(live, speak, LogOpening("c"))
    same_tenant = Principal(tenant=live.who.tenant, sub="kim")
    for call in (registry.takeover.cancel, partial(registry.readers.resume_position, last_event_id=None)):
        with pytest.raises(NotFound):
            await call(same_tenant, live.answer_id)
    await registry.writers.drained()
    assert await answer_log.passages(live.who, live.answer_id) == ()
    for somebody_else in (same_tenant, who):
        with pytest.raises(NotFound):
            await registry.readers.resume_position(somebody_else, live.answer_id, None)
        with pytest.raises(NotFound):
            await answer_log.passages(somebody_else, live.answer_id)


async def test_a_last_event_id_is_checked(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    registry, live = answers_of(answer_log, tasks, AnswerSettings()), new_answer()
    await registry.writers.start(live, speak, LogOpening("c"))
    await registry.writers.drained()
    resume, answer_id = partial(registry.readers.resume_position, live.who, live.answer_id), live.answer_id
    assert await resume(f"{answer_id}.13") == (13, True)
    assert await resume(f"{answer_id}.2") == (2, False)
    assert await resume(f"{answer_id}.000000013") == (13, True)
    for n in (14, 999_999_999):
        with pytest.raises(LogLost):
            await resume(f"{answer_id}.{n}")
    for foreign in (f"{uuid4().hex}.1", f"{answer_id}.x", "nonsense", f"{answer_id}.-1", f"{answer_id}.0000000001"):
        with pytest.raises(ForeignEventId):
            await resume(foreign)
    await answer_log.delete_logs(live.who.tenant, [answer_id])
    with pytest.raises(NotFound):
        await resume(f"{answer_id}.2")


async def speak_for_ever(live: LiveAnswer) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        live.emit(done(FinishReason.CANCELLED))


async def test_a_process_that_ends_cancels_the_answers_that_only_it_has(away_log: AnswerLog, tasks: TaskGroup) -> None:
    registry, live = answers_of(away_log, tasks, AnswerSettings(grace=60)), new_answer()
    await registry.writers.start(live, speak_for_ever, LogOpening("c"))
    with anyio.fail_after(patient(5)):
        await registry.hand_over()
    assert live.scope.cancelled_caught


async def test_without_redis_the_stream_goes_on_with_a_notice(away_log: AnswerLog, tasks: TaskGroup) -> None:
    registry, live = answers_of(away_log, tasks, AnswerSettings()), new_answer()
    await registry.writers.start(live, speak, LogOpening("c"))
    entries = await entries_of(registry, live)
    events = [entry.event for entry in entries]
    assert text_of(events) == TEXT
    assert [entry.n for entry in entries] == list(range(1, len(entries) + 1))
    assert sum(isinstance(event, Notice) for event in events) == 1
    assert await entries_of(registry, live) == entries


async def test_only_the_last_unlogged_answers_stay_in_memory(away_log: AnswerLog, tasks: TaskGroup) -> None:
    registry = answers_of(away_log, tasks, with_constants(AnswerSettings(), most_unlogged=2))
    lives = [new_answer() for _ in "abcd"]
    for live in lives:
        await registry.writers.start(live, speak, LogOpening("c"))
        await events_of(registry, live)
        with anyio.fail_after(5):
            while registry.writers.active:
                await anyio.sleep(0.01)
    assert [registry.writers.find(live.who, live.answer_id) for live in lives] == [None, None, *lives[2:]]


async def test_a_drain_waits_for_questions_being_accepted_and_accepts_no_other(
    away_log: AnswerLog, tasks: TaskGroup
) -> None:
    writers, drained = answers_of(away_log, tasks, AnswerSettings()).writers, anyio.Event()

    async def drain() -> None:
        await writers.drained()
        drained.set()

    with writers.accepting():
        writers.begin_draining()
        tasks.start_soon(drain)
        await anyio.wait_all_tasks_blocked()
        assert not drained.is_set()
        with pytest.raises(Draining), writers.accepting():
            pytest.fail("a question was accepted in a drain")
    with anyio.fail_after(5):
        await drained.wait()
