"""Precision and recall of refusals (pure)."""

from collections.abc import Iterable
from dataclasses import dataclass

from evals.scorers.answers import mean


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalScore:
    """Shares, None where they are of nothing; `answered` is that of the answerable questions."""

    answered: float | None
    precision: float | None
    recall: float | None


def score_refusals(outcomes: Iterable[tuple[bool, bool]]) -> RefusalScore:
    """Return the shares over pairs of (unanswerable, refused)."""
    pairs = list(outcomes)
    return RefusalScore(
        answered=mean(not refused for unanswerable, refused in pairs if not unanswerable),
        precision=mean(unanswerable for unanswerable, refused in pairs if refused),
        recall=mean(refused for unanswerable, refused in pairs if unanswerable),
    )
