"""The keys of machines: an admin's are those of their tenant; the role `platform` sees and revokes everybody's."""

from dataclasses import asdict
from typing import Annotated, Final, Literal, Self

from fastapi import APIRouter, Depends
from fastapi import Path as InPath
from pydantic import BaseModel, Field, StringConstraints

from chatbot.api.auth import authenticate
from chatbot.api.dependencies import TheServiceKeys, TheSiem
from chatbot.errors import AuditUnavailable, Forbidden, NotFound, Unprocessable
from knowledge.identity import MACHINE, Principal
from knowledge.service_keys import MOST_LISTED, KeyRefused, NewKey, ServiceKey
from knowledge.storage import UNAVAILABLE
from telemetry.ocsf import Code

router = APIRouter(prefix="/v1/admin/keys", tags=["keys"])

OF_ADMIN: Final = frozenset({"admin", "customer", "staff", "service", "evals"})
"""What an admin may do, and so may have a machine do; an approver is a person."""

_PLAIN: Final = (
    r"^[^\x00-\x1f\x7f-\x9f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\ufeff\ufff9-\ufffb]*$"
)
"""One line that shows what it is. No controls, format or line separators,
by number: not every reader of an OpenAPI document knows `\\p{Cf}`."""
KeyRole = Literal["admin", "customer", "evals", "platform", "service", "staff"]
KeyId = Annotated[str, InPath(pattern="^[0-9a-f]{16}$")]


async def require_keeper(principal: Annotated[Principal, Depends(authenticate)]) -> Principal:
    """Return the caller, if they keep keys.

    Raises:
        Forbidden: they administer no tenant and not the platform.
    """
    if not principal.roles & {"admin", "platform"}:
        raise Forbidden("this token carries neither the role admin nor platform")
    return principal


Keeper = Annotated[Principal, Depends(require_keeper)]


class Wanted(BaseModel):
    """Which machine of the caller's tenant gets a key, its roles, and for how many days (as many as there may be)."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=_PLAIN)]
    roles: Annotated[list[KeyRole], Field(min_length=1, max_length=6, fail_fast=True)]
    days: Annotated[int, Field(ge=1, le=36_500)] | None = None


class Key(BaseModel):
    """A key: who may do what with it, who made and revoked it, and when (Unix seconds)."""

    id: str
    tenant: str
    name: str
    roles: list[str]
    made_by: str
    made_at: float
    expires_at: float
    revoked_by: str | None
    revoked_at: float | None

    @classmethod
    def of(cls, key: ServiceKey) -> Self:
        """Return a key as it is sent."""
        return cls(**asdict(key) | {"roles": sorted(key.roles)})


class Made(BaseModel):
    """A key that was made, and what its machine sends as its bearer token: nobody can read it again."""

    made: Key
    key: str


class Listed(BaseModel):
    """The keys that were made, the newest first, those that are over too."""

    keys: list[Key] = Field(max_length=MOST_LISTED)


@router.get("")
async def listed(keeper: Keeper, keys: TheServiceKeys) -> Listed:
    """Return the keys of the caller's tenant, for the role `platform` everybody's."""
    try:
        return Listed(keys=[Key.of(key) for key in await keys.all(tenant=_only_of(keeper))])
    except UNAVAILABLE as exc:
        raise AuditUnavailable("the keys cannot be read") from exc


@router.post("", status_code=201)
async def make(wanted: Wanted, keeper: Keeper, keys: TheServiceKeys, siem: TheSiem) -> Made:
    """Make a key of the caller's tenant, with no role that they do not have themselves."""
    if keeper.is_machine:
        raise Forbidden("only people may create keys; a service key may not")
    if more := sorted(set(wanted.roles) - _givable(keeper)):
        raise Forbidden(f"you cannot give roles that you do not have: {', '.join(more)}")
    new = NewKey(
        tenant=keeper.tenant, name=wanted.name, roles=frozenset(wanted.roles), made_by=_name(keeper), days=wanted.days
    )
    try:
        made, key = await keys.make(new)
    except KeyRefused as exc:
        raise Unprocessable(str(exc)) from exc
    except UNAVAILABLE as exc:
        raise AuditUnavailable("the key could not be stored, so it was not created") from exc
    siem.emit(
        Code.KEY_MADE,
        tenant=made.tenant,
        by=keeper.sub,
        about=MACHINE + made.id,
        detail=f"roles: {', '.join(sorted(made.roles))}",
    )
    return Made(made=Key.of(made), key=key)


@router.delete("/{key_id}")
async def revoke(key_id: KeyId, keeper: Keeper, keys: TheServiceKeys, siem: TheSiem) -> Key:
    """Revoke a key: within 5 s no replica takes it. Revoking it again changes nothing."""
    try:
        revoked = await keys.revoke(key_id, by=_name(keeper), tenant=_only_of(keeper))
    except UNAVAILABLE as exc:
        raise AuditUnavailable("the key could not be revoked") from exc
    if revoked is None:
        raise NotFound("there is no such key")
    siem.emit(Code.KEY_REVOKED, tenant=revoked.tenant, by=keeper.sub, about=MACHINE + revoked.id)
    return Key.of(revoked)


def _only_of(keeper: Principal) -> str | None:
    return None if "platform" in keeper.roles else keeper.tenant


def _givable(keeper: Principal) -> frozenset[str]:
    return keeper.roles | OF_ADMIN if "admin" in keeper.roles else keeper.roles


def _name(who: Principal) -> str:
    return f"{who.tenant}/{who.sub}"
