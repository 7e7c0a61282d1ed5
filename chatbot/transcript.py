"""A turn as values, and what is written of it: events, messages of the history, audit records, metrics' records.

Pure: no input or output, and time comes in as an argument (`at` and `now`; Unix seconds where nothing else is said).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from chatbot.audit import AuditClosed, AuditOpened, Versions, passage_hash
from chatbot.chat import Chat
from chatbot.conversations import Basis, CachedAnswer, Conversation, HistoryMessage, StoredMessage
from chatbot.errors import ChatError, error_of, failed
from chatbot.events import (
    PROGRESS,
    Accepted,
    Citation,
    Done,
    Event,
    FinishReason,
    Limits,
    Notice,
    NoticeCode,
    PassageRef,
    Related,
    Source,
    Sources,
    Token,
    Usage,
)
from chatbot.grounding import CHECKS_VERSION
from chatbot.limits import Reservation
from chatbot.models import Begun, ModelDone, Sampling
from chatbot.notices import DEGRADATION_LEVELS, DegradationLevel
from chatbot.prompt import Prompt
from chatbot.questions import OF_THE_QUESTION, CannedReply, ClientMessage, ScreenedQuestion, handoff
from chatbot.records import TurnFinished
from chatbot.retrieval import SearchResult
from chatbot.streams import AnswerId
from knowledge.bank import Bank
from knowledge.identity import Principal
from knowledge.passage import Language, Passage
from knowledge.profiles import AnswerMode

FINISH: Mapping[CannedReply, FinishReason] = {
    CannedReply.GREETING: FinishReason.REFUSED,
    CannedReply.THANKS: FinishReason.REFUSED,
    CannedReply.IDENTITY: FinishReason.REFUSED,
    CannedReply.INJECTION: FinishReason.REFUSED,
    CannedReply.OUT_OF_SCOPE: FinishReason.REFUSED,
    CannedReply.OTHER_BANK: FinishReason.REFUSED,
    CannedReply.OWN_ACCOUNT: FinishReason.REFUSED,
    CannedReply.FORECAST: FinishReason.REFUSED,
    CannedReply.ADVICE: FinishReason.REFUSED,
    CannedReply.CANNOT_VERIFY: FinishReason.REFUSED,
    CannedReply.PERSON: FinishReason.HANDOFF,
    CannedReply.DISTRESS: FinishReason.HANDOFF,
    CannedReply.UNAVAILABLE: FinishReason.HANDOFF,
    CannedReply.EMERGENCY: FinishReason.HANDOFF,
}
"""The finish reason of an answer that shows one of the bank's own texts."""
QUOTED: Final = "quoted"
"""The outcome of an answer that quotes the passages since no model answers, and names a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A customer's question and its place in a conversation; `id` is set where the question is answered again.

    `earlier` are the messages that an OpenAI client sent along; no conversation keeps them. `max_answer_tokens` is what
    the caller asks for, if anything.
    """

    text: str
    id: str | None = None
    conversation_id: str | None = None
    parent_id: str | None = None
    earlier: tuple[ClientMessage, ...] = ()
    max_answer_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """An opened turn: everything that was decided before the first byte.

    The names of the fields stand in checkpoints, which a process of another release may read.
    """

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
    """The bank's own text that is shown instead of asking the model."""
    reservation: Reservation
    max_answer_tokens: int
    temperature: float
    notices: tuple[Notice, ...]
    trace_id: str
    opened_at: float
    """Seconds on the monotonic clock of the process that answers."""
    is_first: bool = False
    """Whether no message precedes the question and it is answered for the first time."""
    brought: int = 0
    """The number of messages that the client sent along: untrusted, and not kept."""
    context: tuple[str, ...] = ()
    """The ids of the earlier messages in the prompt, without those that the client sent along."""
    thinking_tokens: int = 0
    """How many tokens a reasoning model may think, beside the answer; 0 where none is asked."""
    shown_before: tuple[str, ...] = ()
    """The units that the answer before this one cites: a follow-up asks for something else."""

    @property
    def question(self) -> str:
        """The question that search, model and checks are asked: as it is understood alone where that is known."""
        return self.found.standalone or self.screened.text

    @property
    def sampling(self) -> Sampling:
        """The sampling parameters of the answer."""
        return Sampling(
            max_tokens=self.max_answer_tokens, thinking_tokens=self.thinking_tokens, temperature=self.temperature
        )

    @property
    def kept(self) -> bool:
        """Whether the history has the question; its customer is told where it has not."""
        return all(notice.code is not NoticeCode.HISTORY_UNAVAILABLE for notice in self.notices)

    @property
    def prompt_passages(self) -> tuple[Passage, ...]:
        """The passages in the answer's prompt, in the order of their numbers there."""
        return tuple(hit.passage for hit in self.found.hits[: self.prompt.passages])


@dataclass(frozen=True, slots=True)
class Choice:
    """The prompts that asked the model to choose a unit, and what it said to the first of them."""

    prompt: str
    """Its messages as JSON."""
    shares: tuple[float, ...]


@dataclass(slots=True)
class AnswerState:
    """The state of an answer that runs; `finish` (`chatbot.turn`) records it."""

    finish_reason: FinishReason = FinishReason.CANCELLED
    usage: Usage = field(default_factory=Usage)
    grounded: bool = False
    quoted: bool = False
    """Whether the passages' own words are shown instead of the model's."""
    error: ChatError | None = None
    missing: str = ""
    """The code of what was away where the customer is handed to a person for it."""
    withheld: int = 0
    """The number of sentences that failed the checks."""
    first_token_at: float | None = None
    """When the first text was shown, in seconds on the monotonic clock."""
    unpaid_tokens: int = 0
    """Tokens that a model generated beyond what was allowed, or that were lost with it: nobody pays for them."""
    shown: list[Event] = field(default_factory=list)
    said: bool = False
    """Whether this writer has said any text, be it what the log had already."""
    progress_shown: set[NoticeCode] = field(default_factory=set)
    """What the customer was told of the answer while it runs."""
    models: tuple[str, ...] = ()
    degradation_level: DegradationLevel | None = None
    cached_answer_id: str = ""
    """The answer whose text is shown again, where no model could answer."""
    probes: tuple[float, ...] = ()
    """The model's probability of "yes" to each probe that was asked, in order."""
    choice: Choice | None = None

    def charge(self, prompt: Chat) -> None:
        """Count a prompt that asked the model for one token."""
        usage = self.usage
        self.usage = msgspec.structs.replace(
            usage, prompt_tokens=usage.prompt_tokens + prompt.tokens, answer_tokens=usage.answer_tokens + 1
        )

    def begin_after(self, begun: Begun, turn: Turn) -> None:
        """Count what an earlier writer had generated."""
        self.usage = Usage(
            prompt_tokens=turn.prompt.tokens, answer_tokens=begun.tokens, thinking_tokens=begun.prompt.thinking
        )

    def as_published(self, turn: Turn, published: Sequence[Event], *, broken: bool) -> None:
        """Record what customers have read, and nothing else; an answer that broke ends in an error."""
        self.shown = shown_in(turn, published)
        if broken:
            self.error, self.grounded = ChatError(), False

    def model_done(self, done: ModelDone) -> None:
        """Record the end of the model's answer."""
        self.usage, self.finish_reason, self.models = done.usage, FinishReason(done.finish_reason), done.models
        self.unpaid_tokens = done.unpaid_tokens
        if done.retried:
            self.degrade(DegradationLevel.REPLICA)

    def degrade(self, level: DegradationLevel) -> None:
        """Record the degradation level, unless a lower one was reached before."""
        self.degradation_level = max(self.degradation_level or level, level, key=DEGRADATION_LEVELS.index)

    @property
    def text(self) -> str:
        """The answer's text as it was shown."""
        return "".join(event.text for event in self.shown if isinstance(event, Token))


def earlier_questions(earlier: Sequence[HistoryMessage]) -> list[str]:
    """Return the customer's questions, oldest first, as they were understood."""
    return [
        (message.standalone if isinstance(message, StoredMessage) else "") or message.text
        for message in earlier
        if message.role == "user"
    ]


def shown_in(turn: Turn, published: Sequence[Event]) -> list[Event]:
    """Return what a customer reads of the published events, but for the notices of the turn itself and of progress."""
    content = (event for event in published if isinstance(event, Token | Citation | Related | Notice))
    return [event for event in content if event not in turn.notices and not is_progress(event)]


def is_progress(event: Event) -> bool:
    """Return whether the event says how the answer is made: of no interest once it is whole."""
    return isinstance(event, Notice) and event.code in PROGRESS


def checkpoint(turn: Turn) -> bytes:
    """Return the turn as a successor reads it, as MessagePack; of its conversation only the id."""
    empty = Conversation.new(turn.conversation.id, now=turn.conversation.created_at)
    return msgspec.msgpack.encode(replace(turn, conversation=empty))


def turn_of(checkpoint: bytes) -> Turn:
    """Return the turn of a checkpoint; its `opened_at` is on the clock of the process that wrote it.

    Raises:
        msgspec.MsgspecError: another release wrote the checkpoint, and this one cannot read it.
    """
    return msgspec.msgpack.decode(checkpoint, type=Turn)


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an answer ends, as its log keeps it from the decision to the last event; `error` is a code.

    The names of the fields are read by processes of other releases.
    """

    finish_reason: FinishReason
    usage: Usage
    grounded: bool = False
    quoted: bool = False
    error: str = ""
    retry_after: float | None = None
    missing: str = ""
    withheld: int = 0
    models: tuple[str, ...] = ()
    degradation_level: DegradationLevel | None = None
    cached_answer_id: str = ""
    probes: tuple[float, ...] = ()
    choice: Choice | None = None
    unpaid_tokens: int = 0


_AS_DECIDED = tuple(name for name in Outcome.__struct_fields__ if name not in {"error", "retry_after"})
"""The fields of an outcome that are those of the state, by the same names."""


def outcome(state: AnswerState) -> bytes:
    """Return how an answer ends as a successor reads it, as MessagePack; what was shown is in the log."""
    decided = Outcome(
        **{name: getattr(state, name) for name in _AS_DECIDED},
        error=state.error.code if state.error else "",
        retry_after=state.error.retry_after if state.error else None,
    )
    return msgspec.msgpack.encode(decided)


def state_of(outcome: bytes) -> AnswerState:
    """Return the state of an answer whose outcome was decided, but for what was shown.

    Raises:
        msgspec.MsgspecError: another release wrote the outcome, and this one cannot read it.
    """
    decided = msgspec.msgpack.decode(outcome, type=Outcome)
    return AnswerState(
        **{name: getattr(decided, name) for name in _AS_DECIDED},
        error=error_of(decided.error, retry_after=decided.retry_after) if decided.error else None,
    )


def audit_opened(turn: Turn, versions: Versions, *, answer: AnswerMode | None, at: float) -> AuditOpened:
    """Return the audit record that is written before any model is called."""
    history = len(turn.prompt.before) - 1  # the system message is none of the history
    return AuditOpened(
        answer_id=turn.answer_id,
        tenant=turn.who.tenant,
        sub=turn.who.sub,
        conversation_id=turn.conversation.id,
        question=turn.screened.text,
        passages=tuple((h.passage.document_id, h.passage.version, h.passage.n) for h in turn.found.hits),
        groups=tuple(sorted(turn.who.groups)),
        as_of=turn.found.as_of,
        model=versions.model,
        prompt_version=versions.prompt,
        index_version=turn.found.collection or versions.index,
        embedder=versions.embedder,
        sampling=msgspec.json.encode(turn.sampling).decode(),
        grounding=answer or "",
        at=at,
        question_id=turn.question_id,
        parent_id=turn.parent_id,
        history=history,
        brought=min(history, turn.brought),
        canned_reply=turn.reply or "",
        passage_hashes=tuple(passage_hash(h.passage) for h in turn.found.hits),
        prompts=tuple(map(messages_json, (turn.prompt.answer, *turn.prompt.probes))),
    )


def messages_json(chat: Chat) -> str:
    """Return the messages of a prompt as the audit hashes them."""
    return msgspec.json.encode(chat.messages).decode()


def audit_closed(turn: Turn, state: AnswerState, *, model_text: str, at: float) -> AuditClosed:
    """Return the audit record that is written when the answer has ended; `model_text` is before the checks."""
    return AuditClosed(
        answer_id=turn.answer_id,
        tenant=turn.who.tenant,
        usage=state.usage,
        finish_reason=None if state.error else state.finish_reason,
        error=state.error.code if state.error else None,
        grounded=state.grounded,
        at=at,
        models=state.models,
        degradation_level=state.degradation_level or "",
        cached_answer_id=state.cached_answer_id,
        text=state.text,
        model_text=model_text,
        unpaid_tokens=state.unpaid_tokens,
        probes=state.probes,
        repair=state.choice.shares if state.choice else (),
        repair_prompt=state.choice.prompt if state.choice else "",
    )


def accepted(turn: Turn, versions: Versions) -> Accepted:
    """Return the first event of the stream."""
    return Accepted(
        answer_id=turn.answer_id,
        conversation_id=turn.conversation.id,
        question_id=turn.question_id,
        model=versions.model,
        prompt_version=versions.prompt,
        trace_id=turn.trace_id,
        understood_as=turn.found.standalone,
    )


def sources(turn: Turn) -> Sources:
    """Return the passages of the answer's prompt with their numbers there; none where a canned reply is shown."""
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
    """Return the references of the passages behind the sources, in their order."""
    passages = turn.prompt_passages if turn.reply is None else ()
    return tuple(PassageRef(document_id=p.document_id, version=p.version, n=p.n) for p in passages)


def basis(turn: Turn, versions: Versions) -> Basis:
    """Return everything that decides an answer to the question: the key of the answer cache."""
    return Basis(
        tenant=turn.who.tenant,
        groups=turn.who.groups,
        question=turn.screened.text,
        passages=passage_refs(turn),
        prompt_version=versions.prompt,
        model=versions.model,
        language=turn.language,
        checks_version=CHECKS_VERSION,
    )


def may_be_cached(turn: Turn) -> bool:
    """Return whether the question alone decides its answer and holds no personal data."""
    return turn.is_first and turn.reply is None and not turn.screened.masked


def to_be_cached(turn: Turn, state: AnswerState, *, model: str, at: float) -> CachedAnswer | None:
    """Return the answer for the cache where it is complete, grounded and by `model`, the primary one, alone."""
    complete = state.error is None and state.finish_reason is FinishReason.STOP and state.withheld == 0
    if not (may_be_cached(turn) and complete and state.grounded and state.models == (model,)):
        return None
    citations = tuple(event for event in state.shown if isinstance(event, Citation))
    return CachedAnswer(answer_id=turn.answer_id, text=state.text, citations=citations, at=at, quoted=state.quoted)


def question_message(turn: Turn, *, at: float) -> StoredMessage:
    """Return the question for the history: masked, and with the time at which it was asked first."""
    first_asked = [message.at for message in turn.conversation.messages if message.id == turn.question_id]
    return StoredMessage(
        id=turn.question_id,
        parent_id=turn.parent_id,
        role="user",
        text=turn.screened.text,
        at=first_asked[0] if first_asked else at,
        answered_by=turn.answer_id,
        refused=turn.reply if turn.reply in OF_THE_QUESTION else "",
        context=turn.context,
        standalone=turn.found.standalone,
    )


def answer_message(turn: Turn, state: AnswerState, *, at: float) -> StoredMessage:
    """Return the answer for the history."""
    return StoredMessage(
        id=turn.answer_id,
        parent_id=turn.question_id,
        role="assistant",
        text=state.text,
        at=at,
        answer_id=turn.answer_id,
        sources=sources(turn).items,
        passages=passage_refs(turn),
        citations=tuple(event for event in state.shown if isinstance(event, Citation)),
        related=tuple(item for event in state.shown if isinstance(event, Related) for item in event.items),
        notices=(*turn.notices, *(event for event in state.shown if isinstance(event, Notice))),
        finish_reason="error" if state.error else state.finish_reason,
        grounded=state.grounded and state.quoted,
    )


def last_event(turn: Turn, state: AnswerState, limits: Limits | None, bank: Bank) -> Event:
    """Return the event that ends the stream; where it is an error it names a person of the customer's bank.

    It counts no cached tokens: customers of a tenant share a prefix cache, and the count would tell one of them what
    another has asked (docs/decisions/0021).
    """
    if state.error is None:
        usage = msgspec.structs.replace(state.usage, cached_tokens=0)
        return Done(
            finish_reason=state.finish_reason,
            usage=usage,
            grounded=state.grounded and state.quoted,
            quoted=state.quoted,
            written=state.grounded and not state.quoted,
            limits=limits,
        )
    return failed(state.error, trace_id=turn.trace_id, handoff=handoff(turn.language, bank))


def outcome_label(state: AnswerState) -> str:
    """Return how the answer ended, as it is counted: a hand-off for want of a store or a model is an error of ours."""
    if state.error or (state.missing and not state.quoted):
        return f"error_{state.error.code if state.error else state.missing}"
    return QUOTED if state.missing else state.finish_reason.value


def turn_finished(turn: Turn, state: AnswerState, *, now: float) -> TurnFinished:
    """Return the record of the turn for hooks; `now` is on the monotonic clock, in seconds."""
    return TurnFinished(
        outcome=outcome_label(state),
        language=turn.language,
        grounded=state.grounded,
        seconds=now - turn.opened_at,
        first_token_seconds=None if state.first_token_at is None else state.first_token_at - turn.opened_at,
        usage=state.usage,
        unpaid_tokens=state.unpaid_tokens,
        withheld=state.withheld,
        citations=sum(isinstance(event, Citation) for event in state.shown),
        related=any(isinstance(event, Related) for event in state.shown),
        degradation_level=state.degradation_level,
    )
