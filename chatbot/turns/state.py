"""A turn and the state of its answer, shared by opening, answering and closing (pure).

Time comes in as an argument (`at` and `now`; Unix seconds where nothing else is said).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import structlog

from chatbot.audit import Versions
from chatbot.chat import Chat
from chatbot.conversations import Basis, Conversation, StoredMessage
from chatbot.errors import ChatError, error_of
from chatbot.events import (
    PROGRESS,
    Citation,
    Event,
    FinishReason,
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
from chatbot.models import ModelDone, PartialAnswer, Sampling
from chatbot.notices import DEGRADATION_LEVELS, DegradationLevel
from chatbot.prompt import Prompt
from chatbot.questions import OF_THE_QUESTION, CannedReply, ClientMessage, ScreenedQuestion
from chatbot.records import AnswerResult, Choice
from chatbot.retrieval import SearchResult
from chatbot.streams import AnswerId
from knowledge.identity import Principal
from knowledge.passage import Language, Passage
from knowledge.profiles import AnswerMode
from knowledge.withdrawals import Withdrawals

log = structlog.get_logger(__name__)


def may_not_answer(withdrawals: Withdrawals, tenant: str) -> bool:
    """Return whether an emergency stop holds for the tenant, or the withdrawals were read too long ago to rely on."""
    return withdrawals.stopped(tenant) or not withdrawals.readable()


def withdrawn(passage: Passage, withdrawals: Withdrawals, *, now: float) -> bool:
    """Return whether a passage that was found is withdrawn, or no longer visible at `now` (Unix seconds)."""
    return withdrawals.withdrawn(passage.tenant, passage.document_id, passage.version) or passage.has_ended(now)


def is_over(passage: Passage, withdrawals: Withdrawals, *, now: float) -> bool:
    """Return whether a passage may no longer be shown: withdrawn, ended or replaced at `now`."""
    return withdrawn(passage, withdrawals, now=now) or withdrawals.has_ended(
        passage.tenant, passage.document_id, passage.version, now=now
    )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A customer's question and its place in a conversation; `id` is set where the question is answered again.

    `earlier` are the messages that an OpenAI client sent along; no conversation keeps them. `max_answer_tokens` and
    `answer` are what the caller asks for, if anything.
    """

    text: str
    id: str | None = None
    conversation_id: str | None = None
    parent_id: str | None = None
    earlier: tuple[ClientMessage, ...] = ()
    max_answer_tokens: int | None = None
    answer: AnswerMode | None = None


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
    answer: AnswerMode | None = None
    """Whether the answer quotes the bank or is written by the model."""
    shown_before: tuple[str, ...] = ()
    """The units cited by the previous answer: a follow-up asks for others."""

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


@dataclass(slots=True)
class AnswerState:
    """The state of an answer that runs; `finish` (`chatbot.turns`) records it."""

    finish_reason: FinishReason = FinishReason.CANCELLED
    usage: Usage = field(default_factory=Usage)
    grounded: bool = False
    quoted: bool = False
    """Whether the passages' own words are shown instead of the model's."""
    error: ChatError | None = None
    missing: str = ""
    """The error code of the outage that caused a hand-off, or ""."""
    withheld: int = 0
    """The number of sentences that failed the checks."""
    first_token_at: float | None = None
    """Monotonic time in seconds of the first text."""
    unpaid_tokens: int = 0
    """Tokens that a model generated beyond what was allowed, or that were lost with it: nobody pays for them."""
    shown: list[Event] = field(default_factory=list)
    text_emitted: bool = False
    """Whether this writer has emitted text, including text that was already logged."""
    progress_shown: set[NoticeCode] = field(default_factory=set)
    """The progress notices emitted so far."""
    models: tuple[str, ...] = ()
    degradation_level: DegradationLevel | None = None
    cached_answer_id: str = ""
    """The cached answer that was shown because no model could answer."""
    probes: tuple[float, ...] = ()
    """The model's probability of "yes" to each probe that was asked, in order."""
    choice: Choice | None = None

    def charge(self, prompt: Chat) -> None:
        """Count a prompt that asked the model for one token."""
        usage = self.usage
        self.usage = msgspec.structs.replace(
            usage, prompt_tokens=usage.prompt_tokens + prompt.tokens, answer_tokens=usage.answer_tokens + 1
        )

    def begin_after(self, partial_answer: PartialAnswer, turn: Turn) -> None:
        """Count the tokens of the previous writer."""
        self.usage = Usage(
            prompt_tokens=turn.prompt.tokens,
            answer_tokens=partial_answer.tokens,
            thinking_tokens=partial_answer.prompt.thinking,
        )

    def as_published(self, turn: Turn, published: Sequence[Event], *, broken: bool) -> None:
        """Keep only published events as shown; an answer that broke ends in an error."""
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
        return text_of(self.shown)


def text_of(events: Sequence[Event]) -> str:
    """Return the text of an answer's events."""
    return "".join(event.text for event in events if isinstance(event, Token))


def shown_in(turn: Turn, published: Sequence[Event]) -> list[Event]:
    """Return the published events of the answer itself, without the turn's notices and progress."""
    content = (event for event in published if isinstance(event, Token | Citation | Related | Notice))
    return [event for event in content if event not in turn.notices and not is_progress(event)]


def is_progress(event: Event) -> bool:
    """Return whether the event reports progress, which a finished answer does not need."""
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


_AS_DECIDED = tuple(name for name in AnswerResult.__struct_fields__ if name not in {"error", "retry_after"})
"""The fields of a result that are those of the state, by the same names."""


def result_of(state: AnswerState) -> AnswerResult:
    """Return how the answer ends, as it is decided now."""
    error = state.error
    return AnswerResult(
        **{name: getattr(state, name) for name in _AS_DECIDED},
        error=error.code if error else "",
        retry_after=error.retry_after if error else None,
    )


def state_of(outcome: bytes) -> AnswerState:
    """Return the state of an answer whose outcome was decided, but for what was shown.

    Raises:
        msgspec.MsgspecError: another release wrote the outcome, and this one cannot read it.
    """
    result = msgspec.msgpack.decode(outcome, type=AnswerResult)
    return AnswerState(
        **{name: getattr(result, name) for name in _AS_DECIDED},
        error=error_of(result.error, retry_after=result.retry_after) if result.error else None,
    )


def messages_json(chat: Chat) -> str:
    """Return the messages of a prompt as the audit hashes them."""
    return msgspec.json.encode(chat.messages).decode()


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
