"""The caller's limits as `x-ratelimit-*` headers."""

import math

from chatbot.errors import StoreUnavailable
from chatbot.events import Limits
from chatbot.limits import Caller, Ledger


def rate_limit_headers(limits: Limits) -> dict[str, str]:
    """Return limit, remaining and seconds until reset, for tokens and for requests."""
    return {
        "x-ratelimit-limit-tokens": str(limits.limit_tokens),
        "x-ratelimit-remaining-tokens": str(limits.remaining_tokens),
        "x-ratelimit-reset-tokens": str(math.ceil(limits.reset_tokens)),
        "x-ratelimit-limit-requests": str(limits.limit_requests),
        "x-ratelimit-remaining-requests": str(limits.remaining_requests),
        "x-ratelimit-reset-requests": str(math.ceil(limits.reset_requests)),
    }


async def headers_now(caller: Caller, ledger: Ledger) -> dict[str, str]:
    """Return the headers of the caller's limits in the ledger now; none while Redis cannot be asked."""
    try:
        return rate_limit_headers(await ledger.limits(caller))
    except StoreUnavailable:
        return {}
