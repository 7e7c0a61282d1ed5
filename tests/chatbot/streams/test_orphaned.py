"""Openings that nobody closed are closed by the next start, and none of a living answer."""

from dataclasses import replace

import anyio
import msgspec
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.audit import Audit, AuditRow, Closed
from chatbot.errors import StoreUnavailable
from chatbot.events import Done, Token
from chatbot.redis_client import RedisBreaker
from chatbot.streams import AnswerId, AnswerLog, AnswerLogSettings, LogOpening, open_answer_log
from chatbot.turns import OrphanedRecords
from tests.answers import customer, done
from tests.audit import CLOSED, OPENED, faults
from tests.chatbot.conftest import PATIENT
from tests.chatbot.streams.conftest import log_append
from tests.clock import Clock
from tests.patience import patient

pytestmark = pytest.mark.anyio

HOUR = 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock(OPENED.at + HOUR)


def records(audit: Audit, answer_log: AnswerLog, clock: Clock) -> OrphanedRecords:
    return OrphanedRecords(audit, answer_log, least_age=HOUR / 2, now=clock)


async def close_after(scanned: list[AuditRow], openings: OrphanedRecords) -> int:
    return await openings.close({row.answer_id for row in scanned})


async def test_an_opening_without_a_log_is_closed(audit: Audit, answer_log: AnswerLog, clock: Clock) -> None:
    await audit.open(OPENED)
    await audit.open(replace(OPENED, answer_id="young", at=clock.now))
    next_start = records(audit, answer_log, clock)
    assert await next_start.close(()) == 0
    assert await close_after(await next_start.scan(), next_start) == 1
    _, row = await audit.rows(OPENED.answer_id)
    closed = row.entry()
    assert isinstance(closed, Closed)
    assert (closed.error, closed.finish_reason, closed.grounded) == ("internal", None, False)
    assert await faults(audit, unclosed_before=clock.now - 200) == []
    assert [row.answer_id for row in await audit.unclosed_rows(older_than=1e12)] == ["young"]


async def test_a_process_closes_orphans_by_itself(
    audit: Audit, answer_log: AnswerLog, clock: Clock, tasks: TaskGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatbot.turns.orphaned._SECOND_SCAN_AFTER_SECONDS", 0.01)
    await audit.open(OPENED)
    tasks.start_soon(records(audit, answer_log, clock).close_periodically)
    with anyio.fail_after(patient(5)):
        while await audit.unclosed_rows(older_than=1e12):
            await anyio.sleep(0.01)


async def test_a_living_answer_is_left_alone(audit: Audit, answer_log: AnswerLog, clock: Clock) -> None:
    who = customer()
    opened = replace(OPENED, tenant=who.tenant)
    await audit.open(opened)
    await audit.open(replace(opened, answer_id="late"))
    await answer_log.open(who, AnswerId(opened.answer_id), LogOpening("c"))
    successor = records(audit, answer_log, clock)
    scanned = await successor.scan()
    await audit.close(replace(CLOSED, answer_id="late", tenant=who.tenant))
    assert await close_after(scanned, successor) == 0
    assert [row.answer_id for row in await audit.unclosed_rows(older_than=1e12)] == [opened.answer_id]


@pytest.mark.parametrize("end", [done(), msgspec.structs.replace(done(grounded=False), written=True)])
async def test_the_closing_of_an_orphan_has_the_logged_answer(
    audit: Audit, answer_log: AnswerLog, clock: Clock, end: Done
) -> None:
    who = customer()
    answer_id = AnswerId(OPENED.answer_id)
    await audit.open(replace(OPENED, tenant=who.tenant))
    await answer_log.open(who, answer_id, LogOpening("c"))
    append = log_append(first=1, events=[Token(text="연 "), Token(text="3.1%"), end])
    await answer_log.append(who.tenant, answer_id, append, epoch=1)
    next_start = records(audit, answer_log, clock)
    assert await close_after(await next_start.scan(), next_start) == 1
    _, row = await audit.rows(answer_id)
    closed = row.entry()
    assert isinstance(closed, Closed)
    assert (closed.finish_reason, closed.error, closed.grounded) == (end.finish_reason, None, True)
    assert closed.answer_hash == audit.keys.answer_hash(who.tenant, "연 3.1%")
    assert (closed.prompt_tokens, closed.answer_tokens) == (end.usage.prompt_tokens, end.usage.answer_tokens)


async def test_while_redis_cannot_be_asked_nothing_is_closed(audit: Audit, nowhere: Redis, clock: Clock) -> None:
    await audit.open(OPENED)
    async with open_answer_log(nowhere, RedisBreaker(PATIENT), AnswerLogSettings()) as away:
        with pytest.raises(StoreUnavailable):
            await records(audit, away, clock).close({OPENED.answer_id})
    assert [row.answer_id for row in await audit.unclosed_rows(older_than=1e12)] == [OPENED.answer_id]
