"""Replay an answer of the admin's tenant; `chatbot replay` cannot do so while this process uses an embedded index."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, StringConstraints

from chatbot.api.auth import TheAdmin
from chatbot.api.dependencies import TheServices
from chatbot.proof import ReplayContext, replay
from telemetry.ocsf import Code

router = APIRouter(prefix="/v1/admin", tags=["replay"])


class ReplayRequest(BaseModel):
    """The question as somebody reports it, for an answer whose question is not stored any more."""

    question: Annotated[str, StringConstraints(min_length=1, max_length=4000)] | None = None


@router.post("/answers/{answer_id}/replay")
async def replay_answer(answer_id: str, body: ReplayRequest, admin: TheAdmin, services: TheServices) -> Response:
    """Return what the answer's audit rows record, and for each part whether it is the same, differs or is gone."""
    context = ReplayContext.of(services)
    replayed = await replay(answer_id, context, tenant=admin.tenant, question=body.question)
    services.siem.emit(Code.ANSWER_REPLAYED, tenant=admin.tenant, by=admin.sub, about=answer_id)
    return Response(msgspec.json.encode(replayed), media_type="application/json")
