"""What a run comes to for a reader: a table with its gates, and what is wrong with each answer (pure)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from evals.quality.summary import Judged, Measures, Row, Run


class TaskBroken(Exception):
    """The file describes no task."""


class Gate(BaseModel, frozen=True, extra="forbid"):
    """A figure that a measure must reach or not exceed."""

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
        """Return whether the run passes; a measure that is missing does not."""
        value = measures.get(self.measure)
        if not isinstance(value, int | float):
            return False
        return value >= self.least if self.least is not None else self.most is not None and value <= self.most


class Task(BaseModel, frozen=True, extra="forbid"):
    """A data set, the product that answers it (or the recording of one), and what the figures must be."""

    dataset: Path
    profile: str = ""
    recording: Path | None = None
    contact: str = ""
    gates: tuple[Gate, ...]


def read_task(path: Path) -> Task:
    """Read a task.

    Raises:
        TaskBroken: it is none.
    """
    try:
        return Task.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as exc:
        raise TaskBroken(f"{path}: {exc}") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLine:
    """One measure as it is shown; `holds` is None where there is no gate."""

    measure: str
    value: str
    bound: str
    holds: bool | None


def lines(run: Run, gates: Sequence[Gate]) -> list[GateLine]:
    """Return every measure with its gate; a gate whose measure is missing is a line too."""
    by_name = {gate.measure: gate for gate in gates}
    shown = [*run.measures, *(name for name in by_name if name not in run.measures)]
    return [
        GateLine(
            measure=name,
            value=written(run.measures.get(name)),
            bound=by_name[name].bound if name in by_name else "",
            holds=by_name[name].holds(run.measures) if name in by_name else None,
        )
        for name in shown
    ]


def written(value: float | str | None) -> str:
    """Return a figure as people read it."""
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def faults(row: Row) -> list[str]:
    """Return what is wrong with a question's answer and retrieval, the gravest first."""
    found = [*_faults_of(row.judged, row)] if row.judged else []
    if row.measures.get("recall@5", 1.0) < 1.0:
        found.append(f"retrieval misses a relevant document (recall@5 {row.measures['recall@5']:.2f})")
    return found


def _faults_of(judged: Judged, row: Row) -> Iterator[str]:
    answer = judged.answer
    answered = not answer.refused
    checks = {
        f"shows numbers that no cited passage holds: {', '.join(judged.unfounded)}": bool(judged.unfounded),
        f"ended in {answer.finish_reason}": answer.finish_reason.startswith(("error", "cut")),
        "answers what the documents do not say": row.unanswerable and answered,
        "the answer does not hold a known answer": judged.correct is False,
        "no citation of a right document holds the answer": judged.cites_answer is False,
        f"not answered ({answer.finish_reason})": not row.unanswerable and answer.refused,
        f"numbers to look at: {', '.join(judged.respelled)}": answered and bool(judged.respelled),
    }
    return (fault for fault, is_there in checks.items() if is_there)
