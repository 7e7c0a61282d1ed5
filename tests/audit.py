"""Helpers for the audit rows of an answer and for verification."""

from dataclasses import replace

from pydantic import SecretStr

from chatbot.audit import Audit, AuditClosed, AuditOpened, AuditSettings
from chatbot.events import FinishReason, Usage
from chatbot.records import AnswerResult

SETTINGS = AuditSettings(key=SecretStr("a key that only tests have"), deadline=10, retry_every=0.05)
OPENED = AuditOpened(
    answer_id="a1",
    tenant="hanbit",
    sub="lee",
    conversation_id="c1",
    question="제 한도는 얼마인가요?",
    passages=(("fees", 2, 7), ("limits", 1, 0)),
    groups=("customers", "gold"),
    as_of=1_800_000_000.5,
    model="qwen",
    prompt_version="p1",
    index_version="kb-1",
    embedder="e5-small",
    sampling="temperature=0",
    grounding="strict",
    at=100.25,
)
CLOSED = AuditClosed(
    answer_id="a1",
    tenant="hanbit",
    result=AnswerResult(
        usage=Usage(prompt_tokens=100, cached_tokens=60, answer_tokens=20),
        finish_reason=FinishReason.STOP,
        grounded=True,
    ),
    at=101.5,
)


async def answer(audit: Audit, *names: str, at: float = OPENED.at) -> None:
    """Write both rows of answers with these ids."""
    for name in names:
        await audit.open(replace(OPENED, answer_id=name, at=at))
        await audit.close(replace(CLOSED, answer_id=name, at=at + 1.25))


async def faults(audit: Audit, *, unclosed_before: float = 0.0) -> list[tuple[str, int]]:
    """Verify the audit, and return the fault and sequence number of each problem."""
    return [(p.fault, p.sequence) for p in await audit.verify(unclosed_before=unclosed_before)]
