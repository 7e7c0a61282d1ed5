"""The embedded index by its size: searches, recall, memory, disk and start, beside the Python client's local mode.

A part of `make bench`; `python -m evals.performance.passages --sizes 1500 30000 300000` runs it alone. Passages are
those of the sample documents, repeated with noise on their vectors (cosine to their original about .97) and with their
terms mixed, since directions drawn at random are nothing like embeddings. The embedder is not part of a search's time.
Then three tenants of 200, 5,000 and 30,000 passages are asked the golden questions, alone and beside each other;
`--sizes` without a number measures only these.
"""

import argparse
import asyncio
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from evals.performance.bench import BenchFigure, print_figures
from evals.performance.peers.local_mode import LocalMode
from evals.product import ProductSpec, interrupt_on_sigterm, run_product, run_scripted_model
from evals.questions import HANBIT, read_dataset
from ingest.settings import Settings
from knowledge.access import Access
from knowledge.embedding import open_embedder
from knowledge.index import EXACT_POINTS, Index, IndexSettings, indexed_text, open_index, optimize_folder
from knowledge.passage import Passage, language_of
from knowledge.terms import SparseTerms, Terms
from telemetry.logs import configure_logs

NOW = 1_800_000_000.0
TENANTS = (("half", 0.5), ("other", 0.49), ("small", 0.01))
GROUPS = (("customers", 0.9), ("private-banking", 0.1))
ACCESSES = {
    "a tenant of 50 %": Access(tenant="half", groups=frozenset({"customers", "private-banking"}), as_of=NOW),
    "a tenant of 1 %": Access(tenant="small", groups=frozenset({"customers", "private-banking"}), as_of=NOW),
    "a group of 10 %": Access(tenant="half", groups=frozenset({"private-banking"}), as_of=NOW),
}
NOISE = 0.25
"""Length of the noise that is added to a vector of length 1."""
AT_ONCE = 20
SEARCHES = 200
SLOW_SEARCHES = 12
"""Searches of the local mode: one takes seconds at 30,000 passages."""
RECALLED = 20
HELD = 30_000
"""The size whose bars are held, as it is run: with its graphs built (`EXACT_POINTS`)."""
WARM_UP = 10
"""Searches before those that are timed."""
TENANT_SIZES = (200, 5_000, 30_000)
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """What passages and questions are drawn from: texts of the sample documents with their vectors and terms."""

    texts: tuple[str, ...]
    vectors: NDArray[np.float32]
    terms: tuple[SparseTerms, ...]
    questions: tuple[str, ...]
    question_vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Figures of one size; times in milliseconds unless named, bytes for memory and disk."""

    passages: int
    write_seconds: float
    p50: float
    p95: float
    at_once: float
    at_once_all: float
    open_seconds: float
    memory: int
    disk: int
    recall: dict[str, float]


class GivenVectors:
    """Gives every question its stored vector: the embedder's time is no part of a search."""

    name = "e5-small"
    dimensions = 384

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self._vectors = vectors

    async def embed_queries(self, texts: Sequence[str]) -> list[list[float]]:
        return [self._vectors[text] for text in texts]

    async def embed_passages(self, texts: Sequence[str]) -> list[list[float]]:
        raise NotImplementedError(texts)


class GivenTerms(Terms):
    """Gives every passage the terms that were drawn for it, by its text."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, SparseTerms] = {}

    def passage(self, text: str) -> SparseTerms:
        return self.given[text]


async def read_seeds(settings: Settings) -> Seeds:
    """Cut the sample documents into passages, and embed them and the golden questions."""
    texts: list[str] = []
    for path in sorted((HANBIT / "documents").rglob("*.md")):
        parts = [part.strip() for part in path.read_text("utf-8").split("\n\n")]
        texts += [part for part in parts if len(part) > 60]
    questions = [sample.text for sample in read_dataset(HANBIT).samples][:SEARCHES]
    terms = Terms()
    async with open_embedder(settings.embedder) as embedder:
        vectors = np.asarray(await embedder.embed_passages(texts), np.float32)
        question_vectors = np.asarray(await embedder.embed_queries(questions), np.float32)
    return Seeds(
        texts=tuple(texts),
        vectors=vectors,
        terms=tuple(terms.passage(text) for text in texts),
        questions=tuple(questions),
        question_vectors=question_vectors,
    )


def drawn_passages(seeds: Seeds, first: int, last: int) -> tuple[list[Passage], NDArray[np.float32], list[SparseTerms]]:
    """Return passages `first` to `last`, the same for the same numbers, with their vectors and terms."""
    passages: list[Passage] = []
    vectors = np.empty((last - first, seeds.vectors.shape[1]), np.float32)
    terms: list[SparseTerms] = []
    for n in range(first, last):
        rng = np.random.default_rng(n)
        seed, other = rng.integers(0, len(seeds.texts), 2)
        noise = rng.normal(size=vectors.shape[1])
        vector = seeds.vectors[seed] + NOISE * noise / np.linalg.norm(noise)
        vectors[n - first] = vector / np.linalg.norm(vector)
        text = seeds.texts[seed]
        tenant = _drawn(rng, TENANTS)
        passages.append(
            Passage(
                tenant=tenant, document_id=f"d{n // 10}", version=1, n=n % 10, title=f"문서 {n}", section="", page=None,
                text=text, language=language_of(text), product=None, readers=(_drawn(rng, GROUPS),),
                visible_from=NOW - float(rng.integers(1, 10**7)),
                visible_until=NOW - 1.0 if rng.random() < 0.05 else None,
            )
        )  # fmt: skip
        terms.append(_mixed(rng, seeds.terms[seed], seeds.terms[other]))
    return passages, vectors, terms


def _drawn(rng: np.random.Generator, weighted: Sequence[tuple[str, float]]) -> str:
    names, weights = zip(*weighted, strict=True)
    return str(rng.choice(names, p=weights))


def _mixed(rng: np.random.Generator, one: SparseTerms, other: SparseTerms) -> SparseTerms:
    """Return nine in ten of one passage's terms and one in ten of another's."""
    weights = {term: value for term, value in zip(one.indices, one.values, strict=True) if rng.random() < 0.9}
    weights |= {term: value for term, value in zip(other.indices, other.values, strict=True) if rng.random() < 0.1}
    indices = tuple(sorted(weights))
    return SparseTerms(indices, tuple(weights[term] for term in indices))


async def fill(folder: Path, seeds: Seeds, size: int) -> float:
    """Write so many passages into the folder; return the seconds of the writes alone."""
    terms, seconds = GivenTerms(), 0.0
    async with open_index(IndexSettings(path=folder), GivenVectors({}), terms) as index:
        for first in range(0, size, 1000):
            drawn = drawn_passages(seeds, first, min(first + 1000, size))
            began = time.monotonic()
            await _upsert(index, terms, *drawn)
            seconds += time.monotonic() - began
    return seconds


async def _upsert(
    index: Index,
    terms: GivenTerms,
    passages: Sequence[Passage],
    vectors: NDArray[np.float32],
    drawn: Sequence[SparseTerms],
) -> None:
    terms.given = {indexed_text(passage): own for passage, own in zip(passages, drawn, strict=True)}
    await index.upsert(passages, vectors.tolist())


async def measure_tenants(root: Path, seeds: Seeds) -> list[BenchFigure]:
    """Ask three tenants the golden questions, each alone in its index and all of them in one; compare what they get."""
    figures: list[BenchFigure] = []
    vectors = GivenVectors(dict(zip(seeds.questions, seeds.question_vectors.tolist(), strict=True)))
    given = GivenTerms()
    async with open_index(IndexSettings(path=root / "beside"), vectors, given) as beside:
        for size in TENANT_SIZES:
            async with open_index(IndexSettings(path=root / f"alone-{size}"), vectors, given) as alone:
                for first in range(size, 2 * size, 1000):
                    passages, rows, drawn = drawn_passages(seeds, first, min(first + 1000, 2 * size))
                    passages = [replace(passage, tenant=str(size)) for passage in passages]
                    for index in (alone, beside):
                        await _upsert(index, given, passages, rows, drawn)
        for size in TENANT_SIZES:
            async with open_index(IndexSettings(path=root / f"alone-{size}"), vectors, given) as alone:
                figures += await _compared(alone, beside, seeds, size)
    return figures


async def _compared(alone: Index, beside: Index, seeds: Seeds, size: int) -> list[BenchFigure]:
    access = Access(tenant=str(size), groups=frozenset(name for name, _ in GROUPS), as_of=NOW)
    asked = (*seeds.questions[:WARM_UP], *seeds.questions)
    times: tuple[list[float], list[float]] = ([], [])
    equal = equal_terms = 0
    halves = alone.weighing(0), beside.weighing(0)
    for question in asked:
        answers = []
        for index, taken in zip((alone, beside), times, strict=True):
            began = time.monotonic()
            answers.append(await index.search(question, access=access, limit=20))
            taken.append(time.monotonic() - began)
        equal += [hit.passage for hit in answers[0]] == [hit.passage for hit in answers[1]]
        # Among passages of equal scores the last candidates are any of them: scores are compared, not passages.
        by_terms = [await index.search(question, access=access, limit=20) for index in halves]
        equal_terms += all(
            math.isclose(one.terms, other.terms, rel_tol=1e-3) for one, other in zip(*by_terms, strict=True)
        )
    name = f"a tenant of {size:,} beside the others"
    p50 = [median(taken[WARM_UP:]) * 1e3 for taken in times]
    return [
        BenchFigure(name=f"{name}: term scores as alone", value=equal_terms / len(asked), unit="", least=1.0),
        BenchFigure(name=f"{name}: the same 20 passages as alone", value=equal / len(asked), unit=""),
        BenchFigure(name=f"{name}: search p50 (alone {p50[0]:.1f} ms)", value=p50[1], unit="ms"),
    ]


async def measure_size(folder: Path, seeds: Seeds, size: int, write_seconds: float) -> Measured:
    """Measure searches of an index that has just been opened by this process."""
    vectors = GivenVectors(dict(zip(seeds.questions, seeds.question_vectors.tolist(), strict=True)))
    terms, before = Terms(), _resident()
    began = time.monotonic()
    async with open_index(IndexSettings(path=folder), vectors, terms) as index:
        opened = time.monotonic() - began
        access = ACCESSES["a tenant of 50 %"]
        for question in seeds.questions[:WARM_UP]:
            await index.search(question, access=access, limit=20)
        times = [await _timed(index, question, access) for question in seeds.questions]
        waits, wholes = [], []
        for start in range(0, len(seeds.questions) - AT_ONCE + 1, AT_ONCE):
            began = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                questions = seeds.questions[start : start + AT_ONCE]
                running = [tasks.create_task(_timed(index, question, access)) for question in questions]
            wholes.append(time.monotonic() - began)
            waits += [task.result() for task in running]
        memory = _resident() - before
    # The dense half alone, on the cosines themselves.
    dense = {"dense_weight_ko": 1, "dense_weight_en": 1, "language_balance": 0}
    async with open_index(IndexSettings.model_validate({"path": folder, "fusion": dense}), vectors, terms) as index:
        recall = {name: await _recall(index, seeds, size, access) for name, access in ACCESSES.items()}
    return Measured(
        passages=size,
        write_seconds=write_seconds,
        p50=median(times) * 1e3,
        p95=sorted(times)[int(len(times) * 0.95)] * 1e3,
        at_once=median(waits) * 1e3,
        at_once_all=median(wholes) * 1e3,
        open_seconds=opened,
        memory=memory,
        disk=_disk(folder),
        recall=recall,
    )


async def _timed(index: Index, question: str, access: Access) -> float:
    began = time.monotonic()
    hits = await index.search(question, access=access, limit=20)
    assert len(hits) == 20, "a search of the benchmark found too little"  # noqa: S101
    return time.monotonic() - began


async def _recall(index: Index, seeds: Seeds, size: int, access: Access) -> float:
    """Return the share of the 20 nearest readable passages that the dense half finds, over 40 questions."""
    found, wanted = 0, 0
    readable = _Readable(seeds, size, access)
    for question, vector in zip(seeds.questions[:40], seeds.question_vectors, strict=False):
        hits = await index.search(question, access=access, limit=RECALLED)
        exact = readable.nearest(vector)
        found += len({hit.passage.point_id for hit in hits} & exact)
        wanted += len(exact)
    return found / wanted


class _Readable:
    """The passages that an access may read, for exact search."""

    def __init__(self, seeds: Seeds, size: int, access: Access) -> None:
        ids: list[str] = []
        rows: list[NDArray[np.float32]] = []
        for first in range(0, size, 1000):
            passages, vectors, _ = drawn_passages(seeds, first, min(first + 1000, size))
            for passage, row in zip(passages, vectors, strict=True):
                if (
                    passage.tenant == access.tenant
                    and set(passage.readers) & access.groups
                    and not passage.has_ended(NOW)
                ):
                    ids.append(passage.point_id)
                    rows.append(row)
        self._ids = np.array(ids)
        self._rows = np.array(rows)

    def nearest(self, vector: NDArray[np.float32]) -> set[str]:
        best = np.argsort(-(self._rows @ vector))[:RECALLED]
        return set(self._ids[best].tolist())


def _resident() -> int:
    """Return the resident memory of this process, in bytes; files that the engine has mapped count."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _disk(folder: Path) -> int:
    """Return the bytes that a folder's files take on disk; the engine's are sparse."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


async def measure_local_mode(folder: Path, seeds: Seeds, size: int) -> tuple[float, float]:
    """Return p50 and p95 of a search in the client's local mode, in milliseconds."""
    local, terms = LocalMode(folder), Terms()
    await local.create(seeds.vectors.shape[1])
    for first in range(0, size, 1000):
        passages, vectors, drawn = drawn_passages(seeds, first, min(first + 1000, size))
        payloads = [msgspec.to_builtins(passage) for passage in passages]
        await local.upsert([passage.point_id for passage in passages], vectors.tolist(), drawn, payloads)
    times = []
    for question, vector in zip(seeds.questions[:SLOW_SEARCHES], seeds.question_vectors.tolist(), strict=False):
        began = time.monotonic()
        await local.search(vector, terms.query(question), ACCESSES["a tenant of 50 %"])
        times.append((time.monotonic() - began) * 1e3)
    await local.aclose()
    return median(times), sorted(times)[int(len(times) * 0.95)]


def filled_and_measured(folder: Path, seeds: Seeds, size: int) -> Measured:
    """Fill a folder and measure it: the work of one process, whose memory is that of one index."""
    return asyncio.run(measure_size(folder, seeds, size, asyncio.run(fill(folder, seeds, size))))


def optimized_and_measured(folder: Path, seeds: Seeds, size: int) -> tuple[float, Measured]:
    """Build the graphs of a filled folder; return the seconds, and what is measured then."""
    began = time.monotonic()
    asyncio.run(optimize_folder(folder))
    return time.monotonic() - began, asyncio.run(measure_size(folder, seeds, size, 0.0))


def local_mode_measured(folder: Path, seeds: Seeds, size: int) -> tuple[float, float]:
    """Fill and measure the client's local mode."""
    return asyncio.run(measure_local_mode(folder, seeds, size))


def seconds_to_ready(folder: Path, settings: Settings, environment: dict[str, str]) -> float:
    """Return the seconds from the start of Redis and `chatbot serve` until it is ready, over this index."""
    weights = settings.weights_dir.expanduser().resolve()
    spec = ProductSpec(profile="scripted", data=folder, weights=weights, environment=environment)
    with run_scripted_model(spec) as model:
        began = time.monotonic()
        with run_product(spec, model):
            return time.monotonic() - began


def figures_of(measured: Measured, name: str, *, held: bool) -> list[BenchFigure]:
    """Return the lines of the report for one size, with its bars where they are held."""
    figures = [
        BenchFigure(name=f"{name}: search p50", value=measured.p50, unit="ms", most=6.0 if held else None),
        BenchFigure(name=f"{name}: search p95", value=measured.p95, unit="ms", most=20.0 if held else None),
        BenchFigure(
            name=f"{name}: {AT_ONCE} at once, the median one over one alone",
            value=measured.at_once / measured.p50,
            unit="×",
            most=3.0 if held else None,
        ),
        BenchFigure(name=f"{name}: {AT_ONCE} at once, all", value=measured.at_once_all, unit="ms"),
        BenchFigure(name=f"{name}: opened after", value=measured.open_seconds, unit="s"),
        BenchFigure(name=f"{name}: memory", value=measured.memory / MIB, unit="MiB"),
        BenchFigure(name=f"{name}: disk", value=measured.disk / MIB, unit="MiB"),
    ]
    if measured.write_seconds:
        rate = measured.passages / measured.write_seconds
        figures.append(BenchFigure(name=f"{name}: written", value=rate, unit="passages/s"))
    for access, recall in measured.recall.items():
        figures.append(
            BenchFigure(
                name=f"{name}: recall@{RECALLED} of the dense half, {access}", value=recall, unit="", least=0.98
            )
        )
    return figures


def bench(arguments: argparse.Namespace, root: Path, environment: dict[str, str]) -> list[BenchFigure]:
    """Measure every size, one process after the other."""
    settings, figures = Settings(), list[BenchFigure]()
    console = Console(stderr=True)
    seeds = asyncio.run(read_seeds(settings))
    for size in arguments.sizes:
        folder = root / str(size) / "qdrant"
        console.print(f"{size:,} passages", highlight=False)
        # One process a measurement: the memory of another one's index is not counted.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            measured = process.submit(filled_and_measured, folder, seeds, size).result()
        figures += figures_of(measured, f"{size:,}", held=False)
        if size <= arguments.local_mode_up_to:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                p50, p95 = process.submit(local_mode_measured, root / f"local-{size}", seeds, size).result()
            figures += [
                BenchFigure(name=f"{size:,}: local mode p50", value=p50, unit="ms"),
                BenchFigure(name=f"{size:,}: local mode p95", value=p95, unit="ms"),
            ]
        if size == HELD:
            ready = seconds_to_ready(folder.parent, settings, environment)
            figures.append(BenchFigure(name=f"{size:,}: chatbot serve ready after", value=ready, unit="s", most=8.0))
        if size >= arguments.optimize_from:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                seconds, measured = process.submit(optimized_and_measured, folder, seeds, size).result()
            figures.append(BenchFigure(name=f"{size:,}: `ingest optimize` took", value=seconds, unit="s"))
            figures += figures_of(measured, f"{size:,} optimized", held=size == HELD)
        shutil.rmtree(folder.parent)
    return figures + asyncio.run(measure_tenants(root / "tenants", seeds))


def main() -> int:
    """Parse the command line and measure in a temporary folder; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[1500, HELD, 300_000], help="passages (default: 1500 30000 300000)"
    )
    parser.add_argument("--local-mode-up-to", type=int, default=HELD, help="largest size of the local mode")
    parser.add_argument("--optimize-from", type=int, default=EXACT_POINTS, help="smallest size whose graphs are built")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    configure_logs(level="ERROR", log_format="console")
    environment = dict(os.environ)  # noqa: TID251  the command line's own edge: what the parts are started with
    with tempfile.TemporaryDirectory(prefix="passages-") as folder:
        figures = bench(arguments, Path(folder), environment)
    return 0 if print_figures(figures, Console(width=None if sys.stdout.isatty() else 110)) else 1


if __name__ == "__main__":
    sys.exit(main())
