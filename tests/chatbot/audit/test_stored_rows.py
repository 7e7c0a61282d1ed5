"""The rows that are stored: what the former release signed stays readable and provable, byte for byte."""

import json
from dataclasses import asdict, replace

from chatbot.audit.chain import GENESIS, AuditKeys, ChainCheck, columns_match_body, seal
from chatbot.audit.records import AuditClosed, AuditOpened, passage_hash
from chatbot.events import FinishReason, Usage
from chatbot.notices import DegradationLevel
from chatbot.records import AnswerResult
from tests.conftest import Golden
from tests.golden.texts import DEPOSIT, QUESTIONS, REMITTANCE

KEYS = AuditKeys(b"a key that only tests have")
WRITER, NOW = "0123456789abcdef0123456789abcdef", 1_800_000_000.25
OPENED = AuditOpened(
    answer_id="a1", tenant="hanbit", sub="lee", conversation_id="c1", question=QUESTIONS["ko"],
    passages=(("deposit", 2, 3), ("remittance", 2, 0)), groups=("customers", "gold"), as_of=NOW, model="qwen",
    prompt_version="0123456789ab", index_version="kb-1", embedder="e5-small", sampling='{"temperature":0.0}',
    grounding="strict", at=NOW, question_id="q1", parent_id="a0", history_length=2, client_message_count=1,
    passage_hashes=(passage_hash(DEPOSIT), passage_hash(REMITTANCE)), prompts=("[]", "[1]"),
)  # fmt: skip
CLOSED = AuditClosed(
    answer_id="a1", tenant="hanbit", at=NOW + 1.5,
    result=AnswerResult(
        usage=Usage(prompt_tokens=900, cached_tokens=800, answer_tokens=12), finish_reason=FinishReason.STOP,
        grounded=True, models=("qwen", "small"), degradation_level=DegradationLevel.FALLBACK, unpaid_tokens=2,
        probes=(0.91234, 0.5), choice=(0.25, 0.75),
    ),
    text="기본 금리는 연 3.1%입니다.",
)  # fmt: skip


def rows_of_every_kind() -> str:
    """Return the rows of two answers in one chain as JSON lines: a whole one, and one that failed with little known."""
    bare = replace(
        OPENED, answer_id="a2", passages=(), passage_hashes=(), prompts=(), embedder="", question_id="", parent_id=None,
        history_length=0, client_message_count=0, reply="out_of_scope",
    )  # fmt: skip
    failed = AuditClosed(answer_id="a2", tenant="hanbit", result=AnswerResult(error="internal"), at=NOW + 2)
    records: tuple[AuditOpened | AuditClosed, ...] = (OPENED, CLOSED, bare, failed)
    rows, head = [], GENESIS
    for sequence, record in enumerate(records, 1):
        rows.append(seal(record.entry(WRITER, sequence, KEYS), head, KEYS))
        head = rows[-1].hmac
    check = ChainCheck(KEYS)
    assert [problem for row in rows for problem in check.feed(row)] == []
    return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)


def test_a_row_is_stored_and_signed_as_it_was(golden: Golden) -> None:
    golden("audit_rows.jsonl", rows_of_every_kind())


def test_a_signed_row_that_cannot_be_read_is_no_intact_one() -> None:
    whole = seal(OPENED.entry(WRITER, 1, KEYS), GENESIS, KEYS)
    assert columns_match_body(whole)
    for body in ("", "{}", "[1]", '{"kind":"another"}', whole.body[:-1]):
        assert not columns_match_body(replace(whole, body=body)), body
