"""The runs of the CI gates: retrieval on the golden set with real weights, and grounding on recorded answers."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from evals.quality.report import Task
from evals.quality.rescore import Ranks, rank_recorded, rescore
from evals.quality.retrieve import Ranking
from evals.quality.run import RunSpec, rank_in_throwaway_index
from evals.quality.summary import Run, summarise
from evals.questions import Dataset, Recording, read_recording
from ingest.settings import Settings
from knowledge.bank import Bank, read_banks
from knowledge.embedding import Embedder, EmbedderSettings, open_embedder
from knowledge.index import passage_similarities


async def gate_run(task: Task, spec: RunSpec, console: Console) -> Run:
    """Return the run that the gates of a task apply to."""
    if task.recording is None:
        return await retrieval_run(spec, console)
    return await grounding_run(task.recording, spec.dataset, bank=read_banks(task.bank).first)


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


async def grounding_run(path: Path, dataset: Dataset, *, bank: Bank) -> Run:
    """Return the run of the recorded answers; the embedder ranks their passages' sentences, no model is asked.

    Raises:
        RecordingBroken: the file holds no recording.
    """
    recording = read_recording(path)
    ranks = await recorded_ranks(recording, dataset, Settings().embedder)
    return rescore(recording, dataset, ranks=ranks, bank=bank)


async def recorded_ranks(recording: Recording, dataset: Dataset, settings: EmbedderSettings) -> Ranks:
    """Rank the sentences of recorded answers' passages with the embedder of these settings.

    Raises:
        EmbeddingUnavailable: it cannot be loaded or reached.
    """
    async with open_embedder(settings) as embedder:
        return await rank_recorded(recording, dataset, partial(passage_similarities, _Remembering(embedder)))


class _Remembering:
    """An embedder that computes each passage's vector once: recorded answers share most of their sentences."""

    def __init__(self, embedder: Embedder) -> None:
        self.name = embedder.name
        self.dimensions = embedder.dimensions
        self.embed_queries = embedder.embed_queries
        self._embed = embedder.embed_passages
        self._known: dict[str, list[float]] = {}

    async def embed_passages(self, texts: Sequence[str]) -> list[list[float]]:
        unknown = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known |= zip(unknown, await self._embed(unknown), strict=True)
        return [self._known[text] for text in texts]
