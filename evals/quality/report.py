"""The report of a run in Markdown: measures with their gates, and the worst answers (pure)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from evals.quality.summary import Measures, Row, Run, ScoredAnswer
from evals.sample_bank import SAMPLE_BANK
from evals.scorers import Judgement
from knowledge.profiles import AnswerMode

WORST = 60
"""Maximum cases in the report; it gives the number of further cases."""


class TaskBroken(Exception):
    """The file is not a valid task; the message contains the reason."""


class Gate(BaseModel, frozen=True, extra="forbid"):
    """A minimum (`least`) or maximum (`most`) for a measure."""

    measure: str
    least: float | None = None
    most: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> "Gate":
        if (self.least is None) == (self.most is None):
            raise ValueError("a gate has either `least` or `most`")
        return self

    @property
    def bound(self) -> str:
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"

    def holds(self, measures: Measures) -> bool:
        """Return whether the measure passes; a missing one fails."""
        value = measures.get(self.measure)
        if not isinstance(value, int | float):
            return False
        if self.least is not None:
            return value >= self.least
        return self.most is not None and value <= self.most


class Task(BaseModel, frozen=True, extra="forbid"):
    """A data set, the model profile that answers it (or a recording and its answer mode), and the gates."""

    dataset: Path
    profile: str = ""
    recording: Path | None = None
    answer: AnswerMode = AnswerMode.QUOTE
    bank: Path = SAMPLE_BANK
    gates: tuple[Gate, ...]


def read_task(path: Path) -> Task:
    """Read a task.

    Raises:
        TaskBroken: the file is not a valid task.
    """
    try:
        return Task.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as exc:
        raise TaskBroken(f"{path}: {exc}") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLine:
    """One line of the table; `holds` is None for a measure without a gate."""

    measure: str
    value: str
    bound: str
    holds: bool | None


def gate_lines(run: Run, gates: Sequence[Gate]) -> list[GateLine]:
    """Return a line for each measure, and for each gate whose measure is missing."""
    by_name = {gate.measure: gate for gate in gates}
    names = [*run.measures, *(name for name in by_name if name not in run.measures)]
    return [
        GateLine(
            measure=name,
            value=figure_text(run.measures.get(name)),
            bound=by_name[name].bound if name in by_name else "",
            holds=by_name[name].holds(run.measures) if name in by_name else None,
        )
        for name in names
    ]


def figure_text(value: float | str | None) -> str:
    """Format a figure for the report."""
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def faults(row: Row) -> list[str]:
    """Return the faults of a question's answer and retrieval, most serious first."""
    all_faults = [*_answer_faults(row.judged, row)] if row.judged else []
    if row.measures.get("recall@5", 1.0) < 1.0:
        all_faults.append(f"retrieval misses a relevant document (recall@5 {row.measures['recall@5']:.2f})")
    return all_faults


def _answer_faults(scored: ScoredAnswer, row: Row) -> Iterator[str]:
    answer = scored.answer
    checks = {
        f"shows numbers that no cited passage holds: {', '.join(scored.unfounded)}": bool(scored.unfounded),
        f"ended in {answer.finish_reason}": answer.finish_reason.startswith(("error", "cut")),
        "answers what the documents do not say": row.unanswerable and not answer.refused,
        "wrong: it says something else than the known answer": scored.judgement is Judgement.WRONG,
        "beside the question": scored.judgement is Judgement.BESIDE,
        "no citation of a right document holds the answer": scored.cites_answer is False,
        f"not answered ({answer.finish_reason})": not row.unanswerable and answer.refused,
    }
    return (fault for fault, applies in checks.items() if applies)


def report(run: Run, gates: Sequence[Gate]) -> str:
    """Return the measures with their gates, and the questions with faults, most serious first."""
    faulty = [(row, faults(row)) for row in run.rows if faults(row)]
    worst = sorted(faulty, key=_severity)
    rows = [
        " | ".join((line.measure, line.value, interval_text(line, run), _verdict(line)))
        for line in gate_lines(run, gates)
    ]
    cases = [_case(row, row_faults) for row, row_faults in worst[:WORST]]
    if len(worst) > WORST:
        cases.append(f"{len(worst) - WORST} more are in the run's JSON file.")
    table = "\n".join(
        ["| measure | value | 95 % interval | gate |", "|---|---|---|---|", *(f"| {row} |" for row in rows)]
    )
    title = f"## {len(worst)} of {len(run.rows)} questions with a fault"
    return "\n\n".join([f"# {run.dataset}", table, title, *cases]) + "\n"


def interval_text(line: GateLine, run: Run) -> str:
    """Format a measure's interval; "" without one."""
    interval = run.intervals.get(line.measure)
    return f"{interval.low:.3f} to {interval.high:.3f}" if interval else ""


def _verdict(line: GateLine) -> str:
    return {None: "", True: f"{line.bound} holds", False: f"{line.bound} MISSED"}[line.holds]


def _severity(case: tuple[Row, list[str]]) -> tuple[bool, bool, bool, int]:
    """Return the sort key: unsupported numbers, answered unanswerable questions, wrong answers, number of faults."""
    row, row_faults = case
    has_unfounded_number = row.judged is not None and bool(row.judged.unfounded)
    is_invented = row.judged is not None and row.unanswerable and not row.judged.answer.refused
    is_wrong = row.judged is not None and row.judged.judgement is Judgement.WRONG
    return not has_unfounded_number, not is_invented, not is_wrong, -len(row_faults)


def _case(row: Row, row_faults: Sequence[str]) -> str:
    parts = [f"### {row.id} {row.kind}{' (unanswerable)' if row.unanswerable else ''}", row.question]
    if row.answers:
        parts.append(f"A right answer holds: {' · '.join(row.answers)}")
    parts.append("\n".join(f"- {fault}" for fault in row_faults))
    if row.judged is not None:
        answer = row.judged.answer
        parts.append(quoted(answer.text))
        parts += [f"Cited {citation.document_id}: {citation.quote}" for citation in answer.citations]
    if row.ranked is not None and row.ranked.documents:
        parts.append(f"Found, best first: {', '.join(row.ranked.documents[:5])}")
    return "\n\n".join(parts)


def quoted(text: str) -> str:
    """Return any text as an indented Markdown code block."""
    return "\n".join(f"    {line}" for line in text.splitlines())
