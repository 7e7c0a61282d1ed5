"""Answers for OpenAI clients: `openai_request` reads their requests, `openai_reply` converts the replies.

A stream cannot be resumed here: when a client disconnects, streaming or not, its answer is cancelled at once.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec import UNSET
from pydantic import ValidationError
from sse_starlette import ServerSentEvent

from chatbot.api.auth import TheCaller
from chatbot.api.dependencies import TheModels, TheServices, TheTime
from chatbot.api.openai_reply import Chunks, Model, ModelList, completion, error_reply
from chatbot.api.openai_request import CompletionRequest, QuestionInRequest, read_request
from chatbot.api.problems import Format, Problem, failed_reply
from chatbot.api.rate_limit_headers import rate_limit_headers
from chatbot.api.routes.chat import (
    AnswerStream,
    Ask,
    IdempotencyKey,
    OnSent,
    begin_metering,
    collect_events,
    digest_of,
    start_answer,
)
from chatbot.errors import Draining, ModelNotFound
from chatbot.events import Event, Failed
from chatbot.models import UNKNOWN_MODEL
from chatbot.streams import AnswerId, Readers, StartedAnswer
from chatbot.turns import Question
from knowledge.identity import Principal
from knowledge.passage import language_of
from telemetry.setup import current_trace_id

router = APIRouter(prefix="/v1", tags=["openai"])


@dataclass(frozen=True, slots=True)
class StartedCompletion:
    """A started or joined answer, and the request for it."""

    answer: StartedAnswer
    body: CompletionRequest


async def begin_completion(
    body: CompletionRequest,
    who: TheCaller,
    services: TheServices,
    request: Request,
    idempotency_key: IdempotencyKey = None,
) -> StartedCompletion:
    """Start an answer, or join the answer of the Idempotency-Key; raise every error that becomes a status."""
    check_model(body.model, served=services.models.model)
    question = question_of(read_request(body))
    request.state.language = language_of(question.text)  # the language in which errors name the bank's contact
    digest = digest_of(body.model_dump_json(exclude={"stream", "stream_options"}))
    start = partial(start_answer, question, who, services)
    with services.answers.writers.accepting():
        started = await services.idempotency.begin_once(who, idempotency_key, digest, start)
    return StartedCompletion(started, body)


def check_model(model: str, *, served: str) -> None:
    """Raise `ModelNotFound` unless the requested model is the served one, or the served model's name is unknown."""
    if served not in (model, UNKNOWN_MODEL):
        raise not_served(model, served=served)


def not_served(model: str, *, served: str) -> ModelNotFound:
    """Return the error for a model that is not served."""
    return ModelNotFound(f"The model '{model}' is not served here; '{served}' is")


def question_of(content: QuestionInRequest) -> Question:
    """Return the question, within the limits of every question.

    Raises:
        RequestValidationError: the question is empty, too long, or contains control characters.
    """
    try:
        ask = Ask(message=content.text)
    except ValidationError as exc:
        location = ("body", "messages", content.position, "content")
        raise RequestValidationError([{**error, "loc": location} for error in exc.errors()]) from exc
    return Question(text=ask.message, earlier=content.earlier, max_answer_tokens=content.max_answer_tokens)


TheCompletion = Annotated[StartedCompletion, Depends(begin_completion)]


@router.post("/chat/completions", response_model=None, responses={200: {"content": {"text/event-stream": {}}}})
async def complete(reply: TheCompletion, who: TheCaller, request: Request, services: TheServices) -> Response:
    """Answer the last message: one JSON document, or with `stream` chunks that end with `[DONE]`."""
    started, body = reply.answer, reply.body
    readers, created = services.answers.readers, int(services.now())
    on_sent = await begin_metering(who, services.reads) if started.joined else None
    if body.stream:
        chunks = Chunks(created=created, include_usage=body.include_usage)
        events = encode_events(readers, who, started.answer_id, chunks, on_sent=on_sent)
        longest = services.settings.longest_answer
        response: Response = AnswerStream(
            readers, who, started.answer_id, events, longest_answer=longest, resumable=False
        )
    else:
        all_events = await collect_events(readers, who, started.answer_id, request, on_sent=on_sent)
        response = answer_document(all_events, created=created) if all_events else Response(status_code=499)
    response.headers["x-request-id"] = current_trace_id()
    if started.limits is not None:
        response.headers.update(rate_limit_headers(started.limits))
    return response


async def encode_events(
    readers: Readers, who: Principal, answer_id: AnswerId, chunks: Chunks, *, on_sent: OnSent | None
) -> AsyncGenerator[ServerSentEvent]:
    """Yield the answer's chunks as server-sent events without a name, and `[DONE]`.

    If the answer is handed over to another replica, yield an error, since an OpenAI client cannot resume.
    """
    last: Event | None = None
    async with aclosing(readers.follow(who, answer_id, after=0)) as entries:
        async for entry in entries:
            last = entry.event
            if on_sent is not None:
                on_sent(len(entry.data))
            for chunk in chunks.feed(last):
                yield ServerSentEvent(data=msgspec.json.encode(chunk).decode())
    if last is None or not last.ends:
        draining = error_reply(status=Draining.status, code=Draining.code, message=Draining.title)
        yield ServerSentEvent(data=msgspec.json.encode(draining).decode())
    yield ServerSentEvent(data="[DONE]")


def answer_document(events: Sequence[Event], *, created: int) -> Response:
    """Return the finished answer, or the error that ended it, with the error's status."""
    if isinstance(events[-1], Failed):
        return failed_reply(events[-1], error_json)
    return Response(msgspec.json.encode(completion(events, created=created)), media_type="application/json")


@router.get("/models", response_model=None)
async def models(who: TheCaller, models: TheModels, now: TheTime) -> Response:  # noqa: ARG001  signed-in callers only
    """List the served model; the list is empty until its name is known."""
    return Response(
        msgspec.json.encode(ModelList(data=served_models(models.model, now))), media_type="application/json"
    )


@router.get("/models/{model:path}", response_model=None)
async def model_named(model: str, who: TheCaller, models: TheModels, now: TheTime) -> Response:  # noqa: ARG001  as above
    """Return the served model, if it has this name."""
    for served_model in served_models(models.model, now):
        if served_model.id == model:
            return Response(msgspec.json.encode(served_model), media_type="application/json")
    raise not_served(model, served=models.model)


def served_models(model: str, now: float) -> tuple[Model, ...]:
    """Return the served model, or none until its name is known; `created` is now (Unix seconds), as vLLM replies."""
    return () if model == UNKNOWN_MODEL else (Model(id=model, created=int(now)),)


def error_json(problem: Problem, headers: Mapping[str, str]) -> Response:
    """Return a problem in OpenAI's format; the request id is the trace id."""
    param = None if problem.param is UNSET else problem.param
    message = problem.detail if problem.handoff is UNSET else f"{problem.detail}. {problem.handoff}"
    body = error_reply(status=problem.status, code=problem.code, message=message, param=param)
    return Response(
        msgspec.json.encode(body),
        problem.status,
        {**headers, "x-request-id": problem.trace_id},
        media_type="application/json",
    )


FORMATS: Mapping[str, Format] = {"/v1/chat/completions": error_json, "/v1/models": error_json}
"""The paths whose errors are in OpenAI's format."""
