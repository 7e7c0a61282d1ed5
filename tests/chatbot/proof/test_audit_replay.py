"""What an answer's rows prove of its parts: real rows, conversation, passages and prompt."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from chatbot.audit import AuditClosed, AuditKeys, AuditOpened, Versions, open_audit, passage_hash
from chatbot.chat import Message
from chatbot.conversations import History, HistorySettings, StoredMessage
from chatbot.errors import NotFound
from chatbot.events import FinishReason, Usage
from chatbot.prompt import Prompt, PromptBuilder, load_templates
from chatbot.proof.audit_replay import replay
from chatbot.proof.context import ReplayContext, Replayed, ReplayStanding
from chatbot.proof.report import report
from chatbot.questions import CannedReply, canned_reply
from chatbot.records import AnswerResult
from chatbot.redis_client import RedisBreaker
from chatbot.tokens import TokenCounter
from evals.sample_bank import sample_banks
from knowledge.access import EVERY_CUSTOMER
from knowledge.bank import Banks, Names
from knowledge.identity import Principal
from knowledge.index import Index
from tests.audit import SETTINGS
from tests.chatbot.conftest import PATIENT
from tests.conftest import Golden
from tests.passages import DEPOSIT, FEES, NOW, TENANT, indexed_passages

pytestmark = pytest.mark.anyio

QUESTION = "정기예금의 금리는 얼마인가요?"
ANSWER = "정기예금의 기본 금리는 연 3.1%입니다."
BEFORE = ("송금 수수료는 얼마인가요?", "송금 수수료는 8,000원입니다.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer, and the parts that its replay uses."""

    context: ReplayContext
    engine: AsyncEngine
    owner: Principal
    conversation_id: str
    prompt: Prompt

    async def replayed(self, question: str | None = None) -> Replayed:
        return await replay("a1", self.context, question=question)

    async def standings(self, question: str | None = None) -> dict[str, ReplayStanding]:
        return {finding.what: finding.standing for finding in (await self.replayed(question)).findings}


@pytest.fixture
async def index(tmp_path: Path) -> AsyncGenerator[Index]:
    async with indexed_passages(tmp_path / "index") as index:
        yield index


def builder() -> PromptBuilder:
    return PromptBuilder(load_templates(), TokenCounter(), passage_tokens=1000)


def opening(prompt: Prompt, owner: Principal, conversation_id: str) -> AuditOpened:
    return AuditOpened(
        answer_id="a1", tenant=TENANT, sub=owner.sub, conversation_id=conversation_id, question=QUESTION,
        passages=(("deposit", 2, 3), ("fees", 1, 0)), groups=(EVERY_CUSTOMER,), as_of=NOW, model="qwen",
        prompt_version=load_templates().version, index_version="kb-1", embedder="none", sampling="{}",
        grounding="quote", at=NOW, question_id="q1", parent_id="a0", history_length=2,
        passage_hashes=(passage_hash(DEPOSIT), passage_hash(FEES)),
        prompts=tuple(chat.json for chat in (prompt.answer, *prompt.probes)),
    )  # fmt: skip


CLOSED = AuditClosed(
    answer_id="a1", tenant=TENANT, at=NOW + 1, text=ANSWER,
    result=AnswerResult(
        usage=Usage(prompt_tokens=9, answer_tokens=3), finish_reason=FinishReason.STOP, grounded=True,
        models=("qwen",), probes=(0.9,),
    ),
)  # fmt: skip


@asynccontextmanager
async def answer(
    redis: Redis, engine: AsyncEngine, index: Index, closed: AuditClosed = CLOSED
) -> AsyncGenerator[Answered]:
    """Keep and audit an answer."""
    owner, conversation_id = Principal(tenant=TENANT, sub=uuid4().hex), uuid4().hex
    history = History(redis, RedisBreaker(PATIENT), HistorySettings())
    messages = [
        StoredMessage(id="q0", parent_id=None, role="user", text=BEFORE[0], at=NOW - 9),
        StoredMessage(id="a0", parent_id="q0", role="assistant", text=BEFORE[1], at=NOW - 8),
        StoredMessage(id="q1", parent_id="a0", role="user", text=QUESTION, at=NOW, context=("q0", "a0")),
        StoredMessage(id="a1", parent_id="q1", role="assistant", text=closed.text, at=NOW + 1, answer_id="a1"),
    ]
    await history.append(owner, conversation_id, messages, now=NOW)
    earlier = [Message("user", BEFORE[0]), Message("assistant", BEFORE[1])]
    prompt = builder().build(QUESTION, bank="한빛은행", history=earlier, passages=[DEPOSIT, FEES], language="ko")
    async with open_audit(engine, SETTINGS) as audit:
        context = ReplayContext(
            audit=audit, history=history, index=index, prompts=builder(), banks=sample_banks(),
            versions=Versions(model="qwen", prompt=load_templates().version, index="kb-1", embedder="none"),
        )  # fmt: skip
        await audit.open(opening(prompt, owner, conversation_id))
        await audit.close(closed)
        yield Answered(context=context, engine=engine, owner=owner, conversation_id=conversation_id, prompt=prompt)


@pytest.fixture
async def answered(redis: Redis, engine: AsyncEngine, index: Index) -> AsyncGenerator[Answered]:
    async with answer(redis, engine, index) as kept:
        yield kept


async def test_a_report_reads_as_it_did_with_and_without_the_conversation(answered: Answered, golden: Golden) -> None:
    whole = report(await answered.replayed())
    await answered.context.history.delete(answered.owner, answered.conversation_id)
    standings = await answered.standings()
    assert [what for what, standing in standings.items() if standing == "gone"] == ["question", "prompt", "answer"]
    assert (standings["rows"], standings["passages"]) == ("same", "same")
    reports = f"{whole}\n\n{report(await answered.replayed())}\n"
    golden("replay_report.txt", reports.replace(answered.owner.sub, "lee"))


async def test_the_rows_hold_no_text_of_the_answer(answered: Answered) -> None:
    bodies = [row.body for row in await answered.context.audit.rows("a1")]
    for words in (QUESTION, ANSWER, *BEFORE, DEPOSIT.text):
        assert not any(words in body for body in bodies)
    keys, other = answered.context.audit.keys, AuditKeys(b"another key that is unused")
    assert keys.answer_hash(TENANT, ANSWER) in bodies[1]
    hashed = [of.answer_hash(tenant, ANSWER) for of, tenant in ((keys, TENANT), (keys, "b"), (other, TENANT))]
    hashed += [of.prompt_hash(tenant, ["ab", "c"]) for of, tenant in ((keys, TENANT), (keys, "b"), (other, TENANT))]
    assert len({*hashed, keys.prompt_hash(TENANT, ["a", "bc"])}) == 7


async def test_a_passage_with_another_text_shows_and_so_does_the_prompt(answered: Answered, index: Index) -> None:
    await index.upsert([replace(DEPOSIT, text=DEPOSIT.text.replace("3.1", "1.3"))], [[1.0, 0.0]])
    standings = await answered.standings()
    assert (standings["passages"], standings["prompt"], standings["grounded"]) == ("differs", "differs", "differs")


@pytest.mark.parametrize(
    ("last_line", "standing"),
    [
        (canned_reply(CannedReply.PERSON, "ko", sample_banks().first), "same"),
        ("전화해 주세요: 010-1234-5678.", "differs"),
    ],
)
async def test_a_quote_may_end_with_the_hand_off_and_with_no_other_line(
    redis: Redis, engine: AsyncEngine, index: Index, last_line: str, standing: str
) -> None:
    shown = f"관련 문서의 내용을 그대로 안내해 드립니다.\n\n{DEPOSIT.text}\n\n{last_line}"
    closed = replace(CLOSED, text=shown, result=msgspec.structs.replace(CLOSED.result, quoted=True))
    async with answer(redis, engine, index, closed) as quoted:
        assert (await quoted.standings())["grounded"] == standing


@pytest.mark.parametrize("how", ["deleted", "for others"])
async def test_a_missing_passage_is_gone_and_not_guessed(answered: Answered, index: Index, how: str) -> None:
    if how == "deleted":
        await index.delete(tenant=TENANT, document_id="fees", version=1)
    else:
        await index.upsert([replace(FEES, readers=("gold",))], [[0.0, 1.0]])
    replayed = await answered.replayed()
    findings = {finding.what: (finding.standing, finding.detail) for finding in replayed.findings}
    assert (findings["passages"][0], findings["prompt"][0], replayed.differs) == ("gone", "gone", False)
    assert "fees v1 #0" in findings["passages"][1]


async def test_a_passage_that_has_expired_since_is_read_as_of_then(answered: Answered, index: Index) -> None:
    await index.set_visibility(
        tenant=TENANT, document_id="fees", version=1, visible_from=NOW - 100, visible_until=NOW + 60
    )
    assert (await answered.standings())["passages"] is ReplayStanding.SAME


async def test_another_prompt_shows(answered: Answered) -> None:
    other = sample_banks().first.model_copy(update={"names": Names(ko="달빛은행", en="Dalbit Bank")})
    elsewhere = replace(answered.context, banks=Banks(other))
    standings = {finding.what: finding.standing for finding in (await replay("a1", elsewhere)).findings}
    assert (standings["question"], standings["prompt"]) == ("same", "differs")


@pytest.mark.parametrize("kind", ["opened", "closed"])
async def test_an_edited_row_proves_nothing(answered: Answered, kind: str) -> None:
    edit = text("UPDATE chatbot_audit SET body = replace(body, 'qwen', 'gwen') WHERE kind = :kind")
    async with answered.engine.begin() as connection:
        await connection.execute(edit, {"kind": kind})
    replayed = await answered.replayed()
    assert replayed.differs
    assert [finding.what for finding in replayed.findings] == ["rows"]
    assert kind in replayed.findings[0].detail


async def test_an_edited_message_of_the_history_differs(answered: Answered, redis: Redis) -> None:
    key = f"history:{{{TENANT}}}:{answered.owner.sub}:messages:{answered.conversation_id}"
    for n, words in ((2, "금리"), (3, "3.1")):
        stored = str((await redis.lrange(key, n, n))[0], "utf-8")  # type: ignore[arg-type]  # nothing is decoded by this client
        await redis.lset(key, n, stored.replace(words, "9"))
    standings = await answered.standings()
    assert (standings["question"], standings["answer"], standings["prompt"]) == ("differs", "differs", "differs")


async def test_an_unknown_answer_or_another_tenants_is_not_found(answered: Answered) -> None:
    with pytest.raises(NotFound):
        await replay("a9", answered.context)
    with pytest.raises(NotFound):
        await replay("a1", answered.context, tenant="other")
