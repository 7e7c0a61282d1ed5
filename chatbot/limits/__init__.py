"""Token-level rate limits: a ledger in Redis that reserves, extends and settles; plans; a quota for Redis's outage."""

from chatbot.limits.ledger import Caller, Ledger, Reservation, Spending
from chatbot.limits.limits import LedgerSettings, Limit, LimitSettings, Scope
from chatbot.limits.plans import PlansRead, PlansRefused, open_plans, read_plans

__all__ = [
    "Caller",
    "Ledger",
    "LedgerSettings",
    "Limit",
    "LimitSettings",
    "PlansRead",
    "PlansRefused",
    "Reservation",
    "Scope",
    "Spending",
    "open_plans",
    "read_plans",
]
