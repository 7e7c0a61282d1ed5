"""The end of an answer whatever fails on the way: one last event, one settlement, one record."""

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import anyio
import msgspec
import pytest
from anyio.abc import TaskGroup
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis
from structlog.testing import capture_logs

from chatbot.admission import Admission, AdmissionSettings
from chatbot.answerability import UNCALIBRATED_WEIGHTS
from chatbot.audit import AuditClosed, Versions
from chatbot.conversations import StoredMessage
from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import ChatError, ModelUnavailable, Overloaded, StoreUnavailable
from chatbot.events import (
    Accepted,
    Done,
    Event,
    Failed,
    FinishReason,
    Notice,
    NoticeCode,
    Sources,
    Token,
    Unknown,
    Usage,
    to_json,
)
from chatbot.models import Delta, Generation, ModelDone, Models, Piece, Sampling, Switched
from chatbot.notices import notice
from chatbot.questions import CannedReply, canned_reply
from chatbot.records import TurnFinished
from chatbot.services import Services, TurnSettings
from chatbot.streams import AnswerId, AnswerLog, Answers, AnswerSettings, LiveAnswer, LogOpening
from chatbot.streams.log import LogAppend, WriterStanding, answer_key
from chatbot.tokens import TokenCounter
from chatbot.turns import Turn, answer, continue_answer
from evals.sample_bank import sample_banks
from knowledge.breaker import Breaker, BreakerSettings
from knowledge.profiles import AnswerMode
from llm_server.scripted import Behaviour, Template
from tests.answers import answers_of, customer, text_of
from tests.chatbot.models.scripted_pool import CHAT, Served, serve
from tests.chatbot.streams.conftest import events_of, give_up_lease, log_append
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.services, pytest.mark.faults]

RECORDED = Path(__file__).parent / "turn.json"
NOW = 1_795_717_382.0
"""Unix seconds: when the recorded turn was asked."""
VERSIONS = Versions(model="scripted", prompt="1", index="passages", embedder="tiny")


def recorded_turn() -> Turn:
    """Return a turn with real passages and a real prompt."""
    return msgspec.json.decode(RECORDED.read_bytes(), type=Turn)


@dataclass
class Withdrawals:
    """Nothing is withdrawn, as far as is known for some seconds."""

    known_for: float = math.inf
    known: bool = True

    def readable(self) -> bool:
        return self.known

    def may_answer(self, tenant: str) -> bool:  # noqa: ARG002  every tenant answers
        return self.known

    def has_withdrawn(self, *_: object, now: float) -> bool:  # noqa: ARG002
        return False

    @contextmanager
    def notifying(self, listener: Callable[[], None]) -> Iterator[None]:
        def forget() -> None:
            self.known = False
            listener()

        if self.known_for < math.inf:
            asyncio.get_running_loop().call_later(self.known_for, forget)
        yield


def delta_of(text: str) -> Delta:
    """Return a piece of an answer from an endpoint without token ids."""
    generation = Generation(CHAT, Sampling(max_tokens=400), most_tokens=400, count=lambda _: 1)
    pieces = [part for part in generation.feed(Piece(text)) if isinstance(part, Delta)]
    return pieces[0] if pieces else Delta("", 0, b"")


@dataclass
class Bank:
    """The parts of an answer, each of which a test may let fail, and what was written by them."""

    yes: float = 0.99
    """The probability of an answer, as the probes judge it."""
    model: ChatError | None = None
    models: Models | None = None
    says: Sequence[str] = ("최소 가입 금액은 ", "100만원", "입니다.")
    ends: ChatError | None = None
    """What the model says, and how its answer breaks off."""
    is_silent: bool = False
    """Whether the model never ends its answer."""
    stalls: bool = False
    """Whether the audit takes a closing and does not return: the process stands still in the end of an answer."""
    store: ChatError | None = None
    hook: Exception | None = None
    withdrawals: Withdrawals = field(default_factory=Withdrawals)
    settings: TurnSettings = field(default_factory=partial(TurnSettings, answer=AnswerMode.WRITTEN))
    settled: list[Usage] = field(default_factory=list)
    kept: list[StoredMessage] = field(default_factory=list)
    closed: list[AuditClosed] = field(default_factory=list)
    finished: list[TurnFinished] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    deferred: DeferredWrites = field(init=False)

    def __post_init__(self) -> None:
        self.deferred = DeferredWrites(DeferredSettings(), on_lost=self.lost.append)
        self.goes_on = anyio.Event()
        if not self.stalls:
            self.goes_on.set()

    async def choice_probabilities(self, *_: object, **__: object) -> tuple[float, float]:
        if self.model is not None:
            raise self.model
        return self.yes, 1 - self.yes

    async def stream(self, *_: object, **__: object) -> AsyncGenerator[Delta | Switched | ModelDone]:
        for text in self.says:
            yield delta_of(text)
        if self.is_silent:
            await anyio.sleep_forever()
        if self.ends is not None:
            raise self.ends
        yield ModelDone("stop", Usage(prompt_tokens=5, answer_tokens=3), ("scripted",))

    async def unknown_share(self, *_: object, **__: object) -> float:
        return 0.0

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
        await self.goes_on.wait()

    def broken_hook(self, finished: TurnFinished) -> None:
        self.finished.append(finished)
        if self.hook is not None:
            raise self.hook

    def services(self) -> Services:
        models = self.models or SimpleNamespace(
            choice_probabilities=self.choice_probabilities, stream=self.stream, counter=TokenCounter(), model="m"
        )
        parts: dict[str, Any] = {
            "settings": self.settings,
            "admission": Admission(AdmissionSettings()),
            "answerability": lambda: UNCALIBRATED_WEIGHTS,
            "audit": self,
            "banks": sample_banks(),
            "deferred": self.deferred,
            "history": self,
            "index": self,
            "ledger": self,
            "models": models,
            "retrieval": self,
            "withdrawals": self.withdrawals,
            "versions": VERSIONS,
            "cache_salt": lambda _: "",
            "now": lambda: NOW,
            "metrics": SimpleNamespace(turn_finished=self.broken_hook),
        }
        return cast("Services", SimpleNamespace(**parts))


BEGUN = (
    Accepted(answer_id="a", conversation_id="c", question_id="q", model="m", prompt_version="1", trace_id=""),
    Sources(items=()),
)


Asked = tuple[Answers, LiveAnswer]
"""The process of an answer that runs, and the answer."""


def asked_turn(**parts: Any) -> Turn:
    """Return the recorded turn, asked by a customer of a bank of their own."""
    return replace(recorded_turn(), who=customer(), answer_id=AnswerId(uuid4().hex), **parts)


def with_ending_passage() -> Turn:
    """Return a turn whose first passage is withdrawn in a moment."""
    turn = asked_turn()
    first, *others = turn.search.hits
    ending = replace(first, passage=replace(first.passage, visible_until=NOW + 0.3))
    return replace(turn, search=msgspec.structs.replace(turn.search, hits=(ending, *others)))


async def ask(bank: Bank, answer_log: AnswerLog, tasks: TaskGroup, turn: Turn | None = None) -> Asked:
    """Answer the turn in a process of its own."""
    turn, services = turn or asked_turn(), bank.services()
    live = LiveAnswer(turn.answer_id, turn.who)
    registry = answers_of(answer_log, tasks, AnswerSettings())
    work = partial(answer, turn, place=services.admission.enter(turn.who), services=services)
    await registry.writers.start(live, work, opening(turn))
    return registry, live


def opening(turn: Turn) -> LogOpening:
    return LogOpening(turn.conversation_id, checkpoint=msgspec.msgpack.encode(turn))


async def succeeded(bank: Bank, answer_log: AnswerLog, tasks: TaskGroup, turn: Turn) -> Asked:
    """Have the logged turn continued by a process of its own."""
    live, registry = LiveAnswer(turn.answer_id, turn.who), answers_of(answer_log, tasks, AnswerSettings())
    await give_up_lease(answer_log, live)
    tasks.start_soon(registry.takeover.maintain_leases, partial(continue_answer, services=bank.services()))
    await anyio.wait_all_tasks_blocked()
    return registry, live


async def taken_over(
    bank: Bank,
    answer_log: AnswerLog,
    tasks: TaskGroup,
    logged: Sequence[Event],
    turn: Turn | None = None,
    *,
    output: bytes = b"",
    outcome: bytes = b"",
) -> Asked:
    """Have the turn continued by a process of its own, after what a dead one has logged."""
    turn = turn or asked_turn()
    await answer_log.open(turn.who, turn.answer_id, opening(turn))
    append = log_append(first=1, events=logged, output=output, outcome=outcome)
    await answer_log.append(turn.who.tenant, turn.answer_id, append, epoch=1)
    return await succeeded(bank, answer_log, tasks, turn)


async def test_an_error_is_recorded(answer_log: AnswerLog, tasks: TaskGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, append = Bank(), answer_log.append

    async def append_no_text(tenant: str, answer_id: AnswerId, lacking: LogAppend, *, epoch: int) -> WriterStanding:
        if any(isinstance(entry.event, Token) for entry in lacking.entries):
            raise KeyError(answer_id)
        return await append(tenant, answer_id, lacking, epoch=epoch)

    monkeypatch.setattr(answer_log, "append", append_no_text)
    events = await events_of(*await ask(bank, answer_log, tasks))
    with anyio.fail_after(patient(5)):
        while not bank.finished:
            await anyio.sleep(0.01)
    assert isinstance(events[-1], Failed)
    assert [(closed.result.error, closed.text) for closed in bank.closed] == [(events[-1].code, text_of(events))]
    assert len(bank.settled) == len(bank.finished) == 1


async def test_an_answer_is_settled_stored_and_recorded_as_read(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    bank = Bank()
    events = await events_of(*await ask(bank, answer_log, tasks))
    assert isinstance(events[-1], Done)
    assert [message.text for message in bank.kept] == [recorded_turn().screened.text, text_of(events)]
    assert [closed.text for closed in bank.closed] == [text_of(events)]
    assert len(bank.settled) == len(bank.finished) == 1


async def test_an_end_without_redis_is_settled_and_stored_later(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    bank = Bank(store=StoreUnavailable())
    events = await events_of(*await ask(bank, answer_log, tasks))
    assert isinstance(events[-1], Done)
    await bank.deferred.retry()
    assert (bank.settled, bank.kept, bank.deferred.waiting) == ([], [], 2)
    bank.store = None
    await bank.deferred.retry()
    assert [message.text for message in bank.kept] == [recorded_turn().screened.text, text_of(events)]
    assert bank.settled == [events[-1].usage]
    assert (bank.deferred.waiting, bank.lost) == (0, [])


@pytest.mark.parametrize(
    ("says", "ends", "model"),
    [
        ("최소 가입 금액은 100만원입니다.", None, None),
        ("최소 가입 금액은 100만원입니다.", ModelUnavailable(retry_after=2), None),
        ("최소 가입 금액은 300만원입니다.", None, None),
        ("", None, None),
        ("", None, ModelUnavailable()),
    ],
    ids=["grounded", "broken off", "quoted", "refused", "without a model"],
)
async def test_a_successor_ends_an_answer_as_it_was_settled(
    answer_log: AnswerLog, tasks: TaskGroup, says: str, ends: ChatError | None, model: ChatError | None
) -> None:
    """Whatever the models would say to the successor: here all answer, and more than they did before."""
    dying, successor = Bank(says=[says], ends=ends, model=model, stalls=True), Bank()
    turn = asked_turn()
    async with anyio.create_task_group() as process:
        first = await ask(dying, answer_log, process, turn)
        with anyio.fail_after(patient(20)):
            while not dying.closed:
                await anyio.sleep(0.01)
        shown = await answer_log.all_events(turn.who.tenant, turn.answer_id)
        events = await events_of(*await succeeded(successor, answer_log, tasks, turn))
        dying.goes_on.set()
        assert await events_of(*first) == events, "the writer that was replaced adds nothing"
        process.cancel_scope.cancel()
    assert events[:-1] == shown
    assert successor.settled == dying.settled
    [was] = dying.closed
    assert successor.closed == [was]
    assert [message.text for message in successor.kept] == [message.text for message in dying.kept]
    last = events[-1]
    if was.result.error:
        assert isinstance(last, Failed)
        assert (last.code, last.retry_after_ms) == (was.result.error, 2000)
    else:
        assert isinstance(last, Done)
        assert (last.finish_reason, last.grounded or last.written) == (was.result.finish_reason, was.result.grounded)
        assert last.quoted is text_of(events).startswith("관련 문서의 내용을 그대로")
        assert last.usage == msgspec.structs.replace(was.result.usage, cached_tokens=0)


@pytest.mark.parametrize("ends", ["a passage", "what is known of withdrawals"])
async def test_time_alone_ends_the_answer_of_a_silent_model(answer_log: AnswerLog, tasks: TaskGroup, ends: str) -> None:
    turn, bank = asked_turn(), Bank(says=("최소", " 가입", " 금액은 "), is_silent=True)
    if ends == "a passage":
        turn = with_ending_passage()
    else:
        bank.withdrawals.known_for = 0.3
    events = await events_of(*await ask(bank, answer_log, tasks, turn))
    hand_off = canned_reply(CannedReply.EMERGENCY, turn.language, sample_banks().first)
    assert text_of(events) == f"최소 가입\n\n{hand_off}"
    assert isinstance(events[-1], Done)
    assert (events[-1].finish_reason, events[-1].grounded) == (FinishReason.HANDOFF, False)
    assert [usage.answer_tokens for usage in bank.settled] == [3], "what was generated is charged"


async def test_a_successor_hands_off_when_its_passage_ends(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    turn, mute = with_ending_passage(), Bank(says=(), is_silent=True)
    logged = (*BEGUN, Token(text="최소 가입"))
    events = await events_of(*await taken_over(mute, answer_log, tasks, logged, turn))
    assert text_of(events).endswith(canned_reply(CannedReply.EMERGENCY, turn.language, sample_banks().first))
    assert isinstance(events[-1], Done)
    assert events[-1].finish_reason is FinishReason.HANDOFF


@pytest.mark.parametrize("reply", [None, CannedReply.EMERGENCY], ids=["of the model's probe", "of the question"])
async def test_a_logged_canned_reply_is_not_repeated(
    answer_log: AnswerLog, tasks: TaskGroup, reply: CannedReply | None
) -> None:
    turn, bank = asked_turn(reply=reply), Bank(yes=0.0)
    logged = Token(text=canned_reply(reply or CannedReply.CANNOT_VERIFY, turn.language, sample_banks().first))
    events = await events_of(*await taken_over(bank, answer_log, tasks, (*BEGUN, logged), turn))
    assert (text_of(events), events[: len(BEGUN) + 1]) == (logged.text, [*BEGUN, logged])
    assert isinstance(events[-1], Done)


async def test_an_unreadable_outcome_is_ignored(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    """Another release may decide what this one does not know: the answer goes on as if nothing was decided."""
    decided = msgspec.msgpack.encode({"finish_reason": "later", "usage": {}})
    events = await events_of(*await taken_over(Bank(), answer_log, tasks, BEGUN, outcome=decided))
    assert isinstance(events[-1], Done)
    assert text_of(events)


async def test_a_hook_that_fails_keeps_no_customer_from_the_end(answer_log: AnswerLog, tasks: TaskGroup) -> None:
    bank = Bank(hook=KeyError("a bug"))
    events = await events_of(*await ask(bank, answer_log, tasks))
    assert isinstance(events[-1], Done)
    assert len(bank.finished) == 1, "it was counted although its hook raises"


@pytest.mark.parametrize(
    ("reply", "model", "readable", "counted"),
    [
        (CannedReply.UNAVAILABLE, None, True, "error_index_unavailable"),
        (CannedReply.EMERGENCY, None, False, "error_audit_unavailable"),
        (CannedReply.EMERGENCY, None, True, "handoff"),
        (None, Overloaded(), True, "error_overloaded"),
        (None, ModelUnavailable(), True, "error_model_unavailable"),
    ],
)
async def test_a_hand_off_is_counted_as_its_error(
    answer_log: AnswerLog,
    tasks: TaskGroup,
    *,
    reply: CannedReply | None,
    model: ChatError | None,
    readable: bool,
    counted: str,
) -> None:
    turn, bank = asked_turn(reply=reply), Bank(model=model, withdrawals=Withdrawals(known=readable))
    if model is not None:  # and there is nothing to quote
        turn = replace(turn, search=msgspec.structs.replace(turn.search, hits=()))
    events = await events_of(*await ask(bank, answer_log, tasks, turn))
    assert isinstance(events[-1], Done)
    assert [finished.result.label for finished in bank.finished] == [counted]


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
async def test_a_diverged_answer_ends_in_an_error(
    answer_log: AnswerLog, tasks: TaskGroup, logged: tuple[Event, ...]
) -> None:
    bank = Bank(model=ModelUnavailable())
    events = await events_of(*await taken_over(bank, answer_log, tasks, logged))
    assert tuple(events[: len(logged)]) == logged
    assert isinstance(events[-1], Failed)
    assert (events[-1].code, "1599-0000" in events[-1].handoff) == (ChatError.code, True)
    assert [closed.result.error for closed in bank.closed] == [ChatError.code]
    assert len(bank.settled) == 1


THINKING = "<think>\nЁж 🐟\n</think>\n\n"
SECRET = re.compile(r"[\u0400-\u04ff🐟]|think>|\\\\u04")
"""Any character of it, or of its markers."""


@dataclass
class Thinker:
    """A reasoning model on two endpoints, and what is traced and logged while it answers."""

    served: Served
    turn: Turn
    answer_log: AnswerLog
    redis: Redis
    spans: InMemorySpanExporter
    caplog: pytest.LogCaptureFixture

    async def answered(
        self, tasks: TaskGroup, *, die_after: int | None = None, after: bytes | None = None
    ) -> tuple[str, Usage]:
        """Return the text and the charge of an answer whose endpoint, or whose writer, dies after some tokens."""
        for member, server in zip(self.served.members, self.served.servers, strict=True):
            member.breaker = Breaker(BreakerSettings())
            server.reset()
        turn = replace(self.turn, answer_id=AnswerId(uuid4().hex), who=customer())
        self.served.servers[self.served.home(turn.conversation_id)].tell(drop_after=die_after, times=1)
        bank, logged = Bank(models=self.served.models), (*BEGUN, notice(NoticeCode.THINKING, "ko"))
        with capture_logs() as logs:
            if after is None:
                asked = await ask(bank, self.answer_log, tasks, turn)
            else:
                asked = await taken_over(bank, self.answer_log, tasks, logged, turn, output=after)
            events = await events_of(*asked)
        left = [*map(repr, logs), *await self.left(bank, turn, events)]
        assert [text for text in left if SECRET.search(text)] == [], (die_after, after)
        assert [event.code for event in events if isinstance(event, Notice)].count(NoticeCode.THINKING) == 1
        assert NoticeCode.THINKING not in [notice.code for message in bank.kept for notice in message.notices]
        self.spans.clear()
        self.caplog.clear()
        [usage], [_] = bank.settled, bank.closed
        assert isinstance(events[-1], Done)
        assert events[-1].written
        return text_of(events), msgspec.structs.replace(usage, cached_tokens=0)

    async def left(self, bank: Bank, turn: Turn, events: Sequence[Event]) -> list[str]:
        """Return everything that an answer leaves behind, as texts."""
        key = answer_key(turn.who.tenant, turn.answer_id)
        kept = {name.decode() async for name in self.redis.scan_iter(f"{{{turn.who.tenant}}}*", count=1000)}
        assert kept == {key, f"{key}:events"}
        entries: Any = await self.redis.xrange(f"{key}:events")
        stored: Any = [await self.redis.hvals(key), *(fields.values() for _, fields in entries)]
        return [
            *(to_json(event).decode() for event in events),
            *(value.decode() for values in stored for value in values),
            *map(repr, (bank.kept, [closed.text for closed in bank.closed], bank.finished)),
            *(record.getMessage() for record in self.caplog.records),
            *(span.to_json() for span in self.spans.get_finished_spans()),
        ]


@pytest.mark.parametrize(
    ("template", "marked", "parses"),
    [("switched", True, True), ("opening", True, True), ("opening", True, False), ("plain", False, False)],
)
async def test_no_thinking_is_shown_stored_or_logged(
    answer_log: AnswerLog,
    tasks: TaskGroup,
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
    template: Template,
    *,
    marked: bool,
    parses: bool,
) -> None:
    caplog.set_level("DEBUG")
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    turn = asked_turn(sampling=Sampling(max_tokens=400, thinking_tokens=100))
    behaviour = Behaviour(thinking=THINKING, sentences=1, template=template, marked=marked, parses=parses, probe=0.99)
    async with serve([behaviour] * 2) as served:
        for member in served.members:
            member.tracer = provider.get_tracer("endpoints")
        thinker = Thinker(served, turn, answer_log, redis, spans, caplog)
        whole = await thinker.answered(tasks)
        tokens = whole[1].generated_tokens
        assert 0 < whole[1].thinking_tokens < tokens
        for k in range(tokens):
            assert await thinker.answered(tasks, die_after=k) == whole, k
        heard = await speak(served, turn)
        for n in range(1, len(heard)):
            after = b"".join(part.output for part in heard[:n])
            assert await thinker.answered(tasks, after=after) == whole, n


async def speak(served: Served, turn: Turn) -> list[Delta]:
    """Return the pieces of the answer to a turn."""
    stream = served.models.stream(
        turn.prompt.answer, sampling=turn.sampling, conversation_id=turn.conversation_id, cache_salt=""
    )
    async with aclosing(stream) as parts:
        return [part async for part in parts if isinstance(part, Delta)]
