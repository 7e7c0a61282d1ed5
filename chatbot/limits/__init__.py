"""Token-level rate limits: a ledger in Redis that reserves, extends and settles, its plans, and a quota for its
outage.
"""

from chatbot.limits.ledger import Caller, Ledger, LedgerSettings, LimitSettings, Reservation, Spending
from chatbot.limits.limits import Limit, Scope
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
