"""Plots as inline SVG, for a page without outside resources (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from evals.scorers import Interval

_LABEL, _PLOT, _ROW = 230, 420, 26
_BINS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class BarSegment:
    """One bar: a share in [0, 1] with its interval; `bound` is its gate, drawn as a line, and `holds` its verdict."""

    name: str
    value: float
    interval: Interval | None = None
    bound: float | None = None
    holds: bool | None = None
    note: str = ""


def bars(title: str, segments: Sequence[BarSegment]) -> str:
    """Return horizontal bars from 0 to 1, one a line, each with its interval as a whisker."""
    height = _ROW * len(segments) + 30
    elements = [_axis(height), *(_bar(segment, 8 + n * _ROW) for n, segment in enumerate(segments))]
    return _svg(title, _LABEL + _PLOT + 190, height, elements)


def _bar(bar: BarSegment, top: int) -> str:
    middle = top + 9
    kind = {None: "plain", True: "good", False: "bad"}[bar.holds]
    parts = [
        f'<text x="{_LABEL - 8}" y="{middle + 4}" text-anchor="end">{escape(bar.name)}</text>',
        f'<rect class="{kind}" x="{_LABEL}" y="{top}" width="{_at(bar.value) - _LABEL:.1f}" height="18"/>',
    ]
    label = f"{bar.value:.3f}"
    if bar.interval is not None:
        low, high = _at(bar.interval.low), _at(bar.interval.high)
        parts.append(
            f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {top + 4}v10M{high:.1f} {top + 4}v10"/>'
        )
        label += f" ({bar.interval.low:.3f} to {bar.interval.high:.3f})"
    if bar.bound is not None:
        parts.append(f'<path class="bound" d="M{_at(bar.bound):.1f} {top - 3}v24"/>')
    parts.append(f'<text x="{_LABEL + _PLOT + 10}" y="{middle + 4}">{escape(label + bar.note)}</text>')
    return "".join(parts)


def histogram(title: str, values: Sequence[float], unit: str) -> str:
    """Return a histogram of values in 24 bins from 0 to the largest."""
    top = max(values, default=0.0) or 1.0
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int(_BINS * max(0.0, value) / top))] += 1
    width, most = _PLOT / _BINS, max(counts) or 1
    elements = [
        f'<rect class="plain" x="{_LABEL + n * width:.1f}" y="{118 - 100 * count / most:.1f}" '
        f'width="{width - 1:.1f}" height="{100 * count / most:.1f}"/>'
        for n, count in enumerate(counts)
    ]
    elements.append(f'<path class="axis" d="M{_LABEL} 118h{_PLOT}"/><text x="{_LABEL}" y="134">0</text>')
    elements.append(f'<text x="{_LABEL + _PLOT}" y="134" text-anchor="end">{top:.2f} {escape(unit)}</text>')
    elements.append(f'<text x="{_LABEL - 8}" y="28" text-anchor="end">{most} answers</text>')
    return _svg(title, _LABEL + _PLOT + 190, 140, elements)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of shares over thresholds; `kind` is its style."""

    name: str
    kind: str
    points: Sequence[tuple[float, float]]


def curve(title: str, lines: Sequence[Line], *, marked: float) -> str:
    """Return lines over [0, 1] in both directions with their names beneath, and an upright line at `marked`."""
    side, left, top = 300, 34, 8

    def at(x: float, y: float) -> str:
        return f"{left + side * x:.1f} {top + side * (1 - y):.1f}"

    elements = []
    for tenth in range(0, 11, 2):
        share = tenth / 10
        elements.append(f'<path class="axis" d="M{at(0, share)}H{left + side}M{at(share, 0)}V{top}"/>')
        elements.append(
            f'<text x="{left - 6}" y="{top + side * (1 - share) + 4:.1f}" text-anchor="end">{share:g}</text>'
        )
        elements.append(
            f'<text x="{left + side * share:.1f}" y="{top + side + 16}" text-anchor="middle">{share:g}</text>'
        )
    elements.append(f'<path class="bound" d="M{at(marked, 0)}V{top}"/>')
    for n, line in enumerate(lines):
        path = "L".join(at(x, y) for x, y in line.points)
        y = top + side + 38 + 18 * n
        elements.append(f'<path class="line {line.kind}" d="M{path}"/>')
        elements.append(f'<path class="line {line.kind}" d="M{left} {y - 4}h24"/>')
        elements.append(f'<text x="{left + 32}" y="{y}">{escape(line.name)}</text>')
    return _svg(title, left + side + 12, top + side + 46 + 18 * len(lines), elements)


def _axis(height: int) -> str:
    lines = "".join(f'<path class="axis" d="M{_at(tenth / 10):.1f} 4V{height - 22}"/>' for tenth in range(0, 11, 2))
    labels = "".join(
        f'<text x="{_at(tenth / 10):.1f}" y="{height - 8}" text-anchor="middle">{tenth / 10:g}</text>'
        for tenth in range(0, 11, 2)
    )
    return lines + labels


def _at(share: float) -> float:
    return _LABEL + _PLOT * min(1.0, max(0.0, share))


def _svg(title: str, width: int, height: int, elements: Sequence[str]) -> str:
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(title, quote=True)}">{"".join(elements)}</svg></figure>'
    )
