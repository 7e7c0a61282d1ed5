"""Limits and their use: of the caller; for admins also of the tenant and its users, whose use they may reset."""

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
    """The use of a scope: tokens and requests in the last minute, running answers, and tokens today."""

    tokens: int
    requests: int
    concurrent: int
    tokens_today: int


class ScopeSpending(BaseModel):
    """The limits and the use of a scope."""

    scope: Scope
    name: str
    limit: Limit
    spent: Spent


@router.get("/limits", response_model=None)
async def limits(who: TheCaller, ledger: TheLedger, models: TheModels) -> Response:
    """Return the caller's remaining limits."""
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
    """Return the use of the tenant, of a model by the tenant, and of the user `sub` with the roles `role`."""
    caller = Caller(tenant=admin.tenant, sub=sub or admin.sub, model=model or models.model, roles=frozenset(role))
    scopes = await ledger.spending(caller)
    return [scope_spending(spent) for spent in scopes if spent.scope != "user" or sub is not None]


@router.delete("/admin/limits")
async def reset(
    admin: TheAdmin, services: TheServices, scope: Scope, sub: Name = None, model: Name = None
) -> list[ScopeSpending]:
    """Reset the minute's and the day's use of one scope to 0; running answers keep their slots."""
    name = {"tenant": admin.tenant, "user": sub, "model": model}[scope]
    if name is None:
        raise Unprocessable(f"the scope {scope!r} needs {'sub' if scope == 'user' else 'model'}=…")
    caller = Caller(tenant=admin.tenant, sub=sub or admin.sub, model=model or services.models.model, roles=frozenset())
    scopes = await services.ledger.reset(caller, scope)
    logged_name = pseudonym(admin.tenant, name) if scope == "user" else name
    services.siem.emit(Code.LIMITS_RESET, tenant=admin.tenant, by=admin.sub, about=f"{scope}:{logged_name}")
    log.warning("limits_reset", by=admin.sub, tenant=admin.tenant, scope=scope, name=logged_name)
    return [scope_spending(spent) for spent in scopes if spent.scope == scope]


def pseudonym(tenant: str, sub: str) -> str:
    """Return a customer's pseudonym for logs, which only a reader with a list of the customers can resolve."""
    return hashlib.sha256(f"{tenant}/{sub}".encode()).hexdigest()[:16]


def scope_spending(spent: Spending) -> ScopeSpending:
    """Return a scope's limits and use as the API returns them."""
    use = spent.use
    return ScopeSpending(
        scope=spent.scope,
        name=spent.name,
        limit=spent.limit,
        spent=Spent(tokens=use.tokens, requests=use.requests, concurrent=use.slots, tokens_today=use.today),
    )
