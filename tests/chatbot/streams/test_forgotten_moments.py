"""A Redis that comes back with an older state: what was read, kept and charged in the lost moments is there again."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.conversations import History, HistorySettings, StoredMessage
from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import NotFound, StoreUnavailable
from chatbot.events import Event, Token, Usage
from chatbot.limits import Caller, Ledger, LedgerSettings, Reservation
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings, open_redis
from chatbot.streams import (
    AnswerId,
    AnswerLog,
    AnswerLogSettings,
    Answers,
    AnswerSettings,
    IdempotencyKeys,
    IdempotencySettings,
    LiveAnswer,
    LogOpening,
    TakenOver,
    open_answer_log,
)
from knowledge.identity import Principal
from tests.answers import answers_of, customer, done, length_of, text_of
from tests.conftest import NOT_DURABLE, RedisServer, redis_server
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.services, pytest.mark.faults]

WORDS = tuple(f"word{n} " for n in range(12))
USED = Usage(prompt_tokens=70, answer_tokens=12)


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that has on its disk what it had at the last SAVE."""
    with redis_server(tmp_path / "redis", *NOT_DURABLE) as server:
        yield server


@pytest.fixture
async def client(forgetful: RedisServer) -> AsyncGenerator[Redis]:
    async with open_redis(forgetful.url) as client:
        yield client


@dataclass
class Process:
    """The stores of a replica, as the product opens them, at its own settings."""

    client: Redis
    log: AnswerLog
    tasks: TaskGroup
    charged_anew: list[None] = field(default_factory=list)
    go_on: anyio.Event = field(default_factory=anyio.Event)
    half: anyio.Event = field(default_factory=anyio.Event)

    def __post_init__(self) -> None:
        breaker = RedisBreaker(RedisBreakerSettings(slow_after=5))
        self.deferred = DeferredWrites(DeferredSettings())
        self.history = History(self.client, breaker, HistorySettings())
        self.ledger = Ledger(
            self.client,
            breaker,
            LedgerSettings(),
            on_forgotten=partial(self.charged_anew.append, None),
            deferred=self.deferred,
        )
        self.keys = IdempotencyKeys(self.client, breaker, IdempotencySettings(), deferred=self.deferred)
        self.registry = answers_of(self.log, self.tasks, AnswerSettings(), deferred=self.deferred)
        self.tasks.start_soon(self.registry.takeover.maintain_leases, self.resume)
        self.tasks.start_soon(self.deferred.retry_forever)

    async def resume(self, live: LiveAnswer, taken: TakenOver) -> None:
        for n, word in enumerate(WORDS):
            if n >= len(taken.output):
                live.emit(output=bytes([n]))
            live.emit(Token(text=word))
        await self.go_on.wait()
        live.emit(done(usage=USED))


@dataclass(kw_only=True)
class Asked:
    """A question that is answered at one process."""

    process: Process
    who: Principal
    answer_id: AnswerId
    conversation_id: str
    reservation: Reservation

    @property
    def owner(self) -> Principal:
        return self.who

    def messages(self) -> list[StoredMessage]:
        question = StoredMessage(
            id="q1", parent_id=None, role="user", text="금리는?", at=1.0, answered_by=self.answer_id
        )
        answer = StoredMessage(
            id=self.answer_id,
            parent_id="q1",
            role="assistant",
            text="".join(WORDS),
            at=2.0,
            answer_id=self.answer_id,
        )
        return [question, answer]

    async def speak(self, live: LiveAnswer) -> None:
        """Say half of the words, wait, say the rest, settle and keep the answer: as a turn does."""
        process = self.process
        for n, word in enumerate(WORDS):
            if n == len(WORDS) // 2:
                process.half.set()
                await process.go_on.wait()
            live.emit(output=bytes([n]))
            live.emit(Token(text=word))
        with anyio.CancelScope(shield=True):
            await live.confirm_ownership()
            await process.deferred.write("settlement", partial(process.ledger.settle, self.reservation, USED))
            append = partial(process.history.append, self.owner, self.conversation_id, self.messages(), now=2.0)
            await process.deferred.write("history", append)
        live.emit(done(usage=USED))

    async def read(self, registry: Answers) -> list[Event]:
        with anyio.fail_after(patient(15)):
            async with aclosing(registry.readers.follow(self.who, self.answer_id, after=0)) as entries:
                return [entry.event async for entry in entries]

    async def is_whole(self, read: list[Event]) -> bool:
        """Return whether the log, the history and the bill say what was read."""
        try:
            conversation = await self.process.history.load(self.owner, self.conversation_id)
            length = await length_of(self.process.log, self.who, self.answer_id)
            _, user, _ = await self.process.ledger.spending(self.reservation.caller)
        except (NotFound, StoreUnavailable):
            return False
        used = USED.prompt_tokens + USED.answer_tokens
        return (
            [m.text for m in conversation.messages] == [m.text for m in self.messages()]
            and length == (len(read), True)
            and (user.use.today, user.use.tokens, user.use.slots) == (used, used, 0)
        )


@pytest.fixture
async def answer_log(client: Redis) -> AsyncGenerator[AnswerLog]:
    breaker = RedisBreaker(RedisBreakerSettings(slow_after=5))
    async with open_answer_log(client, breaker, AnswerLogSettings()) as log:
        yield log


@pytest.fixture
async def process(client: Redis, answer_log: AnswerLog, tasks: TaskGroup) -> Process:
    return Process(client, answer_log, tasks)


async def ask(process: Process) -> Asked:
    """Reserve, keep the question, and start its answer."""
    who = customer()
    reservation = await process.ledger.reserve(
        Caller.of(who, "qwen"), prompt_tokens=70, answer_tokens=100, lease_seconds=600
    )
    asked = Asked(
        process=process,
        who=who,
        answer_id=AnswerId(uuid4().hex),
        conversation_id=uuid4().hex,
        reservation=reservation,
    )
    await process.history.append(asked.owner, asked.conversation_id, asked.messages()[:1], now=1.0)
    live = LiveAnswer(asked.answer_id, who)
    await process.registry.writers.start(live, asked.speak, LogOpening("c", checkpoint=b"the turn"))
    return asked


async def come_back_older(server: RedisServer) -> None:
    await anyio.to_thread.run_sync(server.restart)


async def until_whole(asked: Asked, read: list[Event]) -> None:
    with anyio.fail_after(patient(5)):
        while not await asked.is_whole(read):
            await anyio.sleep(0.05)


MOMENTS = ["before it was asked", "after it was asked", "in its midst"]


@pytest.mark.parametrize("saved", MOMENTS)
@pytest.mark.parametrize("lost_at", ["in its midst", "after its end"])
async def test_whatever_was_forgotten_the_answer_is_as_it_was_read(
    process: Process, client: Redis, forgetful: RedisServer, fault_round: int, saved: str, lost_at: str
) -> None:
    del fault_round
    if saved == "before it was asked":
        await client.save()
    asked = await ask(process)
    with process.registry.readers.reading(asked.who, asked.answer_id):
        if saved == "after it was asked":
            await client.save()
        with anyio.fail_after(5):
            await process.half.wait()
        if saved == "in its midst":
            await client.save()
        if lost_at == "in its midst":
            await come_back_older(forgetful)
        process.go_on.set()
        read = await asked.read(process.registry)
        assert (text_of(read), read[-1]) == ("".join(WORDS), done(usage=USED))
    if lost_at == "after its end":
        await until_whole(asked, read)
        await come_back_older(forgetful)
    await until_whole(asked, read)
    assert len(process.charged_anew) == (saved == "before it was asked")
    other = answers_of(process.log, process.tasks, AnswerSettings())
    assert await asked.read(other) == read
