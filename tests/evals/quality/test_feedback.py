"""Customers' ratings become a list without their names; its decided cases become golden questions."""

import json
import shutil
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from chatbot.conversations import Feedback, History, HistorySettings, Ratings, StoredMessage
from chatbot.events import Citation
from chatbot.redis_client import RedisBreaker, RedisSettings
from evals.quality.adopt import NotAdopted, adopt
from evals.quality.triage import FeedbackCase, TriageBroken, merge_decisions, read_cases, triage, write_cases
from evals.questions import read_dataset
from ingest.parsing import read_document
from knowledge.identity import CustomerId

HANBIT = Path(__file__).parents[3] / "evals" / "datasets" / "hanbit"
SECRET_SUB = "kim.younghee:77*"
NOW = 1_770_000_000.0
QUESTION = "제 계좌 110-234-567890에서 앱으로 통장 사본 뽑으면 수수료 있나요?"


@pytest.fixture
def tenant() -> str:
    return f"bank:{uuid4().hex}"


class Bank:
    """A bank's stores, with conversations that their customers rate."""

    def __init__(self, tenant: str, redis: Redis, ratings: Ratings) -> None:
        self._tenant = tenant
        self._history = History(redis, RedisBreaker(RedisSettings().breaker), HistorySettings())
        self._ratings = ratings

    async def rate(self, question: str, *, sub: str = SECRET_SUB, rating: Feedback, before: str = "") -> str:
        """Store a conversation and its customer's rating of the answer; return the answer's id."""
        owner, conversation, answer_id = CustomerId(self._tenant, sub), uuid4().hex, uuid4().hex
        messages = self._earlier(before)
        user_message = StoredMessage(
            id=uuid4().hex, parent_id=messages[-1].id if messages else None, role="user", text=question, at=NOW
        )
        citation = Citation(n=1, start=0, end=2, document_id="fees-ko", version=2, page=1, quote="무료")
        answer = StoredMessage(
            id=answer_id, parent_id=user_message.id, role="assistant", text="무료입니다.", at=NOW, answer_id=answer_id,
            citations=(citation,), finish_reason="stop", grounded=True,
        )  # fmt: skip
        for message in (*messages, user_message, answer):
            await self._history.append(owner, conversation, [message], now=NOW)
        await self._ratings.write(self._tenant, conversation, answer_id, rating)
        return answer_id

    def _earlier(self, before: str) -> tuple[StoredMessage, ...]:
        if not before:
            return ()
        first = StoredMessage(id=uuid4().hex, parent_id=None, role="user", text=before, at=NOW)
        return first, StoredMessage(id=uuid4().hex, parent_id=first.id, role="assistant", text="네.", at=NOW)


@pytest.fixture
async def bank(tenant: str, redis: Redis, engine: AsyncEngine) -> Bank:
    ratings = Ratings(engine)
    await ratings.prepare()
    return Bank(tenant, redis, ratings)


DOWN = Feedback(rating="down", reasons=("wrong",), comment="제 번호는 010-2345-6789예요", at=NOW)
UP = msgspec.structs.replace(DOWN, rating="up")


@pytest.mark.anyio
async def test_the_list_holds_disliked_answers_and_no_customer(
    bank: Bank, tenant: str, redis: Redis, engine: AsyncEngine, tmp_path: Path
) -> None:
    answer_id = await bank.rate(QUESTION, rating=DOWN, before="통장 사본이 필요해요")
    await bank.rate("고마운 답", rating=UP)
    cases = await triage(engine, redis, tenant=tenant, since=NOW - 1, rating="down")
    (case,) = cases
    assert case.question == "제 계좌 [계좌번호]에서 앱으로 통장 사본 뽑으면 수수료 있나요?"
    assert [turn.text for turn in case.history] == ["통장 사본이 필요해요", "네."]
    assert (case.rating, case.reasons, case.cited, case.finish_reason) == ("down", ("wrong",), ("fees-ko",), "stop")
    write_cases(cases, tmp_path / "list.jsonl")
    written = (tmp_path / "list.jsonl").read_text("utf-8")
    for secret in (SECRET_SUB, "younghee", answer_id, "110-234-567890", "010-2345-6789", str(NOW)):
        assert secret not in written


@pytest.mark.anyio
async def test_the_same_question_of_many_is_one_case_and_comes_first(
    bank: Bank, tenant: str, redis: Redis, engine: AsyncEngine
) -> None:
    for sub, question in (("a", "한 번 물었다"), ("b", "수수료 얼마?"), ("c", "수수료  얼마?")):
        await bank.rate(question, sub=sub, rating=DOWN)
    cases = await triage(engine, redis, tenant=tenant, since=0, rating="down")
    assert [(case.question.split()[0], case.times) for case in cases] == [("수수료", 2), ("한", 1)]


@pytest.mark.anyio
async def test_older_ratings_another_bank_s_and_deleted_conversations_are_left_out(
    bank: Bank, tenant: str, redis: Redis, engine: AsyncEngine
) -> None:
    await bank.rate("오래된 질문", rating=msgspec.structs.replace(DOWN, at=NOW - 100))
    other = Ratings(engine)
    await other.write(f"{tenant}-other", "c", "answer-of-others", DOWN)
    await other.write(tenant, "c", "answer-nobody-has", DOWN)
    assert await triage(engine, redis, tenant=tenant, since=NOW - 1, rating="down") == []


CASE = FeedbackCase(
    id="fb-1", day="2026-02-03", rating="down", reasons=(), comment="", times=1,
    question="앱에서 금융거래확인서 떼면 얼마예요?",
    history=(), answer="", finish_reason="stop", cited=(), decision="adopt", kind="version",
    answers=("무료",),
    documents=("fees-ko",),
)  # fmt: skip
UNANSWERABLE = msgspec.structs.replace(
    CASE, id="fb-2", question="한빛은행에서 드론 보험 파나요?",
    kind="unanswerable_not_covered", answers=(), documents=(),
    unanswerable=True, absent=("드론",),
)  # fmt: skip


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two of the sample documents, one in two versions that were printed as PDF."""
    folder = tmp_path_factory.mktemp("printed")
    (folder / "documents" / "ko").mkdir(parents=True)
    for name in ("ko/수수료안내_2025.pdf", "ko/수수료안내_2026.pdf", "ko/카드분실.md"):
        shutil.copy(HANBIT / "documents" / name, folder / "documents" / name)
    manifest = (HANBIT / "documents" / "documents.yaml").read_text("utf-8").splitlines()
    kept = [line for line in manifest if "file:" not in line or "수수료안내" in line or "카드분실" in line]
    (folder / "documents" / "documents.yaml").write_text("\n".join(kept) + "\n", "utf-8")
    return with_one_question(folder)


@pytest.fixture(scope="module")
def typed(printed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same documents as text: a PDF takes a quarter of a second whenever it is read."""
    folder = tmp_path_factory.mktemp("typed")
    shutil.copytree(printed, folder, dirs_exist_ok=True)
    documents = folder / "documents"
    for file in documents.rglob("*.pdf"):
        pages = read_document(file).pages
        file.with_suffix(".md").write_text("\n\n".join(page.markdown for page in pages), "utf-8")
        file.unlink()
    manifest = documents / "documents.yaml"
    manifest.write_text(manifest.read_text("utf-8").replace(".pdf", ".md"), "utf-8")
    return folder


@pytest.fixture
def folder(typed: Path) -> Path:
    return with_one_question(typed)


def with_one_question(folder: Path) -> Path:
    first = {
        "id": "ko-1",
        "text": "카드 재발급 수수료 있나요?",
        "answers": ["없음"],
        "unanswerable": False,
        "kind": "fact",
    }
    (folder / "queries.jsonl").write_text(json.dumps(first, ensure_ascii=False) + "\n", "utf-8")
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nko-1\tlost-card-ko\t1\n", "utf-8")
    return folder


def test_cases_with_a_decision_become_golden_questions_once(printed: Path) -> None:
    dropped = msgspec.structs.replace(CASE, id="fb-3", decision="drop")
    open_one = msgspec.structs.replace(CASE, id="fb-4", decision="")
    cases = [CASE, UNANSWERABLE, dropped, open_one]
    assert len(adopt(cases, printed).queries) == 2
    assert adopt(cases, printed).queries == ()
    dataset = read_dataset(printed)
    assert [sample.id for sample in dataset.samples] == ["ko-1", "fb-1", "fb-2"]
    assert dataset.relevant["fb-1"] == {"fees-ko": 1}
    assert {sample.split for sample in dataset.samples[1:]} == {"dev"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"answers": ("2,000원",)}, "does not say any of the answers"),  # the fee of the year before
        ({"documents": ("nowhere-ko",)}, "does not say any of the answers"),
        ({"answers": ()}, "answers or documents are missing"),
        ({"kind": ""}, "kind is missing"),
        ({"kind": "unanswerable_future"}, "says otherwise than unanswerable"),
        ({"question": "제 계좌 [계좌번호]에서 얼마예요?"}, "something personal"),
        ({"question": "010-2345-6789로 전화 주세요"}, "something personal"),
        ({"question": "카드 재발급 수수료 있나요?"}, "asks this already"),
        ({"decision": "yes"}, "decision is 'yes'"),
    ],
)
def test_a_case_that_nothing_proves_is_refused_and_nothing_is_written(
    folder: Path, change: dict[str, object], why: str
) -> None:
    before = (folder / "queries.jsonl").read_bytes()
    with pytest.raises(NotAdopted, match=why):
        adopt([UNANSWERABLE, msgspec.structs.replace(CASE, **change)], folder)
    assert (folder / "queries.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "why"),
    [({"absent": ("재발급",)}, "재발급 stands in a document"), ({"absent": ()}, "absent is missing"),
     ({"answers": ("무료",)}, "has answers")],
)  # fmt: skip
def test_a_question_that_a_document_answers_is_not_adopted_as_unanswerable(
    folder: Path, change: dict[str, object], why: str
) -> None:
    with pytest.raises(NotAdopted, match=why):
        adopt([msgspec.structs.replace(UNANSWERABLE, **change)], folder)


def test_a_new_list_keeps_the_decisions_of_the_old_one(tmp_path: Path) -> None:
    fresh = msgspec.structs.replace(CASE, decision="", answers=())
    later = msgspec.structs.replace(fresh, id="fb-9")
    write_cases(merge_decisions([fresh, later], [CASE]), tmp_path / "list.jsonl")
    assert read_cases(tmp_path / "list.jsonl") == [CASE, later]
    assert read_cases(tmp_path / "none.jsonl") == []


def test_a_broken_list_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('\n{"id": 1}\n')
    with pytest.raises(TriageBroken, match="line 2"):
        read_cases(tmp_path / "list.jsonl")
