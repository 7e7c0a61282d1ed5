"""The test search: passages that a customer in a given group would have found at a given time."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import StringConstraints

from ingest.api.auth import Staff
from ingest.api.dependencies import TheServices
from ingest.api.schemas import HitOut, SearchOut
from ingest.errors import Unprocessable
from knowledge.access import EVERY_CUSTOMER, Access

router = APIRouter(prefix="/v1/search", tags=["search"])

Group = Annotated[str, StringConstraints(max_length=100)]


@router.get("")
async def search(
    q: Annotated[str, Query(min_length=1, max_length=4000)],
    who: Staff,
    services: TheServices,
    as_of: Annotated[datetime | None, Query(description="a date, or a time; default: now")] = None,
    as_group: Annotated[list[Group] | None, Query(max_length=20, description="may be repeated")] = None,
) -> SearchOut:
    """Search as a customer of these groups at `as_of` (without a zone: in the bank's time zone).

    Every customer also belongs to the group of all customers.
    """
    if not q.strip():
        raise Unprocessable("q: a question is required")
    at = services.now()
    if as_of is not None:
        at = (as_of if as_of.tzinfo else as_of.replace(tzinfo=services.zone)).timestamp()
    access = Access(tenant=who.tenant, groups=frozenset((EVERY_CUSTOMER, *(as_group or ()))), as_of=at)
    hits = await services.index.search(q, access=access, limit=10)
    return SearchOut(as_of=at, as_groups=sorted(access.groups), hits=[HitOut.model_validate(hit) for hit in hits])
