"""Median and 95th percentile of waits (pure)."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Seconds; None without measurements."""

    median: float | None
    p95: float | None


def score_waits(seconds: Iterable[float | None]) -> Waits:
    """Return the median and the 95th percentile of the values that are not None."""
    known = [value for value in seconds if value is not None]
    if not known:
        return Waits(median=None, p95=None)
    # With few values the default estimate lies beyond the longest wait; "inclusive" never does.
    p95 = quantiles(known, n=20, method="inclusive")[-1] if len(known) > 1 else known[0]
    return Waits(median=median(known), p95=p95)
