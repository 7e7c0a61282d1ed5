"""One run, top to bottom: load the corpus, rank, and where answers are wanted start the product and ask it."""

import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import anyio
from redis.asyncio import Redis
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from chatbot.api import LocalSigner
from evals.product import Wanted, model, product
from evals.quality.answer import LONGEST_ANSWER, Customer, writes_history
from evals.quality.retrieve import HALVES, Ranked, rank
from evals.quality.summary import Run, summarise
from evals.questions import TENANT, Answered, Corpus, Dataset, Sample, load_corpus, throw_away
from ingest.bulk import open_display
from ingest.services import Services
from ingest.settings import Settings
from ingest.wiring import open_services


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What to score, and the product to start where answers are wanted."""

    dataset: Dataset
    settings: Settings
    wanted: Wanted
    answers: bool
    contact: str = ""
    halves: bool = False

    def told(self, contact: str) -> "Errand":
        """Return the same with the bank's telephone number."""
        return replace(self, contact=contact)


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """A chatbot that runs already, and the key that signs tokens it takes."""

    url: str
    signer: LocalSigner


async def run_errand(errand: Errand, against: Against | None, console: Console) -> Run:
    """Return the run; the corpus lives in the errand's folder, which the caller throws away."""
    answers: list[Answered] = []
    ranked = await ranked_in_throw_away_index(errand, console)
    if errand.answers:
        async with customer(errand, against, console) as asking:
            today = [sample for sample in errand.dataset.samples if sample.as_of is None]
            answers = await ask_all(today, asking, console)
    return summarise(errand.dataset, ranked, answers, contact=errand.contact)


async def ranked_in_throw_away_index(errand: Errand, console: Console) -> list[Ranked]:
    """Load the corpus through the pipeline and rank it for every question; the index is closed then."""
    samples = errand.dataset.samples
    found: list[Ranked] = []
    async with loaded(errand.dataset, errand.settings, errand.wanted.data, console) as (services, corpus):
        with bar(console) as progress:
            task = progress.add_task("retrieval", total=len(samples))
            halves = HALVES if errand.halves else {}
            async with aclosing(rank(samples, services.index, corpus.entries, halves=halves)) as rankings:
                async for one in rankings:
                    found.append(one)
                    progress.advance(task)
    return found


@asynccontextmanager
async def loaded(
    dataset: Dataset, settings: Settings, data: Path, console: Console
) -> AsyncGenerator[tuple[Services, Corpus]]:
    """Open the product's staff side on stores in `data` and load the data set's corpus."""
    async with open_services(throw_away(settings, data), works_jobs=False) as services:
        with open_display(console) as show, tempfile.TemporaryDirectory(prefix="evals-corpus-") as folder:
            corpus = await load_corpus(dataset, Path(folder), services, show)
        if corpus.left_out:
            console.print(f"{corpus.left_out} entries could not be approved: they are not searched", highlight=False)
        yield services, corpus


@asynccontextmanager
async def customer(errand: Errand, against: Against | None, console: Console) -> AsyncGenerator[Customer]:
    """Yield somebody who asks the product: the running one, or one that is started for it on the loaded index."""
    timeout = aiohttp.ClientTimeout(total=LONGEST_ANSWER)
    with ExitStack() as parts:
        async with AsyncExitStack() as stack:
            if against is not None:
                http = await stack.enter_async_context(aiohttp.ClientSession(against.url, timeout=timeout))
                yield Customer(http, against.signer, tenant=TENANT)
                return
            console.print(f"starting the product (profile {errand.wanted.profile})", highlight=False)
            served = await anyio.to_thread.run_sync(parts.enter_context, model(errand.wanted))
            running = await anyio.to_thread.run_sync(parts.enter_context, product(errand.wanted, served))
            http = await stack.enter_async_context(aiohttp.ClientSession(running.url, timeout=timeout))
            redis = await stack.enter_async_context(Redis.from_url(running.redis_url))
            yield Customer(http, running.signer, tenant=TENANT, seed=writes_history(redis))


async def ask_all(samples: Sequence[Sample], asking: Customer, console: Console) -> list[Answered]:
    """Ask every question, one after the other, as the waits of one customer are measured."""
    with bar(console) as progress:
        return [await asking.ask(sample) for sample in progress.track(samples, description="answers")]


def bar(console: Console) -> Progress:
    """Return the progress bar of a run."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
