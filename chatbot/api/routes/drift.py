"""A new reference for the watch over drift, from what this replica has seen; for admins."""

import msgspec
from fastapi import APIRouter, Response

from chatbot.api.auth import TheAdmin
from chatbot.api.dependencies import TheServices
from chatbot.drift import TooFewQuestions
from chatbot.errors import NotFound

router = APIRouter(prefix="/v1/admin", tags=["drift"])


@router.get("/drift/reference")
async def take_reference(admin: TheAdmin, services: TheServices) -> Response:  # noqa: ARG001  whoever may look
    """Return the reference as `DRIFT__REFERENCE` reads it."""
    try:
        reference = await services.drift.take_reference()
    except TooFewQuestions as exc:
        raise NotFound(str(exc)) from exc
    return Response(msgspec.json.encode(reference), media_type="application/json")
