"""The caller's limits as `x-ratelimit-*` headers."""

import math

from chatbot.events import Limits


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
