"""Versions of all documents by state, such as those waiting for approval or failed."""

from typing import Annotated

from fastapi import APIRouter, Query

from ingest.api.auth import Staff
from ingest.api.dependencies import LARGEST_VERSION, TheServices
from ingest.api.schemas import CountsOut, StateOut, VersionOut
from ingest.catalogue import State
from ingest.errors import Unprocessable

router = APIRouter(prefix="/v1/versions", tags=["versions"])

_DERIVED_STATES = (State.ACTIVE, State.EXPIRED)


@router.get("")
async def versions(
    who: Staff,
    services: TheServices,
    state: State = State.INDEXED,
    cursor: Annotated[str, Query(pattern=r"^([\w.\-]{1,100}/\d{1,10})?$")] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> StateOut:
    """List the versions in a stored state, by document; by default the drafts, which wait for approval.

    Active and expired are derived from the time: such versions are listed as approved.
    """
    if state in _DERIVED_STATES:
        raise Unprocessable("state: active and expired versions are among the approved ones")
    document_id, _, number = cursor.rpartition("/")
    after_version = int(number or 0)
    if after_version > LARGEST_VERSION:
        raise Unprocessable("cursor: no version has such a number")
    after = (document_id, after_version)
    in_state = await services.catalogue.in_state(who.tenant, state, limit=limit + 1, after=after)
    page = [VersionOut.of(version, services.now()) for version in in_state[:limit]]
    last = page[-1] if len(in_state) > limit else None
    return StateOut(versions=page, next=f"{last.document_id}/{last.version}" if last else None)


@router.get("/counts")
async def counts(who: Staff, services: TheServices) -> CountsOut:
    """Return the number of drafts waiting for approval and of versions that could not be indexed."""
    by_state = await services.catalogue.counts(who.tenant)
    return CountsOut(drafts=by_state.get(State.INDEXED, 0), failed=by_state.get(State.FAILED, 0))
