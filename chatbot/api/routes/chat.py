"""Asking, following and cancelling: the answer runs in the application, and a connection only reads it."""

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
# How long an EventSource waits before it connects again; its own default is several seconds.
_RETRY_MS = 500

Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
# More than TURN__MOST_ANSWER_TOKENS is as much as that.
AnswerTokens = Annotated[int, Field(ge=1, le=1_000_000)]


class Ask(BaseModel):
    """A customer's question."""

    message: Message
    conversation_id: Id | None = None
    parent_id: Id | None = None
    max_answer_tokens: AnswerTokens | None = None
    answer: AnswerMode | None = Field(None, description="On `make run` only: whose words the answer consists of.")
    stream: bool = True


class Cancelled(BaseModel):
    """Whether this call stopped the answer; false where it had ended already."""

    stopped: bool


IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]


@dataclass(frozen=True, slots=True)
class StartedReply:
    """An answer that is started or joined, and whether its caller wants it as a stream: the body is read once."""

    answer: StartedAnswer
    stream: bool


async def begin_answer(
    ask: Ask, who: TheCaller, services: TheServices, request: Request, idempotency_key: IdempotencyKey = None
) -> StartedReply:
    """Begin an answer, or join the one that the Idempotency-Key began; every refusal is raised here."""
    request.state.language = language_of(ask.message)  # a refusal names a person in it
    question = Question(
        text=ask.message,
        conversation_id=ask.conversation_id,
        parent_id=ask.parent_id,
        max_answer_tokens=ask.max_answer_tokens,
        answer=ask.answer,
    )
    digest = digest_of(ask.model_dump_json(exclude={"stream"}))
    work = partial(begin, question, who, services)
    with services.answers.writers.accepting():
        started = await services.idempotency.begin_once(who, idempotency_key, digest, work)
    return StartedReply(started, stream=ask.stream)


def digest_of(body: str) -> str:
    """Return the SHA-256 digest by which requests with one Idempotency-Key are compared."""
    return hashlib.sha256(body.encode()).hexdigest()


async def begin(question: Question, who: Principal, services: Services) -> StartedAnswer:
    """Take a place in the queue, open the turn and start its answer.

    Raises:
        ChatError: the refusal; with no place left, before anything is done for the question.
    """
    services.answers.readers.check_readers(who)
    with services.admission.entered(who) as place:
        turn = await open_turn(question, who, services)
        live = LiveAnswer(turn.answer_id, who)
        with anyio.CancelScope(shield=True):  # a reserved turn is always answered or settled
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
        """Send `events`; `longest_answer` is the time in seconds that a stream may take after SIGTERM."""
        super().__init__(
            events,
            ping=_PING_SECONDS,
            send_timeout=_SEND_TIMEOUT_SECONDS,
            shutdown_grace_period=longest_answer,
        )
        self._readers = readers
        self._who = who
        self._answer_id = answer_id
        self._resumable = resumable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Refuses one reader too many: nothing is sent yet.
        with self._readers.reading(self._who, self._answer_id, resumable=self._resumable):
            await super().__call__(scope, receive, send)


OnSent = Callable[[int], None]
"""Gets the size in bytes of each event that is sent; the first stream of an answer is not metered and has none."""


async def encode(
    readers: Readers,
    who: Principal,
    answer_id: AnswerId,
    *,
    after: int,
    on_sent: OnSent | None = None,
) -> AsyncGenerator[ServerSentEvent]:
    """Yield the answer's entries after number `after` as server-sent events; `on_sent` gets the size of each.

    An error that is not the answer's own has no id: the stream may be resumed behind the last event.
    """
    async with aclosing(readers.follow(who, answer_id, after=after)) as entries:
        async for entry in entries:
            if on_sent is not None:
                on_sent(len(entry.data))
            yield ServerSentEvent(
                data=entry.data.decode(),
                event=entry.event.name,
                id=f"{answer_id}.{entry.n}" if entry.n else None,
                retry=_RETRY_MS if entry.n == after + 1 else None,
            )


class AnswerDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A finished answer in one document, put together from its events."""

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
    # 401 403 404 413 422 429 503 came before this line; from here on: token* citation* (done | error)
    return await respond(started, who, request, services)


async def respond(reply: StartedReply, who: Principal, request: Request, services: Services) -> Response:
    """Return the answer as a stream or as one document, with its caller's rate limits; one that is joined is a read.

    Raises:
        RateLimited: the customer has read too much.
    """
    started, readers = reply.answer, services.answers.readers
    on_sent = await repeated(who, services.reads) if started.joined else None
    if reply.stream:
        sent = encode(readers, who, started.answer_id, after=0, on_sent=on_sent)
        longest = services.settings.longest_answer
        response: Response = AnswerStream(readers, who, started.answer_id, sent, longest_answer=longest)
    else:
        events = await collect(readers, who, started.answer_id, request, on_sent=on_sent)
        response = document(events) if events else Response(status_code=499)
    if started.limits is not None:
        response.headers.update(rate_limit_headers(started.limits))
    return response


async def repeated(who: Principal, reads: Reads) -> OnSent:
    """Count a stream that is sent again; return what counts its bytes.

    Raises:
        RateLimited: the customer has read too much.
    """
    reader = who.customer_id
    await reads.begin_stream(reader)
    return partial(reads.count, reader)


async def collect(
    readers: Readers, who: Principal, answer_id: AnswerId, request: Request, *, on_sent: OnSent | None = None
) -> list[Event]:
    """Return all events of an answer; none where the client disconnects before the last one, which stops the answer.

    Raises:
        Draining: another replica continues the answer.
        ChatError: this release cannot read how it ended.
    """
    events: list[Event] = []
    disconnected = anyio.Event()

    async def watch(scope: anyio.CancelScope) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        disconnected.set()
        scope.cancel()

    with readers.reading(who, answer_id, resumable=False):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, tasks.cancel_scope)
            async with aclosing(readers.follow(who, answer_id, after=0)) as entries:
                read = [entry async for entry in entries]
                events.extend(entry.event for entry in read)
                if on_sent is not None:
                    on_sent(sum(len(entry.data) for entry in read))
            tasks.cancel_scope.cancel()
    if not events and disconnected.is_set():
        return []
    if not events or not events[-1].ends:
        raise Draining(retry_after=1)
    if isinstance(events[-1], Unknown):
        raise ChatError("a server of another release ended this answer in a way that this one cannot read")
    return events


def document(events: Sequence[Event]) -> Response:
    """Return the finished answer as JSON, or the problem that it ended in."""
    if isinstance(events[-1], Failed):
        return failed_reply(events[-1])
    accepted, done = next(e for e in events if isinstance(e, Accepted)), cast("Done", events[-1])
    answer_document = AnswerDocument(
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
    return Response(msgspec.json.encode(answer_document), media_type="application/json")


@router.get("/answers/{answer_id}/events", response_model=None, responses={204: {}, 200: {"content": stream_content()}})
async def events(
    answer_id: Id,
    who: TheCaller,
    services: TheServices,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Send the answer's stream again, from the event after `Last-Event-ID` on; it counts as read."""
    readers, name = services.answers.readers, AnswerId(answer_id)
    on_sent = await repeated(who, services.reads)
    readers.check_readers(who)
    after, finished = await readers.resume_position(who, name, last_event_id)
    if finished:
        return Response(status_code=204)
    sent = encode(readers, who, name, after=after, on_sent=on_sent)
    return AnswerStream(readers, who, name, sent, longest_answer=services.settings.longest_answer)


@router.post("/answers/{answer_id}/cancel", status_code=202)
async def cancel(answer_id: Id, who: TheCaller, answers: TheAnswers) -> Cancelled:
    """Stop an answer; its shown part stays, as cancelled."""
    return Cancelled(stopped=await answers.takeover.cancel(who, AnswerId(answer_id)))
