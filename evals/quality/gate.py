"""The runs of the CI gates: retrieval on the golden set with real weights, and grounding on recorded answers."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from evals.quality.report import Task
from evals.quality.rescore import rescore
from evals.quality.retrieve import Ranking
from evals.quality.run import RunSpec, rank_in_throwaway_index
from evals.quality.summary import Run, summarise
from evals.questions import Dataset, read_recording
from knowledge.bank import Bank, read_banks


async def gate_run(task: Task, spec: RunSpec, console: Console) -> Run:
    """Return the run that the gates of a task apply to."""
    if task.recording is None:
        return await retrieval_run(spec, console)
    return grounding_run(task.recording, spec.dataset, bank=read_banks(task.bank).first)


async def retrieval_run(spec: RunSpec, console: Console) -> Run:
    """Return the run over the answerable questions; its `terms_found` falls when Kiwi breaks."""
    answerable = tuple(sample for sample in spec.dataset.samples if not sample.unanswerable)
    dataset = replace(spec.dataset, samples=answerable)
    return ranking_run(dataset, await rank_in_throwaway_index(replace(spec, dataset=dataset), console))


def ranking_run(dataset: Dataset, rankings: list[Ranking]) -> Run:
    """Return the measures of rankings, and the share of questions with a term that stands in some passage."""
    run = summarise(dataset, rankings, [])
    terms_found = sum(ranking.best_terms > 0 for ranking in rankings) / max(1, len(rankings))
    return Run(
        dataset=run.dataset,
        measures={**run.measures, "terms_found": round(terms_found, 4)},
        rows=run.rows,
        intervals=run.intervals,
    )


def grounding_run(path: Path, dataset: Dataset, *, bank: Bank) -> Run:
    """Return the run of the recorded answers; no model is asked.

    Raises:
        RecordingBroken: the file holds no recording.
    """
    return rescore(read_recording(path), dataset, bank=bank)
