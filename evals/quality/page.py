"""The report as one HTML page without outside resources: the table, plots, and the worst cases to read (pure).

Texts of customers and models are escaped, and a Content-Security-Policy in the page forbids scripts and addresses.
"""

from collections.abc import Iterator, Sequence
from html import escape

from evals.quality.drawing import BarSegment, bars, histogram
from evals.quality.report import Gate, GateLine, faults, lines
from evals.quality.summary import Row, Run, mean_of
from evals.scorers import Interval, Judgement

WORST = 60
"""Cases on the page, as many as a person reads; it says how many more there are."""
_SHARES = (
    "ndcg@10", "recall@5", "mrr", "answer_in_top5", "answered", *Judgement, "answer_f1", "grounded",
    "citation_precision", "citation_recall", "refusal_precision", "refusal_recall",
)  # fmt: skip
_BY_KIND = ("recall@5", "answer_in_top5", "answered", "refused_rightly", *Judgement, "citation_recall")
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c}"
    "td,th{padding:.1rem 1rem .1rem 0;text-align:left}.no{color:#b00020}.yes{color:#0a6b2d}"
    "blockquote{margin:.3rem 0;padding-left:1rem;border-left:3px solid #bbb;white-space:pre-wrap}"
    "figure{margin:1.5rem 0;overflow-x:auto}figcaption{font-weight:600}svg text{font:12px system-ui,sans-serif}"
    ".plain{fill:#8aa4c8}.good{fill:#7fb48f}.bad{fill:#d98a92}.axis{stroke:#ccc;fill:none}"
    ".whisker{stroke:#222;fill:none}.bound{stroke:#b00020;stroke-width:2;fill:none}"
)


def page(run: Run, gates: Sequence[Gate]) -> str:
    """Return the report."""
    worst = sorted(((row, listed) for row in run.rows if (listed := faults(row))), key=_severity)
    more = f"<p>{len(worst) - WORST} more are in the run's JSON file.</p>" if len(worst) > WORST else ""
    table = "\n".join(_table_row(line, run.intervals.get(line.measure)) for line in lines(run, gates))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>evals: {escape(run.dataset)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(run.dataset)}</h1>{''.join(_plots(run, gates))}"
        f"<table><tr><th>measure<th>value<th>95 % interval<th>gate</tr>{table}</table>"
        f"<h2>{len(worst)} of {len(run.rows)} questions with a fault</h2>"
        f"{''.join(_case(row, listed) for row, listed in worst[:WORST])}{more}</html>\n"
    )


def _severity(case: tuple[Row, list[str]]) -> tuple[bool, bool, bool, int]:
    """Sort key: numbers without a source, answers to unanswerable questions, wrong ones, the number of faults."""
    row, listed = case
    unfounded = row.judged is not None and bool(row.judged.unfounded)
    invented = row.judged is not None and row.unanswerable and not row.judged.answer.refused
    wrong = row.judged is not None and row.judged.judgement is Judgement.WRONG
    return not unfounded, not invented, not wrong, -len(listed)


def _plots(run: Run, gates: Sequence[Gate]) -> Iterator[str]:
    by_name = {gate.measure: gate for gate in gates}
    shares = [_bar(name, value, run, by_name.get(name)) for name in _SHARES if (value := _share(run, name)) is not None]
    yield bars("Scores with their 95 % intervals; a red line is a gate", shares)
    for measure in _BY_KIND:
        if by_kind := list(_by_kind(run.rows, measure)):
            yield bars(f"{measure} by kind of question", by_kind)
    answers = [row.judged.answer for row in run.rows if row.judged]
    if waits := [answer.first_token_seconds for answer in answers if answer.first_token_seconds is not None]:
        yield histogram("Seconds to the first token", waits, "s")
        yield histogram("Seconds to the last token", [answer.seconds for answer in answers], "s")


def _share(run: Run, name: str) -> float | None:
    value = run.measures.get(name)
    return float(value) if isinstance(value, int | float) else None


def _bar(name: str, value: float, run: Run, gate: Gate | None) -> BarSegment:
    return BarSegment(
        name=name,
        value=value,
        interval=run.intervals.get(name),
        bound=None if gate is None else gate.least if gate.least is not None else gate.most,
        holds=None if gate is None else gate.holds(run.measures),
    )


def _by_kind(rows: Sequence[Row], measure: str) -> Iterator[BarSegment]:
    for kind in sorted({row.kind for row in rows}):
        measured = [row for row in rows if row.kind == kind and measure in row.measures]
        if (value := mean_of(measured, measure)) is not None:
            yield BarSegment(name=kind or "all", value=value, note=f", {len(measured)} questions")


def _table_row(line: GateLine, interval: Interval | None) -> str:
    verdict = "" if line.holds is None else f'<span class="{"yes" if line.holds else "no"}">{escape(line.bound)}</span>'
    between = f"{interval.low:.3f} to {interval.high:.3f}" if interval else ""
    return f"<tr><td>{escape(line.measure)}<td>{escape(line.value)}<td>{between}<td>{verdict}</tr>"


def _case(row: Row, listed: Sequence[str]) -> str:
    items = "".join(f'<li class="no">{escape(fault)}' for fault in listed)
    known = f"<p>A right answer holds: {escape(' · '.join(row.answers))}</p>" if row.answers else ""
    title = f"{escape(row.id)} · {escape(row.kind)}{' · unanswerable' if row.unanswerable else ''}"
    return f"<h3>{title}</h3><p>{escape(row.question)}</p>{known}<ul>{items}</ul>{_answer(row)}{_ranking(row)}"


def _answer(row: Row) -> str:
    if row.judged is None:
        return ""
    answer = row.judged.answer
    cited = "".join(f"<li>{escape(citation.document_id)}: {escape(citation.quote)}" for citation in answer.citations)
    return f"<blockquote>{escape(answer.text)}</blockquote><ul>{cited}</ul>"


def _ranking(row: Row) -> str:
    if row.ranked is None or not row.ranked.documents:
        return ""
    return f"<p>Found, best first: {escape(', '.join(row.ranked.documents[:5]))}</p>"
