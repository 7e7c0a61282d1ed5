"""The gates of CI: retrieval on the golden set with real weights, and grounding on recorded answers."""

from dataclasses import replace

from rich.console import Console

from chatbot.grounding import GroundingMode
from evals.quality.report import Task
from evals.quality.rescore import rescore
from evals.quality.retrieve import Ranked
from evals.quality.run import Errand, ranked_in_throw_away_index
from evals.quality.summary import Run, summarise
from evals.questions import Dataset, RecordingBroken, read_recording


async def gated(task: Task, errand: Errand, console: Console) -> Run:
    """Return the run that a task's gates are held against."""
    return await retrieval(errand, console) if task.recording is None else grounding(task, errand.dataset)


async def retrieval(errand: Errand, console: Console) -> Run:
    """Return the run over the questions that have an answer; with `terms_found`, which falls when Kiwi breaks."""
    asked = answerable(errand.dataset)
    return scored(asked, await ranked_in_throw_away_index(replace(errand, dataset=asked), console))


def scored(dataset: Dataset, ranked: list[Ranked]) -> Run:
    """Return the measures of rankings, and the share of questions of which some word was found in some passage."""
    run = summarise(dataset, ranked, [])
    found = sum(one.best_terms > 0 for one in ranked) / max(1, len(ranked))
    return Run(
        dataset=run.dataset,
        measures={**run.measures, "terms_found": round(found, 4)},
        rows=run.rows,
        intervals=run.intervals,
    )


def answerable(dataset: Dataset) -> Dataset:
    """Return the data set without what nobody can answer, which ranking is not judged by."""
    return replace(dataset, samples=tuple(sample for sample in dataset.samples if not sample.unanswerable))


def grounding(task: Task, dataset: Dataset, *, mode: GroundingMode = GroundingMode.STRICT) -> Run:
    """Return what the recorded answers of a task come to.

    Raises:
        RecordingBroken: the task names no recording, or its file is none.
    """
    if task.recording is None:
        raise RecordingBroken("the task names no recording")
    return rescore(read_recording(task.recording), dataset, contact=task.contact, grounding=mode)
