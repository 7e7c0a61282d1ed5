"""What may be spent and what is: a caller's own; for an admin everybody's of the tenant, and a way to forgive it."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
import structlog
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from chatbot.api.auth import TheAdmin, TheCaller
from chatbot.api.dependencies import TheServices
from chatbot.api.rate_limit_headers import rate_limit_headers
from chatbot.errors import Unprocessable
from chatbot.limits import Caller, Limit, Scope, Spending
from chatbot.services import Services
from knowledge.identity import Principal, Role

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
async def limits(who: TheCaller, services: TheServices) -> Response:
    """Return what the caller has left."""
    left = await services.ledger.limits(Caller.of(who, services.models.model))
    return Response(msgspec.json.encode(left), headers=rate_limit_headers(left), media_type="application/json")


@router.get("/admin/limits")
async def spending(
    admin: TheAdmin,
    services: TheServices,
    sub: Name = None,
    model: Name = None,
    role: Annotated[tuple[Role, ...], Query()] = (),
) -> list[ScopeSpending]:
    """Return what the tenant, its use of a model, and with `sub` a user (by the limits of these roles) has spent."""
    spent = await services.ledger.spending(caller_named(admin, services, sub=sub, model=model, roles=role))
    return shown(one for one in spent if one.scope != "user" or sub is not None)


@router.delete("/admin/limits")
async def reset(
    admin: TheAdmin, services: TheServices, scope: Scope, sub: Name = None, model: Name = None
) -> list[ScopeSpending]:
    """Forgive what one scope has spent of its minute and of its day; answers that run keep their slots."""
    named = {"tenant": admin.tenant, "user": sub, "model": model}[scope]
    if named is None:
        raise Unprocessable(f"say whose: add {'sub' if scope == 'user' else 'model'}=…")
    spent = await services.ledger.reset(caller_named(admin, services, sub=sub, model=model), scope)
    log.warning("limits_reset", by=admin.sub, tenant=admin.tenant, scope=scope, name=named)
    return shown(one for one in spent if one.scope == scope)


def caller_named(
    admin: Principal, services: Services, *, sub: str | None, model: str | None, roles: Sequence[Role] = ()
) -> Caller:
    """Return somebody of the admin's own tenant."""
    return Caller(
        tenant=admin.tenant, sub=sub or admin.sub, model=model or services.models.model, roles=frozenset(roles)
    )


def shown(spent: Iterable[Spending]) -> list[ScopeSpending]:
    """Return the scopes as they go over the wire."""
    return [
        ScopeSpending(
            scope=one.scope,
            name=one.name,
            limit=one.limit,
            spent=Spent(
                tokens=one.use.tokens,
                requests=one.use.requests,
                concurrent=one.use.slots,
                tokens_today=one.use.today,
            ),
        )
        for one in spent
    ]
