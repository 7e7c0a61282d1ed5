"""95 % intervals and p-values by bootstrap over the questions (docs/decisions/0015-statistics.md)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

ROUNDS = 10_000
"""Resamples for the mean of one measure; an interval's ends vary by less than a tenth of its width."""
ROUNDS_OF_A_SUMMARY = 1_000
"""Resamples for a whole summary, which recomputes every figure."""
_MOST_DRAWS = 2_000_000
"""Maximum draws in memory."""

T = TypeVar("T")


class Interval(msgspec.Struct, frozen=True):
    """The middle 95 % of the values over resampled questions."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The mean of paired differences, its 95 % interval and its two-sided p-value."""

    mean: float
    interval: Interval
    p: float


def change(differences: Sequence[float], *, seed: int = 0) -> Change:
    """Return the change of a measure between two runs over the same questions, by paired bootstrap."""
    means = _resampled_means(np.asarray(differences, dtype=np.float64), seed)
    # The `+ 1` keeps p above 0, because a bootstrap never proves that a result is impossible.
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, 2 * (beyond + 1) / (ROUNDS + 1))
    return Change(mean=float(np.mean(differences)), interval=_middle(means), p=p)


def intervals(
    rows: Sequence[T], figures: Callable[[Sequence[T]], Mapping[str, float | int | str | None]], *, seed: int = 0
) -> dict[str, Interval]:
    """Return an interval for each float of `figures`; integers are counts and have none."""
    rng = np.random.default_rng(seed)
    samples: dict[str, list[float]] = {name: [] for name, value in figures(rows).items() if isinstance(value, float)}
    for _ in range(ROUNDS_OF_A_SUMMARY if samples else 0):
        resampled = figures([rows[n] for n in rng.integers(0, len(rows), len(rows))])
        for name, values in samples.items():
            value = resampled[name]
            if isinstance(value, float):  # a resample may have no question with this measure
                values.append(value)
    return {name: _middle(np.asarray(values)) for name, values in samples.items() if values}


def share_interval(hits: int, total: int) -> Interval:
    """Return the 95 % interval of a share (Wilson's score), which is valid even if every row is a hit.

    Raises:
        ValueError: there are no rows.
    """
    if total < 1:
        raise ValueError("a share of no rows has no interval")
    z = 1.959964  # the 97.5th percentile of the normal distribution
    share = hits / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * ((share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5)
    return Interval(low=round(max(0.0, middle - half), 4), high=round(min(1.0, middle + half), 4))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return the p-values corrected for multiple comparisons (Holm 1979)."""
    corrected: dict[str, float] = {}
    highest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, p * (len(p_values) - rank)))
        corrected[name] = highest
    return corrected


def _resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    batch = max(1, _MOST_DRAWS // len(values))
    means = []
    for start in range(0, ROUNDS, batch):
        rounds = min(batch, ROUNDS - start)
        draws = rng.integers(0, len(values), (rounds, len(values)))
        means.append(values[draws].mean(axis=1))
    return np.concatenate(means)


def _middle(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(low=round(float(low), 4), high=round(float(high), 4))
