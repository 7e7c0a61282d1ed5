"""Openings that nobody closed are closed by the next start, and none of a living answer."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace

import anyio
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from chatbot.audit import Audit, Closed, open_audit
from chatbot.errors import StoreUnavailable
from chatbot.events import Token
from chatbot.redis_client import RedisBreaker, open_redis
from chatbot.streams import AnswerId, AnswerLog, AnswerLogSettings, LogOpening, open_answer_log
from chatbot.turns import OrphanedRecords
from tests.answers import customer, done
from tests.audit import CLOSED, OPENED, SETTINGS, faults
from tests.chatbot.conftest import PATIENT
from tests.chatbot.streams.conftest import log_append
from tests.clock import Clock
from tests.conftest import RedisServer
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

HOUR = 3600.0


@pytest.fixture
async def audit(engine: AsyncEngine) -> AsyncGenerator[Audit]:
    async with open_audit(engine, SETTINGS) as audit:
        yield audit


@pytest.fixture
def clock() -> Clock:
    return Clock(OPENED.at + HOUR)


def looking(audit: Audit, answer_log: AnswerLog, clock: Clock) -> OrphanedRecords:
    return OrphanedRecords(audit, answer_log, after=HOUR / 2, now=clock, monotonic=clock)


async def test_an_opening_without_a_log_is_closed_in_the_second_look(
    audit: Audit, answer_log: AnswerLog, clock: Clock
) -> None:
    await audit.open(OPENED)
    await audit.open(replace(OPENED, answer_id="young", at=clock.now))
    next_start = looking(audit, answer_log, clock)
    assert await next_start.scan() == 0
    clock.pass_seconds(59)
    assert await next_start.scan() == 0
    clock.pass_seconds(1)
    assert await next_start.scan() == 1
    _, row = await audit.rows(OPENED.answer_id)
    closed = row.entry()
    assert isinstance(closed, Closed)
    assert (closed.error, closed.finish_reason, closed.grounded) == ("internal", None, False)
    assert await faults(audit, unclosed_before=clock.now - 200) == []
    assert [row.answer_id for row in await audit.unclosed(older_than=1e12)] == ["young"]


async def test_a_process_looks_by_itself(audit: Audit, answer_log: AnswerLog, clock: Clock, tasks: TaskGroup) -> None:
    await audit.open(OPENED)
    openings = looking(audit, answer_log, clock)
    await openings.scan()
    clock.pass_seconds(60)
    tasks.start_soon(openings.scan_periodically)
    with anyio.fail_after(patient(5)):
        while await audit.unclosed(older_than=1e12):
            await anyio.sleep(0.01)


async def test_a_living_answer_is_left_alone_and_one_that_its_process_closes_late_too(
    audit: Audit, answer_log: AnswerLog, clock: Clock
) -> None:
    who = customer()
    opened = replace(OPENED, tenant=who.tenant)
    await audit.open(opened)
    await audit.open(replace(opened, answer_id="late"))
    await answer_log.open(who, AnswerId(opened.answer_id), LogOpening("c"))
    successor = looking(audit, answer_log, clock)
    await successor.scan()
    await audit.close(replace(CLOSED, answer_id="late", tenant=who.tenant))
    clock.pass_seconds(61)
    assert await successor.scan() == 0
    assert [row.answer_id for row in await audit.unclosed(older_than=1e12)] == [opened.answer_id]


async def test_the_closing_of_an_answer_that_was_read_to_its_end_says_what_was_read(
    audit: Audit, answer_log: AnswerLog, clock: Clock
) -> None:
    who = customer()
    answer_id = AnswerId(OPENED.answer_id)
    await audit.open(replace(OPENED, tenant=who.tenant))
    await answer_log.open(who, answer_id, LogOpening("c"))
    end = done()
    append = log_append(first=1, events=[Token(text="연 "), Token(text="3.1%"), end])
    await answer_log.append(who.tenant, answer_id, append, epoch=1)
    next_start = looking(audit, answer_log, clock)
    await next_start.scan()
    clock.pass_seconds(61)
    assert await next_start.scan() == 1
    _, row = await audit.rows(answer_id)
    closed = row.entry()
    assert isinstance(closed, Closed)
    assert (closed.finish_reason, closed.error, closed.grounded) == (end.finish_reason, None, end.grounded)
    assert closed.answer_hash == audit.keys.answer_hash(who.tenant, "연 3.1%")
    assert (closed.prompt_tokens, closed.answer_tokens) == (end.usage.prompt_tokens, end.usage.answer_tokens)


async def test_while_redis_cannot_be_asked_nothing_is_closed(audit: Audit, nowhere: Redis, clock: Clock) -> None:
    await audit.open(OPENED)
    async with open_answer_log(nowhere, RedisBreaker(PATIENT), AnswerLogSettings()) as away:
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await looking(audit, away, clock).scan()
            clock.pass_seconds(61)
    assert [row.answer_id for row in await audit.unclosed(older_than=1e12)] == [OPENED.answer_id]


async def test_after_an_outage_an_opening_has_to_be_seen_twice_anew(
    audit: Audit, server: RedisServer, clock: Clock
) -> None:
    await audit.open(OPENED)
    breaker = RedisBreaker(PATIENT)
    async with open_redis(server.url) as client, open_answer_log(client, breaker, AnswerLogSettings()) as log:
        looks = looking(audit, log, clock)
        assert await looks.scan() == 0
        server.stop()
        clock.pass_seconds(61)
        with pytest.raises(StoreUnavailable):
            await looks.scan()
        server.restart()
        with anyio.fail_after(patient(5)):
            while log.back_for == 0:
                with suppress(StoreUnavailable):
                    await log.ping()
                await anyio.sleep(0.02)
        assert await looks.scan() == 0
        clock.pass_seconds(61)
        assert await looks.scan() == 1
