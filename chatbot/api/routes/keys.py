"""Manage the keys of machines: an admin those of their tenant; the role `platform` lists and revokes all keys."""

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

ADMINS_ROLES: Final = frozenset({"admin", "customer", "staff", "service", "evals"})
"""The roles that an admin may give to a key without having them; `approver` is only for people."""

_PLAIN: Final = (
    r"^[^\x00-\x1f\x7f-\x9f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\ufeff\ufff9-\ufffb]*$"
)
"""One line without invisible characters (controls, formats, separators), which are listed by number because not every
reader of an OpenAPI document supports `\\p{Cf}`."""
KeyRole = Literal["admin", "customer", "evals", "platform", "service", "staff"]
KeyId = Annotated[str, InPath(pattern="^[0-9a-f]{16}$")]


async def require_key_manager(principal: Annotated[Principal, Depends(authenticate)]) -> Principal:
    """Return the caller; raise `Forbidden` if they may not manage keys."""
    if not principal.roles & {"admin", "platform"}:
        raise Forbidden("this token carries neither the role admin nor platform")
    return principal


KeyManager = Annotated[Principal, Depends(require_key_manager)]


class KeyRequest(BaseModel):
    """A new key for a machine of the caller's tenant: its roles, and its validity in days (default: the longest)."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=_PLAIN)]
    roles: Annotated[list[KeyRole], Field(min_length=1, max_length=6, fail_fast=True)]
    days: Annotated[int, Field(ge=1, le=36_500)] | None = None


class Key(BaseModel):
    """A key without its secret: its tenant and roles, who created and revoked it, and when (Unix seconds)."""

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
        """Return a key as the API returns it."""
        return cls(**asdict(key) | {"roles": sorted(key.roles)})


class CreatedKey(BaseModel):
    """A new key, and the secret that its machine sends as its bearer token, which is returned only here."""

    made: Key
    key: str


class KeyList(BaseModel):
    """The keys, the newest first, including expired and revoked ones."""

    keys: list[Key] = Field(max_length=MOST_LISTED)


@router.get("")
async def list_keys(manager: KeyManager, keys: TheServiceKeys) -> KeyList:
    """Return the newest keys (at most 1,000) of the caller's tenant, or of all tenants for the role `platform`."""
    try:
        return KeyList(keys=[Key.of(key) for key in await keys.newest(tenant=_managed_tenant(manager))])
    except UNAVAILABLE as exc:
        raise AuditUnavailable("the keys cannot be read") from exc


@router.post("", status_code=201)
async def create_key(requested: KeyRequest, manager: KeyManager, keys: TheServiceKeys, siem: TheSiem) -> CreatedKey:
    """Create a key of the caller's tenant.

    A caller may give the key their own roles; an admin also `customer`, `evals`, `service` and `staff`. No key has the
    role `approver`.
    """
    if manager.is_machine:
        raise Forbidden("only people may create keys; a service key may not")
    roles = frozenset(requested.roles)
    forbidden_roles = sorted(roles - _givable_roles(manager))
    if forbidden_roles:
        raise Forbidden(f"you may not give these roles to a key: {', '.join(forbidden_roles)}")
    new = NewKey(tenant=manager.tenant, name=requested.name, roles=roles, made_by=_name(manager), days=requested.days)
    try:
        made, secret = await keys.make(new)
    except KeyRefused as exc:
        raise Unprocessable(str(exc)) from exc
    except UNAVAILABLE as exc:
        raise AuditUnavailable("the key could not be stored, so it was not created") from exc
    siem.emit(
        Code.KEY_MADE,
        tenant=made.tenant,
        by=manager.sub,
        about=MACHINE + made.id,
        detail=f"roles: {', '.join(sorted(made.roles))}",
    )
    return CreatedKey(made=Key.of(made), key=secret)


@router.delete("/{key_id}")
async def revoke_key(key_id: KeyId, manager: KeyManager, keys: TheServiceKeys, siem: TheSiem) -> Key:
    """Revoke a key; within 5 s, every replica rejects it. A second call changes nothing."""
    try:
        revoked = await keys.revoke(key_id, by=_name(manager), tenant=_managed_tenant(manager))
    except UNAVAILABLE as exc:
        raise AuditUnavailable("the key could not be revoked") from exc
    if revoked is None:
        raise NotFound("there is no such key")
    siem.emit(Code.KEY_REVOKED, tenant=revoked.tenant, by=manager.sub, about=MACHINE + revoked.id)
    return Key.of(revoked)


def _managed_tenant(manager: Principal) -> str | None:
    """Return the tenant whose keys the caller manages; None: all tenants."""
    return None if "platform" in manager.roles else manager.tenant


def _givable_roles(manager: Principal) -> frozenset[str]:
    return manager.roles | ADMINS_ROLES if "admin" in manager.roles else manager.roles


def _name(who: Principal) -> str:
    return f"{who.tenant}/{who.sub}"
