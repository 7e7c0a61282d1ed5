"""Limits and what is spent of them: the caller's own; for admins those of the tenant, which they may reset."""

import hashlib
from typing import Annotated

import msgspec
import structlog
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, FailFast

from chatbot.api.auth import TheAdmin, TheCaller
from chatbot.api.dependencies import TheLedger, TheModels, TheServices
from chatbot.api.rate_limit_headers import rate_limit_headers
from chatbot.errors import Unprocessable
from chatbot.limits import Caller, Limit, Scope, Spending
from knowledge.identity import Role
from telemetry.ocsf import Code

router = APIRouter(prefix="/v1", tags=["limits"])
log = structlog.get_logger(__name__)

Name = Annotated[str | None, Query(min_length=1, max_length=200)]


class Spent(BaseModel):
    """What a scope has spent: in the last minute, of its slots, and today."""

    tokens: int
    requests: int
    concurrent: int
    tokens_today: int


class ScopeSpending(BaseModel):
    """What a scope may spend beside what it has spent."""

    scope: Scope
    name: str
    limit: Limit
    spent: Spent


@router.get("/limits", response_model=None)
async def limits(who: TheCaller, ledger: TheLedger, models: TheModels) -> Response:
    """Return what the caller has left."""
    remaining = await ledger.limits(Caller.of(who, models.model))
    return Response(
        msgspec.json.encode(remaining), headers=rate_limit_headers(remaining), media_type="application/json"
    )


@router.get("/admin/limits")
async def spending(
    admin: TheAdmin,
    ledger: TheLedger,
    models: TheModels,
    sub: Name = None,
    model: Name = None,
    role: Annotated[tuple[Role, ...], FailFast(), Query()] = (),
) -> list[ScopeSpending]:
    """Return what the tenant, its use of a model, and with `sub` a user (by the limits of these roles) has spent."""
    caller = Caller(tenant=admin.tenant, sub=sub or admin.sub, model=model or models.model, roles=frozenset(role))
    scopes = [spent for spent in await ledger.spending(caller) if spent.scope != "user" or sub is not None]
    return [scope_spending(spent) for spent in scopes]


@router.delete("/admin/limits")
async def reset(
    admin: TheAdmin, services: TheServices, scope: Scope, sub: Name = None, model: Name = None
) -> list[ScopeSpending]:
    """Forgive what one scope has spent of its minute and of its day; answers that run keep their slots."""
    name = {"tenant": admin.tenant, "user": sub, "model": model}[scope]
    if name is None:
        raise Unprocessable(f"the scope {scope!r} needs {'sub' if scope == 'user' else 'model'}=…")
    mine = model or services.models.model
    caller = Caller(tenant=admin.tenant, sub=sub or admin.sub, model=mine, roles=frozenset())
    after = await services.ledger.reset(caller, scope)
    whose = pseudonym(admin.tenant, name) if scope == "user" else name
    services.siem.emit(Code.LIMITS_RESET, tenant=admin.tenant, by=admin.sub, about=f"{scope}:{whose}")
    log.warning("limits_reset", by=admin.sub, tenant=admin.tenant, scope=scope, name=whose)
    return [scope_spending(spent) for spent in after if spent.scope == scope]


def pseudonym(tenant: str, sub: str) -> str:
    """Return what stands for a customer in a log: it hides the name from who has no list of the customers."""
    return hashlib.sha256(f"{tenant}/{sub}".encode()).hexdigest()[:16]


def scope_spending(spent: Spending) -> ScopeSpending:
    """Return what a scope has spent as it is sent."""
    use = spent.use
    return ScopeSpending(
        scope=spent.scope,
        name=spent.name,
        limit=spent.limit,
        spent=Spent(tokens=use.tokens, requests=use.requests, concurrent=use.slots, tokens_today=use.today),
    )
