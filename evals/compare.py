"""Two runs over the same questions: by how much a measure differs, and whether that can be chance (pure)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from evals.summary import Run

ROUNDS = 10_000


class NotComparable(Exception):
    """The runs have no measured question in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The mean of B less the mean of A over common questions, with its 95 % interval by paired bootstrap."""

    measure: str
    questions: int
    a: float
    b: float
    low: float
    high: float

    @property
    def is_significant(self) -> bool:
        """Whether no difference lies outside the interval."""
        return self.low > 0 or self.high < 0

    @property
    def sentence(self) -> str:
        """The finding in words."""
        change = (
            f"{self.b - self.a:+.4f} (95 % interval {self.low:+.4f} to {self.high:+.4f}, {self.questions} questions)"
        )
        if self.is_significant:
            return f"B is {'higher' if self.b > self.a else 'lower'} than A: {change}"
        return f"no difference shown: {change}"


def compare(a: Run, b: Run, *, seed: int = 0) -> list[Difference]:
    """Return the differences of every measure that both runs have, over the questions that both measured.

    Raises:
        NotComparable: there is none.
    """
    rows_a = {row.id: row.measures for row in a.rows}
    rows_b = {row.id: row.measures for row in b.rows}
    names = dict.fromkeys(name for row in a.rows for name in row.measures)
    found = []
    for name in names:
        pairs = [
            (rows_a[row][name], rows_b[row][name])
            for row in rows_a
            if row in rows_b and name in rows_a[row] and name in rows_b[row]
        ]
        if pairs:
            found.append(difference(name, pairs, random.Random(seed)))  # noqa: S311  a bootstrap guards nothing
    if not found:
        raise NotComparable("the two runs have no measured question in common")
    return found


def difference(measure: str, pairs: Sequence[tuple[float, float]], chance: random.Random) -> Difference:
    """Return the difference of one measure; questions are drawn with replacement, each with both its scores."""
    changes = [b - a for a, b in pairs]
    means = sorted(fmean(chance.choices(changes, k=len(changes))) for _ in range(ROUNDS))
    return Difference(
        measure=measure,
        questions=len(pairs),
        a=fmean(a for a, _ in pairs),
        b=fmean(b for _, b in pairs),
        low=means[round(ROUNDS * 0.025)],
        high=means[round(ROUNDS * 0.975) - 1],
    )
