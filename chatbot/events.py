"""The events of an answer's stream, as stored in the answer log and sent to the customer (docs/api.md).

`accepted` comes first, and exactly one `done` or `error` last. Offsets count Unicode code points of the answer, which
is the concatenation of all `token` texts.
"""

from datetime import date
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

import msgspec
from msgspec import Meta

from knowledge.passage import Passage


class NoticeCode(StrEnum):
    """The subject of a notice."""

    DEGRADED = "degraded"
    """quotes or a hand-off stand in for an answer, or its stream cannot be resumed"""
    MASKED = "masked"
    """personal data in the question was masked"""
    WITHHELD = "withheld"
    """sentences that the sources do not state were withheld"""
    HISTORY_UNAVAILABLE = "history_unavailable"
    """earlier messages cannot be read, and this one is not stored"""
    MODEL_SWITCHED = "model_switched"
    """another endpoint, or the smaller model, continues the answer"""
    THINKING = "thinking"
    """the model thinks before it answers; not kept in the history"""
    NOT_RESUMABLE = "not_resumable"
    """the answer cannot be continued if the model breaks off; not kept in the history"""


PROGRESS = frozenset({NoticeCode.THINKING, NoticeCode.NOT_RESUMABLE})
"""Notices about an answer in progress: emitted once, and not stored in the history."""
ABOUT_THE_WRITER = PROGRESS | {NoticeCode.MODEL_SWITCHED, NoticeCode.DEGRADED}
"""Notices about the process that writes an answer; its successor repeats all other notices, but not these."""


class FinishReason(StrEnum):
    """Why an answer has ended."""

    STOP = "stop"
    """the answer is complete"""
    LENGTH = "length"
    """it reached the allowed number of tokens"""
    BUDGET = "budget"
    """the caller's limits allow no more tokens"""
    REFUSED = "refused"
    """the question is not answered: small talk, out of scope, an injection attempt, or nothing found"""
    WITHHELD = "withheld"
    """no sentence passed the checks"""
    CANCELLED = "cancelled"
    """the customer cancelled or deleted the answer, or all readers left"""
    HANDOFF = "handoff"
    """no model or store answers, a stop or a withdrawal forbids it, or the customer needs a person"""


DocumentId = Annotated[str, Meta(description="the document, as in its address at the documents API")]
DocumentVersion = Annotated[int, Meta(description="the document's version, from 1")]
Page = Annotated[int | None, Meta(description="the page of the original, from 1; null where it has none")]
Link = Annotated[str | None, Meta(description="the bank's public page about the document; null where it has none")]
TraceId = Annotated[str, Meta(description="the trace of this request, for operators")]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a stream: `name` is the SSE event name, and the fields are its JSON data."""

    name: ClassVar[str]
    ends: ClassVar[bool] = False
    """Whether the event ends its stream."""


class Accepted(Event, frozen=True, kw_only=True):
    """The answer has begun."""

    name: ClassVar[str] = "accepted"
    answer_id: Annotated[str, Meta(description="the answer; its stream is read again at `/v1/answers/{id}/events`")]
    conversation_id: Annotated[str, Meta(description="the conversation, to be sent with the next question")]
    question_id: Annotated[str, Meta(description="the question's message in the conversation")]
    model: Annotated[str, Meta(description="the primary model, even if it is not asked")]
    prompt_version: Annotated[str, Meta(description="the version of the prompt's texts")]
    trace_id: TraceId
    understood_as: Annotated[str, Meta(description="the question rewritten to stand alone; empty if unchanged")] = ""


class Queued(Event, frozen=True, kw_only=True):
    """The answer waits for a model slot. The event is sent again when the position changes."""

    name: ClassVar[str] = "queued"
    position: Annotated[int, Meta(description="answers: the place in the queue, from 1")]
    estimated_wait_ms: Annotated[int, Meta(description="ms: the estimated time until the slot")]


class _NumberedPassage(msgspec.Struct, frozen=True, kw_only=True):
    n: Annotated[int, Meta(description="the source's number, from 1, which citations name")]
    document_id: DocumentId
    version: DocumentVersion
    title: Annotated[str, Meta(description="the document's title")]
    section: Annotated[str, Meta(description="the headings above the passage, joined by ` > `")]
    page: Page
    link: Link = None

    @classmethod
    def of(cls, n: int, passage: Passage, **others: Any) -> Self:
        """Return source `n` with the fields of a passage; `others` are the remaining fields."""
        return cls(
            n=n,
            document_id=passage.document_id,
            version=passage.version,
            title=passage.title,
            section=passage.section,
            page=passage.page,
            link=passage.link,
            **others,
        )


class Source(_NumberedPassage, frozen=True, kw_only=True):
    """A passage in the search result."""

    effective_from: Annotated[date | None, Meta(description="the day from which the document applies, YYYY-MM-DD")]
    score: Annotated[
        float, Meta(description="ratio: how well the passage fits the question; only for comparing within one list")
    ]


class PassageRef(msgspec.Struct, frozen=True, kw_only=True):
    """The passage of a source's number."""

    document_id: str
    version: int
    n: int


class Sources(Event, frozen=True, kw_only=True):
    """The passages found for the answer, best first: a bare JSON list of sources."""

    name: ClassVar[str] = "sources"
    items: tuple[Source, ...]


class Token(Event, frozen=True, kw_only=True):
    """The next piece of the answer."""

    name: ClassVar[str] = "token"
    text: Annotated[str, Meta(description="the piece; all of them joined are the answer")]


class RelatedPassage(_NumberedPassage, frozen=True, kw_only=True):
    """A passage near a question that was not answered."""

    quote: Annotated[str, Meta(description="the words of the passage nearest to the question")]


class Related(Event, frozen=True, kw_only=True):
    """Passages near a question that was not answered, nearest first: a bare JSON list, never part of the answer."""

    name: ClassVar[str] = "related"
    items: tuple[RelatedPassage, ...]


class Citation(Event, frozen=True, kw_only=True):
    """A range of the answer, and the source that states it."""

    name: ClassVar[str] = "citation"
    n: Annotated[int, Meta(description="the source's number")]
    start: Annotated[int, Meta(description="characters: where the range begins in the answer")]
    end: Annotated[int, Meta(description="characters: the range's end, exclusive")]
    document_id: DocumentId
    version: DocumentVersion
    page: Page
    link: Link = None
    quote: Annotated[str, Meta(description="the passage's words that state the range")]


class Notice(Event, frozen=True, kw_only=True):
    """Something the customer should know."""

    name: ClassVar[str] = "notice"
    code: Annotated[NoticeCode, Meta(description="the notice's subject")]
    text: Annotated[str, Meta(description="the notice, in the customer's language")]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of an answer."""

    prompt_tokens: Annotated[int, Meta(description="tokens: of the prompts")] = 0
    cached_tokens: Annotated[
        int, Meta(description="tokens: of the prompt that the model had cached; 0 in every reply to a caller")
    ] = 0
    answer_tokens: Annotated[int, Meta(description="tokens: generated, without thinking")] = 0
    thinking_tokens: Annotated[int, Meta(description="tokens: of the model's thinking, which is not shown")] = 0

    @property
    def generated_tokens(self) -> int:
        """The tokens that the model generated."""
        return self.answer_tokens + self.thinking_tokens


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The caller's remaining limits: tokens and requests of the sliding minute, slots, and tokens of the day."""

    limit_tokens: Annotated[int, Meta(description="tokens: the limit of a minute")]
    remaining_tokens: Annotated[int, Meta(description="tokens: left this minute")]
    reset_tokens: Annotated[float, Meta(description="seconds: until all of them are available again")]
    limit_requests: Annotated[int, Meta(description="requests: the limit of a minute")]
    remaining_requests: Annotated[int, Meta(description="requests: left this minute")]
    reset_requests: Annotated[float, Meta(description="seconds: until all of them are available again")]
    remaining_slots: Annotated[int, Meta(description="answers: how many more may run at once")]
    remaining_today: Annotated[int, Meta(description="tokens: left until midnight in the bank's zone")]


class Done(Event, frozen=True, kw_only=True):
    """The answer has ended."""

    name: ClassVar[str] = "done"
    ends: ClassVar[bool] = True
    finish_reason: Annotated[FinishReason, Meta(description="why it has ended")]
    usage: Annotated[Usage, Meta(description="the tokens used")]
    grounded: Annotated[bool, Meta(description="whether the answer consists of quotes of cited passages")]
    quoted: Annotated[bool, Meta(description="whether passages are quoted in place of a model's words")] = False
    written: Annotated[bool, Meta(description="whether a model wrote it and each sentence passed the checks")] = False
    limits: Annotated[Limits | None, Meta(description="what the caller has left; null if the ledger is unavailable")]


class Failed(Event, frozen=True, kw_only=True):
    """The answer has failed."""

    name: ClassVar[str] = "error"
    ends: ClassVar[bool] = True
    code: Annotated[str, Meta(description="the code of the error")]
    status: Annotated[int, Meta(description="the HTTP status of the code")]
    title: Annotated[str, Meta(description="the code in words, in English")]
    retryable: Annotated[bool, Meta(description="whether the same question may succeed later")]
    retry_after_ms: Annotated[int | None, Meta(description="ms: how long to wait before a retry; null if unknown")]
    trace_id: TraceId
    handoff: Annotated[str, Meta(description="how to reach a person, in one or both languages")]


class Unknown(Event, frozen=True, kw_only=True):
    """An event of another release: readers forward it unchanged, and this release ignores it."""

    name: str  # type: ignore[misc]  # each has its own
    data: bytes

    @property
    def ends(self) -> bool:  # type: ignore[override]  # decided by its name
        """Whether the event ends its stream."""
        return self.name in _NAMES_OF_LAST_EVENTS


EVENTS: dict[str, type[Event]] = {
    kind.name: kind for kind in (Accepted, Sources, Queued, Token, Citation, Related, Notice, Done, Failed)
}
LISTS: dict[str, type[Sources | Related]] = {kind.name: kind for kind in (Sources, Related)}
"""The events whose data is the bare list of their `items`."""
_NAMES_OF_LAST_EVENTS = frozenset(kind.name for kind in EVENTS.values() if kind.ends)


def to_json(event: Event) -> bytes:
    """Encode the event's JSON, which follows `data:` in SSE."""
    if isinstance(event, Unknown):
        return event.data
    return msgspec.json.encode(event.items if isinstance(event, Sources | Related) else event)


def from_json(name: str, data: bytes) -> Event:
    """Decode an event that `to_json` encoded; unknown fields are ignored.

    An event with an unknown name or value becomes an `Unknown`.
    """
    try:
        if kind := LISTS.get(name):
            return msgspec.convert({"items": msgspec.json.decode(data)}, type=kind)
        if name in EVENTS:
            return msgspec.json.decode(data, type=EVENTS[name])
    except msgspec.MsgspecError:
        pass
    return Unknown(name=name, data=data if _is_json(data) else b"null")


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data.decode())
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True
