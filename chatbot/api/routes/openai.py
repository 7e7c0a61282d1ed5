"""The same answers for any OpenAI client: `openai_request` reads its requests, `openai_reply` writes the replies.

No stream can be resumed here: a client that disconnects, at any time and streaming or not, stops the model at once.
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
from chatbot.api.openai_request import AskedQuestion, CompletionRequest, read_request
from chatbot.api.problems import Format, Problem, failed_reply
from chatbot.api.rate_limit_headers import rate_limit_headers
from chatbot.api.routes.chat import (
    AnswerStream,
    Ask,
    IdempotencyKey,
    OnSent,
    begin,
    collect,
    digest_of,
    repeated,
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
    """An answer that is started or joined, and the request for it: the body is read once."""

    answer: StartedAnswer
    asked: CompletionRequest


async def begin_completion(
    asked: CompletionRequest,
    who: TheCaller,
    services: TheServices,
    request: Request,
    idempotency_key: IdempotencyKey = None,
) -> StartedCompletion:
    """Begin the answer to an OpenAI request, or join the one of its Idempotency-Key; every refusal is raised here."""
    refuse_other_models(asked.model, served=services.models.model)
    question = question_of(read_request(asked))
    request.state.language = language_of(question.text)  # a refusal names a person in it
    digest = digest_of(asked.model_dump_json(exclude={"stream", "stream_options"}))
    work = partial(begin, question, who, services)
    with services.answers.writers.accepting():
        return StartedCompletion(await services.idempotency.begin_once(who, idempotency_key, digest, work), asked)


def refuse_other_models(model: str, *, served: str) -> None:
    """Refuse a model that is not the one served; every name is accepted while the served model's name is unknown.

    Raises:
        ModelNotFound: it is not.
    """
    if model != served != UNKNOWN_MODEL:
        raise not_served(model, served=served)


def not_served(model: str, *, served: str) -> ModelNotFound:
    """Return the refusal of a model that is not the one served."""
    return ModelNotFound(f"The model '{model}' is not served here; '{served}' is")


def question_of(asked: AskedQuestion) -> Question:
    """Return the question, within the bounds that every question has.

    Raises:
        RequestValidationError: it is empty, too long, or contains control characters.
    """
    try:
        ask = Ask(message=asked.text)
    except ValidationError as exc:
        place = ("body", "messages", asked.position, "content")
        raise RequestValidationError([{**error, "loc": place} for error in exc.errors()]) from exc
    return Question(text=ask.message, earlier=asked.earlier, max_answer_tokens=asked.max_answer_tokens)


TheCompletion = Annotated[StartedCompletion, Depends(begin_completion)]


@router.post("/chat/completions", response_model=None, responses={200: {"content": {"text/event-stream": {}}}})
async def complete(
    completion_started: TheCompletion, who: TheCaller, request: Request, services: TheServices
) -> Response:
    """Answer the last message: one JSON document, or with `stream` chunks that end with `[DONE]`."""
    started, asked = completion_started.answer, completion_started.asked
    readers, created = services.answers.readers, int(services.now())
    on_sent = await repeated(who, services.reads) if started.joined else None
    if asked.stream:
        chunks = Chunks(created=created, include_usage=asked.include_usage)
        sent = encode(readers, who, started.answer_id, chunks, on_sent=on_sent)
        response: Response = AnswerStream(
            readers, who, started.answer_id, sent, longest_answer=services.settings.longest_answer, resumable=False
        )
    else:
        events = await collect(readers, who, started.answer_id, request, on_sent=on_sent)
        response = document(events, created=created) if events else Response(status_code=499)
    response.headers["x-request-id"] = current_trace_id()
    if started.limits is not None:
        response.headers.update(rate_limit_headers(started.limits))
    return response


async def encode(
    readers: Readers, who: Principal, answer_id: AnswerId, chunks: Chunks, *, on_sent: OnSent | None
) -> AsyncGenerator[ServerSentEvent]:
    """Yield the answer's chunks as server-sent events without a name, and `[DONE]`.

    An answer that is handed over to another replica breaks off here, with an error: an OpenAI client cannot resume.
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


def document(events: Sequence[Event], *, created: int) -> Response:
    """Return the finished answer, or the error that ended it, with the error's status."""
    if isinstance(events[-1], Failed):
        return failed_reply(events[-1], error_json)
    return Response(msgspec.json.encode(completion(events, created=created)), media_type="application/json")


@router.get("/models", response_model=None)
async def models(who: TheCaller, models: TheModels, now: TheTime) -> Response:  # noqa: ARG001  signed-in callers only
    """List the one model that answers here, once its name is known."""
    return Response(msgspec.json.encode(ModelList(data=served(models.model, now))), media_type="application/json")


@router.get("/models/{model:path}", response_model=None)
async def model_named(model: str, who: TheCaller, models: TheModels, now: TheTime) -> Response:  # noqa: ARG001  as above
    """Return the one model that answers here, where it has this name."""
    for served_model in served(models.model, now):
        if served_model.id == model:
            return Response(msgspec.json.encode(served_model), media_type="application/json")
    raise not_served(model, served=models.model)


def served(model: str, now: float) -> tuple[Model, ...]:
    """Return the model that answers here, once its name is known; `created` is now (Unix seconds), as vLLM sends it."""
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
"""The paths whose refusals are all in OpenAI's format."""
