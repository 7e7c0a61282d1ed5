"""The end of an answer whatever fails on the way: one last event, one settlement, one record."""

import base64
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import anyio
import pytest
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from chatbot.admission import Admission, AdmissionSettings
from chatbot.audit import AuditClosed, Versions
from chatbot.conversations import StoredMessage
from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import ChatError, ModelUnavailable, StoreUnavailable
from chatbot.events import Accepted, Done, Event, Failed, Notice, NoticeCode, Sources, Unknown, Usage
from chatbot.models import Delta, ModelDone, Switched
from chatbot.records import TurnFinished
from chatbot.redis_client import RedisBreaker
from chatbot.services import Services, TurnSettings
from chatbot.streams import (
    AnswerId,
    AnswerLog,
    AnswerLogSettings,
    AnswerRegistry,
    AnswerRegistrySettings,
    LiveAnswer,
    open_pipelined_connection,
)
from chatbot.streams.log import LogAppend
from chatbot.takeover import resume
from chatbot.tokenizer import Tokenizer
from chatbot.transcript import Turn, checkpoint, turn_of
from chatbot.turn import answer
from knowledge.identity import Principal
from tests.answers import customer, text_of
from tests.chatbot.conftest import PATIENT

pytestmark = [pytest.mark.anyio, pytest.mark.services, pytest.mark.faults]

FORMER = Path(__file__).parent / "former_wire" / "answers.json"
VERSIONS = Versions(model="scripted", prompt="1", index="passages", embedder="tiny")


def former_turn() -> Turn:
    """Return the turn of an answer that was begun with real passages and a real prompt."""
    frames = [
        base64.b64decode(value["value"]["frame"])
        for key, value in json.loads(FORMER.read_text("utf-8")).items()
        if value["type"] == "hash" and "frame" in value["value"]
    ]
    return turn_of(frames[0])


class Withdrawals:
    """Nothing is withdrawn."""

    def stopped(self, tenant: str) -> bool:  # noqa: ARG002  every tenant answers
        return False

    def readable(self) -> bool:
        return True

    def withdrawn(self, *_: object) -> bool:
        return False

    @contextmanager
    def notifying(self, _: object):  # type: ignore[no-untyped-def]
        yield


@dataclass
class Bank:
    """The parts of an answer, each of which a test may let fail, and what was written by them."""

    tokenizer: Tokenizer
    model: ChatError | None = None
    store: ChatError | None = None
    hook: Exception | None = None
    settled: list[Usage] = field(default_factory=list)
    kept: list[StoredMessage] = field(default_factory=list)
    closed: list[AuditClosed] = field(default_factory=list)
    finished: list[TurnFinished] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    deferred: DeferredWrites = field(init=False)

    def __post_init__(self) -> None:
        self.deferred = DeferredWrites(DeferredSettings(), on_lost=self.lost.append)

    async def choice_probabilities(self, *_: object, **__: object) -> tuple[float, float]:
        if self.model is not None:
            raise self.model
        return 0.99, 0.01

    async def stream(self, *_: object, **__: object) -> AsyncGenerator[Delta | Switched | ModelDone]:
        for word in ("예", "금", "."):
            yield Delta(word, tuple(self.tokenizer.encode(word)))
        yield ModelDone("stop", Usage(prompt_tokens=5, answer_tokens=3), ("scripted",))

    async def unknown_share(self, *_: object) -> float:
        return 0.0

    async def find(self, _: object) -> None:
        return None

    async def keep(self, *_: object) -> None:
        return None

    async def settle(self, _: object, usage: Usage) -> None:
        if self.store is not None:
            raise self.store
        self.settled.append(usage)

    async def append(self, _: object, __: str, messages: list[StoredMessage], *, now: float) -> bool:
        if self.store is not None:
            raise self.store
        self.kept += messages
        return now > 0

    async def close(self, closed: AuditClosed) -> None:
        self.closed.append(closed)

    def broken_hook(self, _: TurnFinished) -> None:
        if self.hook is not None:
            raise self.hook

    def services(self) -> Services:
        models = SimpleNamespace(
            choice_probabilities=self.choice_probabilities, stream=self.stream, tokenizer=self.tokenizer, model="m"
        )
        parts: dict[str, Any] = {
            "settings": TurnSettings(),
            "admission": Admission(AdmissionSettings()),
            "answer_cache": self,
            "audit": self,
            "deferred": self.deferred,
            "history": self,
            "ledger": self,
            "models": models,
            "retrieval": self,
            "shadow": SimpleNamespace(follow=lambda *_, **__: None),
            "withdrawals": Withdrawals(),
            "versions": VERSIONS,
            "cache_salt": lambda _: "",
            "now": lambda: 1_795_717_382.0,
            "on_turn_finished": (self.broken_hook, self.finished.append),
        }
        return cast("Services", SimpleNamespace(**parts))


@pytest.fixture
async def answer_log(redis: Redis) -> AsyncGenerator[AnswerLog]:
    async with open_pipelined_connection(redis) as pipelined:
        yield AnswerLog(redis, RedisBreaker(PATIENT), AnswerLogSettings(), pipelined=pipelined)


@dataclass
class Asked:
    """An answer that runs, and the process that it runs in."""

    registry: AnswerRegistry
    who: Principal
    answer_id: AnswerId

    async def events(self) -> list[Event]:
        with anyio.fail_after(20):
            async with aclosing(self.registry.follow(self.who, self.answer_id, after=0)) as entries:
                return [entry.event async for entry in entries]


def asked_turn() -> Turn:
    """Return the former turn, asked by a customer of a bank of their own."""
    return replace(former_turn(), who=customer(), answer_id=AnswerId(uuid4().hex))


async def ask(bank: Bank, answer_log: AnswerLog, tasks: TaskGroup) -> Asked:
    """Answer the turn in a process of its own."""
    turn, services = asked_turn(), bank.services()
    live = LiveAnswer(turn.answer_id, turn.who, conversation_id=turn.conversation.id)
    registry = AnswerRegistry(answer_log, tasks, AnswerRegistrySettings())
    work = partial(answer, turn, place=services.admission.enter(turn.who), services=services)
    await registry.start(live, work, passages=[])
    return Asked(registry, turn.who, turn.answer_id)


async def taken_over(bank: Bank, answer_log: AnswerLog, tasks: TaskGroup, logged: Sequence[Event]) -> Asked:
    """Have the turn continued by a process of its own, after what a dead one has logged."""
    turn = asked_turn()
    await answer_log.open(
        turn.who, turn.answer_id, conversation_id=turn.conversation.id, passages=[], checkpoint=checkpoint(turn)
    )
    await answer_log.append(turn.who.tenant, turn.answer_id, LogAppend(first=1, events=logged), epoch=1)
    await answer_log.give_up(turn.who.tenant, {turn.answer_id: 1})
    registry = AnswerRegistry(answer_log, tasks, AnswerRegistrySettings())
    tasks.start_soon(registry.maintain_leases, partial(resume, services=bank.services()))
    await anyio.wait_all_tasks_blocked()
    return Asked(registry, turn.who, turn.answer_id)


async def test_an_answer_is_settled_kept_and_recorded_as_it_was_read(
    tokenizer: Tokenizer, answer_log: AnswerLog, tasks: TaskGroup
) -> None:
    bank = Bank(tokenizer)
    events = await (await ask(bank, answer_log, tasks)).events()
    assert isinstance(events[-1], Done)
    assert [message.text for message in bank.kept] == [text_of(events)]
    assert [closed.text for closed in bank.closed] == [text_of(events)]
    assert len(bank.settled) == len(bank.finished) == 1


async def test_what_the_store_did_not_take_at_the_end_is_settled_and_kept_once_it_does(
    tokenizer: Tokenizer, answer_log: AnswerLog, tasks: TaskGroup
) -> None:
    bank = Bank(tokenizer, store=StoreUnavailable())
    events = await (await ask(bank, answer_log, tasks)).events()
    assert isinstance(events[-1], Done)
    await bank.deferred.retry()
    assert (bank.settled, bank.kept, bank.deferred.waiting) == ([], [], 2)
    bank.store = None
    await bank.deferred.retry()
    assert [message.text for message in bank.kept] == [text_of(events)]
    assert bank.settled == [events[-1].usage]
    assert (bank.deferred.waiting, bank.lost) == (0, [])


async def test_a_hook_that_fails_keeps_no_customer_from_the_end(
    tokenizer: Tokenizer, answer_log: AnswerLog, tasks: TaskGroup
) -> None:
    bank = Bank(tokenizer, hook=KeyError("a bug"))
    events = await (await ask(bank, answer_log, tasks)).events()
    assert isinstance(events[-1], Done)
    assert len(bank.finished) == 1, "the next hook is called"


BEGUN = (
    Accepted(answer_id="a", conversation_id="c", question_id="q", model="m", prompt_version="1", trace_id=""),
    Sources(items=()),
)


@pytest.mark.parametrize(
    "logged",
    [
        # No model answers, and the hand-off that is shown then cannot follow what was shown before.
        (*BEGUN, Notice(code=NoticeCode.WITHHELD, text="one sentence is not shown")),
        (*BEGUN, Unknown(name="related", data=b"{}")),
        (BEGUN[1],),
    ],
    ids=["diverged without a model", "unknown", "diverged"],
)
async def test_an_answer_that_cannot_be_continued_ends_in_an_error(
    tokenizer: Tokenizer, answer_log: AnswerLog, tasks: TaskGroup, logged: tuple[Event, ...]
) -> None:
    bank = Bank(tokenizer, model=ModelUnavailable())
    events = await (await taken_over(bank, answer_log, tasks, logged)).events()
    assert tuple(events[: len(logged)]) == logged
    assert isinstance(events[-1], Failed)
    assert (events[-1].code, "1599-0000" in events[-1].handoff) == (ChatError.code, True)
    assert [closed.error for closed in bank.closed] == [ChatError.code]
    assert len(bank.settled) == 1
