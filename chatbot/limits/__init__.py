"""Token-level rate limits: a ledger in Redis that reserves, extends and settles, and a quota for Redis's outage."""

from chatbot.limits.ledger import Caller, Ledger, Reservation, Spending
from chatbot.limits.limits import LedgerSettings, Limit, LimitSettings, Scope

__all__ = ["Caller", "Ledger", "LedgerSettings", "Limit", "LimitSettings", "Reservation", "Scope", "Spending"]
