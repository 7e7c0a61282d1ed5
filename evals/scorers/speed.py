"""Median and 95th percentile of waits (pure)."""

from collections.abc import Iterable
from statistics import median, quantiles


def score_waits(seconds: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Return the median and 95th percentile of the values that are not None; (None, None) if all are None."""
    waits = [value for value in seconds if value is not None]
    if not waits:
        return None, None
    # With few values the default method exceeds the longest wait; "inclusive" never does.
    p95 = quantiles(waits, n=20, method="inclusive")[-1] if len(waits) > 1 else waits[0]
    return median(waits), p95
