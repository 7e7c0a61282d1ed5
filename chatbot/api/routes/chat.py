"""Routes to ask a question, follow its answer and cancel it; the answer runs in the application's task group."""

import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Annotated, cast

import anyio
import msgspec
from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, Field, StringConstraints
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from chatbot.api.auth import TheCaller
from chatbot.api.customer_text import Message
from chatbot.api.dependencies import TheAnswers, TheServices
from chatbot.api.problems import failed_reply
from chatbot.api.rate_limit_headers import rate_limit_headers
from chatbot.api.stream_schema import json_content, stream_content
from chatbot.errors import ChatError, Draining
from chatbot.events import (
    Accepted,
    Citation,
    Done,
    Event,
    Failed,
    Limits,
    Notice,
    Related,
    RelatedPassage,
    Source,
    Sources,
    Token,
    Unknown,
    Usage,
)
from chatbot.reads import Reads
from chatbot.services import Services
from chatbot.streams import AnswerId, LiveAnswer, LogOpening, Readers, StartedAnswer
from chatbot.turns import Question, answer, discard_turn, open_turn, passage_refs
from knowledge.identity import Principal
from knowledge.passage import language_of
from knowledge.profiles import AnswerMode

router = APIRouter(prefix="/v1", tags=["chat"])

_PING_SECONDS = 10
_SEND_TIMEOUT_SECONDS = 30.0
# How long an EventSource waits before it reconnects; its default is several seconds.
_RETRY_MS = 500

Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
# A value above TURN__MOST_ANSWER_TOKENS is lowered to it.
AnswerTokens = Annotated[int, Field(ge=1, le=1_000_000)]


class Ask(BaseModel):
    """A customer's question."""

    message: Message
    conversation_id: Id | None = None
    parent_id: Id | None = None
    max_answer_tokens: AnswerTokens | None = None
    answer: AnswerMode | None = Field(None, description="On `make run` only: whose words the answer consists of.")
    stream: bool = True


class CancelReply(BaseModel):
    """Whether this call has stopped the answer; false if it had already ended."""

    stopped: bool


IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]


@dataclass(frozen=True, slots=True)
class StartedReply:
    """A started or joined answer, and whether its caller requested a stream."""

    answer: StartedAnswer
    stream: bool


async def begin_answer(
    ask: Ask, who: TheCaller, services: TheServices, request: Request, idempotency_key: IdempotencyKey = None
) -> StartedReply:
    """Start an answer, or join the answer of the Idempotency-Key; raise every error that becomes a status."""
    request.state.language = language_of(ask.message)  # the language in which errors name the bank's contact
    question = Question(
        text=ask.message,
        conversation_id=ask.conversation_id,
        parent_id=ask.parent_id,
        max_answer_tokens=ask.max_answer_tokens,
        answer_mode=ask.answer,
    )
    digest = digest_of(ask.model_dump_json(exclude={"stream"}))
    start = partial(start_answer, question, who, services)
    with services.answers.writers.accepting():
        started = await services.idempotency.begin_once(who, idempotency_key, digest, start)
    return StartedReply(started, stream=ask.stream)


def digest_of(body: str) -> str:
    """Return the SHA-256 digest by which requests with one Idempotency-Key are compared."""
    return hashlib.sha256(body.encode()).hexdigest()


async def start_answer(question: Question, who: Principal, services: Services) -> StartedAnswer:
    """Take a place in the queue, open the turn and start its answer.

    Raises:
        ChatError: the question is rejected; if the queue is full, before any other work.
    """
    services.answers.readers.check_readers(who)
    with services.admission.entered(who) as place:
        turn = await open_turn(question, who, services)
        live = LiveAnswer(turn.answer_id, who)
        with anyio.CancelScope(shield=True):  # a turn with a reservation must be answered or discarded
            work = partial(answer, turn, place=place, services=services)
            opening = LogOpening(turn.conversation_id, passage_refs(turn), msgspec.msgpack.encode(turn))
            try:
                await services.answers.writers.start(live, work, opening)
            except BaseException:
                await discard_turn(turn, services)
                raise
    return StartedAnswer(turn.answer_id, turn.reservation.limits)


TheAnswer = Annotated[StartedReply, Depends(begin_answer)]


class AnswerStream(EventSourceResponse):
    """An answer as server-sent events; it counts as a reader of the answer until its connection is closed."""

    def __init__(
        self,
        readers: Readers,
        who: Principal,
        answer_id: AnswerId,
        events: AsyncGenerator[ServerSentEvent],
        *,
        longest_answer: float,
        resumable: bool = True,
    ) -> None:
        """`longest_answer` is the time in seconds that a stream may take after SIGTERM."""
        super().__init__(
            events, ping=_PING_SECONDS, send_timeout=_SEND_TIMEOUT_SECONDS, shutdown_grace_period=longest_answer
        )
        self._readers = readers
        self._who = who
        self._answer_id = answer_id
        self._resumable = resumable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Raises an error before anything is sent if the customer has too many readers.
        with self._readers.reading(self._who, self._answer_id, resumable=self._resumable):
            await super().__call__(scope, receive, send)


OnSent = Callable[[int], None]
"""Called with the size in bytes of each sent event; the first stream of an answer is not metered and has none."""


async def encode_events(
    readers: Readers, who: Principal, answer_id: AnswerId, *, after: int, on_sent: OnSent | None = None
) -> AsyncGenerator[ServerSentEvent]:
    """Yield the answer's entries after number `after` as server-sent events.

    An error of this connection has no id, so that the client resumes after the last event of the answer.
    """
    async with aclosing(readers.follow(who, answer_id, after=after)) as entries:
        async for entry in entries:
            if on_sent is not None:
                on_sent(len(entry.data))
            is_first = entry.n == after + 1
            yield ServerSentEvent(
                data=entry.data.decode(),
                event=entry.event.name,
                id=f"{answer_id}.{entry.n}" if entry.n else None,
                retry=_RETRY_MS if is_first else None,
            )


class AnswerDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A finished answer as one document, from its events."""

    answer_id: str
    conversation_id: str
    text: str
    finish_reason: str
    grounded: bool
    quoted: bool
    written: bool
    usage: Usage
    limits: Limits | None
    sources: tuple[Source, ...]
    citations: tuple[Citation, ...]
    related: tuple[RelatedPassage, ...]
    notices: tuple[Notice, ...]


ANSWER_CONTENT = stream_content() | json_content(AnswerDocument)


@router.post("/chat", response_model=None, responses={200: {"content": ANSWER_CONTENT}})
async def chat(started: TheAnswer, who: TheCaller, request: Request, services: TheServices) -> Response:
    """Answer a question: a stream of events, or one JSON document with `stream=false`."""
    # Every error with an HTTP status was raised before this line; from here on, an error is the last event.
    return await respond(started, who, request, services)


async def respond(reply: StartedReply, who: Principal, request: Request, services: Services) -> Response:
    """Return the answer as a stream or as one document, with its caller's rate limits; meter a joined answer."""
    started, readers = reply.answer, services.answers.readers
    on_sent = await begin_metering(who, services.reads) if started.joined else None
    if reply.stream:
        events = encode_events(readers, who, started.answer_id, after=0, on_sent=on_sent)
        longest = services.settings.longest_answer
        response: Response = AnswerStream(readers, who, started.answer_id, events, longest_answer=longest)
    else:
        all_events = await collect_events(readers, who, started.answer_id, request, on_sent=on_sent)
        response = answer_document(all_events) if all_events else Response(status_code=499)
    if started.limits is not None:
        response.headers.update(rate_limit_headers(started.limits))
    return response


async def begin_metering(who: Principal, reads: Reads) -> OnSent:
    """Count a repeated stream, or raise `RateLimited`; return the function that counts its bytes."""
    await reads.begin_stream(who.customer_id)
    return partial(reads.count, who.customer_id)


async def collect_events(
    readers: Readers, who: Principal, answer_id: AnswerId, request: Request, *, on_sent: OnSent | None = None
) -> list[Event]:
    """Return all events of an answer, or none if the client disconnects first, which also stops the answer.

    Raises:
        Draining: another replica continues the answer.
        ChatError: this release cannot decode the answer's last event.
    """
    events: list[Event] = []
    disconnected = anyio.Event()

    async def cancel_on_disconnect(scope: anyio.CancelScope) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        disconnected.set()
        scope.cancel()

    with readers.reading(who, answer_id, resumable=False):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_on_disconnect, tasks.cancel_scope)
            async with aclosing(readers.follow(who, answer_id, after=0)) as followed:
                entries = [entry async for entry in followed]
                events.extend(entry.event for entry in entries)
                if on_sent is not None:
                    on_sent(sum(len(entry.data) for entry in entries))
            tasks.cancel_scope.cancel()
    if not events and disconnected.is_set():
        return []
    if not events or not events[-1].ends:
        raise Draining(retry_after=1)
    if isinstance(events[-1], Unknown):
        raise ChatError("a server of another release ended this answer; this release cannot decode its last event")
    return events


def answer_document(events: Sequence[Event]) -> Response:
    """Return the finished answer as JSON, or the problem document of the error that ended it."""
    if isinstance(events[-1], Failed):
        return failed_reply(events[-1])
    accepted = next(event for event in events if isinstance(event, Accepted))
    done = cast("Done", events[-1])
    body = AnswerDocument(
        answer_id=accepted.answer_id,
        conversation_id=accepted.conversation_id,
        text="".join(event.text for event in events if isinstance(event, Token)),
        finish_reason=done.finish_reason,
        grounded=done.grounded,
        quoted=done.quoted,
        written=done.written,
        usage=done.usage,
        limits=done.limits,
        sources=tuple(source for event in events if isinstance(event, Sources) for source in event.items),
        citations=tuple(event for event in events if isinstance(event, Citation)),
        related=tuple(item for event in events if isinstance(event, Related) for item in event.items),
        notices=tuple(event for event in events if isinstance(event, Notice)),
    )
    return Response(msgspec.json.encode(body), media_type="application/json")


@router.get("/answers/{answer_id}/events", response_model=None, responses={204: {}, 200: {"content": stream_content()}})
async def follow(
    answer_id: Id, who: TheCaller, services: TheServices, last_event_id: Annotated[str | None, Header()] = None
) -> Response:
    """Send the answer's stream again, from the event after `Last-Event-ID` on; it counts towards the read limit."""
    readers, answer_id = services.answers.readers, AnswerId(answer_id)
    on_sent = await begin_metering(who, services.reads)
    readers.check_readers(who)
    after, is_finished = await readers.resume_position(who, answer_id, last_event_id)
    if is_finished:
        return Response(status_code=204)
    events = encode_events(readers, who, answer_id, after=after, on_sent=on_sent)
    return AnswerStream(readers, who, answer_id, events, longest_answer=services.settings.longest_answer)


@router.post("/answers/{answer_id}/cancel", status_code=202)
async def cancel(answer_id: Id, who: TheCaller, answers: TheAnswers) -> CancelReply:
    """Stop an answer; the part that was shown is kept, and marked as cancelled."""
    return CancelReply(stopped=await answers.takeover.cancel(who, AnswerId(answer_id)))
