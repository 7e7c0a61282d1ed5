"""The same answers for any OpenAI client: `openai_request` says what is taken, `openai_reply` what it becomes.

Nothing here resumes: a caller who leaves, streaming or not, before the first token or after, stops the model at once.
"""

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec import UNSET
from pydantic import ValidationError
from sse_starlette import ServerSentEvent

from chatbot.api.auth import TheCaller
from chatbot.api.dependencies import TheServices
from chatbot.api.openai_reply import Chunks, Model, ModelList, completion, error_reply
from chatbot.api.openai_request import AskedQuestion, CompletionRequest, read_request
from chatbot.api.problems import Format, Problem
from chatbot.api.rate_limit_headers import rate_limit_headers
from chatbot.api.routes.chat import AnswerStream, Ask, IdempotencyKey, begin, collect, digest_of, refuse_while_draining
from chatbot.errors import Draining, ModelNotFound
from chatbot.events import LAST, Event, Failed
from chatbot.models import UNKNOWN_MODEL
from chatbot.services import Services
from chatbot.streams import AnswerId, BegunAnswer
from chatbot.transcript import Question
from knowledge.identity import Principal
from telemetry.setup import current_trace_id

router = APIRouter(prefix="/v1", tags=["openai"])


async def begun_completion(
    asked: CompletionRequest,
    who: TheCaller,
    services: TheServices,
    request: Request,
    idempotency_key: IdempotencyKey = None,
) -> BegunAnswer:
    """Begin the answer to an OpenAI request, or join the one that its Idempotency-Key began; all refusals come here."""
    refuse_while_draining(request)
    refuse_other_models(asked.model, services)
    question = question_of(read_request(asked), services)
    digest = digest_of(asked.model_dump_json(exclude={"stream", "stream_options"}))
    return await services.idempotency.begin_once(who, idempotency_key, digest, partial(begin, question, who, services))


def refuse_other_models(model: str, services: Services) -> None:
    """Refuse a model that is not the one served here; while that one's name is unknown, none can be told apart.

    Raises:
        ModelNotFound: it is another.
    """
    if model != services.models.model != UNKNOWN_MODEL:
        raise not_served(model, services)


def not_served(model: str, services: Services) -> ModelNotFound:
    """Return the refusal of a model that is another than the one served here."""
    return ModelNotFound(f"The model '{model}' is not served here; '{services.models.model}' is")


def question_of(asked: AskedQuestion, services: Services) -> Question:
    """Return the question, within the bounds that every question has.

    Raises:
        RequestValidationError: it is empty, too long, or no text.
    """
    settings = services.settings
    try:
        ask = Ask(message=asked.text)
    except ValidationError as exc:
        place = ("body", "messages", asked.position, "content")
        raise RequestValidationError([{**error, "loc": place} for error in exc.errors()]) from exc
    return Question(
        text=ask.message,
        earlier=asked.earlier,
        max_answer_tokens=min(asked.max_answer_tokens or settings.max_answer_tokens, settings.most_answer_tokens),
    )


TheCompletion = Annotated[BegunAnswer, Depends(begun_completion)]


@router.post("/chat/completions", response_model=None, responses={200: {"content": {"text/event-stream": {}}}})
async def complete(
    asked: CompletionRequest, begun: TheCompletion, who: TheCaller, services: TheServices, request: Request
) -> Response:
    """Answer the last message: one JSON document, or with `stream` chunks that end with `[DONE]`."""
    created = int(services.now())
    if asked.stream:
        chunks = Chunks(created=created, include_usage=asked.include_usage)
        events = encode(services, who, begun.answer_id, chunks)
        response: Response = AnswerStream(services, begun.answer_id, events, resumable=False)
    else:
        whole = await collect(services, who, begun.answer_id, request)
        response = document(whole, created=created) if whole else Response(status_code=499)
    response.headers["x-request-id"] = current_trace_id()
    if begun.limits is not None:
        response.headers.update(rate_limit_headers(begun.limits))
    return response


async def encode(
    services: Services, who: Principal, answer_id: AnswerId, chunks: Chunks
) -> AsyncGenerator[ServerSentEvent]:
    """Yield the answer's chunks as server-sent events without a name, and `[DONE]`.

    An answer that is handed to another replica breaks off here: its reader cannot follow it there, and is told so.
    """
    last: Event | None = None
    async with aclosing(services.answers.follow(who, answer_id, after=0)) as entries:
        async for entry in entries:
            last = entry.event
            for chunk in chunks.feed(last):
                yield ServerSentEvent(data=msgspec.json.encode(chunk).decode())
    if not isinstance(last, LAST):
        away = error_reply(status=Draining.status, code=Draining.code, message=Draining.title)
        yield ServerSentEvent(data=msgspec.json.encode(away).decode())
    yield ServerSentEvent(data="[DONE]")


def document(events: Sequence[Event], *, created: int) -> Response:
    """Return the finished answer, or the error that it ended in with the status it would have carried."""
    body = msgspec.json.encode(completion(events, created=created))
    match events[-1]:
        case Failed(status=status, retry_after_ms=milliseconds):
            headers = {} if milliseconds is None else {"retry-after": str(math.ceil(milliseconds / 1000))}
            return Response(body, status, headers, media_type="application/json")
    return Response(body, media_type="application/json")


@router.get("/models", response_model=None)
async def models(who: TheCaller, services: TheServices) -> Response:  # noqa: ARG001 - whoever lists them is signed in
    """List the one model that answers here, once its name is known."""
    return Response(msgspec.json.encode(ModelList(data=served(services))), media_type="application/json")


@router.get("/models/{model:path}", response_model=None)
async def model_named(model: str, who: TheCaller, services: TheServices) -> Response:  # noqa: ARG001 - as above
    """Return the one model that answers here, where it has this name."""
    for one in served(services):
        if one.id == model:
            return Response(msgspec.json.encode(one), media_type="application/json")
    raise not_served(model, services)


def served(services: Services) -> tuple[Model, ...]:
    """Return the one model that answers here, once its name is known; `created` is now, as vLLM says it."""
    name = services.models.model
    return () if name == UNKNOWN_MODEL else (Model(id=name, created=int(services.now())),)


def error_json(problem: Problem, headers: Mapping[str, str]) -> Response:
    """Return a problem in OpenAI's format; the trace id is the request's id."""
    param = None if problem.param is UNSET else problem.param
    body = error_reply(status=problem.status, code=problem.code, message=problem.detail, param=param)
    return Response(
        msgspec.json.encode(body),
        problem.status,
        {**headers, "x-request-id": problem.trace_id},
        media_type="application/json",
    )


FORMATS: Mapping[str, Format] = {"/v1/chat/completions": error_json, "/v1/models": error_json}
"""The addresses whose every refusal is in OpenAI's format."""
