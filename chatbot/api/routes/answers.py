"""Routes of one answer: open a source, answer the question again, rate the answer."""

from datetime import date
from functools import partial
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field, StringConstraints

from chatbot.api.auth import TheCaller
from chatbot.api.customer_text import Comment
from chatbot.api.dependencies import TheServices
from chatbot.api.routes.chat import (
    ANSWER_CONTENT,
    AnswerTokens,
    Id,
    IdempotencyKey,
    StartedReply,
    digest_of,
    respond,
    start_answer,
)
from chatbot.conversations import Conversation, Feedback, History
from chatbot.errors import IndexUnavailable, NotFound, StillRunning
from chatbot.events import PassageRef
from chatbot.streams import AnswerId, AnswerLog
from chatbot.turns import Question
from knowledge.access import Access
from knowledge.identity import Principal
from knowledge.index import IndexUnavailable as PassageIndexUnavailable
from knowledge.screening import mask

router = APIRouter(prefix="/v1/answers/{answer_id}", tags=["answers"])

Reason = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]


class SourceText(BaseModel):
    """The passage behind a source's number."""

    n: int
    document_id: str
    version: int
    title: str
    section: str
    page: int | None
    link: str | None
    effective_from: date | None
    text: str


class RegenerateRequest(BaseModel):
    """The options of another answer to the same question."""

    max_answer_tokens: AnswerTokens | None = None
    stream: bool = True


class Rating(BaseModel):
    """A customer's rating of an answer."""

    rating: Literal["up", "down"]
    reasons: Annotated[list[Reason], Field(max_length=8, fail_fast=True)] = []
    comment: Comment = ""


@router.get("/sources/{n}")
async def source(
    answer_id: Id, n: Annotated[int, Path(ge=1, le=100)], who: TheCaller, services: TheServices
) -> SourceText:
    """Return the passage behind a source's number, if the caller may still read it."""
    refs = await passage_refs_of(AnswerId(answer_id), who, services.answer_log, services.history)
    if n > len(refs):
        raise NotFound("the answer has no such source")
    ref = refs[n - 1]
    access = Access(tenant=who.tenant, groups=who.groups, as_of=services.now())
    try:
        passage = await services.index.passage(document_id=ref.document_id, version=ref.version, n=ref.n, access=access)
    except PassageIndexUnavailable as exc:
        raise IndexUnavailable from exc
    if passage is None or services.withdrawals.is_over(passage, now=access.as_of):
        raise NotFound("the bank has withdrawn this document")
    return SourceText(
        n=n,
        document_id=passage.document_id,
        version=passage.version,
        title=passage.title,
        section=passage.section,
        page=passage.page,
        link=passage.link,
        effective_from=passage.effective_from,
        text=passage.text,
    )


async def passage_refs_of(
    answer_id: AnswerId, who: Principal, answer_log: AnswerLog, history: History
) -> tuple[PassageRef, ...]:
    """Return the passages of an answer's sources: from its log, or from its conversation if the log has expired.

    Raises:
        NotFound: the answer is not stored any more, or belongs to another customer.
    """
    try:
        return await answer_log.passages(who, answer_id)
    except NotFound:
        conversation = await conversation_with(answer_id, who, answer_log, history)
        return conversation.message(answer_id).passages


async def conversation_with(
    answer_id: AnswerId, who: Principal, answer_log: AnswerLog, history: History
) -> Conversation:
    """Return the conversation that contains the answer.

    Raises:
        StillRunning: the answer has not ended, so no conversation contains it yet.
        NotFound: the answer does not exist, or belongs to another customer.
    """
    try:
        return await history.load_by_answer(who, answer_id)
    except NotFound:
        _, lease_left = await answer_log.touch(who, answer_id, "")
        if lease_left is not None:
            raise StillRunning(retry_after=1) from None
        raise


async def begin_again(
    answer_id: Id,
    who: TheCaller,
    services: TheServices,
    options: RegenerateRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> StartedReply:
    """Start another answer to the question; raise every error that becomes a status."""
    options = options or RegenerateRequest()
    conversation = await conversation_with(AnswerId(answer_id), who, services.answer_log, services.history)
    message = conversation.message(conversation.message(answer_id).parent_id)
    question = Question(
        text=message.text,
        id=message.id,
        conversation_id=conversation.id,
        parent_id=message.parent_id,
        max_answer_tokens=options.max_answer_tokens,
    )
    digest = digest_of(f"{answer_id} {options.model_dump_json(exclude={'stream'})}")
    start = partial(start_answer, question, who, services)
    with services.answers.writers.accepting():
        started = await services.idempotency.begin_once(who, idempotency_key, digest, start)
    return StartedReply(started, stream=options.stream)


@router.post("/regenerate", response_model=None, responses={200: {"content": ANSWER_CONTENT}})
async def regenerate(
    started: Annotated[StartedReply, Depends(begin_again)], who: TheCaller, request: Request, services: TheServices
) -> Response:
    """Answer the same question again; the conversation keeps both answers."""
    return await respond(started, who, request, services)


@router.post("/feedback", response_model=None)
async def rate(answer_id: Id, rating: Rating, who: TheCaller, services: TheServices) -> Response:
    """Store the customer's rating of the answer, replacing an earlier rating."""
    conversation = await conversation_with(AnswerId(answer_id), who, services.answer_log, services.history)
    feedback = Feedback(
        rating=rating.rating,
        reasons=tuple(dict.fromkeys(rating.reasons)),
        comment=mask(rating.comment).text,
        at=services.now(),
    )
    await services.history.rate(who, conversation.id, answer_id, feedback)
    await services.ratings.write(who.tenant, conversation.id, answer_id, feedback)
    services.metrics.feedback.labels(feedback.rating).inc()
    return Response(msgspec.json.encode(feedback), media_type="application/json")
