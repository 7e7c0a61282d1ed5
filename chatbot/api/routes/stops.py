"""Stopping and resuming the chatbot, a model or a tenant on every replica within seconds; recorded.

The role `platform` stops and sees everything; a tenant's `admin` its own tenant alone.
"""

from typing import Annotated, Literal, Self

from fastapi import APIRouter
from pydantic import BaseModel, Field, StringConstraints, model_validator

from chatbot.api.auth import TheAdmin, ThePlatform
from chatbot.api.dependencies import TheModels, TheServices, TheWithdrawals
from chatbot.errors import AuditUnavailable, NotFound
from chatbot.models import UNKNOWN_MODEL, Models
from chatbot.services import Services
from knowledge.identity import Principal
from knowledge.storage import UNAVAILABLE
from knowledge.withdrawals import StopChange, Withdrawals, change_target
from telemetry.ocsf import Code

router = APIRouter(prefix="/v1/admin", tags=["stops"])

_CHANGES = 50


Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=400, pattern="^[^\\x00]*$")]


class Change(BaseModel):
    """What to stop or resume, everything unless it names an entry of the MODELS_FILE or a tenant, and why."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    tenant: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern="^[^\\x00]*$")] | None = None
    reason: Reason

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if self.model is not None and self.tenant is not None:
            raise ValueError("a model is stopped for all tenants: name a model or a tenant")
        return self


class ChangeOfTenant(BaseModel):
    """Why the caller's tenant is stopped or resumed."""

    reason: Reason


class ModelState(BaseModel):
    """How an endpoint of a model stands."""

    name: str
    group: str
    model: str
    endpoint: str
    breaker: str
    stopped: bool


class State(BaseModel):
    """What is stopped as this replica knows it, and the latest changes, newest first."""

    stopped: bool
    stopped_models: list[str]
    stopped_tenants: list[str] = []
    models: list[ModelState]
    changes: list[StopChange] = Field(max_length=_CHANGES)


class StateOfTenant(BaseModel):
    """Whether the caller's tenant answers as this replica knows it, and its own latest changes, newest first."""

    stopped: bool
    """By itself or with everybody."""
    changes: list[StopChange] = Field(max_length=_CHANGES)


@router.get("/tenant/stops")
async def tenant_stops(admin: TheAdmin, withdrawals: TheWithdrawals) -> StateOfTenant:
    """Return whether the caller's tenant is stopped, and who in it changed that."""
    return await state_of(admin.tenant, withdrawals)


@router.post("/tenant/stop")
async def stop_tenant(change: ChangeOfTenant, admin: TheAdmin, services: TheServices) -> StateOfTenant:
    """Stop every answer of the caller's tenant, running ones too."""
    await make_change("stop", admin, services, tenant=admin.tenant, reason=change.reason)
    return await state_of(admin.tenant, services.withdrawals)


@router.post("/tenant/resume")
async def resume_tenant(change: ChangeOfTenant, admin: TheAdmin, services: TheServices) -> StateOfTenant:
    """Let the caller's tenant answer again, where not everything is stopped."""
    await make_change("resume", admin, services, tenant=admin.tenant, reason=change.reason)
    return await state_of(admin.tenant, services.withdrawals)


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
    known_models = services.models.names | services.withdrawals.stopped_models()
    if change.model is not None and change.model not in known_models:
        raise NotFound(f"no model is named {change.model}: there are {', '.join(sorted(known_models))}")
    await make_change(action, operator, services, model=change.model, tenant=change.tenant, reason=change.reason)
    return await state(services.models, services.withdrawals)


async def make_change(
    action: Literal["stop", "resume"],
    who: Principal,
    services: Services,
    *,
    model: str | None = None,
    tenant: str | None = None,
    reason: str,
) -> None:
    """Make and record a change.

    Raises:
        AuditUnavailable: it could not be recorded, so it was not made.
    """
    by, at = f"{who.tenant}/{who.sub}", services.now()
    try:
        await services.withdrawals.change(
            StopChange(action=action, model=model, tenant=tenant, by=by, reason=reason, at=at)
        )
    except UNAVAILABLE as exc:
        raise AuditUnavailable("the change could not be recorded") from exc
    code = Code.ANSWERS_STOPPED if action == "stop" else Code.ANSWERS_RESUMED
    services.siem.emit(code, tenant=who.tenant, by=who.sub, about=change_target(model=model, tenant=tenant))


async def state(models: Models, withdrawals: Withdrawals) -> State:
    """Return what is stopped, and the latest changes.

    Raises:
        AuditUnavailable: the changes cannot be read.
    """
    changes = await latest_changes(withdrawals)
    return State(
        stopped=withdrawals.stopped(),
        stopped_models=sorted(withdrawals.stopped_models()),
        stopped_tenants=sorted(withdrawals.stopped_tenants()),
        models=[
            ModelState(
                name=m.entry,
                group=m.group,
                model=m.model or UNKNOWN_MODEL,
                endpoint=m.name,
                breaker=m.breaker.state,
                stopped=m.stopped,
            )
            for m in models.pool.members
        ],
        changes=changes,
    )


async def state_of(tenant: str, withdrawals: Withdrawals) -> StateOfTenant:
    """Return whether a tenant is stopped, and its latest changes.

    Raises:
        AuditUnavailable: the changes cannot be read.
    """
    return StateOfTenant(stopped=withdrawals.stopped(tenant), changes=await latest_changes(withdrawals, tenant=tenant))


async def latest_changes(withdrawals: Withdrawals, *, tenant: str | None = None) -> list[StopChange]:
    """Return the latest changes, all of them or a tenant's.

    Raises:
        AuditUnavailable: they cannot be read.
    """
    try:
        return list(await withdrawals.changes(limit=_CHANGES, tenant=tenant))
    except UNAVAILABLE as exc:
        raise AuditUnavailable("the changes cannot be read") from exc
