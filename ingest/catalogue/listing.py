"""The query for a page of documents, with a filter and an order."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, or_, select

from ingest.catalogue.tables import DOCUMENTS, VERSIONS
from ingest.catalogue.versions import State


class Order(StrEnum):
    """The order of a list of documents: by a value of the latest version, then by id."""

    ID = "id"
    TITLE = "title"
    PRODUCT = "product"
    STATE = "state"
    NEWEST = "newest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A filter and an order of documents; each word of `words` must be in the title, product, file name or id."""

    words: str = ""
    state: State | None = None
    order: Order = Order.ID


def documents_query(tenant: str, listing: Listing, *, now: float) -> Select[Any]:
    """Return the query for the latest versions of a tenant's documents.

    Two columns are added: `latest` (the number of versions) and `sort_value` (by which the order sorts, ascending).
    """
    is_latest = (
        (DOCUMENTS.c.tenant == VERSIONS.c.tenant)
        & (DOCUMENTS.c.document_id == VERSIONS.c.document_id)
        & (DOCUMENTS.c.latest == VERSIONS.c.version)
    )
    query = select(VERSIONS, DOCUMENTS.c.latest, _sort_value(listing.order, now).label("sort_value"))
    query = query.join(DOCUMENTS, is_latest).where(VERSIONS.c.tenant == tenant)
    for word in listing.words.lower().split():
        columns = (VERSIONS.c.title, VERSIONS.c.product, VERSIONS.c.file_name, VERSIONS.c.document_id)
        query = query.where(or_(*(func.lower(column).contains(word, autoescape=True) for column in columns)))
    if listing.state is not None:
        query = query.where(_state(now) == listing.state)
    return query


def _sort_value(order: Order, now: float) -> ColumnElement[Any]:
    match order:
        case Order.ID:
            return VERSIONS.c.document_id
        case Order.TITLE:
            return func.lower(func.coalesce(VERSIONS.c.title, VERSIONS.c.file_name))
        case Order.PRODUCT:
            return func.lower(func.coalesce(VERSIONS.c.product, ""))
        case Order.STATE:
            return case({state: n for n, state in enumerate(State)}, value=_state(now))
        case Order.NEWEST:
            return -VERSIONS.c.uploaded_at


def _state(now: float) -> ColumnElement[str]:
    """Return the SQL expression for the state at `now`; the same rule as `Version.state_at`."""
    begins, ends = VERSIONS.c.visible_from, VERSIONS.c.visible_until
    return case(
        (VERSIONS.c.state != State.APPROVED, VERSIONS.c.state),
        ((ends <= now) | (ends <= begins), State.EXPIRED),
        (begins <= now, State.ACTIVE),
        else_=State.APPROVED,
    )
