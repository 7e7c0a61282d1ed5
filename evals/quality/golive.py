"""The go-live report of a calibration: one HTML page without outside resources, readable on a phone (pure)."""

from collections.abc import Iterator, Sequence
from html import escape

from chatbot.calibration import Calibration
from evals.quality.calibrate import CalibrationResult, Case, Outcome
from evals.quality.drawing import Line, curve
from evals.scorers import share_interval

MOST_CASES = 25
"""Of a kind on the page; it says how many more there are."""
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:1rem auto;padding:0 1rem;color:#1c1c1c;"
    "overflow-wrap:break-word}table{border-collapse:collapse;width:100%}td,th{padding:.15rem .5rem .15rem 0;"
    "text-align:left;vertical-align:top}.no{color:#b00020}.yes{color:#0a6b2d}.wide{overflow-x:auto;font-size:.85rem}"
    "details{margin:.5rem 0;border-top:1px solid #ddd;padding-top:.4rem}summary{cursor:pointer}"
    "blockquote{margin:.3rem 0;padding-left:.8rem;border-left:3px solid #bbb;white-space:pre-wrap}"
    "figure{margin:1rem 0}figcaption{font-weight:600}svg{max-width:100%;height:auto}"
    "svg text{font:12px system-ui,sans-serif}.axis{stroke:#ddd;fill:none}.bound{stroke:#1c1c1c;stroke-width:2}"
    ".line{fill:none;stroke-width:2.5}.right{stroke:#0a6b2d}.wrong{stroke:#b00020}.beside{stroke:#7a4fa0}"
    ".refused{stroke:#8aa4c8}.invented{stroke:#d08700;stroke-dasharray:5 3}"
    "code{background:#f2f2f2;padding:0 .2rem}.chosen{font-weight:600;background:#f2f2f2}"
)


def share(hits: int, total: int) -> str:
    """Return a share with its 95 % interval (Wilson), as reports show it."""
    if not total:
        return "–"
    interval = share_interval(hits, total)
    return f"{hits / total:.2f} ({interval.low:.2f} to {interval.high:.2f}; {hits} of {total})"


def figure_lines(result: CalibrationResult) -> list[tuple[str, str, str]]:
    """Return name, share with interval, and what the bar says, of the chosen point."""
    point, bars = result.chosen, result.bars
    not_right, invented = point.not_right / max(1, point.judged), point.invented / point.unanswerable
    return [
        ("right, of answerable questions", share(point.right, point.judged), ""),
        ("wrong", share(point.wrong, point.judged), ""),
        ("beside the question", share(point.beside, point.judged), ""),
        (
            "wrong or beside the question",
            share(point.not_right, point.judged),
            f"{'holds' if not_right <= bars.not_right else 'MISSED'} (≤ {bars.not_right:g})",
        ),
        ("refused although answerable", share(point.refused, point.answerable), ""),
        (
            "unanswerable questions answered",
            share(point.invented, point.unanswerable),
            f"{'holds' if invented <= bars.invented else 'MISSED'} (≤ {bars.invented:g})",
        ),
    ]


def go_live_page(result: CalibrationResult, calibration: Calibration, *, dataset: str, day: str) -> str:
    """Return the report."""
    sections = (_figures(result), _curve(result), _cases(result), _lacking(result), _use(calibration, result))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Go-live report: {escape(dataset)}</title><style>{_STYLE}</style>"
        f"<h1>Go-live report: {escape(dataset)}</h1><p>{escape(day)}, model {escape(', '.join(calibration.models))}, "
        f"embedder {escape(calibration.embedder)}.</p>"
        f"{''.join(part for section in sections for part in section)}</html>\n"
    )


def _figures(result: CalibrationResult) -> Iterator[str]:
    yield "<table><tr><th>at the chosen threshold<th>share, 95 % interval<th>bar</tr>"
    for name, figure, bar in figure_lines(result):
        kind = "no" if bar.startswith("MISSED") else "yes"
        yield f'<tr><td>{escape(name)}<td>{escape(figure)}<td class="{kind}">{escape(bar)}</tr>'
    yield "</table><p>Every question was judged by weights fitted without it; "
    yield "the threshold was chosen on all of them.</p>"
    if unasked := _of(result, Outcome.UNASKED):
        yield (
            f"<p>{len(unasked)} questions were refused when they were recorded, so no answer to them is known: where a "
            "threshold lets one through it counts as not right.</p>"
        )


def _curve(result: CalibrationResult) -> Iterator[str]:
    chosen = result.chosen
    yield f"<h2>Why {chosen.threshold:.2f}</h2><p>{escape(_sentence(result.reason))}</p>"

    def line(name: str, kind: str, count: str, whole: str) -> Line:
        points = [(point.threshold, getattr(point, count) / max(1, getattr(point, whole))) for point in result.curve]
        return Line(name=name, kind=kind, points=points)

    lines = (
        line("right", "right", "right", "judged"),
        line("wrong", "wrong", "wrong", "judged"),
        line("beside the question", "beside", "beside", "judged"),
        line("refused although answerable", "refused", "refused", "answerable"),
        line("unanswerable ones answered", "invented", "invented", "unanswerable"),
    )
    yield curve("Shares by threshold; the upright line is the chosen one", lines, marked=chosen.threshold)
    yield '<div class="wide"><table><tr><th>threshold<th>right<th>wrong<th>beside<th>refused'
    yield "<th>unanswerable answered</tr>"
    shown = {round(n / 20, 2) for n in range(1, 20)} | {chosen.threshold}
    for point in result.curve:
        if point.threshold in shown:
            mark = ' class="chosen"' if point == chosen else ""
            yield (
                f"<tr{mark}><td>{point.threshold:.2f}<td>{point.right}/{point.judged}<td>{point.wrong}/{point.judged}"
                f"<td>{point.beside}/{point.judged}<td>{point.refused}/{point.answerable}<td>{point.invented}/{point.unanswerable}</tr>"
            )
    yield "</table></div>"


def _cases(result: CalibrationResult) -> Iterator[str]:
    shown = result.chosen.threshold
    for title, outcome in (
        ("Unanswerable questions that are answered", Outcome.INVENTED),
        ("Wrong answers", Outcome.WRONG),
        ("Answers beside the question", Outcome.BESIDE),
    ):
        listed = [item for item in _of(result, outcome) if item[1] >= shown]
        yield f"<h2>{title} ({len(listed)}, the surest first)</h2>"
        yield from _listed(listed)
    refused = [
        (case, value)
        for case, value in zip(result.cases, result.scores, strict=True)
        if not case.unanswerable and (value < shown or case.outcome is Outcome.REFUSED)
    ]
    found = sum(case.found is True for case, _ in refused)
    yield f"<h2>Answerable questions that are refused ({len(refused)})</h2>"
    yield f"<p>In {found} of them a document that answers was among the passages; in the others the search missed it, "
    yield "or qrels.tsv does not name it.</p>"
    yield from _listed(refused)


def _lacking(result: CalibrationResult) -> Iterator[str]:
    lacking = [case for case in result.cases if case.unanswerable and not case.near_miss]
    yield f"<h2>What the documents lack ({len(lacking)})</h2>"
    yield "<p>Customers ask this, and no document answers it: each is a text to write, or a question for a person.</p>"
    for kind in sorted({case.sample.kind for case in lacking}):
        of_kind = [case for case in lacking if case.sample.kind == kind]
        yield f"<details><summary>{escape(kind or 'all')} ({len(of_kind)})</summary><ul>"
        yield from (f"<li>{escape(case.sample.text)}</li>" for case in of_kind)
        yield "</ul></details>"


def _use(calibration: Calibration, result: CalibrationResult) -> Iterator[str]:
    weights = result.weights.model_dump()
    yield "<h2>Into service</h2><p>Set <code>CALIBRATION_FILE</code> to the file beside this page. It holds for"
    yield f" {escape(', '.join(calibration.models))} with {escape(calibration.embedder)} and the probe"
    yield f" <code>{escape(calibration.probe)}</code>; with others the log says"
    yield " <code>calibration_does_not_fit</code>, and the model's own word decides."
    yield " Another model, embedder or prompt, or other documents: calibrate again.</p><p>"
    yield ", ".join(f"{escape(name)} {value:g}" for name, value in weights.items()) + "</p>"


def _of(result: CalibrationResult, outcome: Outcome) -> list[tuple[Case, float]]:
    """Return the customers' questions of an outcome with their scores, the surest first."""
    scored = zip(result.cases, result.scores, strict=True)
    of_outcome = [(case, value) for case, value in scored if case.outcome is outcome and not case.near_miss]
    return sorted(of_outcome, key=lambda item: -item[1])


def _listed(cases: Sequence[tuple[Case, float]]) -> Iterator[str]:
    for case, value in cases[:MOST_CASES]:
        yield f"<details><summary>{escape(case.sample.text)} <small>({value:.2f})</small></summary>"
        if case.shown:
            yield f"<p>Shown{_titles(case)}:</p><blockquote>{escape(case.shown)}</blockquote>"
        if case.sample.answers:
            yield f"<p>Known answer:</p><blockquote>{escape(case.sample.answers[0])}</blockquote>"
        yield "</details>"
    if len(cases) > MOST_CASES:
        yield f"<p>{len(cases) - MOST_CASES} more.</p>"


def _titles(case: Case) -> str:
    return f" from {escape(', '.join(case.titles))}" if case.titles else ""


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
