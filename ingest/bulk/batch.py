"""`ingest batch`: many documents through a Ray cluster, with the same points in the index as `ingest load` makes.

    receive ──▶ Ray: read (CPU workers) ──▶ embed (actors, a GPU each where there is one) ──▶ here: upsert → verify

Ray only computes. What is claimed, written and decided stays in this process, several documents at once, with the rows
and the jobs of `ingest.bulk.load`: so a second run skips what is done, and a worker may take a job meanwhile.
docs/decisions/0013-batch.md says why.
"""

import logging
import os
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from tempfile import TemporaryDirectory

import anyio
import msgspec
import numpy as np
import ray
import ray.data
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from pydantic import BaseModel, PositiveInt
from ray.exceptions import RayError

from ingest.bulk.batch_stages import Columns, Embed, PassageRow, Read, StageSettings
from ingest.bulk.load import (
    BatchStopped,
    LoadOrder,
    LoadOutcome,
    ReceivedOffering,
    Show,
    index_one,
    receive_one,
    settle,
)
from ingest.bulk.sources import Source
from ingest.catalogue import Indexed, Job, Version
from ingest.errors import StorageUnavailable
from ingest.parsing import Reason, Unreadable
from ingest.pipeline import Embedded, Report, clear, indexed_as, upsert, verify
from ingest.services import Services
from knowledge.passage import Passage

MOST_BLOCKS = 1000
PASSAGES_FOR_CPU = 64
PASSAGES_FOR_GPU = 1024
GPU_BATCH = 64


@dataclass(frozen=True, slots=True)
class Left:
    """A document that is received and not indexed yet."""

    position: int
    outcome: LoadOutcome
    job: Job


class Cluster(BaseModel, frozen=True):
    """Where to compute: an existing cluster's address, or this machine with so much memory for rows under way."""

    address: str | None = None
    object_store_bytes: PositiveInt = 256 * 1024 * 1024


async def batch(
    source: Source, order: LoadOrder, cluster: Cluster, settings: StageSettings, services: Services, show: Show
) -> list[LoadOutcome]:
    """Load documents and return what became of each, in their order; one that fails stops no other.

    Raises:
        BatchStopped: Ray cannot be started, or lost what it needs.
        ManifestError, StorageUnavailable: the source cannot be listed.
    """
    taken = await receive_all(source, order, services, show)
    outcomes = {one.position: one.outcome for one in taken}
    left = [Left(one.position, one.outcome, one.job) for one in taken if one.job is not None]
    if left:
        versions = [await services.catalogue.version(one.job.key) for one in left]
        with _translated(), computing(cluster):
            dataset = embedded(versions, settings)
            outcomes |= await write_all(left, dataset, services, show)
    return await settle([outcomes[n] for n in range(len(taken))], order, services, show)


async def receive_all(source: Source, order: LoadOrder, services: Services, show: Show) -> list[ReceivedOffering]:
    """Take every file in, in order, and show those that need nothing more."""
    offerings = await source.offerings()
    show.begin(len(offerings))
    taken = []
    for position, offering in enumerate(offerings):
        try:
            async with source.at_hand(offering):
                outcome, job = await receive_one(offering, order, services)
        except StorageUnavailable as exc:
            outcome, job = LoadOutcome(offering=offering, reason=exc.code, detail=exc.detail), None
        taken.append(ReceivedOffering(position, outcome, job))
        if job is None:
            show.end(outcome)
    return taken


@contextmanager
def computing(cluster: Cluster) -> Generator[None]:
    """Be connected to Ray while the block runs; one that was started for it ends with it.

    Raises:
        BatchStopped: Ray does not start, or the cluster does not answer.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
        stack.callback(ray.shutdown)
        try:
            _connect(cluster, folder)
        except Exception as exc:  # nothing narrower: that is what Ray raises where a node is too slow to start
            said = str(exc).strip().partition("\n")[0] or type(exc).__name__
            what = f"the Ray cluster at {cluster.address} does not answer" if cluster.address else "Ray does not start"
            raise BatchStopped(f"{what}: {said}; nothing is lost, and the same command goes on") from exc
        ray.data.DataContext.get_current().enable_progress_bars = False
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        yield


def _connect(cluster: Cluster, folder: str) -> None:
    if cluster.address is not None:
        ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        return
    ray.init(
        address="local",
        num_cpus=max(2, len(os.sched_getaffinity(0))),  # a reader and an embedder at least
        object_store_memory=cluster.object_store_bytes,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _temp_dir=folder,
    )


def embedded(versions: Sequence[Version], settings: StageSettings) -> ray.data.Dataset:
    """Return the passages of all versions with their vectors, computed as they are taken."""
    resources = ray.cluster_resources()
    cpus, gpus = int(resources["CPU"]), int(resources.get("GPU", 0))
    rows = [{"document": n, "version": msgspec.json.encode(version)} for n, version in enumerate(versions)]
    most = max(1, cpus - 1)
    read = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).flat_map(
        Read, fn_constructor_args=(settings,), compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most), num_cpus=1
    )
    wanted = settings.embedder
    if gpus:
        wanted = wanted.model_copy(update={"device": "cuda", "passage_batch": GPU_BATCH, "passage_window": 1024})
    return read.map_batches(
        Embed,
        fn_constructor_args=(wanted,),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=gpus or most),
        batch_size=PASSAGES_FOR_GPU if gpus else PASSAGES_FOR_CPU,
        batch_format="numpy",
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )


@dataclass(slots=True)
class Document:
    """A document's passages with their vectors, as far as they have come; or the reason why there are none."""

    number: int
    of: int
    format: str
    reason: str
    detail: str
    passages: dict[int, tuple[Passage, Sequence[float]]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return len(self.passages) == self.of

    def batches(self, size: int) -> Iterator[Embedded]:
        """Return the passages in their order, so many at a time."""
        ordered = [self.passages[n] for n in sorted(self.passages)]
        for start in range(0, len(ordered), size):
            some = ordered[start : start + size]
            yield Embedded([passage for passage, _ in some], [vector for _, vector in some])


class Gathering:
    """Puts documents together again: their passages come back in any order."""

    def __init__(self) -> None:
        self._begun: dict[int, Document] = {}

    def feed(self, rows: Columns) -> Iterator[Document]:
        """Take rows of `PassageRow`; return the documents that are whole now."""
        for n in range(len(rows["document"])):
            row = PassageRow(
                document=int(rows["document"][n]),
                of=int(rows["of"][n]),
                passage=bytes(rows["passage"][n]),
                format=str(rows["format"][n]),
                reason=str(rows["reason"][n]),
                detail=str(rows["detail"][n]),
            )
            document = self._begun.setdefault(
                row.document,
                Document(row.document, row.of, format=row.format, reason=row.reason, detail=row.detail),
            )
            if row.passage:
                passage = msgspec.json.decode(row.passage, type=Passage)
                document.passages[passage.n] = (passage, np.asarray(rows["vector"][n]).tolist())
            if document.whole:
                yield self._begun.pop(row.document)


async def write_all(
    left: Sequence[Left], dataset: ray.data.Dataset, services: Services, show: Show
) -> dict[int, LoadOutcome]:
    """Write the documents as they become whole, several at once; return what became of each, by position."""
    outcomes: dict[int, LoadOutcome] = {}
    send, receive = anyio.create_memory_object_stream[Document](services.settings.at_once)
    async with anyio.create_task_group() as group:
        for _ in range(services.settings.at_once):
            group.start_soon(_write_each, receive.clone(), left, outcomes, services, show)
        receive.close()
        async with send:
            # Left behind when we are cancelled: it ends when Ray does.
            await anyio.to_thread.run_sync(_gather, dataset, send, abandon_on_cancel=True)
    return outcomes


def _gather(dataset: ray.data.Dataset, send: MemoryObjectSendStream[Document]) -> None:
    """Take rows from Ray, in a thread, no faster than documents are written."""
    gathering = Gathering()
    for rows in dataset.iter_batches(batch_size=None, batch_format="numpy"):
        for document in gathering.feed(rows):
            anyio.from_thread.run(send.send, document)


async def _write_each(
    receive: MemoryObjectReceiveStream[Document],
    left: Sequence[Left],
    outcomes: dict[int, LoadOutcome],
    services: Services,
    show: Show,
) -> None:
    async with receive:
        async for document in receive:
            of, write = left[document.number], partial(write_ready, document)
            outcomes[of.position] = await index_one(of.outcome, of.job, services, show, write)
            show.end(outcomes[of.position])


async def write_ready(document: Document, version: Version, services: Services, report: Report) -> Indexed:
    """Go from embedded passages to verified points in the index that nobody sees yet.

    Raises:
        Unreadable: the file could not become passages.
        StorageUnavailable: its original could not be read.
    """
    if document.reason == StorageUnavailable.code:
        raise StorageUnavailable(document.detail)
    if document.reason:
        raise Unreadable(Reason(document.reason), document.detail)
    passages = [document.passages[n][0] for n in sorted(document.passages)]
    await clear(version.key, services, report)
    async with aclosing(_batches(document, services.settings.batch)) as batches:
        await upsert(len(passages), batches, services, report)
    await verify(version.key, passages, services, report)
    return indexed_as(document.format, passages)


async def _batches(document: Document, size: int) -> AsyncGenerator[Embedded]:
    for some in document.batches(size):
        yield some


@contextmanager
def _translated() -> Generator[None]:
    """Let what ends the work of Ray become BatchStopped, alone or in a task group."""
    try:
        yield
    except ExceptionGroup as failed:
        _, other = failed.split((RayError, ConnectionError))
        raise other.exceptions[0] if other else BatchStopped(_why(failed.exceptions[0])) from failed
    except (RayError, ConnectionError) as exc:
        raise BatchStopped(_why(exc)) from exc


def _why(exc: BaseException) -> str:
    return f"Ray stopped ({type(exc).__name__}); start the same command again and it goes on where it stopped"
