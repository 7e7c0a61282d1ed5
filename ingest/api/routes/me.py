"""The caller: a page asks what its user may do before it offers it."""

from fastapi import APIRouter

from ingest.api.auth import Staff
from ingest.api.dependencies import TheSettings
from ingest.api.schemas import MeOut

router = APIRouter(prefix="/v1/me", tags=["me"])


@router.get("")
async def me(who: Staff, settings: TheSettings) -> MeOut:
    """Return the caller as the token names them, and the bank's time zone."""
    return MeOut(sub=who.sub, tenant=who.tenant, roles=sorted(who.roles), zone=settings.zone)
