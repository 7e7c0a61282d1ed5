"""What whether-an-answer-is-held is worth on documents it was not fitted to: each corpus left out in turn.

Weights are fitted to the other corpora, each and each side of each counting the same, and so is the threshold chosen.
"""

from collections.abc import Mapping, Sequence

from chatbot.answerability import AnswerabilityWeights
from evals.quality.calibrate import Case, Point, fit, point_at, score

SHOWN = (0.2, 0.3, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9)


def left_out_table(corpora: Mapping[str, Sequence[Case]], shipped: AnswerabilityWeights) -> str:
    """Return a table in Markdown: a line a corpus with what weights of the others make of it at each threshold.

    The last column is the shipped weights at their own threshold. A cell is answered / right / wrong / beside of the
    answerable questions, and of the unanswerable ones the share answered.
    """
    columns = " | ".join([*(f"{threshold:g}" for threshold in SHOWN), f"shipped, {shipped.threshold:g}"])
    lines = [f"| corpus (answerable / unanswerable) | {columns} |", "|---" * (len(SHOWN) + 2) + "|"]
    rows: list[list[Point]] = []
    for name, cases in corpora.items():
        weights = fit(*(other for left, other in corpora.items() if left != name))
        points = [_point(cases, weights, threshold) for threshold in SHOWN]
        rows.append([*points, _point(cases, shipped, shipped.threshold)])
        cells = " | ".join(map(_cell, rows[-1]))
        lines.append(f"| {name} ({points[0].answerable} / {points[0].unanswerable}) | {cells} |")
    means = " | ".join(_mean_cell([row[n] for row in rows]) for n in range(len(SHOWN) + 1))
    return "\n".join([*lines, f"| mean | {means} |"])


def best_threshold(corpora: Mapping[str, Sequence[Case]], *, thresholds: Sequence[float] = SHOWN) -> float:
    """Return the threshold with most right answers less others and invented ones, on average over corpora left out."""
    total = dict.fromkeys(thresholds, 0.0)
    for name, cases in corpora.items():
        weights = fit(*(other for left, other in corpora.items() if left != name))
        for threshold in thresholds:
            total[threshold] += _worth(_point(cases, weights, threshold))
    return max(thresholds, key=lambda threshold: (total[threshold], threshold))


def _point(cases: Sequence[Case], weights: AnswerabilityWeights, threshold: float) -> Point:
    """Return what becomes of a corpus; where it has no unanswerable question its near misses stand for them."""
    own = any(case.unanswerable and not case.near_miss for case in cases)
    return point_at(threshold, [(case, score(case, weights)) for case in cases if not (case.near_miss and own)])


def _worth(point: Point) -> float:
    right, not_right = (count / point.judged if point.judged else 0.0 for count in (point.right, point.not_right))
    if not point.judged:
        right = point.answered / max(1, point.answerable)
    return right - not_right - point.invented / max(1, point.unanswerable)


def _shares(point: Point) -> tuple[float | None, ...]:
    return (
        point.answered / max(1, point.answerable),
        *(count / point.judged if point.judged else None for count in (point.right, point.wrong, point.beside)),
        point.invented / point.unanswerable if point.unanswerable else None,
    )


def _cell(point: Point) -> str:
    return _written(_shares(point))


def _mean_cell(points: Sequence[Point]) -> str:
    columns = zip(*map(_shares, points), strict=True)
    known = [[share for share in column if share is not None] for column in columns]
    return _written([sum(column) / len(column) if column else None for column in known])


def _written(shares: Sequence[float | None]) -> str:
    *of_answerable, invented = ("–" if share is None else f"{share:.2f}"[share < 1 :] for share in shares)
    return f"{' '.join(of_answerable)}, {invented}"
