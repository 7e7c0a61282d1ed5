"""Stop and resume the chatbot, a model or a tenant on every replica within seconds; each change is recorded.

The role `platform` may stop and see everything; an `admin` may stop and see their own tenant.
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

_MOST_CHANGES = 50

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=400, pattern="^[^\\x00]*$")]


class ChangeRequest(BaseModel):
    """The reason of a stop or resume, and its object: an entry of the MODELS_FILE, a tenant, or else everything."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    tenant: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern="^[^\\x00]*$")] | None = None
    reason: Reason

    @model_validator(mode="after")
    def _names_one_at_most(self) -> Self:
        if self.model is not None and self.tenant is not None:
            raise ValueError("a model is stopped for all tenants: name a model or a tenant")
        return self


class TenantChangeRequest(BaseModel):
    """The reason of a stop or resume of the caller's tenant."""

    reason: Reason


class ModelState(BaseModel):
    """The state of an endpoint of a model."""

    name: str
    group: str
    model: str
    endpoint: str
    breaker: str
    stopped: bool


class StopState(BaseModel):
    """The stops that this replica knows of, and the latest changes, newest first."""

    stopped: bool
    stopped_models: list[str]
    stopped_tenants: list[str] = []
    models: list[ModelState]
    changes: list[StopChange] = Field(max_length=_MOST_CHANGES)


class TenantStopState(BaseModel):
    """Whether this replica knows of a stop of the caller's tenant, and the tenant's latest changes, newest first."""

    stopped: bool
    """Whether the tenant or everything is stopped."""
    changes: list[StopChange] = Field(max_length=_MOST_CHANGES)


@router.get("/tenant/stops")
async def tenant_stops(admin: TheAdmin, withdrawals: TheWithdrawals) -> TenantStopState:
    """Return whether the caller's tenant is stopped, and its latest changes."""
    return await tenant_stop_state(admin.tenant, withdrawals)


@router.post("/tenant/stop")
async def stop_tenant(change: TenantChangeRequest, admin: TheAdmin, services: TheServices) -> TenantStopState:
    """Stop all answers of the caller's tenant, including running ones."""
    await make_change("stop", admin, services, tenant=admin.tenant, reason=change.reason)
    return await tenant_stop_state(admin.tenant, services.withdrawals)


@router.post("/tenant/resume")
async def resume_tenant(change: TenantChangeRequest, admin: TheAdmin, services: TheServices) -> TenantStopState:
    """Resume the caller's tenant; it still does not answer while everything is stopped."""
    await make_change("resume", admin, services, tenant=admin.tenant, reason=change.reason)
    return await tenant_stop_state(admin.tenant, services.withdrawals)


@router.get("/stops")
async def stops(operator: ThePlatform, models: TheModels, withdrawals: TheWithdrawals) -> StopState:  # noqa: ARG001  operators only
    """Return the stops, the state of each model's endpoints, and the latest changes."""
    return await stop_state(models, withdrawals)


@router.post("/stop")
async def stop(change: ChangeRequest, operator: ThePlatform, services: TheServices) -> StopState:
    """Stop all answers, or those of a model or a tenant, including running ones."""
    return await change_stops("stop", change, operator, services)


@router.post("/resume")
async def resume(change: ChangeRequest, operator: ThePlatform, services: TheServices) -> StopState:
    """Resume the chatbot, a model or a tenant."""
    return await change_stops("resume", change, operator, services)


async def change_stops(
    action: Literal["stop", "resume"], change: ChangeRequest, operator: Principal, services: Services
) -> StopState:
    """Make and record the change; return the stops after it.

    Raises:
        NotFound: no model has that name.
        AuditUnavailable: as `make_change`.
    """
    known_models = services.models.names | services.withdrawals.stopped_models()
    if change.model is not None and change.model not in known_models:
        raise NotFound(f"no model is named {change.model}: there are {', '.join(sorted(known_models))}")
    await make_change(action, operator, services, model=change.model, tenant=change.tenant, reason=change.reason)
    return await stop_state(services.models, services.withdrawals)


async def make_change(
    action: Literal["stop", "resume"],
    who: Principal,
    services: Services,
    *,
    model: str | None = None,
    tenant: str | None = None,
    reason: str,
) -> None:
    """Make and record a change; raise `AuditUnavailable` if it could not be recorded, and so was not made."""
    by, at = f"{who.tenant}/{who.sub}", services.now()
    try:
        await services.withdrawals.change(
            StopChange(action=action, model=model, tenant=tenant, by=by, reason=reason, at=at)
        )
    except UNAVAILABLE as exc:
        raise AuditUnavailable("the change could not be recorded") from exc
    code = Code.ANSWERS_STOPPED if action == "stop" else Code.ANSWERS_RESUMED
    services.siem.emit(code, tenant=who.tenant, by=who.sub, about=change_target(model=model, tenant=tenant))


async def stop_state(models: Models, withdrawals: Withdrawals) -> StopState:
    """Return the stops, the state of each model's endpoints, and the latest changes."""
    changes = await latest_changes(withdrawals)
    return StopState(
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


async def tenant_stop_state(tenant: str, withdrawals: Withdrawals) -> TenantStopState:
    """Return whether a tenant is stopped, and its latest changes."""
    return TenantStopState(
        stopped=withdrawals.stopped(tenant), changes=await latest_changes(withdrawals, tenant=tenant)
    )


async def latest_changes(withdrawals: Withdrawals, *, tenant: str | None = None) -> list[StopChange]:
    """Return the latest changes of all tenants, or of one; raise `AuditUnavailable` if they cannot be read."""
    try:
        return list(await withdrawals.changes(limit=_MOST_CHANGES, tenant=tenant))
    except UNAVAILABLE as exc:
        raise AuditUnavailable("the changes cannot be read") from exc
