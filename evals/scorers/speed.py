"""Median and 95th percentile of waits (pure)."""

from collections.abc import Iterable
from statistics import median, quantiles


def score_waits(seconds: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Return the median and 95th percentile of the values that are not None, or None without any."""
    known = [value for value in seconds if value is not None]
    if not known:
        return None, None
    # With few values the default method exceeds the longest wait; "inclusive" never does.
    p95 = quantiles(known, n=20, method="inclusive")[-1] if len(known) > 1 else known[0]
    return median(known), p95
