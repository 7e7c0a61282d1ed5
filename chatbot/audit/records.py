"""The contents of an answer's two audit rows, before they are chained (pure).

A row contains keyed hashes (HMAC) in place of the customer's and the model's texts. With the key, they prove that a
given text was asked, sent or shown; without the text, they reveal nothing (docs/decisions/0010-replay.md).
"""

import hashlib
from dataclasses import asdict, dataclass

from chatbot.audit.chain import AuditKeys, Closed, Opened
from chatbot.records import AnswerResult
from knowledge.passage import Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """The versions of the parts that decide an answer: model, prompt templates, index collection, embedder."""

    model: str
    prompt: str
    index: str
    embedder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOpened:
    """The opening record, before the model is called: the customer, the question, and all that decides the answer.

    Times are in Unix seconds.
    """

    answer_id: str
    tenant: str
    sub: str
    conversation_id: str
    question: str
    passages: tuple[tuple[str, int, int], ...]
    """(document, version, n) of each passage that the search returned; the prompt contains the first ones that fit."""
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
    history_length: int = 0
    """The number of earlier messages in the prompt."""
    client_message_count: int = 0
    """How many of these messages the client sent in its request; they are not stored."""
    reply: str = ""
    """The canned reply that is shown in place of an answer."""
    passage_hashes: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    """The messages of the answer's prompt and of each probe, as JSON."""

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
    """The closing record, after the answer has ended: its result and its text."""

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
            degradation_level=result.degradation_level or "",
            answer_hash=keys.answer_hash(self.tenant, self.text),
            unpaid_tokens=result.unpaid_tokens,
            quoted=result.quoted,
            probes=tuple(round(probe, 4) for probe in result.probes),
            choice=tuple(round(share, 4) for share in result.choice),
        )


def passage_hash(passage: Passage) -> str:
    """Return 32 hexadecimal digits of the SHA-256 of what a prompt shows of the passage: heading, date and text."""
    parts = f"{passage.heading}\0{passage.effective_from or ''}\0{passage.text}"
    return hashlib.sha256(parts.encode()).hexdigest()[:32]
