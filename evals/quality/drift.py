"""The weekly report of drift: what was counted in the bins of a reference, from Prometheus or from one chatbot."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import cast

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from chatbot.drift import MODERATE_SHIFT, SIGNIFICANT_SHIFT, Feature, FeatureBins, Reference, psi
from evals.quality.drawing import BarSegment, bars

METRIC = "chatbot_drift_questions_total"
_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=5)
_MOST_BYTES = 64 * 2**20
_SHOWN = 3
ENOUGH = 500
"""Of fewer questions chance alone may move the index; as in the alert's expression."""
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c}"
    "td,th{padding:.1rem 1rem .1rem 0;text-align:left;vertical-align:top}figcaption{font-weight:600}"
    "svg text{font:12px system-ui,sans-serif}.good{fill:#7fb48f}.bad{fill:#d98a92}.axis{stroke:#ccc;fill:none}"
    ".bound{stroke:#b00020;stroke-width:2;fill:none}"
)

Counts = Mapping[Feature, Mapping[str, float]]


class DriftBroken(Exception):
    """The reference cannot be read, or nobody has counted in its bins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A bin, what it held in the reference and what it holds now."""

    name: str
    then: float
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftLine:
    """A feature, how far it is from the reference, and the bins that moved most."""

    feature: Feature
    psi: float
    questions: int
    moved: tuple[Moved, ...]

    @property
    def verdict(self) -> str:
        """What the customary bounds say."""
        if self.questions < ENOUGH:
            return "too few questions"
        return "stable" if self.psi < MODERATE_SHIFT else "has moved" if self.psi < SIGNIFICANT_SHIFT else "DRIFTED"


class _Sample(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _Data(msgspec.Struct):
    result: list[_Sample]


class _Answer(msgspec.Struct):
    """An instant vector as Prometheus gives it."""

    data: _Data


def read_reference(path: Path) -> Reference:
    """Return a reference.

    Raises:
        DriftBroken: the file is none.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Reference)
    except (OSError, msgspec.MsgspecError) as exc:
        raise DriftBroken(f"{path} is no reference: {exc}") from exc


async def counted(url: str, reference: Reference, *, namespace: str | None, days: float) -> Counts:
    """Return the counts of the last days from Prometheus or, from a chatbot's `/metrics`, those since it started.

    Raises:
        DriftBroken: it does not answer, or has counted nothing in this reference's bins.
    """
    direct = url.rstrip("/").endswith("/metrics")
    where = f'reference="{reference.id}"' + (f',namespace="{namespace}"' if namespace else "")
    query = f"sum by (feature, bin) (increase({METRIC}{{{where}}}[{round(days * 86400)}s]))"
    address, params = (url, {}) if direct else (f"{url.rstrip('/')}/api/v1/query", {"query": query})
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as http, http.get(address, params=params) as response:
            response.raise_for_status()
            told = await response.content.read(_MOST_BYTES)
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise DriftBroken(f"{address} does not answer: {exc}") from exc
    found = exposed(told.decode(), reference.id) if direct else queried(told)
    if not found:
        raise DriftBroken(f"nobody has counted in the bins of {reference.id}: is that DRIFT__REFERENCE there?")
    return found


def queried(told: bytes) -> Counts:
    """Return the counts of Prometheus's answer.

    Raises:
        DriftBroken: it is none.
    """
    try:
        samples = msgspec.json.decode(told, type=_Answer).data.result
    except msgspec.MsgspecError as exc:
        raise DriftBroken(f"this is not Prometheus: {exc}") from exc
    return added((sample.metric, float(sample.value[1])) for sample in samples)


def exposed(told: str, reference_id: str) -> Counts:
    """Return the counts that a chatbot's metrics show."""
    samples = [sample for family in text_string_to_metric_families(told) for sample in family.samples]
    return added(
        (sample.labels, sample.value)
        for sample in samples
        if sample.name == METRIC and sample.labels["reference"] == reference_id
    )


def added(samples: Iterable[tuple[Mapping[str, str], float]]) -> Counts:
    """Return the sums by feature and bin."""
    counts: defaultdict[Feature, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for labels, value in samples:
        counts[cast("Feature", labels["feature"])][labels["bin"]] += value
    return counts


def compared(reference: Reference, counts: Counts) -> list[DriftLine]:
    """Return a line a feature, what moved most first."""
    lines = [
        line(feature, binned, reference, counts.get(feature, {})) for feature, binned in reference.features.items()
    ]
    return sorted(lines, key=lambda one: -one.psi)


def line(feature: Feature, binned: FeatureBins, reference: Reference, counts: Mapping[str, float]) -> DriftLine:
    total = sum(counts.values())
    bins = [
        Moved(name=named(feature, name, binned, reference), then=share, now=counts.get(name, 0.0) / (total or 1))
        for name, share in binned.shares.items()
    ]
    moved = sorted(bins, key=lambda one: -abs(one.now - one.then))[:_SHOWN]
    return DriftLine(feature=feature, psi=psi(binned.shares, counts), questions=round(total), moved=tuple(moved))


def named(feature: Feature, name: str, binned: FeatureBins, reference: Reference) -> str:
    """Return what a bin is, for a reader: a topic's document, a range of numbers, or its own name."""
    if feature == "topic":
        return f"{name} ({reference.abouts[int(name)] or 'no document'})"
    if name.isdecimal() and (edges := binned.edges):
        n = int(name)
        low = f"{edges[n - 1]:g}" if n else ""
        return f"{low}…{edges[n]:g}" if n < len(edges) else f"{low}…"
    return name


def markdown(reference: Reference, lines: Sequence[DriftLine], *, days: float) -> str:
    """Return the report."""
    rows = [
        f"| `{one.feature}` | {one.psi:.3f} | {one.verdict} | {one.questions:,} | {movements(one)} |" for one in lines
    ]
    return "\n".join(
        [
            "# Drift",
            "",
            f"{title(reference, days)}. PSI below {MODERATE_SHIFT:g} is stable,"
            f" from {SIGNIFICANT_SHIFT:g} on something is another.",
            "",
            "| feature | PSI | | questions | moved most (reference → now) |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def page(reference: Reference, lines: Sequence[DriftLine], *, days: float) -> str:
    """Return the report as an HTML page that asks for nothing from anywhere."""
    drawn = bars(
        f"Population stability; a red line is the alert's bound of {SIGNIFICANT_SHIFT:g}",
        [
            BarSegment(
                name=one.feature,
                value=min(1.0, one.psi),
                bound=SIGNIFICANT_SHIFT,
                holds=one.psi < SIGNIFICANT_SHIFT,
                note=" or more" if one.psi > 1 else "",
            )
            for one in lines
        ],
    )
    rows = "".join(
        f"<tr><td>{one.feature}<td>{one.psi:.3f}<td>{one.verdict}<td>{one.questions:,}<td>{escape(movements(one))}</tr>"
        for one in lines
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Drift</title><style>{_STYLE}</style><h1>Drift</h1><p>{escape(title(reference, days))}</p>{drawn}"
        "<table><tr><th>feature<th>PSI<th><th>questions<th>moved most (reference → now)</tr>"
        f"{rows}</table></html>\n"
    )


def title(reference: Reference, days: float) -> str:
    made = datetime.fromtimestamp(reference.made_at, UTC).date().isoformat()
    return f"The last {days:g} days against the reference {reference.id} of {made} ({reference.questions:,} questions)"


def movements(one: DriftLine) -> str:
    return "; ".join(f"{moved.name} {moved.then:.1%} → {moved.now:.1%}" for moved in one.moved)
