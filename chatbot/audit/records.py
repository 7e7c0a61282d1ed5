"""The contents of an answer's two audit rows, before they are chained (pure).

A row holds no text of the customer or of the model, only keyed hashes (HMAC) of it: with the text and the key they
prove what was asked, sent and shown; without them nothing can be read (docs/decisions/0010-replay.md).
"""

import hashlib
from dataclasses import asdict, dataclass

from chatbot.audit.chain import AuditKeys, Closed, Opened
from chatbot.records import AnswerResult
from knowledge.passage import Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """The versions of what makes an answer: model, prompt templates, index collection, embedder."""

    model: str
    prompt: str
    index: str
    embedder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOpened:
    """Before the model is called: the customer, the question, and everything that decides the answer.

    Times are Unix seconds.
    """

    answer_id: str
    tenant: str
    sub: str
    conversation_id: str
    question: str
    passages: tuple[tuple[str, int, int], ...]
    """(document, version, n) of the passages that were found; the prompt holds the first that fit."""
    groups: tuple[str, ...]
    as_of: float
    model: str
    prompt_version: str
    index_version: str
    sampling: str
    """The sampling parameters as JSON."""
    grounding: str
    at: float
    embedder: str = ""
    question_id: str = ""
    parent_id: str | None = None
    """The message that the question follows in its conversation."""
    history: int = 0
    """How many earlier messages are in the prompt."""
    brought: int = 0
    """How many of those the client sent along: they are not kept."""
    reply: str = ""
    """Which of the bank's own texts is shown instead of asking the model."""
    passage_hashes: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    """The messages of the answer's prompt, then of the probes', each as JSON."""

    def entry(self, writer: str, sequence: int, keys: AuditKeys) -> Opened:
        """Return the entry as row `sequence` of a writer's chain."""
        fields = asdict(self)
        question, prompts = fields.pop("question"), fields.pop("prompts")
        return Opened(
            writer=writer,
            sequence=sequence,
            question_hash=keys.question_hash(self.tenant, question),
            prompt_hash=keys.prompt_hash(self.tenant, prompts),
            **fields,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditClosed:
    """When the answer has ended: how it did, and its text."""

    answer_id: str
    tenant: str
    result: AnswerResult
    at: float
    text: str = ""
    """The text that was shown."""

    def entry(self, writer: str, sequence: int, keys: AuditKeys) -> Closed:
        """Return the entry as row `sequence` of a writer's chain."""
        result, usage = self.result, self.result.usage
        return Closed(
            writer=writer,
            sequence=sequence,
            answer_id=self.answer_id,
            tenant=self.tenant,
            at=self.at,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            answer_tokens=usage.answer_tokens,
            thinking_tokens=usage.thinking_tokens,
            finish_reason=None if result.error else result.finish_reason,
            error=result.error or None,
            grounded=result.grounded,
            models=result.models,
            rung=result.degradation_level or "",
            answer_hash=keys.answer_hash(self.tenant, self.text),
            unpaid_tokens=result.unpaid_tokens,
            quoted=result.quoted,
            probes=tuple(round(probe, 4) for probe in result.probes),
            repair=tuple(round(share, 4) for share in result.choice),
        )


def passage_hash(passage: Passage) -> str:
    """Return 32 hexadecimal digits of the SHA-256 of everything that a prompt shows of the passage."""
    parts = f"{passage.heading}\0{passage.effective_from or ''}\0{passage.text}"
    return hashlib.sha256(parts.encode()).hexdigest()[:32]
