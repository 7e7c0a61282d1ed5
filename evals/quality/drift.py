"""The weekly drift report: the questions counted in the bins of a reference, from Prometheus or from one chatbot."""

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
_BINS_SHOWN = 3
LEAST_QUESTIONS = 500
"""With fewer questions the index moves by chance; the alert's expression has the same bound."""
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c}"
    "td,th{padding:.1rem 1rem .1rem 0;text-align:left;vertical-align:top}figcaption{font-weight:600}"
    "svg text{font:12px system-ui,sans-serif}.good{fill:#7fb48f}.bad{fill:#d98a92}.axis{stroke:#ccc;fill:none}"
    ".bound{stroke:#b00020;stroke-width:2;fill:none}"
)

Counts = Mapping[Feature, Mapping[str, float]]


class DriftBroken(Exception):
    """The reference cannot be read, or no chatbot has counted questions in its bins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BinShift:
    """A bin with its share of the questions in the reference, `then`, and `now`."""

    name: str
    then: float
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftLine:
    """A feature, its population stability index against the reference, and the bins that moved most."""

    feature: Feature
    psi: float
    questions: int
    moved: tuple[BinShift, ...]

    @property
    def verdict(self) -> str:
        """The index in words, by its customary bounds."""
        if self.questions < LEAST_QUESTIONS:
            return "too few questions"
        return "stable" if self.psi < MODERATE_SHIFT else "has moved" if self.psi < SIGNIFICANT_SHIFT else "DRIFTED"


class _PrometheusSample(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _PrometheusData(msgspec.Struct):
    result: list[_PrometheusSample]


class _PrometheusReply(msgspec.Struct):
    """The reply to an instant query, an instant vector (Prometheus HTTP API)."""

    data: _PrometheusData


def read_reference(path: Path) -> Reference:
    """Return a reference.

    Raises:
        DriftBroken: the file holds none.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Reference)
    except (OSError, msgspec.MsgspecError) as exc:
        raise DriftBroken(f"{path} is no reference: {exc}") from exc


async def fetch_counts(url: str, reference: Reference, *, namespace: str | None, days: float) -> Counts:
    """Return the counts of the last days from Prometheus, or those since its start from a chatbot's `/metrics`.

    Raises:
        DriftBroken: the address does not answer, or has no counts in the bins of this reference.
    """
    is_metrics_page = url.rstrip("/").endswith("/metrics")
    matchers = f'reference="{reference.id}"' + (f',namespace="{namespace}"' if namespace else "")
    query = f"sum by (feature, bin) (increase({METRIC}{{{matchers}}}[{round(days * 86400)}s]))"
    address, params = (url, {}) if is_metrics_page else (f"{url.rstrip('/')}/api/v1/query", {"query": query})
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as http, http.get(address, params=params) as response:
            response.raise_for_status()
            body = b""
            async for part in response.content.iter_any():
                body += part
                if len(body) > _MOST_BYTES:
                    raise DriftBroken(f"{address} answers with more than {_MOST_BYTES} bytes")
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise DriftBroken(f"{address} does not answer: {exc}") from exc
    counts = counts_of_metrics(body.decode(), reference.id) if is_metrics_page else counts_of_query(body)
    if not counts:
        raise DriftBroken(f"nobody has counted in the bins of {reference.id}: is that DRIFT__REFERENCE there?")
    return counts


def counts_of_query(body: bytes) -> Counts:
    """Return the counts in Prometheus's reply.

    Raises:
        DriftBroken: the reply is not Prometheus's.
    """
    try:
        samples = msgspec.json.decode(body, type=_PrometheusReply).data.result
    except msgspec.MsgspecError as exc:
        raise DriftBroken(f"this is not Prometheus: {exc}") from exc
    return sum_counts((sample.metric, float(sample.value[1])) for sample in samples)


def counts_of_metrics(text: str, reference_id: str) -> Counts:
    """Return the counts in a chatbot's metrics."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum_counts(
        (sample.labels, sample.value)
        for sample in samples
        if sample.name == METRIC and sample.labels["reference"] == reference_id
    )


def sum_counts(samples: Iterable[tuple[Mapping[str, str], float]]) -> Counts:
    """Return the sums by feature and bin."""
    counts: defaultdict[Feature, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for labels, value in samples:
        counts[cast("Feature", labels["feature"])][labels["bin"]] += value
    return counts


def drift_lines(reference: Reference, counts: Counts) -> list[DriftLine]:
    """Return a line for each feature, the most drifted first."""
    lines = [
        drift_line(feature, bins, reference, counts.get(feature, {})) for feature, bins in reference.features.items()
    ]
    return sorted(lines, key=lambda line: -line.psi)


def drift_line(feature: Feature, bins: FeatureBins, reference: Reference, counts: Mapping[str, float]) -> DriftLine:
    """Return the line of one feature."""
    total = sum(counts.values())
    shifts = [
        BinShift(name=bin_name(feature, name, bins, reference), then=share, now=counts.get(name, 0.0) / (total or 1))
        for name, share in bins.shares.items()
    ]
    moved = sorted(shifts, key=lambda shift: -abs(shift.now - shift.then))[:_BINS_SHOWN]
    return DriftLine(feature=feature, psi=psi(bins.shares, counts), questions=round(total), moved=tuple(moved))


def bin_name(feature: Feature, name: str, bins: FeatureBins, reference: Reference) -> str:
    """Return the name of a bin for a reader: a topic's document, a range of numbers, or its own name."""
    if feature == "topic":
        return f"{name} ({reference.abouts[int(name)] or 'no document'})"
    if name.isdecimal() and (edges := bins.edges):
        n = int(name)
        low = f"{edges[n - 1]:g}" if n else ""
        return f"{low}…{edges[n]:g}" if n < len(edges) else f"{low}…"
    return name


def markdown(reference: Reference, lines: Sequence[DriftLine], *, days: float) -> str:
    """Return the report in Markdown."""
    rows = [
        f"| `{line.feature}` | {line.psi:.3f} | {line.verdict} | {line.questions:,} | {shifts_text(line)} |"
        for line in lines
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
    """Return the report as an HTML page without outside resources."""
    drawn = bars(
        f"Population stability; a red line is the alert's bound of {SIGNIFICANT_SHIFT:g}",
        [
            BarSegment(
                name=line.feature,
                value=min(1.0, line.psi),
                bound=SIGNIFICANT_SHIFT,
                holds=line.psi < SIGNIFICANT_SHIFT,
                note=" or more" if line.psi > 1 else "",
            )
            for line in lines
        ],
    )
    rows = "".join(
        f"<tr><td>{line.feature}<td>{line.psi:.3f}<td>{line.verdict}<td>{line.questions:,}"
        f"<td>{escape(shifts_text(line))}</tr>"
        for line in lines
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Drift</title><style>{_STYLE}</style><h1>Drift</h1><p>{escape(title(reference, days))}</p>{drawn}"
        "<table><tr><th>feature<th>PSI<th><th>questions<th>moved most (reference → now)</tr>"
        f"{rows}</table></html>\n"
    )


def title(reference: Reference, days: float) -> str:
    """Return the windows that the report compares."""
    made = datetime.fromtimestamp(reference.made_at, UTC).date().isoformat()
    return f"The last {days:g} days against the reference {reference.id} of {made} ({reference.questions:,} questions)"


def shifts_text(line: DriftLine) -> str:
    """Return the bins that moved most, with their shares then and now."""
    return "; ".join(f"{shift.name} {shift.then:.1%} → {shift.now:.1%}" for shift in line.moved)
