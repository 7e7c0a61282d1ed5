"""The caller's own identity, from which a page decides which actions it offers."""

from fastapi import APIRouter

from ingest.api.auth import Staff
from ingest.api.dependencies import TheServices
from ingest.api.schemas import MeOut

router = APIRouter(prefix="/v1/me", tags=["me"])


@router.get("")
async def me(who: Staff, services: TheServices) -> MeOut:
    """Return the caller as named in the token, and the bank's time zone."""
    return MeOut(sub=who.sub, tenant=who.tenant, roles=sorted(who.roles), zone=services.settings.zone)
