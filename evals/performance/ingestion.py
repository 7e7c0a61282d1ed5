"""`ingest load` beside the embedder alone, LangChain and LlamaIndex, on the same folder; exit 1 below a bound.

    python -m evals.performance.ingestion [.venv/peers/bin/python] [--folder DIR]

The folder is text files, so that no parser decides: what our parsers read in the sample documents, three times over
(`--folder DIR`: what they read there). In every round each side starts with an empty store of its own and a model that
is loaded and warm, and each begins a round in turn. The embedder alone is sentence-transformers' `encode` with all
cores and the same weights and type: it gets the passages that `ingest load` has just written, in their order, in one
call. Our own workers get them in one call too, which is the most that loading could reach if all else cost nothing.
LangChain and LlamaIndex run in an environment of their own (`scripts/peers`; without it they are left out) with what
their constructors give, the same weights, and embedded Qdrant like ours. Their pieces are longer than the model reads,
so sides are compared by the tokens that were really embedded in a second; the plain seconds stand beside it.
"""

import os
import sys
import time
from collections.abc import Sequence
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

from evals.performance.bench import BenchFigure, measured
from evals.product import ProductNotStarted, Wanted
from evals.questions import HANBIT, TENANT, throw_away
from ingest.bulk import LoadOrder, find_files, load, open_display
from ingest.parsing import ParserSettings, Unreadable, open_parser, open_tokenizer
from ingest.services import Services
from ingest.settings import Settings
from ingest.wiring import open_services
from knowledge.index import indexed_text
from knowledge.passage import Passage

PEERS = {"LangChain": "langchain_ingest.py", "LlamaIndex": "llamaindex_ingest.py"}
DOCUMENTS = HANBIT / "documents"
LEAST_OF_EMBEDDER = 0.95
MOST_TOKENS = 512
"""What the embedder reads of a text; it drops the rest without a word."""
LONGEST_PEER = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure, how often."""

    peers: Path | None = None
    folder: Path = DOCUMENTS
    copies: int = 3
    rounds: int = 3


class Taken(msgspec.Struct, frozen=True):
    """What one side took: seconds, and the texts that it embedded."""

    seconds: float
    texts: list[str]


Rounds = dict[str, list[Taken]]


async def ingestion(plan: Plan, wanted: Wanted, settings: Settings, console: Console) -> list[BenchFigure]:
    """Measure every side in every round, in turn, and return the table."""
    folder = wanted.data / "folder"
    files = await as_text(plan, folder)
    sides = ["ours", *(PEERS if plan.peers is not None else ())]
    rounds: Rounds = {}
    for n in range(plan.rounds):
        for side in sides[n % len(sides) :] + sides[: n % len(sides)]:
            console.print(f"round {n + 1} of {plan.rounds}: {side}", highlight=False)
            store = wanted.data / f"{side}-{n}"
            if side == "ours":
                loaded, workers = await load_and_embed(folder, throw_away(settings, store), console)
                alone = await anyio.to_thread.run_sync(encoded_alone, loaded.texts, settings.embedder_folder)
                for name, taken in (("ours", loaded), ("workers", workers), ("embedder", alone)):
                    rounds.setdefault(name, []).append(taken)
            elif plan.peers is not None:
                peer = partial(of_peer, plan.peers, PEERS[side], folder, settings.embedder_folder, store, wanted)
                rounds.setdefault(side, []).append(await anyio.to_thread.run_sync(peer))
    return [BenchFigure(name="text files", value=files, unit=""), *findings(rounds, settings.embedder_folder)]


async def as_text(plan: Plan, folder: Path) -> int:
    """Write what stands in the plan's documents as text files; return how many there are now."""
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
                headed = f"{file.name}, {copy + 1}\n\n{text}"
                await anyio.Path(folder / f"{written:04}.txt").write_text(headed, "utf-8")
    return written


def encoded_alone(texts: list[str], weights: Path) -> Taken:
    """Embed texts with sentence-transformers and nothing else, as its documentation shows, on every core."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = SentenceTransformer(
        str(weights), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.bfloat16}
    )
    model.encode(texts[:1])
    began = time.perf_counter()
    model.encode(texts, prompt="passage: ", normalize_embeddings=True, show_progress_bar=False)
    return Taken(time.perf_counter() - began, texts)


async def load_and_embed(folder: Path, settings: Settings, console: Console) -> tuple[Taken, Taken]:
    """Load the folder as drafts as `ingest load` does; then embed the same passages with our workers in one call."""
    async with open_services(settings, works_jobs=False) as services:
        order = LoadOrder(tenant=TENANT, uploaded_by="evals")
        with open_display(console) as show:
            began = time.perf_counter()
            outcomes = await load(find_files([folder]), order, services, show)
            loaded = time.perf_counter() - began
        passages = [p for outcome in outcomes if outcome.key for p in await written(outcome.key.document_id, services)]
        began = time.perf_counter()
        await services.index.embed(passages)
        workers = time.perf_counter() - began
    texts = [indexed_text(passage) for passage in passages]
    return Taken(loaded, texts), Taken(workers, texts)


async def written(document_id: str, services: Services) -> list[Passage]:
    """Return a document's passages in their order."""
    return await services.index.passages(tenant=TENANT, document_id=document_id, version=1)


def of_peer(python: Path, file: str, folder: Path, weights: Path, store: Path, wanted: Wanted) -> Taken:
    """Let another ingestion take the folder in, in a process and an environment of its own.

    Raises:
        ProductNotStarted: it failed.
    """
    command = [str(python), str(Path(__file__).parent / "peers" / file), str(folder), str(weights), str(store)]
    environment = {**wanted.environment, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    try:
        said = run(command, capture_output=True, check=True, env=environment, timeout=LONGEST_PEER)  # noqa: S603
    except CalledProcessError as exc:
        raise ProductNotStarted(f"{file} failed: {exc.stderr.decode(errors='replace')[-600:]}") from exc
    return msgspec.json.decode(said.stdout.splitlines()[-1], type=Taken)


def findings(rounds: Rounds, weights: Path) -> list[BenchFigure]:
    """Return every side's figures, and the ratios round by round: their median and their spread."""
    tokenizer = open_tokenizer(weights)
    found, read = [], dict[str, int]()
    for side, taken in rounds.items():
        seconds, lengths = median(one.seconds for one in taken), token_counts(taken[0].texts, tokenizer)
        read[side] = read_of(lengths)
        found += [
            BenchFigure(name=f"{side}: seconds for the folder", value=seconds, unit="s"),
            BenchFigure(name=f"{side}: passages", value=len(lengths), unit=""),
            BenchFigure(name=f"{side}: passages a second", value=len(lengths) / seconds, unit="/s"),
            BenchFigure(name=f"{side}: tokens that are embedded, of all", value=read[side] / sum(lengths), unit=""),
        ]
    over, ours = "ingest load, passages a second, over", rounds["ours"]
    found.append(ratio(f"{over} the embedder alone", rounds["embedder"], ours, least=LEAST_OF_EMBEDDER))
    found.append(ratio(f"{over} our workers in one call", rounds["workers"], ours))
    for side in (side for side in PEERS if side in rounds):
        more = read["ours"] / read[side]
        found.append(ratio(f"embedded tokens a second over {side}'s", rounds[side], ours, times=more, least=1.0))
        found.append(ratio(f"{side}'s seconds for the folder over ours", rounds[side], ours))
    return found


def ratio(
    name: str, above: Sequence[Taken], below: Sequence[Taken], *, times: float = 1.0, least: float | None = None
) -> BenchFigure:
    """Compare two sides round by round, by their seconds, `times` what one of them did more in them."""
    each = sorted(times * one.seconds / other.seconds for one, other in zip(above, below, strict=True))
    spread = f"median of {len(each)} rounds ({each[0]:.2f} to {each[-1]:.2f})"
    return BenchFigure(name=f"{name}, {spread}", value=median(each), unit="×", least=least)


def token_counts(texts: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    """Return how many tokens the embedder would need for each text."""
    return [len(encoded.ids) for encoded in tokenizer.encode_batch(list(texts))]


def read_of(lengths: Sequence[int]) -> int:
    """Return how many of the tokens the embedder reads: what is longer than it takes is cut off without a word."""
    return sum(min(length, MOST_TOKENS) for length in lengths)


def main(
    peers: Annotated[Path | None, typer.Argument(help="The Python of `.venv/peers` (scripts/peers).")] = None,
    folder: Annotated[Path, typer.Option(help="Documents; what our parsers read in them is loaded.")] = DOCUMENTS,
    copies: Annotated[int, typer.Option(min=1, help="Each document so often.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="How often.")] = 3,
) -> None:
    """Measure, print the table, and end with 1 below a bound."""
    given = dict(os.environ)  # noqa: TID251  the command line's own edge: what the peers are started with
    plan = Plan(peers=peers.absolute() if peers else None, folder=folder, copies=copies, rounds=rounds)
    sys.exit(measured("ingestion", "none", partial(ingestion, plan), given))


if __name__ == "__main__":
    typer.run(main)
