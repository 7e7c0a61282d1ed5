"""A turn before its first byte, over real stores: what is refused leaves nothing, what is withdrawn is not used."""

import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar, cast
from uuid import uuid4

import anyio
import msgspec
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from chatbot.audit import Audit, Versions, open_audit
from chatbot.calibration import read_calibration
from chatbot.chat import Chat
from chatbot.conversations import ConversationIds, History, HistorySettings, StoredMessage
from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import AuditUnavailable, StoreUnavailable, Unprocessable
from chatbot.events import PassageRef, Usage
from chatbot.limits import Caller, Ledger, LedgerSettings
from chatbot.prompt import PromptBuilder, load_templates
from chatbot.records import AnswerResult
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from chatbot.retrieval import Retrieval
from chatbot.screener import Screener
from chatbot.services import Services, TurnSettings
from chatbot.tokens import TokenCounter
from chatbot.turns import EndedAnswer, Question, Turn, open_turn, remember_answer
from evals.sample_bank import sample_banks
from knowledge.bank import read_banks
from knowledge.identity import Principal
from knowledge.profiles import AnswerMode
from knowledge.withdrawals import Withdrawals, load_withdrawals, write_end, write_withdrawal
from tests.answers import customer
from tests.audit import SETTINGS, faults
from tests.bank import of_the_sample_bank, write_bank
from tests.chatbot.conftest import PATIENT, LateBreaker
from tests.conftest import RedisServer
from tests.constants import with_constants
from tests.passages import DEPOSIT, NOW, TENANT, FirstAxis, indexed_passages

pytestmark = [pytest.mark.anyio, pytest.mark.services]

T = TypeVar("T")

QUESTION = "정기예금의 금리는 얼마인가요?"
MODEL = "qwen"


@dataclass(frozen=True)
class Bank:
    """The stores of a bank, and a customer of it."""

    services: Services
    audit: Audit
    history: History
    ledger: Ledger
    withdrawals: Withdrawals
    who: Principal

    def question(self, conversation_id: str | None = None) -> Question:
        return Question(text=QUESTION, conversation_id=conversation_id, max_answer_tokens=100)

    def but(self, **parts: object) -> Services:
        """Return its stores with others in place of some."""
        return cast("Services", SimpleNamespace(**vars(self.services) | parts))

    async def withdraw_deposit(self) -> None:
        async with self.withdrawals._engine.begin() as connection:
            await write_withdrawal(connection, TENANT, DEPOSIT.document_id, DEPOSIT.version, reason="wrong", at=NOW)
        await self.withdrawals.read()


async def counted(chat: Chat, *, conversation_id: str) -> Chat:  # noqa: ARG001
    return chat


@pytest.fixture
async def bank(redis: Redis, engine: AsyncEngine, counter: TokenCounter, tmp_path: Path) -> AsyncGenerator[Bank]:
    breaker = RedisBreaker(PATIENT)
    history, withdrawals = History(redis, breaker, HistorySettings()), await load_withdrawals(engine)
    ledger = Ledger(redis, breaker, LedgerSettings(), deferred=DeferredWrites(DeferredSettings()))
    async with open_audit(engine, SETTINGS) as audit, indexed_passages(tmp_path / "index", FirstAxis()) as index:
        parts = SimpleNamespace(
            settings=TurnSettings(),
            answerability=lambda: read_calibration(None).answerability,
            audit=audit,
            banks=sample_banks(),
            chooses_answer=False,
            conversation_ids=ConversationIds("a key that only tests have", begin_within=60),
            deferred=DeferredWrites(DeferredSettings()),
            history=history,
            ledger=ledger,
            models=SimpleNamespace(counter=counter, with_token_count=counted, model=MODEL, may_think=False),
            now=lambda: NOW,
            prompts=PromptBuilder(load_templates(), counter, passage_tokens=1000),
            retrieval=Retrieval(index, sample_banks()),
            screener=Screener(),
            versions=Versions(model=MODEL, prompt="1", index="passages", embedder="none"),
            withdrawals=withdrawals,
        )
        yield Bank(cast("Services", parts), audit, history, ledger, withdrawals, customer(uuid4().hex, TENANT))


async def test_a_question_that_cannot_be_recorded_costs_nothing(bank: Bank) -> None:
    nowhere = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    away = Audit(nowhere, SETTINGS.model_copy(update={"deadline": 0.1}))
    with pytest.raises(AuditUnavailable):
        await open_turn(bank.question(), bank.who, bank.but(audit=away))
    _, user, _ = await bank.ledger.spending(Caller.of(bank.who, MODEL))
    assert (user.use.tokens, user.use.today, user.use.slots) == (0, 0, 0)
    assert user.use.requests == 1, "it was reserved before it was refused"
    await nowhere.dispose()


async def test_on_make_run_alone_the_caller_chooses_whose_words_answer(bank: Bank) -> None:
    asked = replace(bank.question(), answer_mode=AnswerMode.WRITTEN)
    demo = bank.but(chooses_answer=True, settings=TurnSettings(answer=AnswerMode.QUOTE))
    assert (await open_turn(asked, bank.who, demo)).answer is AnswerMode.WRITTEN
    assert (await open_turn(bank.question(), bank.who, demo)).answer is AnswerMode.QUOTE
    with pytest.raises(Unprocessable, match="TURN__ANSWER"):
        await open_turn(asked, bank.who, bank.services)
    _, user, _ = await bank.ledger.spending(Caller.of(bank.who, MODEL))
    assert user.use.requests == 2, "it reserves nothing"


class AskedBreaker(RedisBreaker):
    """A breaker that tells when a command is under way."""

    def __init__(self) -> None:
        super().__init__(PATIENT)
        self.asked = anyio.Event()

    async def call(self, command: Callable[[], Awaitable[T]]) -> T:
        self.asked.set()
        return await super().call(command)


async def test_a_question_left_while_it_is_reserved_costs_nothing(bank: Bank, server: RedisServer) -> None:
    async with Redis.from_url(server.url) as redis, anyio.create_task_group() as asking:
        breaker, caller = AskedBreaker(), Caller.of(bank.who, MODEL)
        ledger = Ledger(redis, breaker, LedgerSettings(), deferred=DeferredWrites(DeferredSettings()))
        before = await ledger.reserve(caller, prompt_tokens=1, answer_tokens=0, lease_seconds=60)
        await ledger.settle(before, Usage())  # the next command reserves
        server.signal(signal.SIGSTOP)
        breaker.asked = anyio.Event()
        asking.start_soon(open_turn, bank.question(), bank.who, bank.but(ledger=ledger))
        with anyio.fail_after(10):
            await breaker.asked.wait()
        await anyio.wait_all_tasks_blocked()
        asking.cancel_scope.cancel()
        server.signal(signal.SIGCONT)
    async with Redis.from_url(server.url) as redis:
        deferred = DeferredWrites(DeferredSettings())
        ledger = Ledger(redis, RedisBreaker(PATIENT), LedgerSettings(), deferred=deferred)
        _, user, _ = await ledger.spending(caller)
    await bank.audit.drain()
    assert await faults(bank.audit, unclosed_before=1e12) == []
    assert (user.use.tokens, user.use.slots, user.use.requests) == (0, 0, 2)


async def test_a_question_that_redis_stores_late_is_stored_with_its_answer(redis: Redis, bank: Bank) -> None:
    breaker = LateBreaker()
    history = History(redis, breaker, HistorySettings())
    breaker.is_late = True
    turn = await open_turn(bank.question(), bank.who, bank.but(history=history))
    assert turn.question_in_history
    await breaker.deliver()
    await remember_answer(EndedAnswer(turn, AnswerResult()), bank.but(history=history))
    kept = await history.load(bank.who, turn.conversation_id)
    assert [(message.role, message.text) for message in kept.messages] == [("user", QUESTION), ("assistant", "")]


async def test_a_question_not_sent_to_redis_is_not_stored(nowhere: Redis, bank: Bank) -> None:
    breaker = RedisBreaker(with_constants(RedisBreakerSettings(), probe_every=60))
    with pytest.raises(StoreUnavailable):
        await breaker.call(nowhere.ping)
    turn = await open_turn(bank.question(), bank.who, bank.but(history=History(nowhere, breaker, HistorySettings())))
    assert not turn.question_in_history


async def test_the_model_reads_the_name_of_the_customers_bank_only(bank: Bank, tmp_path: Path) -> None:
    services = bank.but(banks=read_banks(write_bank(tmp_path)))
    for tenant, name in ((TENANT, "새벽은행"), ("dusk", "노을은행")):
        who = customer(sub=uuid4().hex, tenant=tenant)
        turn = await open_turn(bank.question(), who, services)
        read = [message.content for prompt in (turn.prompt.answer, *turn.prompt.probes) for message in prompt.messages]
        assert name in read[0]
        assert of_the_sample_bank("\n".join(read)) == []


async def test_no_caller_gets_a_longer_answer_than_the_bank_allows(bank: Bank) -> None:
    services = bank.but(settings=TurnSettings(max_answer_tokens=30, most_answer_tokens=50))
    turn = await open_turn(bank.question(), bank.who, services)
    assert (turn.sampling.max_tokens, turn.reservation.answer_tokens) == (50, 50)


async def test_a_withdrawn_passage_is_not_used_although_the_index_still_finds_it(bank: Bank) -> None:
    before = await open_turn(bank.question(), bank.who, bank.services)
    assert {hit.passage.document_id for hit in before.search.hits} == {"deposit", "fees"}
    await bank.withdraw_deposit()
    after = await open_turn(bank.question(), bank.who, bank.services)
    assert {hit.passage.document_id for hit in after.search.hits} == {"fees"}
    assert (before.prompt.passages, after.prompt.passages) == (2, 1)


async def test_an_answer_from_a_withdrawn_passage_is_in_no_prompt(bank: Bank) -> None:
    owner = Principal(tenant=TENANT, sub=bank.who.sub)
    conversation_id = bank.services.conversation_ids.new(owner, now=NOW)
    passage = PassageRef(document_id=DEPOSIT.document_id, version=DEPOSIT.version, n=DEPOSIT.n)
    asked = StoredMessage(id="q0", parent_id=None, role="user", text="예금 이자는요?", at=NOW - 9, refused="")
    stored_answer = StoredMessage(
        id="a0", parent_id="q0", role="assistant", text="연 3.1%입니다.", at=NOW - 8, answer_id="a0"
    )
    stored_answer = msgspec.structs.replace(stored_answer, passages=(passage,))
    await bank.history.append(owner, conversation_id, [asked, stored_answer], now=NOW - 8)
    goes_on = replace(bank.question(conversation_id), text="얼마예요?")  # what it leaves out, nobody here can name
    assert (await open_turn(goes_on, bank.who, bank.services)).context == ("q0", "a0")
    await bank.withdraw_deposit()
    assert (await open_turn(goes_on, bank.who, bank.services)).context == ()


async def test_a_replaced_passage_of_a_stale_node_is_not_used(bank: Bank, engine: AsyncEngine) -> None:
    assert DEPOSIT.document_id in {p.document_id for p in (await opened(bank)).prompt_passages}
    for ends, shown in ((NOW + 1, True), (NOW, False)):
        async with engine.begin() as connection:
            await write_end(connection, TENANT, DEPOSIT.document_id, DEPOSIT.version, ends_at=ends)
        await bank.withdrawals.read()
        found = {p.document_id for p in (await opened(bank)).prompt_passages}
        assert (DEPOSIT.document_id in found) is shown


async def opened(bank: Bank) -> Turn:
    return await open_turn(bank.question(), bank.who, bank.services)
