"""A new reference for drift, sampled from the questions of this replica; for the role `platform`."""

import msgspec
from fastapi import APIRouter, Response

from chatbot.api.auth import ThePlatform
from chatbot.api.dependencies import TheDrift
from chatbot.drift import TooFewQuestions
from chatbot.errors import NotFound

router = APIRouter(prefix="/v1/admin", tags=["drift"])


@router.get("/drift/reference")
async def take_reference(operator: ThePlatform, drift: TheDrift) -> Response:  # noqa: ARG001  operators only
    """Return the reference as `DRIFT__REFERENCE` reads it."""
    try:
        reference = await drift.take_reference()
    except TooFewQuestions as exc:
        raise NotFound(str(exc)) from exc
    return Response(msgspec.json.encode(reference), media_type="application/json")
