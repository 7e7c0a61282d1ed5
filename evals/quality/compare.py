"""Compare two runs over the same questions by paired bootstrap (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from evals.quality.summary import Run
from evals.scorers import Interval, change, holm

LEVEL = 0.05
LESS_IS_BETTER = frozenset({"beside", "seconds", "wrong", "wrong_numbers"})


class NotComparable(Exception):
    """The runs have no measured question in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The mean of B minus the mean of A over common questions; `p` is corrected for the number of measures."""

    measure: str
    questions: int
    a: float
    b: float
    interval: Interval
    p: float

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p-value is below `LEVEL`."""
        return self.p < LEVEL

    @property
    def is_worse(self) -> bool:
        """Whether B is significantly worse."""
        return self.is_significant and (self.b > self.a) == (self.measure in LESS_IS_BETTER)

    @property
    def sentence(self) -> str:
        """The result in words."""
        low, high = self.interval.low, self.interval.high
        p = "< 0.001" if self.p < 0.001 else f"{self.p:.3f}"
        figures = f"{self.b - self.a:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, p {p}"
        figures += f", {self.questions} questions"
        if not self.is_significant:
            return f"no difference shown ({figures})"
        return f"B is significantly {'worse' if self.is_worse else 'better'} ({figures})"


def compare(a: Run, b: Run, *, seed: int = 0) -> list[Difference]:
    """Return the difference of each measure in both runs, over the questions that both measured.

    Raises:
        NotComparable: the runs have no measure in common.
    """
    rows_a = {row.id: row.measures for row in a.rows}
    rows_b = {row.id: row.measures for row in b.rows}
    names = dict.fromkeys(name for row in a.rows for name in row.measures)
    differences = []
    for name in names:
        pairs = [
            (rows_a[row][name], rows_b[row][name])
            for row in rows_a
            if row in rows_b and name in rows_a[row] and name in rows_b[row]
        ]
        if pairs:
            differences.append(difference_of(name, pairs, seed=seed))
    if not differences:
        raise NotComparable("the two runs have no measured question in common")
    corrected = holm({difference.measure: difference.p for difference in differences})
    return [replace(difference, p=corrected[difference.measure]) for difference in differences]


def difference_of(measure: str, pairs: Sequence[tuple[float, float]], *, seed: int) -> Difference:
    """Return the difference of one measure; the bootstrap draws questions, each with both of its scores."""
    changed = change([b - a for a, b in pairs], seed=seed)
    return Difference(
        measure=measure,
        questions=len(pairs),
        a=fmean(a for a, _ in pairs),
        b=fmean(b for _, b in pairs),
        interval=changed.interval,
        p=changed.p,
    )


def verdict(differences: Sequence[Difference]) -> str:
    """Return the result of a comparison in one sentence."""
    significant = [difference for difference in differences if difference.is_significant]
    phrases = [f"significantly {'worse' if one.is_worse else 'better'} in {one.measure}" for one in significant]
    others = len(differences) - len(significant)
    return (
        f"B is {', '.join(phrases) or 'neither better nor worse'}; {others} measures show no difference "
        f"(paired bootstrap, {LEVEL:.0%} level, Holm's correction)."
    )
