"""The go-live report of a calibration, in Markdown (pure)."""

from collections.abc import Iterator, Sequence

from chatbot.calibration import Calibration
from evals.quality.calibrate import CalibrationResult, Case, Outcome
from evals.quality.report import quoted
from evals.scorers import share_interval

MOST_CASES = 25
"""Maximum cases per kind; the report gives the number of further cases."""


def share(hits: int, total: int) -> str:
    """Format a share with its 95 % interval (Wilson)."""
    if not total:
        return "–"
    interval = share_interval(hits, total)
    return f"{hits / total:.2f} ({interval.low:.2f} to {interval.high:.2f}; {hits} of {total})"


def figure_lines(result: CalibrationResult) -> list[tuple[str, str, str]]:
    """Return (name, share with interval, bar verdict) for the chosen point."""
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


def go_live_report(result: CalibrationResult, calibration: Calibration, *, dataset: str, day: str) -> str:
    """Return the report."""
    title = f"# Go-live report: {dataset}"
    subtitle = f"{day}, model {', '.join(calibration.models)}, embedder {calibration.embedder}."
    sections = [*_figures(result), *_curve(result), *_cases(result), *_unanswerable(result), *_use(calibration, result)]
    return "\n\n".join([title, subtitle, *sections]) + "\n"


def _figures(result: CalibrationResult) -> Iterator[str]:
    rows = [" | ".join(line) for line in figure_lines(result)]
    yield _table(["at the chosen threshold | share, 95 % interval | bar", *rows])
    yield "Every question was judged by weights fitted without it; the threshold was chosen on all of them."
    unasked = _cases_with(result, Outcome.UNASKED)
    if unasked:
        yield (
            f"{len(unasked)} questions were refused when they were recorded, so their answers are unknown. If a "
            "threshold lets one of them through, it counts as not right."
        )


def _table(rows: Sequence[str]) -> str:
    columns = rows[0].count("|") + 1
    return "\n".join([f"| {rows[0]} |", "|" + "---|" * columns, *(f"| {row} |" for row in rows[1:])])


def _curve(result: CalibrationResult) -> Iterator[str]:
    chosen = result.chosen
    yield f"## Why {chosen.threshold:.2f}"
    yield f"{result.reason[0].upper()}{result.reason[1:]}."
    thresholds = {round(n / 20, 2) for n in range(1, 20)} | {chosen.threshold}
    rows = [
        f"{point.threshold:.2f}{' (chosen)' if point == chosen else ''} | {point.right}/{point.judged} | "
        f"{point.wrong}/{point.judged} | {point.beside}/{point.judged} | {point.refused}/{point.answerable} | "
        f"{point.invented}/{point.unanswerable}"
        for point in result.curve
        if point.threshold in thresholds
    ]
    yield _table(["threshold | right | wrong | beside | refused | unanswerable answered", *rows])


def _cases(result: CalibrationResult) -> Iterator[str]:
    threshold = result.chosen.threshold
    for title, outcome in (
        ("Unanswerable questions that are answered", Outcome.INVENTED),
        ("Wrong answers", Outcome.WRONG),
        ("Answers beside the question", Outcome.BESIDE),
    ):
        answered = [(case, value) for case, value in _cases_with(result, outcome) if value >= threshold]
        yield f"## {title} ({len(answered)}, the surest first)"
        yield from _case_texts(answered)
    refused = [
        (case, value)
        for case, value in zip(result.cases, result.scores, strict=True)
        if not case.unanswerable and (value < threshold or case.outcome is Outcome.REFUSED)
    ]
    with_document = sum(case.has_document is True for case, _ in refused)
    yield f"## Answerable questions that are refused ({len(refused)})"
    yield (
        f"For {with_document} of them, the passages include a document that answers. For the others, the search missed "
        "the document, or qrels.tsv does not name it."
    )
    yield from _case_texts(refused)


def _unanswerable(result: CalibrationResult) -> Iterator[str]:
    cases = [case for case in result.cases if case.unanswerable and not case.near_miss]
    yield f"## What the documents lack ({len(cases)})"
    yield "Customers ask these questions, and no document answers them. Write a text, or let a person answer."
    yield "\n".join(f"- {case.sample.text}" for case in sorted(cases, key=lambda case: case.sample.kind))


def _use(calibration: Calibration, result: CalibrationResult) -> Iterator[str]:
    yield "## Use the calibration"
    yield (
        f"Set `CALIBRATION_FILE` to the file beside this page. It is valid for {', '.join(calibration.models)} with "
        f"{calibration.embedder} and the probe `{calibration.probe}`. With others, the log has `calibration_mismatch`, "
        "and the model's probes alone decide. Calibrate again for another model, embedder, prompt or other documents."
    )
    yield ", ".join(f"{name} {value:g}" for name, value in result.weights.model_dump().items())


def _cases_with(result: CalibrationResult, outcome: Outcome) -> list[tuple[Case, float]]:
    """Return the customers' questions with an outcome and their scores, highest score first."""
    scored = zip(result.cases, result.scores, strict=True)
    selected = [(case, value) for case, value in scored if case.outcome is outcome and not case.near_miss]
    return sorted(selected, key=lambda item: -item[1])


def _case_texts(cases: Sequence[tuple[Case, float]]) -> Iterator[str]:
    for case, value in cases[:MOST_CASES]:
        yield f"### {case.sample.text} ({value:.2f})"
        if case.shown_text:
            titles = f" from {', '.join(case.titles)}" if case.titles else ""
            yield f"Shown{titles}:"
            yield quoted(case.shown_text)
        if case.sample.answers:
            yield "Known answer:"
            yield quoted(case.sample.answers[0])
    if len(cases) > MOST_CASES:
        yield f"{len(cases) - MOST_CASES} more."
