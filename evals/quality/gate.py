"""The runs of the CI gates: retrieval on the golden set with real weights, and grounding on recorded answers."""

from dataclasses import replace

import msgspec
from rich.console import Console

from evals.quality.report import Task
from evals.quality.rescore import rescore
from evals.quality.retrieve import Ranking
from evals.quality.run import RunSpec, rank_in_throwaway_index
from evals.quality.summary import Run, summarise
from evals.questions import Dataset, read_recording
from knowledge.bank import read_banks


async def gate_run(task: Task, spec: RunSpec, console: Console) -> Run:
    """Return the run for a task's gates: of its recording, or else of retrieval over answerable questions.

    Raises:
        RecordingBroken: the task's file is not a recording.
    """
    if task.recording is not None:
        recording, bank = read_recording(task.recording), read_banks(task.bank).first
        return rescore(recording, spec.dataset, bank=bank, answer=task.answer)
    answerable = tuple(sample for sample in spec.dataset.samples if not sample.unanswerable)
    dataset = replace(spec.dataset, samples=answerable)
    return ranking_run(dataset, await rank_in_throwaway_index(replace(spec, dataset=dataset), console))


def ranking_run(dataset: Dataset, rankings: list[Ranking]) -> Run:
    """Return the measures of rankings, and `terms_found`: the share of questions with a term match in some passage.

    It drops if the Korean tokenizer Kiwi breaks.
    """
    run = summarise(dataset, rankings, [])
    terms_found = sum(ranking.best_terms > 0 for ranking in rankings) / max(1, len(rankings))
    return msgspec.structs.replace(run, measures={**run.measures, "terms_found": round(terms_found, 4)})
