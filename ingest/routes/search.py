"""The test question: what a customer of a group would have found at an instant."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from ingest.auth import Staff
from ingest.errors import Unprocessable
from ingest.services import TheServices
from ingest.wire import HitOut, SearchOut
from knowledge.access import EVERY_CUSTOMER, Access

router = APIRouter(prefix="/v1/search", tags=["search"])


@router.get("")
async def search(
    q: Annotated[str, Query(min_length=1, max_length=4000)],
    who: Staff,
    services: TheServices,
    as_of: Annotated[datetime | None, Query(description="a date, or a time; default: now")] = None,
    as_group: Annotated[str, Query(max_length=100)] = EVERY_CUSTOMER,
) -> SearchOut:
    """Search as a customer of `as_group` would have at `as_of` (a time without a zone is the bank's)."""
    if not q.strip():
        raise Unprocessable("q: a question")
    at = services.now()
    if as_of is not None:
        at = (as_of if as_of.tzinfo else as_of.replace(tzinfo=services.zone)).timestamp()
    access = Access(tenant=who.tenant, groups=frozenset((as_group,)), as_of=at)
    hits = await services.index.search(q, access=access, limit=10)
    return SearchOut(as_of=at, as_group=as_group, hits=[HitOut.of(hit) for hit in hits])
