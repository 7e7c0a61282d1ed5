"""One bad answer ends by itself, with an error that its readers see; every other answer of the process goes on."""

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.errors import ChatError
from chatbot.events import Failed, FinishReason, Token, Unknown, to_json
from chatbot.streams import AnswerId, AnswerLog, AnswerSettings, LiveAnswer, LogOpening, TakenOver
from chatbot.streams.log import LogAppend, WriterStanding, answer_key
from chatbot.streams.writers import Work
from tests.answers import answers_of, done, text_of
from tests.chatbot.streams.conftest import TEXT, LogOf, Speaker, events_of, give_up_lease, log_append, new_answer

pytestmark = [pytest.mark.anyio, pytest.mark.services, pytest.mark.faults]

SURROGATE = "\ud800"
"""Text that cannot be encoded, as a careless decoder may leave it."""


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
    ("work", "failed"),
    [
        (a_text_that_cannot_be_encoded, ["writer"]),
        (an_end_that_cannot_be_encoded, ["writer"]),
        (an_exception, ["answer"]),
        (no_last_event, []),
    ],
)
async def test_a_bad_answer_ends_alone(answer_log: AnswerLog, tasks: TaskGroup, work: Work, failed: list[str]) -> None:
    failures: list[str] = []
    registry = answers_of(answer_log, tasks, AnswerSettings(), on_failure=failures.append)
    bad, good = new_answer(), new_answer()
    await registry.writers.start(bad, work, LogOpening("c"))
    await registry.writers.start(good, Speaker(waits=False), LogOpening("c"))
    events = await events_of(registry, bad)
    assert text_of(events) == "one "
    assert isinstance(events[-1], Failed)
    assert (events[-1].code, len([event for event in events if event.ends])) == (ChatError.code, 1)
    assert events[-1].retryable
    assert text_of(await events_of(registry, good)) == TEXT
    with anyio.fail_after(5):
        await registry.writers.drained()
    elsewhere = answers_of(answer_log, tasks, AnswerSettings())
    assert await events_of(elsewhere, bad) == events, "the log says the same"
    assert failures == failed


class LogWithABug(AnswerLog):
    """Takes no append."""

    async def append(self, tenant: str, answer_id: AnswerId, append: LogAppend, *, epoch: int) -> WriterStanding:
        raise KeyError(tenant, answer_id, append, epoch)


async def test_an_answer_of_which_nothing_can_be_logged_ends_in_an_error(log_of: LogOf, tasks: TaskGroup) -> None:
    failures, live = list[str](), new_answer()
    registry = answers_of(log_of(LogWithABug), tasks, AnswerSettings(), on_failure=failures.append)
    await registry.writers.start(live, Speaker(waits=False), LogOpening("c"))
    [event] = await events_of(registry, live)
    assert isinstance(event, Failed)
    with anyio.fail_after(5):
        await registry.writers.drained()
    assert [entry.n for entry in live.entries] == [1]
    assert failures == ["writer", "log"], "its end is lost, and counted"


async def test_no_process_takes_its_own_live_answer_over(answer_log: AnswerLog, tasks: TaskGroup, redis: Redis) -> None:
    taken, live, speak = list[str](), new_answer(), Speaker()
    registry = answers_of(answer_log, tasks, AnswerSettings(), on_taken=taken.append)

    async def resume(live: LiveAnswer, _: TakenOver) -> None:
        live.emit(done(FinishReason.CANCELLED))

    tasks.start_soon(registry.takeover.maintain_leases, resume)
    await anyio.wait_all_tasks_blocked()
    await registry.writers.start(live, speak, LogOpening("c"))
    # As after an outage that outlasted the lease.
    await redis.zadd("answers:open", {answer_key(live.who.tenant, live.answer_id): 1})
    assert not await registry.takeover.take_over(live.who.tenant, live.answer_id, "orphan")
    speak.go_on.set()
    assert (await events_of(registry, live))[-1] == done()
    assert taken == []


ODD = (
    ("thought", b'{"text":"a later release"}'),
    ("notice", b'{"code":"of a later release","text":"news"}'),
    ("token", b"\xff no JSON"),
    ("", b""),
)


async def test_unknown_entries_are_passed_on(answer_log: AnswerLog, tasks: TaskGroup, redis: Redis) -> None:
    registry, live = answers_of(answer_log, tasks, AnswerSettings()), new_answer()
    key, tenant, answer_id = answer_key(live.who.tenant, live.answer_id), live.who.tenant, live.answer_id
    await answer_log.open(live.who, answer_id, LogOpening("c"))
    first = log_append(first=1, events=[Token(text="one ")], output=b"\1")
    await answer_log.append(tenant, answer_id, first, epoch=1)
    for n, (name, data) in enumerate(ODD, 2):
        await redis.xadd(f"{key}:events", {"name": name, "data": data} if name else {"other": "x"}, id=f"0-{n}")
    await redis.hset(key, "n", "5")
    await give_up_lease(answer_log, live)
    taken = await answer_log.take_over(tenant, answer_id)
    rest = log_append(first=6, events=[Token(text="two"), done()], output_before=1)
    await answer_log.append(tenant, answer_id, rest, epoch=2)
    events = await events_of(registry, live)
    assert text_of(events) == "one two"
    expected = [Unknown(name=name or "unknown", data=data if data.startswith(b"{") else b"null") for name, data in ODD]
    assert events[1:5] == expected, "their numbers are not left out"
    assert [to_json(event) for event in expected] == [event.data for event in expected]
    assert taken is not None
    assert (taken.events, taken.output) == (tuple(events[:5]), b"\1")
