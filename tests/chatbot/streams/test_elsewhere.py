"""Answers that another replica writes: one read for all their readers, within bounds, and always an end."""

from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing

import anyio
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.errors import ChatError, NotFound, RateLimited
from chatbot.events import Failed, Token
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings, open_redis
from chatbot.streams import AnswerId, AnswerLog, AnswerLogSettings, AnswerSettings, LiveAnswer, LogOpening
from chatbot.streams.elsewhere import POLL_SECONDS
from chatbot.streams.log import LogEntry, answer_key, open_answer_log
from knowledge.identity import Principal
from tests.answers import answers_of, customer, done, text_of
from tests.chatbot.streams.conftest import (
    HALF,
    TEXT,
    WORDS,
    LogOf,
    Speaker,
    entries_of,
    events_of,
    never_resumed,
    new_answer,
)
from tests.conftest import RedisServer
from tests.constants import with_constants
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.services]


async def test_three_hundred_readers_share_one_read(answer_log: AnswerLog, redis: Redis, tasks: TaskGroup) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    answers, speak, read = [new_answer() for _ in range(20)], Speaker(), list[tuple[int, list[LogEntry]]]()
    reads = other.readers._elsewhere._reads

    async def follow(live: LiveAnswer, after: int) -> None:
        read.append((after, await entries_of(other, live, after)))

    tasks.start_soon(writer.takeover.maintain_leases, never_resumed)
    for live in answers:
        await writer.writers.start(live, speak, LogOpening("c"))
    async with anyio.create_task_group() as following:
        for n in range(300):  # who comes later has read less
            following.start_soon(follow, answers[n % 20], 2 - n // 100)
        with anyio.fail_after(10):
            while any(len(shared.entries) < HALF for shared in reads.values()) or len(reads) < len(answers):
                await anyio.sleep(0.01)
        before, began = await calls(redis), anyio.current_time()
        await anyio.sleep(2.5)
        seconds, after = anyio.current_time() - began, await calls(redis)
        assert after["xread"] - before["xread"] <= seconds / POLL_SECONDS + 1, "one for all"
        renewals = seconds / AnswerSettings.heartbeat * 2 + 2
        assert after["evalsha"] - before["evalsha"] <= renewals + seconds + 1, "once a second one asks for all writers"
        speak.go_on.set()
    assert len(read) == 300
    for first, entries in read:
        assert [entry.n for entry in entries] == list(range(first + 1, len(WORDS) + 2))
        assert text_of(entry.event for entry in entries) == "".join(WORDS[first:])
    assert not other.readers._elsewhere._reads, "nothing is kept once nobody follows"


async def calls(redis: Redis) -> dict[str, int]:
    """Return how often Redis has run each command."""
    stats = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(counted["calls"]) for name, counted in stats.items()}


async def test_a_read_ends_with_its_last_reader_and_with_its_process(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live = new_answer()
    await writer.writers.start(live, Speaker(), LogOpening("c"))
    with anyio.fail_after(patient(5)):
        for _ in range(2):
            async with aclosing(other.readers.follow(live.who, live.answer_id, after=1)) as followed:
                assert (await anext(followed)).n == 2
            assert not other.readers._elsewhere._reads
        async with aclosing(other.readers.follow(live.who, live.answer_id, after=HALF - 1)) as followed:
            assert (await anext(followed)).n == HALF
            await other.hand_over()
            assert [entry async for entry in followed] == [], "without an error"


class LogThatCannotBeRead(AnswerLog):
    """Raises a bug."""

    async def read_all(self, logs: Mapping[AnswerId, tuple[str, int]]) -> dict[AnswerId, list[LogEntry]]:
        raise KeyError(logs)


async def test_a_read_that_fails_by_a_bug_ends_for_all_who_follow(log_of: LogOf, tasks: TaskGroup) -> None:
    failures: list[str] = []
    other = answers_of(log_of(LogThatCannotBeRead), tasks, AnswerSettings(), on_failure=failures.append)
    [entry] = await entries_of(other, new_answer())
    assert isinstance(entry.event, Failed)
    assert (entry.n, entry.event.code, failures) == (0, ChatError.code, ["reader"])


async def test_a_long_answer_is_read_whole_and_to_its_end(
    answer_log: AnswerLog, redis: Redis, tasks: TaskGroup
) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live, words = new_answer(), [f"{n} " for n in range(1_100)]

    async def speak(live: LiveAnswer) -> None:
        live.emit(*(Token(text=word) for word in words), done())

    await writer.writers.start(live, speak, LogOpening("c"))
    with anyio.fail_after(10):
        await writer.writers.drained()
    *events, end = await events_of(other, live)
    assert (text_of(events), end) == ("".join(words), done())
    assert await redis.xdel(f"{answer_key(live.who.tenant, live.answer_id)}:events", f"0-{len(words) + 1}") == 1
    *events, end = await events_of(other, live)
    assert text_of(events) == "".join(words)
    assert isinstance(end, Failed)
    assert end.code == "log_lost"


async def test_a_shared_read_is_its_owners(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live = new_answer()
    await writer.writers.start(live, Speaker(), LogOpening("c"))
    thief = Principal(tenant=live.who.tenant, sub="kim")
    async with aclosing(other.readers.follow(live.who, live.answer_id, after=0)) as followed:
        await anext(followed)
        for registry in (other, writer):
            async with aclosing(registry.readers.follow(thief, live.answer_id, after=0)) as stolen:
                [entry] = [entry async for entry in stolen]
            assert isinstance(entry.event, Failed)
            assert (entry.n, entry.event.code) == (0, NotFound.code)


async def test_a_stall_shorter_than_the_patience_is_waited_for(server: RedisServer, tasks: TaskGroup) -> None:
    """At the product's deadlines."""
    async with open_redis(server.url) as client, AsyncExitStack() as stack:
        opened = [open_answer_log(client, RedisBreaker(RedisBreakerSettings()), AnswerLogSettings()) for _ in "12"]
        logs = [await stack.enter_async_context(log) for log in opened]
        writer, other = (answers_of(log, tasks, AnswerSettings()) for log in logs)
        live, speak = new_answer(), Speaker()
        await writer.writers.start(live, speak, LogOpening("c"))
        async with anyio.create_task_group() as maintained:
            maintained.start_soon(writer.takeover.maintain_leases, never_resumed)
            with anyio.fail_after(30):
                async with aclosing(other.readers.follow(live.who, live.answer_id, after=0)) as followed:
                    seen = [await anext(followed), await anext(followed)]
                    server.restart()
                    speak.go_on.set()
                    seen += [entry async for entry in followed]
            maintained.cancel_scope.cancel()
        assert text_of(entry.event for entry in seen) == TEXT


async def test_the_readers_of_a_customer_are_bounded(away_log: AnswerLog, tasks: TaskGroup) -> None:
    settings = with_constants(AnswerSettings(), readers_of_customer=2)
    readers, lee, kim = answers_of(away_log, tasks, settings).readers, customer(), customer()
    mine, beside, theirs = new_answer(lee), new_answer(lee), new_answer(kim)
    with readers.reading(lee, mine.answer_id):
        with readers.reading(lee, beside.answer_id):
            with pytest.raises(RateLimited) as refused, readers.reading(lee, mine.answer_id):
                pytest.fail("a third reader of one customer")
            assert (refused.value.dimension, refused.value.retry_after) == ("readers", None)
            with pytest.raises(RateLimited):
                readers.check_readers(lee)
            with readers.reading(kim, theirs.answer_id):
                pass
        readers.check_readers(lee)
