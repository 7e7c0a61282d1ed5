"""Customers, and the events of an answer before they go over the wire."""

from collections.abc import Iterable
from uuid import uuid4

from chatbot.events import Done, Event, FinishReason, Token, Usage
from knowledge.identity import Principal


def customer(sub: str = "lee", tenant: str | None = None) -> Principal:
    """Return a customer, of a bank of their own unless it is named."""
    roles, groups = frozenset({"customer"}), frozenset({"customers"})
    return Principal(tenant=tenant or f"bank-{uuid4().hex}", sub=sub, roles=roles, groups=groups)


def done(reason: FinishReason = FinishReason.STOP, *, usage: Usage | None = None, grounded: bool = True) -> Done:
    return Done(finish_reason=reason, usage=usage or Usage(), grounded=grounded, limits=None)


def text_of(events: Iterable[Event]) -> str:
    """Return the answer's text."""
    return "".join(event.text for event in events if isinstance(event, Token))
