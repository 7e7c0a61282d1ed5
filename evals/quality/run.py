"""One run: load the corpus, rank it for each question, and for answers start the product and ask it."""

import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from redis.asyncio import Redis
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from chatbot.api import LocalSigner
from evals.product import ProductSpec, run_model, run_product, started_part
from evals.quality.answer import LONGEST_ANSWER, Customer, history_seed
from evals.quality.retrieve import Ranking, rank
from evals.quality.summary import Run, summarise
from evals.questions import TENANT, Corpus, CustomerAnswer, Dataset, Sample, load_corpus, throwaway_settings
from ingest.bulk import LoadDisplay
from ingest.services import Services
from ingest.settings import Settings
from ingest.wiring import open_services


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """The data set to score, and the product to start for answers."""

    dataset: Dataset
    settings: Settings
    product: ProductSpec
    answers: bool
    contact: str = ""
    """The bank's telephone number, which needs no citation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningChatbot:
    """The URL of a running chatbot, and the signer of its tokens."""

    url: str
    signer: LocalSigner


async def evaluate(spec: RunSpec, chatbot: RunningChatbot | None, console: Console) -> Run:
    """Return the run; the caller removes the corpus in the data folder of `spec.product`."""
    answers: list[CustomerAnswer] = []
    rankings = await rank_in_throwaway_index(spec, console)
    if spec.answers:
        async with open_customer(spec.product, chatbot, console) as customer:
            current = [sample for sample in spec.dataset.samples if sample.as_of is None]
            answers = await ask_all(current, customer, console)
    return summarise(spec.dataset, rankings, answers, contact=spec.contact)


async def rank_in_throwaway_index(spec: RunSpec, console: Console) -> list[Ranking]:
    """Load the corpus through the pipeline and rank it for each question; the index is closed on return."""
    samples = spec.dataset.samples
    rankings: list[Ranking] = []
    async with loaded_corpus(spec.dataset, spec.settings, spec.product.data, console) as (services, corpus):
        with progress_bar(console) as progress:
            task = progress.add_task("retrieval", total=len(samples))
            async with aclosing(rank(samples, services.index, corpus.entries)) as ranked:
                async for ranking in ranked:
                    rankings.append(ranking)
                    progress.advance(task)
    return rankings


@asynccontextmanager
async def loaded_corpus(
    dataset: Dataset, settings: Settings, data: Path, console: Console
) -> AsyncGenerator[tuple[Services, Corpus]]:
    """Open the ingest services with stores in the folder `data`, and load the data set's corpus."""
    stores = throwaway_settings(settings, data)
    async with open_services(stores, with_worker=False) as services:
        with tempfile.TemporaryDirectory(prefix="evals-corpus-") as folder:
            corpus = await load_corpus(dataset, Path(folder), services, LoadDisplay(console))
        if corpus.left_out:
            console.print(f"{corpus.left_out} entries could not be approved: they are not searched", highlight=False)
        yield services, corpus


@asynccontextmanager
async def open_customer(
    spec: ProductSpec, chatbot: RunningChatbot | None, console: Console
) -> AsyncGenerator[Customer]:
    """Yield a customer of a running chatbot, or of a product started on the loaded index."""
    timeout = aiohttp.ClientTimeout(total=LONGEST_ANSWER)
    if chatbot is not None:
        async with aiohttp.ClientSession(chatbot.url, timeout=timeout) as http:
            yield Customer(http, chatbot.signer, tenant=TENANT)
        return
    console.print(f"starting the product (profile {spec.profile})", highlight=False)
    async with (
        started_part(run_model(spec)) as model,
        started_part(run_product(spec, model)) as product,
        aiohttp.ClientSession(product.url, timeout=timeout) as http,
        Redis.from_url(product.redis_url) as redis,
    ):
        yield Customer(http, product.signer, tenant=TENANT, seed=history_seed(redis))


async def ask_all(samples: Sequence[Sample], customer: Customer, console: Console) -> list[CustomerAnswer]:
    """Ask the questions one by one, so that the measured waits are those of a single customer."""
    with progress_bar(console) as progress:
        return [await customer.ask(sample) for sample in progress.track(samples, description="answers")]


def progress_bar(console: Console) -> Progress:
    """Return the progress bar of a run."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
