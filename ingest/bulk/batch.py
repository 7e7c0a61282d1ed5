"""`ingest batch`: many documents through a Ray cluster, with the same points in the index as `ingest load` writes.

    receive ──▶ Ray: read (CPU workers) ──▶ embed (actors) ──▶ here: upsert → verify

Ray only computes. Claims, writes and decisions stay in this process, several documents at once, with the rows and the
jobs of `ingest.bulk.load`: so a second run skips what is done, and a worker may take a job meanwhile.
docs/decisions/0013-batch.md says why.
"""

import logging
import os
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass, field, replace
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
    NOT_TRIED,
    BatchStopped,
    LoadOrder,
    LoadOutcome,
    OutageWatch,
    ProgressDisplay,
    ReceivedFile,
    approve_and_wait,
    find_lost_versions,
    index_one,
    receive_one,
    restore_one,
)
from ingest.bulk.sources import Source
from ingest.catalogue import IndexingResult, Job, Version
from ingest.errors import OriginalChanged, StorageUnavailable
from ingest.job_runner import UNAVAILABLE
from ingest.parsing import LeftOut, Reason, Unreadable
from ingest.pipeline import EmbeddedBatch, Report, clear, indexing_result, upsert, verify
from ingest.services import Services
from knowledge.passage import Passage

MOST_BLOCKS = 1000
PASSAGES_A_BATCH = 64


@dataclass(frozen=True, slots=True)
class PendingFile:
    """A received file whose job is to do, with its position in the list."""

    position: int
    outcome: LoadOutcome
    job: Job


class Cluster(BaseModel, frozen=True):
    """An existing cluster's address; without one this machine, with so many bytes of memory for rows under way."""

    address: str | None = None
    object_store_bytes: PositiveInt = 256 * 1024 * 1024


async def batch(
    source: Source,
    order: LoadOrder,
    cluster: Cluster,
    settings: StageSettings,
    services: Services,
    display: ProgressDisplay,
) -> list[LoadOutcome]:
    """Load documents and return their outcomes, in their order; one that fails stops no other.

    Raises:
        BatchStopped: Ray cannot be started, or lost what it needs.
        ManifestError, StorageUnavailable: the source cannot be listed.
    """
    received = await receive_all(source, order, services, display)
    outcomes = {file.position: file.outcome for file in received}
    pending = [PendingFile(file.position, file.outcome, file.job) for file in received if file.job is not None]
    if pending and not any(file.outcome.reason == NOT_TRIED for file in received):
        versions = [await services.catalogue.version(file.job.key) for file in pending]
        with _translated(), connected(cluster):
            dataset = embedded_passages(versions, settings)
            outcomes |= await write_all(pending, dataset, services, display)
    return await approve_and_wait([outcomes[n] for n in range(len(received))], order, services, display)


async def receive_all(
    source: Source, order: LoadOrder, services: Services, display: ProgressDisplay
) -> list[ReceivedFile]:
    """Receive every file of a source, in order, restore what the index lost, and show what needs nothing more.

    An outage ends it: files that are left then were not tried.
    """
    files, lost = await source.files(), await find_lost_versions(services)
    display.begin(len(files))
    received: list[ReceivedFile] = []
    scope = anyio.CancelScope()
    watch = OutageWatch(scope)
    for position, file in enumerate(files):
        if scope.cancel_called:
            received.append(ReceivedFile(position, LoadOutcome(file=file, reason=NOT_TRIED), None))
            continue
        try:
            async with source.on_disk(file):
                outcome, job = await receive_one(file, order, services.uploads, services.now)
        except StorageUnavailable as exc:
            outcome, job = LoadOutcome(file=file, reason=UNAVAILABLE, detail=exc.detail), None
        if job is None:
            outcome = await restore_one(outcome, lost, services)
            display.end(outcome)
        received.append(ReceivedFile(position, outcome, job))
        watch.record(outcome)
    return received


@contextmanager
def connected(cluster: Cluster) -> Generator[None]:
    """Connect to Ray while the block runs; a Ray that was started for it ends with it.

    Raises:
        BatchStopped: Ray does not start, or the cluster does not answer.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
        stack.callback(ray.shutdown)
        try:
            _connect(cluster, folder)
        except Exception as exc:  # nothing narrower: that is what Ray raises where a node is too slow to start
            cause = str(exc).strip().partition("\n")[0] or type(exc).__name__
            failure = (
                f"the Ray cluster at {cluster.address} does not answer" if cluster.address else "Ray does not start"
            )
            raise BatchStopped(f"{failure}: {cause}; nothing is lost, and the same command goes on") from exc
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


def embedded_passages(versions: Sequence[Version], settings: StageSettings) -> ray.data.Dataset:
    """Return a lazy data set of all versions' passages with their vectors (rows of `PassageRow` and `vector`)."""
    rows = [{"document": n, "version": msgspec.json.encode(version)} for n, version in enumerate(versions)]
    most_workers = max(1, int(ray.cluster_resources()["CPU"]) - 1)
    read = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).flat_map(
        Read,
        fn_constructor_args=(settings,),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most_workers),
        num_cpus=1,
    )
    return read.map_batches(
        Embed,
        fn_constructor_args=(settings.embedder,),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most_workers),
        batch_size=PASSAGES_A_BATCH,
        batch_format="numpy",
        num_cpus=1,
    )


@dataclass(slots=True)
class Document:
    """The passages of document `number`, `of` in all, with their vectors, as far as they have come; or a failure."""

    number: int
    of: int
    format: str
    left_out: dict[LeftOut, int]
    reason: str
    detail: str
    passages: dict[int, tuple[Passage, Sequence[float]]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return len(self.passages) == self.of

    def batches(self, size: int) -> Iterator[EmbeddedBatch]:
        """Yield the passages in their order, at most `size` at a time."""
        ordered = [self.passages[n] for n in sorted(self.passages)]
        for start in range(0, len(ordered), size):
            batch = ordered[start : start + size]
            yield EmbeddedBatch([passage for passage, _ in batch], [vector for _, vector in batch])


class DocumentAssembler:
    """Assembles documents from their passages, which come back in any order."""

    def __init__(self) -> None:
        self._incomplete: dict[int, Document] = {}

    def feed(self, rows: Columns) -> Iterator[Document]:
        """Take rows of `PassageRow`; yield the documents that are complete now."""
        for n in range(len(rows["document"])):
            row = PassageRow(
                document=int(rows["document"][n]),
                of=int(rows["of"][n]),
                passage=bytes(rows["passage"][n]),
                format=str(rows["format"][n]),
                left_out=bytes(rows["left_out"][n]),
                reason=str(rows["reason"][n]),
                detail=str(rows["detail"][n]),
            )
            document = self._incomplete.setdefault(
                row.document,
                Document(
                    row.document,
                    row.of,
                    format=row.format,
                    left_out=msgspec.json.decode(row.left_out, type=dict[LeftOut, int]),
                    reason=row.reason,
                    detail=row.detail,
                ),
            )
            if row.passage:
                passage = msgspec.json.decode(row.passage, type=Passage)
                document.passages[passage.n] = (passage, np.asarray(rows["vector"][n]).tolist())
            if document.is_complete:
                yield self._incomplete.pop(row.document)


async def write_all(
    pending: Sequence[PendingFile], dataset: ray.data.Dataset, services: Services, display: ProgressDisplay
) -> dict[int, LoadOutcome]:
    """Write the documents as they become complete, several at once; return their outcomes by position.

    An outage ends it: what is left then was not tried.
    """
    outcomes: dict[int, LoadOutcome] = {}
    send, receive = anyio.create_memory_object_stream[Document](services.settings.at_once)
    async with anyio.create_task_group() as group:
        watch = OutageWatch(group.cancel_scope)
        for _ in range(services.settings.at_once):
            group.start_soon(_write_each, receive.clone(), pending, outcomes, services, display, watch)
        receive.close()
        async with send:
            # The thread is abandoned when we are cancelled: it ends when Ray does.
            await anyio.to_thread.run_sync(_assemble, dataset, send, abandon_on_cancel=True)
    left = [file for file in pending if file.position not in outcomes]
    return outcomes | {file.position: replace(file.outcome, reason=NOT_TRIED) for file in left}


def _assemble(dataset: ray.data.Dataset, send: MemoryObjectSendStream[Document]) -> None:
    """Take rows from Ray, in a thread, no faster than documents are written."""
    assembler = DocumentAssembler()
    for rows in dataset.iter_batches(batch_size=None, batch_format="numpy"):
        for document in assembler.feed(rows):
            anyio.from_thread.run(send.send, document)


async def _write_each(
    receive: MemoryObjectReceiveStream[Document],
    pending: Sequence[PendingFile],
    outcomes: dict[int, LoadOutcome],
    services: Services,
    display: ProgressDisplay,
    watch: OutageWatch,
) -> None:
    async with receive:
        async for document in receive:
            file, write = pending[document.number], partial(write_embedded, document)
            outcomes[file.position] = await index_one(file.outcome, file.job, services, display, write)
            display.end(outcomes[file.position])
            watch.record(outcomes[file.position])


async def write_embedded(document: Document, version: Version, services: Services, report: Report) -> IndexingResult:
    """Go from embedded passages to verified points in the index that no customer sees yet.

    Raises:
        Unreadable: the file could not become passages.
        StorageUnavailable: its original could not be read.
        OriginalChanged: its original has other bytes than were handed in.
    """
    if document.reason == StorageUnavailable.code:
        raise StorageUnavailable(document.detail)
    if document.reason == OriginalChanged.code:
        raise OriginalChanged(document.detail)
    if document.reason:
        raise Unreadable(Reason(document.reason), document.detail)
    passages = [document.passages[n][0] for n in sorted(document.passages)]
    await clear(version.key, services.index, report)
    async with aclosing(_batches(document, services.settings.batch)) as batches:
        await upsert(len(passages), batches, services.index, services.metrics, report)
    await verify(version.key, passages, services.index, services.metrics, report)
    return indexing_result(document.format, passages, document.left_out)


async def _batches(document: Document, size: int) -> AsyncGenerator[EmbeddedBatch]:
    for batch in document.batches(size):
        yield batch


@contextmanager
def _translated() -> Generator[None]:
    """Turn what ends the work of Ray, alone or in a task group, into BatchStopped."""
    try:
        yield
    except ExceptionGroup as failed:
        _, other = failed.split((RayError, ConnectionError))
        raise other.exceptions[0] if other else BatchStopped(_why(failed.exceptions[0])) from failed
    except (RayError, ConnectionError) as exc:
        raise BatchStopped(_why(exc)) from exc


def _why(exc: BaseException) -> str:
    return f"Ray stopped ({type(exc).__name__}); start the same command again and it goes on where it stopped"
