"""Answers that another replica writes: one read for all their readers, within bounds, and always an end."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.errors import ChatError, NotFound, RateLimited, StoreUnavailable
from chatbot.events import Failed, Token
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings, open_redis
from chatbot.streams.elsewhere import POLL_SECONDS
from chatbot.streams.live import LiveAnswer
from chatbot.streams.log import AnswerId, AnswerLog, AnswerLogSettings, LogEntry, LogOpening, open_answer_log
from chatbot.streams.pipelined_connection import open_pipelined_connection
from chatbot.streams.readers import Answers
from chatbot.streams.writers import AnswerSettings
from knowledge.identity import Principal
from tests.answers import answers_of, customer, done, text_of
from tests.chatbot.conftest import PATIENT
from tests.chatbot.streams.conftest import new_answer
from tests.conftest import RedisServer
from tests.constants import with_constants
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.services]


@pytest.fixture
async def redis(redis_url: str) -> AsyncGenerator[Redis]:
    """A database of its own: answers that other tests left open would be taken over here."""
    async with Redis.from_url(f"{redis_url.removesuffix('/0')}/11") as redis:
        await redis.flushdb()
        yield redis


@asynccontextmanager
async def two_logs(server: RedisServer) -> AsyncGenerator[list[AnswerLog]]:
    """The logs of two processes, at the product's deadlines."""
    async with open_redis(server.url) as client, AsyncExitStack() as stack:
        breakers = [RedisBreaker(RedisBreakerSettings()) for _ in range(2)]
        opened = [open_answer_log(client, breaker, AnswerLogSettings()) for breaker in breakers]
        yield [await stack.enter_async_context(log) for log in opened]


class Speaker:
    """Says word after word when it is told to."""

    def __init__(self) -> None:
        self.go_on = anyio.Event()

    async def __call__(self, live: LiveAnswer) -> None:
        live.emit(Token(text="one "), Token(text="two "))
        await self.go_on.wait()
        live.emit(Token(text="three"), done())


async def read_all(registry: Answers, live: LiveAnswer, after: int = 0) -> list[LogEntry]:
    async with aclosing(registry.readers.follow(live.who, live.answer_id, after=after)) as entries:
        return [entry async for entry in entries]


async def test_three_hundred_readers_share_one_read(answer_log: AnswerLog, redis: Redis, tasks: TaskGroup) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live, speak = new_answer(customer()), Speaker()
    tasks.start_soon(writer.takeover.maintain_leases, _nobody_resumes)
    await writer.writers.start(live, speak, LogOpening("c"))
    read: list[list[LogEntry]] = []

    async def follow(after: int) -> None:
        read.append(await read_all(other, live, after))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as following:
            for n in range(300):
                following.start_soon(follow, n % 3)
            while not len(other.readers._elsewhere._reads):
                await anyio.sleep(0.01)
            before, began = await _calls(redis, "xread"), anyio.current_time()
            await anyio.sleep(1.5)
            polls = (anyio.current_time() - began) / POLL_SECONDS
            assert await _calls(redis, "xread") - before <= polls + 1, "one for all"
            speak.go_on.set()
    assert len(read) == 300
    for entries in read:
        assert [entry.n for entry in entries] == list(range(5 - len(entries), 5))
    assert {text_of(entry.event for entry in entries) for entries in read} == {"one two three", "two three", "three"}
    assert len(other.readers._elsewhere._reads) == 0, "nothing is kept once nobody follows"


async def test_a_mark_is_left_every_second_and_not_for_every_event(
    answer_log: AnswerLog, redis: Redis, tasks: TaskGroup
) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live = new_answer(customer())

    async def speak(live: LiveAnswer) -> None:
        for n in range(40):
            live.emit(Token(text=f"{n} "))
            await anyio.sleep(0.02)
        live.emit(done())

    await writer.writers.start(live, speak, LogOpening("c"))
    before = await _calls(redis, "evalsha")
    entries = await read_all(other, live)
    assert text_of(entry.event for entry in entries) == "".join(f"{n} " for n in range(40))
    appends = 41
    assert await _calls(redis, "evalsha") - before < appends + 10


class CountedLog(AnswerLog):
    """A log that counts its commands, by how many answers they touch, and misses those that it is told to."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.touched: Counter[int] = Counter()
        self.misses = 0

    async def touch_all(self, customers: Mapping[AnswerId, Principal], mark: Any) -> Any:
        self.touched[len(customers)] += 1
        if self.misses and len(customers) > 1:
            self.misses -= 1
            raise StoreUnavailable
        return await super().touch_all(customers, mark)


@pytest.fixture
async def counted(redis: Redis) -> AsyncGenerator[CountedLog]:
    async with open_pipelined_connection(redis, slow_after=20) as pipelined:
        yield CountedLog(redis, RedisBreaker(PATIENT), AnswerLogSettings(), pipelined=pipelined)


@dataclass
class Silent:
    """Twenty answers of one customer that say two words, and then nothing until they are told to; all are followed."""

    writer: Answers
    other: Answers
    speak: Speaker = field(default_factory=Speaker)
    read: list[str] = field(default_factory=list)

    async def follow_all(self, following: TaskGroup) -> None:
        who = customer()
        for live in [new_answer(who) for _ in range(20)]:
            await self.writer.writers.start(live, self.speak, LogOpening("c"))
            following.start_soon(self._follow, live)
        while len(self.other.readers._elsewhere._reads) < 20:
            await anyio.sleep(0.01)

    async def _follow(self, live: LiveAnswer) -> None:
        self.read.append(text_of(entry.event for entry in await read_all(self.other, live)))


@pytest.mark.parametrize("missed", [0, 1])
async def test_one_command_a_second_asks_for_twenty_writers_and_one_that_fails_is_sent_again(
    counted: CountedLog, redis: Redis, tasks: TaskGroup, missed: int
) -> None:
    writer, other = (answers_of(counted, tasks, AnswerSettings()) for _ in range(2))
    tasks.start_soon(writer.takeover.maintain_leases, _nobody_resumes)
    silent = Silent(writer, other)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as following:
            await silent.follow_all(following)
            async with anyio.create_task_group() as asking:  # a connection for each loop that may ask at once
                for _ in range(8):
                    asking.start_soon(counted.ping)
            opened = (await redis.info("stats"))["total_connections_received"]
            counted.misses = missed
            counted.touched.clear()
            await anyio.sleep(4)  # two terms of a lease
            assert 3 <= counted.touched[20] <= 6
            assert (await redis.info("stats"))["total_connections_received"] == opened
            silent.speak.go_on.set()
    assert silent.read == ["one two three"] * 20


async def test_a_connection_that_died_without_a_word_is_left_at_the_deadline_of_a_command(
    answer_log: AnswerLog, redis: Redis, redis_url: str, tasks: TaskGroup
) -> None:
    swallow = Swallowing(int(redis_url.rpartition(":")[2].partition("/")[0]))
    async with (
        swallow.served() as port,
        open_pipelined_connection(redis, slow_after=20) as pipelined,
        Redis.from_url(f"redis://127.0.0.1:{port}/11", socket_timeout=None) as through,
    ):
        breaker = RedisBreaker(with_constants(RedisBreakerSettings(slow_after=1), probe_timeout=5))
        log = AnswerLog(through, breaker, AnswerLogSettings(), pipelined=pipelined)
        writer, other = (answers_of(each, tasks, AnswerSettings()) for each in (answer_log, log))
        tasks.start_soon(writer.takeover.maintain_leases, _nobody_resumes)
        live, go_on = new_answer(customer()), anyio.Event()

        async def speak(live: LiveAnswer) -> None:
            live.emit(Token(text="one "))
            await go_on.wait()
            live.emit(Token(text="two"))
            await anyio.sleep_forever()

        await writer.writers.start(live, speak, LogOpening("c"))
        with anyio.fail_after(10):
            async with aclosing(other.readers.follow(live.who, live.answer_id, after=0)) as followed:
                seen = [await anext(followed)]
                swallow.open = False
                go_on.set()
                seen.append(await anext(followed))
        assert text_of(entry.event for entry in seen) == "one two"
        await writer.takeover.cancel(live.who, live.answer_id)


class Swallowing:
    """A proxy before Redis; once it is no longer open, nothing more comes through the connections that there are."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.open = True

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        began_open = self.open

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                if self.open or not began_open:
                    sink.write(data)
            sink.close()

        async with asyncio.TaskGroup() as directions:
            directions.create_task(pass_on(reader, back))
            directions.create_task(pass_on(there, writer))


async def test_who_comes_later_and_has_read_less_misses_nothing(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live, speak = new_answer(customer()), Speaker()
    await writer.writers.start(live, speak, LogOpening("c"))
    read: dict[int, list[int]] = {}

    async def follow(after: int) -> None:
        read[after] = [entry.n for entry in await read_all(other, live, after)]

    with anyio.fail_after(5):
        while not live.entries:  # the log has what is shown
            await anyio.sleep(0.01)
        async with anyio.create_task_group() as following:
            following.start_soon(follow, 2)
            while not len(other.readers._elsewhere._reads):
                await anyio.sleep(0.01)
            following.start_soon(follow, 0)
            speak.go_on.set()
    assert read == {0: [1, 2, 3, 4], 2: [3, 4]}


async def test_who_leaves_last_ends_the_read(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live, speak = new_answer(customer()), Speaker()
    await writer.writers.start(live, speak, LogOpening("c"))
    for _ in range(2):
        async with aclosing(other.readers.follow(live.who, live.answer_id, after=0)) as followed:
            async for entry in followed:
                if entry.n == 2:
                    break
        assert len(other.readers._elsewhere._reads) == 0
    speak.go_on.set()
    assert text_of(entry.event for entry in await read_all(other, live)) == "one two three"


async def test_a_process_that_goes_leaves_its_readers_without_an_error(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live, speak = new_answer(customer()), Speaker()
    await writer.writers.start(live, speak, LogOpening("c"))
    with anyio.fail_after(patient(5)):
        async with aclosing(other.readers.follow(live.who, live.answer_id, after=1)) as followed:
            assert (await anext(followed)).n == 2
            await other.hand_over()
            assert [entry async for entry in followed] == []


async def test_an_answer_that_was_never_there_is_not_waited_for(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    other, live = answers_of(answer_log, tasks, with_constants(AnswerSettings(), patience=60)), new_answer(customer())
    with anyio.fail_after(patient(2)):
        [entry] = await read_all(other, live)
    assert isinstance(entry.event, Failed)
    assert entry.event.code == NotFound.code


class LogThatCannotBeRead(AnswerLog):
    """Raises a bug."""

    async def read_all(self, logs: Mapping[AnswerId, tuple[str, int]]) -> dict[AnswerId, list[LogEntry]]:
        raise KeyError(logs)


async def test_a_read_that_fails_for_an_unknown_reason_ends_for_all_who_follow(redis: Redis, tasks: TaskGroup) -> None:
    failures: list[str] = []
    async with open_pipelined_connection(redis, slow_after=20) as pipelined:
        log = LogThatCannotBeRead(redis, RedisBreaker(PATIENT), AnswerLogSettings(), pipelined=pipelined)
        other, live = answers_of(log, tasks, AnswerSettings(), on_failure=failures.append), new_answer(customer())
        with anyio.fail_after(patient(5)):
            [entry] = await read_all(other, live)
    assert isinstance(entry.event, Failed)
    assert (entry.n, entry.event.code, failures) == (0, ChatError.code, ["reader"])


async def test_an_ended_answer_that_is_longer_than_one_read_is_read_whole(
    answer_log: AnswerLog, tasks: TaskGroup
) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live, words = new_answer(customer()), [f"{n} " for n in range(1_100)]

    async def speak(live: LiveAnswer) -> None:
        live.emit(*(Token(text=word) for word in words), done())

    await writer.writers.start(live, speak, LogOpening("c"))
    with anyio.fail_after(10):
        await writer.writers.drained()
        entries = await read_all(other, live)
    assert text_of(entry.event for entry in entries) == "".join(words)
    assert entries[-1].event == done()


async def test_a_log_that_has_lost_its_end_is_read_as_far_as_it_goes_and_ends_in_an_error(
    answer_log: AnswerLog, redis: Redis, tasks: TaskGroup
) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live, speak = new_answer(customer()), Speaker()
    await writer.writers.start(live, speak, LogOpening("c"))
    speak.go_on.set()
    with anyio.fail_after(10):
        await writer.writers.drained()
        events = f"{{{live.who.tenant}}}:answer:{live.answer_id}:events"
        last = await redis.xlen(events)
        assert await redis.xdel(events, f"0-{last}") == 1
        *entries, end = await read_all(other, live)
    assert text_of(entry.event for entry in entries) == "one two three"
    assert isinstance(end.event, Failed)
    assert end.event.code == "log_lost"


async def test_a_shared_read_is_its_owners(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    writer, other = (answers_of(answer_log, tasks, AnswerSettings()) for _ in range(2))
    live, speak = new_answer(customer()), Speaker()
    await writer.writers.start(live, speak, LogOpening("c"))
    thief = Principal(tenant=live.who.tenant, sub="kim", roles=live.who.roles, groups=live.who.groups)
    async with aclosing(other.readers.follow(live.who, live.answer_id, after=0)) as followed:
        await anext(followed)
        for registry in (other, writer):
            async with aclosing(registry.readers.follow(thief, live.answer_id, after=0)) as stolen:
                [entry] = [entry async for entry in stolen]
            assert isinstance(entry.event, Failed)
            assert (entry.n, entry.event.code) == (0, NotFound.code)


async def test_when_redis_dies_a_reader_elsewhere_gets_an_error_and_not_a_cut_connection(
    server: RedisServer, tasks: TaskGroup
) -> None:
    async with two_logs(server) as logs:
        settings = with_constants(AnswerSettings(), patience=1)
        writer, other = (
            answers_of(log, tasks, settings, person=lambda tenant: f"1599-0000 of {tenant}") for log in logs
        )
        live, speak = new_answer(customer()), Speaker()
        await writer.writers.start(live, speak, LogOpening("c"))
        with anyio.fail_after(20):
            async with aclosing(other.readers.follow(live.who, live.answer_id, after=0)) as followed:
                seen = [await anext(followed), await anext(followed)]
                server.stop()
                seen += [entry async for entry in followed]
        assert [entry.n for entry in seen] == [1, 2, 0]
        last = seen[-1].event
        assert isinstance(last, Failed)
        assert (last.code, last.status, last.retryable) == ("store_unavailable", 503, True)
        assert f"1599-0000 of {live.who.tenant}" in last.handoff
        speak.go_on.set()
        assert text_of(entry.event for entry in await read_all(writer, live)) == "one two three"


async def test_a_stall_shorter_than_the_patience_is_waited_for(server: RedisServer, tasks: TaskGroup) -> None:
    async with two_logs(server) as logs:
        writer, other = (answers_of(log, tasks, AnswerSettings()) for log in logs)
        live, speak = new_answer(customer()), Speaker()
        await writer.writers.start(live, speak, LogOpening("c"))
        maintained = anyio.create_task_group()
        async with maintained:
            maintained.start_soon(writer.takeover.maintain_leases, _nobody_resumes)
            with anyio.fail_after(30):
                async with aclosing(other.readers.follow(live.who, live.answer_id, after=0)) as followed:
                    seen = [await anext(followed), await anext(followed)]
                    server.restart()
                    speak.go_on.set()
                    seen += [entry async for entry in followed]
            maintained.cancel_scope.cancel()
        assert text_of(entry.event for entry in seen) == "one two three"


async def _nobody_resumes(_live: LiveAnswer, _taken: object) -> None:
    pytest.fail("an answer was taken over")


async def test_the_readers_of_a_customer_are_bounded(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    settings = with_constants(AnswerSettings(), readers_of_customer=2)
    readers, lee, kim = answers_of(answer_log, tasks, settings).readers, customer(), customer()
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


async def _calls(redis: Redis, command: str) -> int:
    """Return how often Redis has run a command."""
    stats = await redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])
