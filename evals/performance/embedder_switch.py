"""Re-index to another embedder and back while customers of both search: what fails, of what, and what ranks otherwise.

usage: EMBEDDER__URL=… EMBEDDER__MODEL=… python -m evals.performance.embedder_switch [--dataset DIR] [--readers 2]

The other embedder is that of the environment (`EMBEDDER__…`); the first is `e5-small` in this process, on a throwaway
index. Readers search as turns do, each at most `--rate` times a second: of the first embedder all the time, of the
other one from its switch on, as replicas of two rollouts do. Exits with 1 where a search failed, or where nDCG@10
before, there and back differs by more than .005: the bar for the same weights at another place.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path

import anyio
from rich.console import Console
from rich.table import Table

from chatbot.errors import IndexUnavailable
from chatbot.retrieval import Retrieval
from evals.product import interrupt_on_sigterm
from evals.quality import loaded_corpus, rank, summarise
from evals.questions import HANBIT, TENANT, Dataset, Sample, read_dataset
from evals.sample_bank import sample_banks
from ingest.maintenance import reindex
from ingest.services import Services
from ingest.settings import Settings
from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.embedding import DEFAULT_FOLDER, EmbedderSettings, open_embedder
from knowledge.index import Index
from telemetry.logs import configure_logs

MOST_DIFFERENCE = 0.005
"""Of nDCG@10 between two places of the same weights."""
NOTHING_FOUND = "nothing was found"
NEXT = "kb-2"
"""The collection that the first re-index of a new index fills."""


@dataclass(frozen=True, kw_only=True)
class SwitchPlan:
    """The questions, the readers of each embedder, and the most searches a second of each of them.

    Readers look for another collection each second, so they go on for `afterwards` seconds when it has been switched.
    """

    dataset: Dataset
    readers: int = 2
    rate: float = 5.0
    afterwards: float = 3.0


@dataclass(slots=True)
class Searches:
    """The searches of one embedder's readers: how many, the slowest in seconds, and by its reason how many failed."""

    count: int = 0
    slowest: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class SwitchFigures:
    """The searches by embedder, the seconds of each re-index, and nDCG@10 before, there and back."""

    searches: dict[str, Searches]
    seconds: list[float] = field(default_factory=list)
    ndcg: list[float] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every embedder's readers searched, no search failed, and all rank the same within the bound."""
        all_found = all(searches.count and not searches.failed for searches in self.searches.values())
        return bool(all_found) and max(self.ndcg) - min(self.ndcg) <= MOST_DIFFERENCE


def failure_kind(failure: IndexUnavailable) -> str:
    """Return why a search failed: customers are told one sentence whatever it was."""
    return str(failure.__cause__ or failure)


async def read(index: Index, samples: Sequence[Sample], searches: Searches, rate: float) -> None:
    """Search one question after the other, for as long as this is let."""
    retrieval = Retrieval(index, sample_banks())
    access = Access(tenant=TENANT, groups=frozenset({EVERY_CUSTOMER}), as_of=2**33)
    for sample in cycle(samples):
        began = time.monotonic()
        try:
            found = bool((await retrieval.search(sample.text, earlier=(), access=access)).hits)
        except IndexUnavailable as exc:
            searches.failed[failure_kind(exc)] += 1
        else:
            searches.failed.update([] if found else [NOTHING_FOUND])
        seconds = time.monotonic() - began
        searches.count += 1
        searches.slowest = max(searches.slowest, seconds)
        await anyio.sleep(max(0.0, 1 / rate - seconds))


async def switched(services: Services, index: Index) -> float:
    """Re-index as `ingest reindex` with this index's embedder does; return the seconds."""
    began = time.monotonic()
    tally = await reindex(replace(services, index=index), lambda *_report: None)
    if tally.failed:
        raise RuntimeError(f"{len(tally.failed)} versions could not be written anew")
    return time.monotonic() - began


async def measure(plan: SwitchPlan, settings: Settings, data: Path, console: Console) -> SwitchFigures:
    """Load the corpus with e5-small, switch to the embedder of the settings and back, and return the figures."""
    first = EmbedderSettings().below(settings.weights_dir)
    dataset = replace(plan.dataset, samples=tuple(s for s in plan.dataset.samples if s.as_of is None))
    answerable = [sample for sample in dataset.samples if not sample.unanswerable]
    figures = SwitchFigures({first.name: Searches(), settings.embedder.name: Searches()})
    async with (
        loaded_corpus(dataset, settings.model_copy(update={"embedder": first}), data, console) as (services, corpus),
        open_embedder(settings.embedder) as other,
    ):
        own = services.index

        async def ndcg(index: Index) -> float:
            rankings = [ranking async for ranking in rank(answerable, index, corpus.entries)]
            return float(summarise(dataset, rankings, []).measures["ndcg@10"] or 0.0)

        async def switch(index: Index) -> None:
            console.print(f"re-index with {index.embedder}", highlight=False)
            figures.seconds.append(await switched(services, index))
            await anyio.sleep(plan.afterwards)

        figures.ndcg.append(await ndcg(own))
        async with anyio.create_task_group() as readers:

            def start_readers(index: Index) -> None:
                for _ in range(plan.readers):
                    readers.start_soon(read, index, dataset.samples, figures.searches[index.embedder], plan.rate)

            start_readers(own)
            await switch(own.opened_at(own.collection, other))
            renewed = own.opened_at(NEXT, other)
            start_readers(renewed)
            await switch(own.opened_at(NEXT))
            readers.cancel_scope.cancel()
        figures.ndcg += [await ndcg(renewed), await ndcg(own)]
    return figures


def table(figures: SwitchFigures) -> Table:
    """Return what was measured, a line a place of the embedder."""
    shown = Table("embedder", "searches", "failed", "slowest, s")
    for name, searches in figures.searches.items():
        failed = ", ".join(f"{count} {kind}" for kind, count in searches.failed.most_common()) or "0"
        shown.add_row(name, str(searches.count), failed, f"{searches.slowest:.2f}")
    return shown


def main() -> int:
    """Parse the command line, measure, and print the figures; 1 where a search failed or ranks otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, default=HANBIT, help="folder of the data set (default: the golden set)")
    parser.add_argument("--readers", type=int, default=2, help="of each embedder (default: 2)")
    parser.add_argument("--rate", type=float, default=5.0, help="searches a second of each, at most (default: 5)")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    configure_logs(level="WARNING", log_format="console")
    settings = Settings()
    if settings.embedder.name == DEFAULT_FOLDER:
        parser.error("name another embedder than e5-small, or the same weights by another name: EMBEDDER__URL, …")
    plan = SwitchPlan(dataset=read_dataset(arguments.dataset), readers=arguments.readers, rate=arguments.rate)
    with tempfile.TemporaryDirectory(prefix="embedder-switch-") as folder:
        figures = anyio.run(measure, plan, settings, Path(folder), Console(stderr=True))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table(figures))
    console.print(
        "seconds there and back:", ", ".join(f"{seconds:.1f}" for seconds in figures.seconds), highlight=False
    )
    console.print("nDCG@10 before, there, back:", ", ".join(f"{n:.4f}" for n in figures.ndcg), highlight=False)
    return int(not figures.holds)


if __name__ == "__main__":
    sys.exit(main())
