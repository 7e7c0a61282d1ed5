"""A turn, and what its phases derive from it (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass

from chatbot.conversations import StoredMessage
from chatbot.events import PROGRESS, Citation, Event, Notice, NoticeCode, PassageRef, Related, Source, Sources, Token
from chatbot.limits import Reservation
from chatbot.models import Sampling
from chatbot.prompt import Prompt
from chatbot.questions import CAUSED_BY_QUESTION, CannedReply, ClientMessage, ScreenedQuestion
from chatbot.retrieval import SearchResult
from chatbot.streams import AnswerId
from knowledge.identity import Principal
from knowledge.passage import Language, Passage
from knowledge.profiles import AnswerMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A customer's question and its place in a conversation; `id` is set only if the question is answered again.

    `earlier` are the previous messages in an OpenAI client's request, which are not stored.
    """

    text: str
    id: str | None = None
    conversation_id: str | None = None
    parent_id: str | None = None
    earlier: tuple[ClientMessage, ...] = ()
    max_answer_tokens: int | None = None
    answer_mode: AnswerMode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Everything that was decided before the first byte; a checkpoint stores it for a successor."""

    answer_id: AnswerId
    question_id: str
    conversation_id: str
    parent_id: str | None
    asked_at: float
    """When the question was asked first, in Unix seconds."""
    who: Principal
    screened: ScreenedQuestion
    language: Language
    search: SearchResult
    prompt: Prompt
    reply: CannedReply | None
    """The bank's own text that is shown instead of asking the model."""
    reservation: Reservation
    sampling: Sampling
    notices: tuple[Notice, ...]
    trace_id: str
    opened_at: float
    """Seconds on the monotonic clock of the process that answers."""
    client_message_count: int = 0
    """The number of earlier messages in the client's request, which are untrusted and not stored."""
    context: tuple[str, ...] = ()
    """The ids of the stored messages in the prompt."""
    answer: AnswerMode = AnswerMode.QUOTE
    """Whether the answer quotes the bank or is written by the model."""
    quoted_before: tuple[str, ...] = ()
    """The unit that the previous answer quotes first: a follow-up asks for another."""

    @property
    def question(self) -> str:
        """The question for search, model and checks: rewritten to stand alone if that was needed."""
        return self.search.standalone or self.screened.text

    @property
    def question_in_history(self) -> bool:
        """Whether the history has the question: otherwise the turn has a notice."""
        return NoticeCode.HISTORY_UNAVAILABLE not in {notice.code for notice in self.notices}

    @property
    def prompt_passages(self) -> tuple[Passage, ...]:
        """The passages in the answer's prompt, in the order of their numbers there."""
        return tuple(hit.passage for hit in self.search.hits[: self.prompt.passages])


def text_of(events: Sequence[Event]) -> str:
    """Return the text of an answer's events."""
    return "".join(event.text for event in events if isinstance(event, Token))


def shown_events(turn: Turn, published: Sequence[Event]) -> tuple[Event, ...]:
    """Return the answer's texts, citations, related passages and notices, without the turn's notices and progress."""

    def is_shown(event: Event) -> bool:
        if isinstance(event, Notice):
            return event not in turn.notices and event.code not in PROGRESS
        return isinstance(event, Token | Citation | Related)

    return tuple(event for event in published if is_shown(event))


def sources(turn: Turn) -> Sources:
    """Return the passages of the answer's prompt with their numbers; none for a canned reply."""
    hits = turn.search.hits[: turn.prompt.passages] if turn.reply is None else ()
    return Sources(
        items=tuple(
            Source.of(n, hit.passage, effective_from=hit.passage.effective_from, score=round(hit.score, 4))
            for n, hit in enumerate(hits, 1)
        )
    )


def passage_refs(turn: Turn) -> tuple[PassageRef, ...]:
    """Return references to the passages of `sources`, in the same order."""
    passages = turn.prompt_passages if turn.reply is None else ()
    return tuple(PassageRef(document_id=p.document_id, version=p.version, n=p.n) for p in passages)


def question_message(turn: Turn) -> StoredMessage:
    """Return the masked question as the history stores it."""
    return StoredMessage(
        id=turn.question_id,
        parent_id=turn.parent_id,
        role="user",
        text=turn.screened.text,
        at=turn.asked_at,
        answered_by=turn.answer_id,
        refused=turn.reply if turn.reply in CAUSED_BY_QUESTION else "",
        context=turn.context,
        standalone=turn.search.standalone,
    )
