"""`ingest load` beside the embedder alone, LangChain and LlamaIndex, on the same folder; exit 1 below a bound.

    python -m evals.performance.ingestion [.venv/peers/bin/python] [--folder DIR]

The folder holds text files, so that no parser matters: what our parsers read in the sample documents, three times over
(`--folder DIR`: what they read there). In every round each side starts with an empty store of its own and a loaded and
warm model, and the sides take turns to begin. The embedder alone is sentence-transformers' `encode` with all cores and
the same weights and type: it gets the passages that `ingest load` has just written, in their order, in one call. Our
own workers get them in one call too, which is the upper limit of loading if everything else cost nothing. LangChain and
LlamaIndex run in an environment of their own (`scripts/peers`; without it they are left out) with the defaults of their
constructors, the same weights, and embedded Qdrant like ours. Their chunks are longer than the model reads, so sides
are compared by the tokens that are embedded in a second, and also by plain seconds.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from subprocess import CalledProcessError, run
from typing import Annotated

import anyio
import msgspec
import torch
import typer
from rich.console import Console
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from evals.performance.bench import BenchFigure, run_measurement
from evals.product import ProductNotStarted, ProductSpec
from evals.questions import HANBIT, TENANT, throwaway_settings
from ingest.bulk import LoadOrder, find_files, load, open_display
from ingest.parsing import ParserSettings, Unreadable, open_parser, open_tokenizer
from ingest.settings import Settings
from ingest.wiring import open_services
from knowledge.index import indexed_text

PEERS = {"LangChain": "langchain_ingest.py", "LlamaIndex": "llamaindex_ingest.py"}
DOCUMENTS = HANBIT / "documents"
LEAST_OF_EMBEDDER = 0.95
MOST_TOKENS = 512
"""Of a text that the embedder reads; it drops the rest without an error."""
PEER_TIMEOUT = 1800.0
"""Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestionPlan:
    """The documents to load, how many copies of each, and the rounds; `peers` is the Python of `.venv/peers`."""

    peers: Path | None = None
    folder: Path = DOCUMENTS
    copies: int = 3
    rounds: int = 3


class IngestionTiming(msgspec.Struct, frozen=True):
    """The seconds of one side, and the texts that it embedded."""

    seconds: float
    texts: list[str]


Rounds = dict[str, list[IngestionTiming]]


async def ingestion(plan: IngestionPlan, spec: ProductSpec, settings: Settings, console: Console) -> list[BenchFigure]:
    """Measure every side in every round, in turn, and return the figures."""
    folder, weights = spec.data / "folder", settings.tokenizer_folder
    files = await write_text_files(plan, folder)
    sides = ["ours", *(PEERS if plan.peers is not None else ())]
    rounds: Rounds = {}
    for n in range(plan.rounds):
        for side in sides[n % len(sides) :] + sides[: n % len(sides)]:
            console.print(f"round {n + 1} of {plan.rounds}: {side}", highlight=False)
            store = spec.data / f"{side}-{n}"
            if side == "ours":
                loaded, workers = await load_and_embed(folder, throwaway_settings(settings, store), console)
                alone = await anyio.to_thread.run_sync(encode_alone, loaded.texts, weights)
                for name, timing in (("ours", loaded), ("workers", workers), ("embedder", alone)):
                    rounds.setdefault(name, []).append(timing)
            elif plan.peers is not None:
                command = [str(plan.peers), peer_script(side), str(folder), str(weights), str(store)]
                timing = await anyio.to_thread.run_sync(run_peer, command, spec.environment)
                rounds.setdefault(side, []).append(timing)
    return [BenchFigure(name="text files", value=files, unit=""), *figures(rounds, weights)]


async def write_text_files(plan: IngestionPlan, folder: Path) -> int:
    """Write the text of the plan's documents as text files; return their number."""
    await anyio.Path(folder).mkdir(parents=True)
    written = 0
    async with open_parser(ParserSettings()) as parser:
        for file in find_files([plan.folder]):
            try:
                parsed = await parser.parse(file.path)
            except Unreadable:
                continue
            text = "\n\n".join(page.markdown for page in parsed.pages)
            for copy in range(plan.copies):
                written += 1
                with_heading = f"{file.name}, {copy + 1}\n\n{text}"
                await anyio.Path(folder / f"{written:04}.txt").write_text(with_heading, "utf-8")
    return written


def encode_alone(texts: list[str], weights: Path) -> IngestionTiming:
    """Embed texts with sentence-transformers and nothing else, as its documentation shows, on every core."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = SentenceTransformer(
        str(weights), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.bfloat16}
    )
    model.encode(texts[:1])
    began = time.perf_counter()
    model.encode(texts, prompt="passage: ", normalize_embeddings=True, show_progress_bar=False)
    return IngestionTiming(time.perf_counter() - began, texts)


async def load_and_embed(folder: Path, settings: Settings, console: Console) -> tuple[IngestionTiming, IngestionTiming]:
    """Load the folder as drafts as `ingest load` does; then embed the same passages with our workers in one call."""
    async with open_services(settings, works_jobs=False) as services:
        order = LoadOrder(tenant=TENANT, uploaded_by="evals")
        with open_display(console) as show:
            began = time.perf_counter()
            outcomes = await load(find_files([folder]), order, services, show)
            load_seconds = time.perf_counter() - began
        documents = [outcome.key.document_id for outcome in outcomes if outcome.key]
        passages = [
            passage
            for document_id in documents
            for passage in await services.index.passages(tenant=TENANT, document_id=document_id, version=1)
        ]
        began = time.perf_counter()
        await services.index.embed(passages)
        embed_seconds = time.perf_counter() - began
    texts = [indexed_text(passage) for passage in passages]
    return IngestionTiming(load_seconds, texts), IngestionTiming(embed_seconds, texts)


def peer_script(side: str) -> str:
    """Return the path of a peer's program."""
    return str(Path(__file__).parent / "peers" / PEERS[side])


def run_peer(command: list[str], environment: Mapping[str, str]) -> IngestionTiming:
    """Run the ingestion of another framework, in a process and an environment of its own.

    Raises:
        ProductNotStarted: it failed.
    """
    offline = {**environment, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    try:
        finished = run(command, capture_output=True, check=True, env=offline, timeout=PEER_TIMEOUT)  # noqa: S603
    except CalledProcessError as exc:
        name = Path(command[1]).name
        raise ProductNotStarted(f"{name} failed: {exc.stderr.decode(errors='replace')[-600:]}") from exc
    return msgspec.json.decode(finished.stdout.splitlines()[-1], type=IngestionTiming)


def figures(rounds: Rounds, weights: Path) -> list[BenchFigure]:
    """Return every side's figures, and the ratios of the rounds: their median and their spread."""
    tokenizer = open_tokenizer(weights)
    listed, embedded = [], dict[str, int]()
    for side, timings in rounds.items():
        seconds = median(timing.seconds for timing in timings)
        lengths = token_counts(timings[0].texts, tokenizer)
        embedded[side] = embedded_tokens(lengths)
        share = embedded[side] / sum(lengths)
        listed += [
            BenchFigure(name=f"{side}: seconds for the folder", value=seconds, unit="s"),
            BenchFigure(name=f"{side}: passages", value=len(lengths), unit=""),
            BenchFigure(name=f"{side}: passages a second", value=len(lengths) / seconds, unit="/s"),
            BenchFigure(name=f"{side}: tokens that are embedded, of all", value=share, unit=""),
        ]
    over, ours = "ingest load, passages a second, over", rounds["ours"]
    listed.append(ratio(f"{over} the embedder alone", rounds["embedder"], ours, least=LEAST_OF_EMBEDDER))
    listed.append(ratio(f"{over} our workers in one call", rounds["workers"], ours))
    for side in (side for side in PEERS if side in rounds):
        more = embedded["ours"] / embedded[side]
        listed.append(ratio(f"embedded tokens a second over {side}'s", rounds[side], ours, times=more, least=1.0))
        listed.append(ratio(f"{side}'s seconds for the folder over ours", rounds[side], ours))
    return listed


def ratio(
    name: str,
    above: Sequence[IngestionTiming],
    below: Sequence[IngestionTiming],
    *,
    times: float = 1.0,
    least: float | None = None,
) -> BenchFigure:
    """Compare the seconds of two sides round by round; `times` is a factor for unequal work."""
    ratios = sorted(times * over.seconds / under.seconds for over, under in zip(above, below, strict=True))
    spread = f"median of {len(ratios)} rounds ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return BenchFigure(name=f"{name}, {spread}", value=median(ratios), unit="×", least=least)


def token_counts(texts: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    """Return the number of tokens of each text."""
    return [len(encoded.ids) for encoded in tokenizer.encode_batch(list(texts))]


def embedded_tokens(lengths: Sequence[int]) -> int:
    """Return how many tokens the embedder reads of texts of these lengths."""
    return sum(min(length, MOST_TOKENS) for length in lengths)


def main(
    peers: Annotated[Path | None, typer.Argument(help="The Python of `.venv/peers` (scripts/peers).")] = None,
    folder: Annotated[Path, typer.Option(help="Documents; what our parsers read in them is loaded.")] = DOCUMENTS,
    copies: Annotated[int, typer.Option(min=1, help="Each document so often.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="How often.")] = 3,
) -> None:
    """Measure, print the table, and end with 1 below a bound."""
    environment = dict(os.environ)  # noqa: TID251  the command line's own edge: what the peers are started with
    plan = IngestionPlan(peers=peers.absolute() if peers else None, folder=folder, copies=copies, rounds=rounds)
    sys.exit(run_measurement("ingestion", "none", partial(ingestion, plan), environment))


if __name__ == "__main__":
    typer.run(main)
