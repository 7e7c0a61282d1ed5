"""Stopping the chatbot, or one model of it, on every replica within seconds; for admins, and written down."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field, StringConstraints

from chatbot.api.auth import TheAdmin
from chatbot.api.dependencies import TheServices
from chatbot.errors import AuditUnavailable, NotFound
from chatbot.services import Services
from knowledge.identity import Principal
from knowledge.storage import UNAVAILABLE
from knowledge.withdrawals import StopChange

router = APIRouter(prefix="/v1/admin", tags=["stops"])

_CHANGES = 50


class Change(BaseModel):
    """What to stop or resume, everything unless it names an entry of the MODELS_FILE, and why."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    reason: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=400, pattern="^[^\\x00]*$")
    ]


class ModelState(BaseModel):
    """How an endpoint of a model stands."""

    name: str
    group: str
    model: str
    endpoint: str
    breaker: str
    stopped: bool


class Changed(BaseModel):
    """A stop or a resumption: who, when (Unix seconds) and why."""

    action: Literal["stop", "resume"]
    model: str | None
    by: str
    reason: str
    at: float


class State(BaseModel):
    """What is stopped as this replica knows it, and the latest changes, newest first."""

    stopped: bool
    stopped_models: list[str]
    models: list[ModelState]
    changes: list[Changed] = Field(max_length=_CHANGES)


@router.get("/stops")
async def stops(admin: TheAdmin, services: TheServices) -> State:  # noqa: ARG001  whoever may look
    """Return what is stopped, how each model stands, and who changed what."""
    return await state(services)


@router.post("/stop")
async def stop(change: Change, admin: TheAdmin, services: TheServices) -> State:
    """Stop every answer, or everything that a model says; running answers end too."""
    return await changed("stop", change, admin, services)


@router.post("/resume")
async def resume(change: Change, admin: TheAdmin, services: TheServices) -> State:
    """Let the chatbot, or a model, answer again."""
    return await changed("resume", change, admin, services)


async def changed(action: Literal["stop", "resume"], change: Change, admin: Principal, services: Services) -> State:
    """Make the change and return what is stopped then.

    Raises:
        NotFound: no model has that name.
        AuditUnavailable: the change could not be written down, so it was not made.
    """
    known = services.models.names | services.withdrawals.stopped_models()
    if change.model is not None and change.model not in known:
        raise NotFound(f"no model is named {change.model}: there are {', '.join(sorted(known))}")
    made = StopChange(
        action=action,
        model=change.model,
        by=f"{admin.tenant}/{admin.sub}",
        reason=change.reason,
        at=services.now(),
    )
    try:
        await services.withdrawals.change(made)
    except UNAVAILABLE as exc:
        raise AuditUnavailable("the change could not be written down") from exc
    return await state(services)


async def state(services: Services) -> State:
    """Return what is stopped.

    Raises:
        AuditUnavailable: the changes cannot be read.
    """
    try:
        changes = await services.withdrawals.changes(limit=_CHANGES)
    except UNAVAILABLE as exc:
        raise AuditUnavailable("the changes cannot be read") from exc
    return State(
        stopped=services.withdrawals.stopped(),
        stopped_models=sorted(services.withdrawals.stopped_models()),
        models=[
            ModelState(
                name=m.name, group=m.group, model=m.model, endpoint=m.endpoint, breaker=m.breaker, stopped=m.stopped
            )
            for m in services.models.endpoint_statuses()
        ],
        changes=[Changed(action=c.action, model=c.model, by=c.by, reason=c.reason, at=c.at) for c in changes],
    )
