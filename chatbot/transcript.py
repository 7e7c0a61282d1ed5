"""A turn as values, and what they become: events, history, audit rows, a record for the metrics (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from chatbot.audit import AuditClosed, AuditOpened, passage_hash
from chatbot.conversations import Basis, CachedAnswer, Conversation, StoredMessage
from chatbot.errors import ChatError
from chatbot.events import (
    Accepted,
    Citation,
    Done,
    Event,
    Failed,
    FinishReason,
    Limits,
    Notice,
    PassageRef,
    Source,
    Sources,
    Token,
    Usage,
)
from chatbot.limits import Reservation
from chatbot.models import Delta, ModelDone, Sampling
from chatbot.notices import DEGRADATION_LEVELS, DegradationLevel
from chatbot.prompt import Prompt
from chatbot.questions import CannedReply, ClientMessage, ScreenedQuestion, handoff
from chatbot.records import TurnFinished
from chatbot.retrieval import SearchResult
from chatbot.services import Services
from chatbot.streams import AnswerId, LiveAnswer
from knowledge.identity import Principal
from knowledge.passage import Language

FINISH: Mapping[CannedReply, FinishReason] = {
    CannedReply.INJECTION: FinishReason.REFUSED,
    CannedReply.OUT_OF_SCOPE: FinishReason.REFUSED,
    CannedReply.OTHER_BANK: FinishReason.REFUSED,
    CannedReply.OWN_ACCOUNT: FinishReason.REFUSED,
    CannedReply.FORECAST: FinishReason.REFUSED,
    CannedReply.ADVICE: FinishReason.REFUSED,
    CannedReply.CANNOT_VERIFY: FinishReason.REFUSED,
    CannedReply.DISTRESS: FinishReason.HANDOFF,
    CannedReply.UNAVAILABLE: FinishReason.HANDOFF,
    CannedReply.EMERGENCY: FinishReason.HANDOFF,
}
"""How an answer ends in which one of the bank's own texts was said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the customer asked, and where in which conversation; `id` names a question that is answered again.

    `earlier` is what the caller says was said before; no conversation keeps it.
    """

    text: str
    id: str | None = None
    conversation_id: str | None = None
    parent_id: str | None = None
    earlier: tuple[ClientMessage, ...] = ()
    max_answer_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """An opened turn: all that was decided before the first byte. `reply` is said instead of asking the model."""

    answer_id: AnswerId
    question_id: str
    conversation: Conversation
    parent_id: str | None
    who: Principal
    screened: ScreenedQuestion
    language: Language
    found: SearchResult
    prompt: Prompt
    reply: CannedReply | None
    reservation: Reservation
    max_answer_tokens: int
    temperature: float
    notices: tuple[Notice, ...]
    trace_id: str
    opened_at: float
    is_first: bool = False
    """Whether nothing was said before it and it is asked for the first time."""
    brought: int = 0
    """How many messages its caller brought along: untrusted, and kept nowhere."""

    @property
    def sampling(self) -> Sampling:
        """How the answer's tokens are chosen."""
        return Sampling(max_tokens=self.max_answer_tokens, temperature=self.temperature)


@dataclass(frozen=True, slots=True)
class Repair:
    """What the model was asked when its answer was withheld whole, and the share that it gave each quote."""

    prompt_ids: tuple[int, ...]
    shares: tuple[float, ...]


@dataclass(slots=True)
class AnswerState:
    """What an answer has come to so far; `finish` writes it down."""

    finish_reason: FinishReason = FinishReason.CANCELLED
    usage: Usage = field(default_factory=Usage)
    grounded: bool = False
    error: ChatError | None = None
    withheld: int = 0
    first_token_at: float | None = None
    shown: list[Event] = field(default_factory=list)
    models: tuple[str, ...] = ()
    rung: DegradationLevel | None = None
    cached_answer_id: str = ""
    probes: tuple[float, ...] = ()
    repair: Repair | None = None

    @classmethod
    def of(cls, turn: Turn, running: LiveAnswer) -> "AnswerState":
        """Return an empty draft, or what the writer before this one has come to."""
        content = [event for event in running.published if isinstance(event, Token | Citation | Notice)]
        said = len(running.token_ids)
        usage = Usage(prompt_tokens=len(turn.prompt.answer_ids), answer_tokens=said) if said else Usage()
        return cls(usage=usage, shown=[event for event in content if event not in turn.notices])

    def count(self, delta: Delta) -> None:
        """Count tokens as they come: what is charged when the model cannot report any more."""
        self.usage = Usage(
            prompt_tokens=self.usage.prompt_tokens,
            cached_tokens=self.usage.cached_tokens,
            answer_tokens=self.usage.answer_tokens + len(delta.token_ids),
        )

    def ended(self, done: ModelDone) -> None:
        """Take note that the model is through."""
        self.usage, self.finish_reason, self.models = done.usage, FinishReason(done.finish_reason), done.models
        if done.retried:
            self.descend(DegradationLevel.REPLICA)

    def descend(self, rung: DegradationLevel) -> None:
        """Take note of who answers, unless it went further down before."""
        self.rung = max(self.rung or rung, rung, key=DEGRADATION_LEVELS.index)

    @property
    def text(self) -> str:
        """The answer as the customer saw it."""
        return "".join(event.text for event in self.shown if isinstance(event, Token))


def frame(turn: Turn) -> bytes:
    """Return the turn as a successor needs it; of its conversation only the id."""
    known = Conversation.new(turn.conversation.id, now=turn.conversation.created_at)
    return msgspec.msgpack.encode(replace(turn, conversation=known))


def turn_of(framed: bytes) -> Turn:
    """Return the turn that `frame` wrote; its `opened_at` is on its writer's clock.

    Raises:
        msgspec.MsgspecError: another release of this product wrote it, and this one cannot read it.
    """
    return msgspec.msgpack.decode(framed, type=Turn)


def audit_opened(turn: Turn, services: Services) -> AuditOpened:
    """Return the row that is written before any model is called."""
    history = len(turn.prompt.before) - 1  # without the system's
    return AuditOpened(
        answer_id=turn.answer_id,
        tenant=turn.who.tenant,
        sub=turn.who.sub,
        conversation_id=turn.conversation.id,
        question=turn.screened.text,
        passages=tuple((h.passage.document_id, h.passage.version, h.passage.n) for h in turn.found.hits),
        groups=tuple(sorted(turn.who.groups)),
        as_of=turn.found.as_of,
        model=services.models.model,
        prompt_version=services.prompts.version,
        index_version=turn.found.collection or services.index.collection,
        embedder=services.index.embedder,
        sampling=msgspec.json.encode(turn.sampling).decode(),
        grounding=services.settings.grounding.value,
        at=services.now(),
        question_id=turn.question_id,
        parent_id=turn.parent_id,
        history=history,
        brought=min(history, turn.brought),
        reply=turn.reply or "",
        passage_hashes=tuple(passage_hash(h.passage) for h in turn.found.hits),
        prompts=(turn.prompt.answer_ids, *turn.prompt.probes_ids),
    )


def audit_closed(turn: Turn, running: LiveAnswer, draft: AnswerState, services: Services) -> AuditClosed:
    """Return the row that is written when the answer has ended."""
    return AuditClosed(
        answer_id=turn.answer_id,
        tenant=turn.who.tenant,
        usage=draft.usage,
        finish_reason=None if draft.error else draft.finish_reason,
        error=draft.error.code if draft.error else None,
        grounded=draft.grounded,
        at=services.now(),
        models=draft.models,
        rung=draft.rung or "",
        cached_answer_id=draft.cached_answer_id,
        text=draft.text,
        said=running.token_ids,
        probes=draft.probes,
        repair=draft.repair.shares if draft.repair else (),
        repair_prompt=draft.repair.prompt_ids if draft.repair else (),
    )


def accepted(turn: Turn, services: Services) -> Accepted:
    """Return the first event."""
    return Accepted(
        answer_id=turn.answer_id,
        conversation_id=turn.conversation.id,
        question_id=turn.question_id,
        model=services.models.model,
        prompt_version=services.prompts.version,
        trace_id=turn.trace_id,
    )


def sources(turn: Turn) -> Sources:
    """Return the passages that the model is shown, numbered as it sees them; none where nothing is answered."""
    hits = turn.found.hits[: turn.prompt.passages] if turn.reply is None else ()
    return Sources(
        items=tuple(
            Source(
                n=n,
                document_id=hit.passage.document_id,
                version=hit.passage.version,
                title=hit.passage.title,
                section=hit.passage.section,
                page=hit.passage.page,
                effective_from=hit.passage.effective_from,
                score=round(hit.score, 4),
            )
            for n, hit in enumerate(hits, 1)
        )
    )


def passage_refs(turn: Turn) -> tuple[PassageRef, ...]:
    """Return which passages stand behind the sources, in their order."""
    shown = [hit.passage for hit in turn.found.hits[: turn.prompt.passages]] if turn.reply is None else []
    return tuple(PassageRef(document_id=p.document_id, version=p.version, n=p.n) for p in shown)


def basis(turn: Turn, services: Services) -> Basis:
    """Return what an answer to the question stands on."""
    return Basis(
        tenant=turn.who.tenant,
        groups=turn.who.groups,
        question=turn.screened.text,
        passages=passage_refs(turn),
        prompt_version=services.prompts.version,
        model=services.models.model,
        language=turn.language,
    )


def may_be_cached(turn: Turn) -> bool:
    """Return whether the question alone decides its answer, and says nothing of who asks."""
    return turn.is_first and turn.reply is None and not turn.screened.masked


def to_be_cached(turn: Turn, draft: AnswerState, services: Services) -> CachedAnswer | None:
    """Return the answer as it may be shown again: whole, grounded in all it says, by the primary model alone."""
    whole = draft.error is None and draft.finish_reason is FinishReason.STOP and draft.withheld == 0
    if not (may_be_cached(turn) and whole and draft.grounded and draft.models == (services.models.model,)):
        return None
    citations = tuple(event for event in draft.shown if isinstance(event, Citation))
    return CachedAnswer(answer_id=turn.answer_id, text=draft.text, citations=citations, at=services.now())


def asked(turn: Turn, services: Services) -> StoredMessage:
    """Return the question as the history keeps it: masked, and asked when it was asked first."""
    before = [message.at for message in turn.conversation.messages if message.id == turn.question_id]
    return StoredMessage(
        id=turn.question_id,
        parent_id=turn.parent_id,
        role="user",
        text=turn.screened.text,
        at=before[0] if before else services.now(),
        answered_by=turn.answer_id,
    )


def answered(turn: Turn, draft: AnswerState, services: Services) -> StoredMessage:
    """Return the answer as the history keeps it."""
    return StoredMessage(
        id=turn.answer_id,
        parent_id=turn.question_id,
        role="assistant",
        text=draft.text,
        at=services.now(),
        answer_id=turn.answer_id,
        sources=sources(turn).items,
        passages=passage_refs(turn),
        citations=tuple(event for event in draft.shown if isinstance(event, Citation)),
        notices=(*turn.notices, *(event for event in draft.shown if isinstance(event, Notice))),
        finish_reason="error" if draft.error else draft.finish_reason,
        grounded=draft.grounded,
    )


def last_event(turn: Turn, draft: AnswerState, limits: Limits | None, services: Services) -> Event:
    """Return the one event that ends the stream."""
    if draft.error is None:
        return Done(finish_reason=draft.finish_reason, usage=draft.usage, grounded=draft.grounded, limits=limits)
    exc = draft.error
    return Failed(
        code=exc.code,
        status=exc.status,
        title=exc.title,
        retryable=exc.retryable,
        retry_after_ms=None if exc.retry_after is None else round(exc.retry_after * 1000),
        trace_id=turn.trace_id,
        handoff=handoff(turn.language, contact=services.settings.contact),
    )


def record(turn: Turn, draft: AnswerState, *, now: float) -> TurnFinished:
    """Return what the metrics hear of the turn; `now` is monotonic, in seconds."""
    return TurnFinished(
        outcome=f"error_{draft.error.code}" if draft.error else draft.finish_reason.value,
        language=turn.language,
        grounded=draft.grounded,
        seconds=now - turn.opened_at,
        first_token_seconds=None if draft.first_token_at is None else draft.first_token_at - turn.opened_at,
        usage=draft.usage,
        withheld=draft.withheld,
        citations=sum(isinstance(event, Citation) for event in draft.shown),
        rung=draft.rung,
    )
