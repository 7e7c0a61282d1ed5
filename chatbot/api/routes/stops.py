"""Stopping and resuming the chatbot, or one model, on every replica within seconds; recorded, for operators only."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field, StringConstraints

from chatbot.api.auth import ThePlatform
from chatbot.api.dependencies import TheModels, TheServices, TheWithdrawals
from chatbot.errors import AuditUnavailable, NotFound
from chatbot.models import Models
from chatbot.services import Services
from knowledge.identity import Principal
from knowledge.storage import UNAVAILABLE
from knowledge.withdrawals import StopChange, Withdrawals

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
async def stops(operator: ThePlatform, models: TheModels, withdrawals: TheWithdrawals) -> State:  # noqa: ARG001  operators only
    """Return what is stopped, how each model stands, and who changed what."""
    return await state(models, withdrawals)


@router.post("/stop")
async def stop(change: Change, operator: ThePlatform, services: TheServices) -> State:
    """Stop every answer, or everything that a model says; running answers end too."""
    return await changed("stop", change, operator, services)


@router.post("/resume")
async def resume(change: Change, operator: ThePlatform, services: TheServices) -> State:
    """Let the chatbot, or a model, answer again."""
    return await changed("resume", change, operator, services)


async def changed(action: Literal["stop", "resume"], change: Change, operator: Principal, services: Services) -> State:
    """Make and record the change; return what is stopped afterwards.

    Raises:
        NotFound: no model has that name.
        AuditUnavailable: the change could not be recorded, so it was not made.
    """
    known = services.models.names | services.withdrawals.stopped_models()
    if change.model is not None and change.model not in known:
        raise NotFound(f"no model is named {change.model}: there are {', '.join(sorted(known))}")
    stop_change = StopChange(
        action=action,
        model=change.model,
        by=f"{operator.tenant}/{operator.sub}",
        reason=change.reason,
        at=services.now(),
    )
    try:
        await services.withdrawals.change(stop_change)
    except UNAVAILABLE as exc:
        raise AuditUnavailable("the change could not be written down") from exc
    return await state(services.models, services.withdrawals)


async def state(models: Models, withdrawals: Withdrawals) -> State:
    """Return what is stopped, and the latest changes.

    Raises:
        AuditUnavailable: the changes cannot be read.
    """
    try:
        changes = await withdrawals.changes(limit=_CHANGES)
    except UNAVAILABLE as exc:
        raise AuditUnavailable("the changes cannot be read") from exc
    return State(
        stopped=withdrawals.stopped(),
        stopped_models=sorted(withdrawals.stopped_models()),
        models=[
            ModelState(
                name=m.name, group=m.group, model=m.model, endpoint=m.endpoint, breaker=m.breaker, stopped=m.stopped
            )
            for m in models.endpoint_statuses()
        ],
        changes=[Changed(action=c.action, model=c.model, by=c.by, reason=c.reason, at=c.at) for c in changes],
    )
