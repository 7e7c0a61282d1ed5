"""A Redis that comes back with an older state: what was read, kept and charged in the lost moments is there again."""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.conversations import History, HistorySettings, StoredMessage
from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import NotFound, StoreUnavailable
from chatbot.events import Event, Usage
from chatbot.limits import Caller, Ledger, LedgerSettings, Reservation
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings, open_redis
from chatbot.streams import (
    AnswerLog,
    AnswerLogSettings,
    AnswerSettings,
    LiveAnswer,
    LogOpening,
    TakenOver,
    open_answer_log,
)
from chatbot.streams.log import answer_key
from tests.answers import answers_of, done, length_of, text_of
from tests.chatbot.streams.conftest import TEXT, Speaker, events_of, new_answer
from tests.conftest import NOT_DURABLE, RedisServer, redis_server
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.services, pytest.mark.faults]

USED = Usage(prompt_tokens=70, answer_tokens=12)


@dataclass
class Asked:
    """A question that is answered by a replica whose stores are as the product opens them."""

    client: Redis
    log: AnswerLog
    tasks: TaskGroup
    live: LiveAnswer = field(default_factory=new_answer)
    speaker: Speaker = field(default_factory=Speaker)
    charged_anew: list[None] = field(default_factory=list)
    reservation: Reservation | None = None

    def __post_init__(self) -> None:
        breaker, self.deferred = RedisBreaker(RedisBreakerSettings(slow_after=5)), DeferredWrites(DeferredSettings())
        self.history = History(self.client, breaker, HistorySettings())
        on_lost = partial(self.charged_anew.append, None)
        self.ledger = Ledger(self.client, breaker, LedgerSettings(), on_lost=on_lost, deferred=self.deferred)
        self.registry = answers_of(self.log, self.tasks, AnswerSettings(), deferred=self.deferred)
        self.tasks.start_soon(self.registry.takeover.maintain_leases, self.resume)
        self.tasks.start_soon(self.deferred.retry_forever)

    def messages(self) -> list[StoredMessage]:
        name = self.live.answer_id
        question = StoredMessage(id="q1", parent_id=None, role="user", text="금리는?", at=1.0, answered_by=name)
        answer = StoredMessage(id=name, parent_id="q1", role="assistant", text=TEXT, at=2.0, answer_id=name)
        return [question, answer]

    async def ask(self) -> None:
        """Reserve, keep the question, and start its answer."""
        caller = Caller.of(self.live.who, "qwen")
        self.reservation = await self.ledger.reserve(caller, prompt_tokens=70, answer_tokens=100, lease_seconds=600)
        await self.history.append(self.live.who, "c1", self.messages()[:1], now=1.0)
        await self.registry.writers.start(self.live, self.speak, LogOpening("c1", checkpoint=b"the turn"))

    async def speak(self, live: LiveAnswer) -> None:
        """Emit the words, settle and keep the answer: as a turn does."""
        await self.speaker.speak(live)
        assert self.reservation is not None
        with anyio.CancelScope(shield=True):
            await live.confirm_ownership()
            await self.deferred.write("settlement", partial(self.ledger.settle, self.reservation, USED))
            append = partial(self.history.append, live.who, "c1", self.messages(), now=2.0)
            await self.deferred.write("history", append)
        live.emit(done(usage=USED))

    async def resume(self, live: LiveAnswer, _: TakenOver) -> None:
        await self.speaker.speak(live)
        live.emit(done(usage=USED))

    async def is_whole(self, read: list[Event]) -> bool:
        """Return whether the log, the history and the bill say what was read."""
        assert self.reservation is not None
        try:
            conversation = await self.history.load(self.live.who, "c1")
            length = await length_of(self.log, self.live.who, self.live.answer_id)
            _, user, _ = await self.ledger.spending(self.reservation.caller)
        except (NotFound, StoreUnavailable):
            return False
        used = USED.prompt_tokens + USED.answer_tokens
        return (
            [m.text for m in conversation.messages] == [m.text for m in self.messages()]
            and length == (len(read), True)
            and (user.use.today, user.use.tokens, user.use.slots) == (used, used, 0)
        )

    async def until_whole(self, read: list[Event]) -> None:
        with anyio.fail_after(patient(5)):
            while not await self.is_whole(read):
                await anyio.sleep(0.05)


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that comes back as it was at the last SAVE."""
    with redis_server(tmp_path / "redis", *NOT_DURABLE) as server:
        yield server


@pytest.fixture
async def asked(forgetful: RedisServer) -> AsyncGenerator[Asked]:
    breaker = RedisBreaker(RedisBreakerSettings(slow_after=5))
    async with (
        open_redis(forgetful.url) as client,
        open_answer_log(client, breaker, AnswerLogSettings()) as log,
        anyio.create_task_group() as tasks,
    ):
        yield Asked(client, log, tasks)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("saved", "lost_at"),
    [
        ("before it was asked", "in its midst"),
        ("before it was asked", "after its end"),
        ("after it was asked", "in its midst"),
        ("in its midst", "after its end"),
    ],
)
async def test_whatever_was_forgotten_the_answer_is_as_it_was_read(
    asked: Asked, forgetful: RedisServer, fault_round: int, saved: str, lost_at: str
) -> None:
    del fault_round
    live, registry = asked.live, asked.registry
    if saved == "before it was asked":
        await asked.client.save()
    await asked.ask()
    with registry.readers.reading(live.who, live.answer_id):
        if saved == "after it was asked":
            await asked.client.save()
        with anyio.fail_after(5):
            await asked.speaker.half.wait()
        if saved == "in its midst":
            await asked.client.save()
        if lost_at == "in its midst":
            await anyio.to_thread.run_sync(forgetful.restart)
            with anyio.fail_after(patient(5)):  # of a log that is gone, a quiet writer hears by its heartbeat
                while not await asked.client.exists(answer_key(live.who.tenant, live.answer_id)):
                    await anyio.sleep(0.01)
            assert not live.scope.cancel_called, "nobody has deleted it"
        asked.speaker.go_on.set()
        read = await events_of(registry, live)
        assert (text_of(read), read[-1]) == (TEXT, done(usage=USED))
    if lost_at == "after its end":
        await asked.until_whole(read)
        await anyio.to_thread.run_sync(forgetful.restart)
    await asked.until_whole(read)
    assert len(asked.charged_anew) == (saved == "before it was asked")
    assert await events_of(answers_of(asked.log, asked.tasks, AnswerSettings()), live) == read
