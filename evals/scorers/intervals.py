"""How sure a figure is: 95 % intervals and p-values by resampling questions (docs/decisions/0015-statistics.md)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

ROUNDS = 10_000
"""Resamples for the mean of one measure: the ends of an interval move by less than a tenth of its width."""
ROUNDS_OF_A_SUMMARY = 1_000
"""Resamples for a whole summary, whose every figure is computed anew each time."""
_AT_ONCE = 2_000_000
"""Draws held in memory together."""

T = TypeVar("T")


class Interval(msgspec.Struct, frozen=True):
    """The middle 95 % of what resampled questions give."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The mean of paired differences, its 95 % interval, and how often chance alone would show as much (two-sided)."""

    mean: float
    interval: Interval
    p: float


def change(differences: Sequence[float], *, seed: int = 0) -> Change:
    """Return what the differences of the same questions in two runs say, by paired bootstrap."""
    means = _resampled_means(np.asarray(differences, dtype=np.float64), seed)
    # At least one in all rounds: a bootstrap never proves that something is impossible.
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, 2 * (beyond + 1) / (ROUNDS + 1))
    return Change(mean=float(np.mean(differences)), interval=_middle(means), p=p)


def intervals(
    rows: Sequence[T], figures: Callable[[Sequence[T]], Mapping[str, float | int | str | None]], *, seed: int = 0
) -> dict[str, Interval]:
    """Return an interval for every fraction that `figures` makes of rows; whole numbers are counts and have none."""
    of_all = figures(rows)
    chance = np.random.default_rng(seed)
    found: dict[str, list[float]] = {name: [] for name, value in of_all.items() if isinstance(value, float)}
    for _ in range(ROUNDS_OF_A_SUMMARY if found else 0):
        drawn = figures([rows[n] for n in chance.integers(0, len(rows), len(rows))])
        for name, values in found.items():
            if isinstance(value := drawn[name], float):  # a resample may hold no question that has the measure
                values.append(value)
    return {name: _middle(np.asarray(values)) for name, values in found.items() if values}


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return the p-values corrected for having looked at all of them (Holm 1979)."""
    corrected: dict[str, float] = {}
    highest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, p * (len(p_values) - rank)))
        corrected[name] = highest
    return corrected


def _resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    chance = np.random.default_rng(seed)
    rounds = max(1, _AT_ONCE // len(values))
    parts = [
        values[chance.integers(0, len(values), (min(rounds, ROUNDS - begun), len(values)))].mean(axis=1)
        for begun in range(0, ROUNDS, rounds)
    ]
    return np.concatenate(parts)


def _middle(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(low=round(float(low), 4), high=round(float(high), 4))
