"""Ask, follow, cancel: the answer runs in the application, a connection only reads it."""

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, cast

import anyio
import msgspec
from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, Field, StringConstraints
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from chatbot.api.auth import TheCaller
from chatbot.api.dependencies import TheServices
from chatbot.api.rate_limit_headers import rate_limit_headers
from chatbot.errors import Draining
from chatbot.events import (
    LAST,
    Accepted,
    Citation,
    Done,
    Event,
    Failed,
    Limits,
    Notice,
    Source,
    Sources,
    Token,
    Usage,
    to_json,
)
from chatbot.services import Services
from chatbot.streams import AnswerId, BegunAnswer, LiveAnswer
from chatbot.transcript import Question, frame, passage_refs
from chatbot.turn import answer, open_turn
from knowledge.identity import Principal

router = APIRouter(prefix="/v1", tags=["chat"])

_PING_SECONDS = 10
_SEND_TIMEOUT = 30.0
# How long an EventSource waits before it connects again: its own default of seconds is for sites, not for answers.
_RETRY_MS = 500
_NO_CONTROL = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"

Text = Annotated[str, StringConstraints(strip_whitespace=True, pattern=_NO_CONTROL)]
Message = Annotated[Text, StringConstraints(min_length=1, max_length=4000)]
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class Ask(BaseModel):
    """A customer's question."""

    message: Message
    conversation_id: Id | None = None
    parent_id: Id | None = None
    max_answer_tokens: Annotated[int, Field(ge=1, le=2000)] | None = None
    stream: bool = True


class Cancelled(BaseModel):
    """Whether this call stopped the answer; false where it had ended already."""

    stopped: bool


IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]


async def begun(
    ask: Ask, who: TheCaller, services: TheServices, request: Request, idempotency_key: IdempotencyKey = None
) -> BegunAnswer:
    """Begin an answer, or join the one that the Idempotency-Key began; whatever may refuse has refused on return."""
    refuse_while_draining(request)
    question = Question(
        text=ask.message,
        conversation_id=ask.conversation_id,
        parent_id=ask.parent_id,
        max_answer_tokens=ask.max_answer_tokens or services.settings.max_answer_tokens,
    )
    digest = digest_of(ask.model_dump_json(exclude={"stream"}))
    return await services.idempotency.begin_once(who, idempotency_key, digest, partial(begin, question, who, services))


def refuse_while_draining(request: Request) -> None:
    """Begin nothing in a process that is about to end.

    Raises:
        Draining: it is.
    """
    if request.app.state.draining:
        raise Draining(retry_after=1)


def digest_of(body: str) -> str:
    """Return what two requests must share to be the same request."""
    return hashlib.sha256(body.encode()).hexdigest()


async def begin(question: Question, who: Principal, services: Services) -> BegunAnswer:
    """Take a place in the queue, open the turn and set its answer going.

    Raises:
        ChatError: whatever refuses it; with no place left, before anything is done for it.
    """
    with services.admission.entered(who) as place:
        turn = await open_turn(question, who, services)
        running = LiveAnswer(turn.answer_id, who, conversation_id=turn.conversation.id)
        with anyio.CancelScope(shield=True):  # a reserved turn is always answered or settled
            work = partial(answer, turn, place=place, services=services)
            await services.answers.start(running, work, passages=passage_refs(turn), frame=frame(turn))
    return BegunAnswer(turn.answer_id, turn.reservation.limits)


TheAnswer = Annotated[BegunAnswer, Depends(begun)]


class AnswerStream(EventSourceResponse):
    """An answer as SSE; counts as a reader until the connection is gone, whatever the generator does."""

    def __init__(
        self,
        services: Services,
        answer_id: AnswerId,
        events: AsyncGenerator[ServerSentEvent],
        *,
        resumable: bool = True,
    ) -> None:
        super().__init__(
            events,
            ping=_PING_SECONDS,
            send_timeout=_SEND_TIMEOUT,
            shutdown_grace_period=services.settings.longest_answer,
        )
        self._services = services
        self._answer_id = answer_id
        self._resumable = resumable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._services.answers.reading(self._answer_id, resumable=self._resumable):
            await super().__call__(scope, receive, send)


async def encode(
    services: Services, who: Principal, answer_id: AnswerId, *, after: int
) -> AsyncGenerator[ServerSentEvent]:
    """Yield the answer's entries after number `after` as server-sent events."""
    async with aclosing(services.answers.follow(who, answer_id, after=after)) as entries:
        async for entry in entries:
            yield ServerSentEvent(
                data=to_json(entry.event).decode(),
                event=entry.event.name,
                id=f"{answer_id}.{entry.n}",
                retry=_RETRY_MS if entry.n == after + 1 else None,
            )


@router.post("/chat", response_model=None, responses={200: {"content": {"text/event-stream": {}}}})
async def chat(ask: Ask, begun: TheAnswer, who: TheCaller, services: TheServices, request: Request) -> Response:
    """Answer a question: a stream of events, or one JSON document with `stream=false`."""
    # 401 403 404 413 422 429 503 came before this line; from here on: token* citation* (done | error)
    return await told(begun, who, services, request, stream=ask.stream)


async def told(begun: BegunAnswer, who: Principal, services: Services, request: Request, *, stream: bool) -> Response:
    """Return the answer as a stream or as one document, with what its caller has left."""
    if stream:
        entries = encode(services, who, begun.answer_id, after=0)
        response: Response = AnswerStream(services, begun.answer_id, entries)
    else:
        whole = await collect(services, who, begun.answer_id, request)
        response = document(whole) if whole else Response(status_code=499)
    if begun.limits is not None:
        response.headers.update(rate_limit_headers(begun.limits))
    return response


async def collect(services: Services, who: Principal, answer_id: AnswerId, request: Request) -> list[Event]:
    """Return all events of an answer, or none: a customer who leaves before the last one stops it at once.

    Raises:
        Draining: the answer goes on elsewhere.
    """
    events: list[Event] = []

    async def watch(scope: anyio.CancelScope) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    with services.answers.reading(answer_id, resumable=False):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, tasks.cancel_scope)
            async with aclosing(services.answers.follow(who, answer_id, after=0)) as entries:
                events.extend([entry.event async for entry in entries])
            tasks.cancel_scope.cancel()
    if events and not isinstance(events[-1], LAST):
        raise Draining(retry_after=1)
    return events


class AnswerDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer in one document: what the events say, put together."""

    answer_id: str
    conversation_id: str
    text: str
    finish_reason: str
    grounded: bool
    usage: Usage
    limits: Limits | None
    sources: tuple[Source, ...]
    citations: tuple[Citation, ...]
    notices: tuple[Notice, ...]


def document(events: Sequence[Event]) -> Response:
    """Return the finished answer as JSON, or the problem that it ended in."""
    accepted, last = next(e for e in events if isinstance(e, Accepted)), events[-1]
    if isinstance(last, Failed):
        return Response(to_json(last), status_code=last.status, media_type="application/problem+json")
    done = cast("Done", last)
    whole_answer = AnswerDocument(
        answer_id=accepted.answer_id,
        conversation_id=accepted.conversation_id,
        text="".join(event.text for event in events if isinstance(event, Token)),
        finish_reason=done.finish_reason,
        grounded=done.grounded,
        usage=done.usage,
        limits=done.limits,
        sources=tuple(source for event in events if isinstance(event, Sources) for source in event.items),
        citations=tuple(event for event in events if isinstance(event, Citation)),
        notices=tuple(event for event in events if isinstance(event, Notice)),
    )
    return Response(msgspec.json.encode(whole_answer), media_type="application/json")


@router.get(
    "/answers/{answer_id}/events", response_model=None, responses={204: {}, 200: {"content": {"text/event-stream": {}}}}
)
async def events(
    answer_id: Id,
    who: TheCaller,
    services: TheServices,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Send the answer's stream again, from the event after `Last-Event-ID` on."""
    after, finished = await services.answers.resume_position(who, AnswerId(answer_id), last_event_id)
    if finished:
        return Response(status_code=204)
    return AnswerStream(services, AnswerId(answer_id), encode(services, who, AnswerId(answer_id), after=after))


@router.post("/answers/{answer_id}/cancel", status_code=202)
async def cancel(answer_id: Id, who: TheCaller, services: TheServices) -> Cancelled:
    """Stop an answer; what was shown stays, as cancelled."""
    return Cancelled(stopped=await services.answers.cancel(who, AnswerId(answer_id)))
