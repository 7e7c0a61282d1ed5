"""The caller's own conversations; another customer's conversation is not found, as if it did not exist."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response

from chatbot.api.auth import TheCaller
from chatbot.api.dependencies import TheHistory, TheServices
from chatbot.api.routes.chat import Id

router = APIRouter(prefix="/v1", tags=["conversations"])


@router.get("/conversations", response_model=None)
async def conversations(
    who: TheCaller,
    history: TheHistory,
    limit: Annotated[int, Query(ge=1, le=100)] = 30,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """List conversations, the most recently changed first."""
    page = await history.list(who, limit=limit, cursor=cursor)
    return _json({"items": page.conversations, "next_cursor": page.next_cursor})


@router.get("/conversations/{conversation_id}", response_model=None)
async def conversation(
    conversation_id: Id, who: TheCaller, history: TheHistory, cursor: Annotated[str | None, Query(max_length=20)] = None
) -> Response:
    """Return a conversation with its newest messages; `next_cursor` is the cursor of the messages before them."""
    return _json(await history.page(who, conversation_id, cursor=cursor))


@router.get("/conversations/{conversation_id}/export", response_model=None)
async def export(conversation_id: Id, who: TheCaller, history: TheHistory) -> Response:
    """Return a conversation as a file for download."""
    response = _json(await history.load(who, conversation_id))
    response.headers["content-disposition"] = f'attachment; filename="conversation-{conversation_id}.json"'
    return response


@router.delete("/conversations/{conversation_id}", status_code=204)
async def delete(conversation_id: Id, who: TheCaller, services: TheServices) -> None:
    """Delete a conversation with its ratings and its answers' logs; the audit records stay."""
    messages = (await services.history.load(who, conversation_id)).messages
    # `answered_by` includes a running answer, which ends when its log is deleted.
    answer_ids = {answer_id for m in messages for answer_id in (m.answer_id, m.answered_by) if answer_id}
    await services.answer_log.delete_logs(who.tenant, list(answer_ids))
    await services.ratings.delete_ratings(who.tenant, conversation_id)
    await services.history.delete(who, conversation_id)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
