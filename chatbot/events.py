"""The vocabulary of an answer's stream: what the answer log keeps and the customer reads (design section 3).

`token* citation*` flow between `accepted` and exactly one `done` or `error`; offsets are Unicode code points of the
answer, which is the concatenation of all `token` texts.
"""

from datetime import date
from enum import StrEnum
from typing import ClassVar

import msgspec


class NoticeCode(StrEnum):
    DEGRADED = "degraded"
    MASKED = "masked"
    WITHHELD = "withheld"
    HISTORY_UNAVAILABLE = "history_unavailable"
    MODEL_SWITCHED = "model_switched"


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    BUDGET = "budget"
    REFUSED = "refused"
    WITHHELD = "withheld"
    CANCELLED = "cancelled"
    HANDOFF = "handoff"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a stream; `name` is the SSE event name and the fields are its JSON data."""

    name: ClassVar[str]


class Accepted(Event, frozen=True, kw_only=True):
    name: ClassVar[str] = "accepted"
    answer_id: str
    conversation_id: str
    question_id: str
    model: str
    prompt_version: str
    trace_id: str


class Queued(Event, frozen=True, kw_only=True):
    name: ClassVar[str] = "queued"
    position: int
    estimated_wait_ms: int


class Source(msgspec.Struct, frozen=True, kw_only=True):
    n: int
    document_id: str
    version: int
    title: str
    section: str
    page: int | None
    effective_from: date | None
    score: float


class PassageRef(msgspec.Struct, frozen=True, kw_only=True):
    """Which passage stands behind a source's number."""

    document_id: str
    version: int
    n: int


class Sources(Event, frozen=True, kw_only=True):
    """Sent as a bare JSON list of its `items`."""

    name: ClassVar[str] = "sources"
    items: tuple[Source, ...]


class Token(Event, frozen=True, kw_only=True):
    name: ClassVar[str] = "token"
    text: str


class Citation(Event, frozen=True, kw_only=True):
    name: ClassVar[str] = "citation"
    n: int
    start: int
    end: int
    document_id: str
    version: int
    page: int | None
    quote: str


class Notice(Event, frozen=True, kw_only=True):
    name: ClassVar[str] = "notice"
    code: NoticeCode
    text: str


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller has left: tokens and requests in the sliding minute, slots, and tokens today."""

    limit_tokens: int
    remaining_tokens: int
    reset_tokens: float
    limit_requests: int
    remaining_requests: int
    reset_requests: float
    remaining_slots: int
    remaining_today: int


class Done(Event, frozen=True, kw_only=True):
    name: ClassVar[str] = "done"
    finish_reason: FinishReason
    usage: Usage
    grounded: bool
    limits: Limits | None


class Failed(Event, frozen=True, kw_only=True):
    name: ClassVar[str] = "error"
    code: str
    status: int
    title: str
    retryable: bool
    retry_after_ms: int | None
    trace_id: str
    handoff: str


class Unknown(Event, frozen=True, kw_only=True):
    """An event that another release has written: readers pass it on as it is, and nobody here acts on it."""

    name: str  # type: ignore[misc]  # each has its own
    data: bytes


EVENTS: dict[str, type[Event]] = {
    kind.name: kind for kind in (Accepted, Queued, Sources, Token, Citation, Notice, Done, Failed)
}
_LAST = frozenset({Done.name, Failed.name})


def is_last(event: Event) -> bool:
    """Return whether the event ends its stream, whatever else another release says in it."""
    return event.name in _LAST


def to_json(event: Event) -> bytes:
    """Return the event's `data:` line."""
    if isinstance(event, Unknown):
        return event.data
    return msgspec.json.encode(event.items if isinstance(event, Sources) else event)


def from_json(name: str, data: bytes) -> Event:
    """Return the event that `to_json` wrote; fields that this release does not know are passed over.

    An event of another name, or with a value that this release does not know, is an `Unknown`.
    """
    try:
        if name == Sources.name:
            return Sources(items=msgspec.json.decode(data, type=tuple[Source, ...]))
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
