"""The target of `ingest batch`: reads and embeds on a Ray cluster, and writes the same points as `ingest load`.

    receive ──▶ Ray: read (CPU workers) ──▶ embed (actors) ──▶ here: upsert → verify

Ray only computes. Claims, writes and decisions stay in this process, as in `ingest.bulk.local`, so a second run skips
finished documents and a worker may take jobs at the same time (docs/decisions/0013-batch.md).
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
from pydantic import BaseModel, PositiveInt
from ray.exceptions import RayError

from ingest.bulk.batch_stages import Columns, Embed, PassageRow, Read, StageSettings
from ingest.bulk.load import BatchStopped, Pending
from ingest.bulk.local import LoadOrder, LocalTarget, key_of
from ingest.catalogue import IndexingResult, Version
from ingest.errors import OriginalChanged, StorageUnavailable
from ingest.parsing import LeftOut, Reason, Unreadable
from ingest.pipeline import EmbeddedBatch, Report, clear, indexing_result, upsert, verify
from ingest.services import Services
from knowledge.passage import Passage

MOST_BLOCKS = 1000
PASSAGES_A_BATCH = 64


class Cluster(BaseModel, frozen=True):
    """A Ray cluster's address, or None for this machine with an object store of this size in bytes."""

    address: str | None = None
    object_store_bytes: PositiveInt = 256 * 1024 * 1024


class RayTarget(LocalTarget):
    """Load documents into this process's stores, reading and embedding on a Ray cluster."""

    def __init__(self, services: Services, order: LoadOrder, cluster: Cluster, settings: StageSettings) -> None:
        super().__init__(services, order)
        self._cluster = cluster
        self._settings = settings

    async def prepare(self, pending: Sequence[Pending]) -> AsyncGenerator[Pending]:
        """Yield each file once its passages are embedded.

        Raises:
            BatchStopped: Ray doesn't start, or fails.
        """
        if not pending:
            return
        versions = [await self.services.catalogue.version(key_of(file.outcome)) for file in pending]
        assembler = DocumentAssembler()
        with _translated(), connected(self._cluster):
            batches = iter(
                embedded_passages(versions, self._settings).iter_batches(batch_size=None, batch_format="numpy")
            )
            # If cancelled, the thread is abandoned; it ends when Ray does.
            while (rows := await anyio.to_thread.run_sync(next, batches, None, abandon_on_cancel=True)) is not None:
                for document in assembler.feed(rows):
                    yield replace(pending[document.number], write=partial(write_embedded, document))


@contextmanager
def connected(cluster: Cluster) -> Generator[None]:
    """Connect to Ray while the block runs; a Ray started for the block stops with it.

    Raises:
        BatchStopped: Ray doesn't start, or the cluster doesn't answer.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
        stack.callback(ray.shutdown)
        try:
            _connect(cluster, folder)
        except Exception as exc:  # Ray raises a plain Exception if a node starts too slowly
            cause = str(exc).strip().partition("\n")[0] or type(exc).__name__
            failure = (
                f"the Ray cluster at {cluster.address} does not answer" if cluster.address else "Ray does not start"
            )
            raise BatchStopped(f"{failure}: {cause}; nothing is lost, and the same command continues") from exc
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
        num_cpus=max(2, len(os.sched_getaffinity(0))),  # at least one reader and one embedder
        object_store_memory=cluster.object_store_bytes,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _temp_dir=folder,
    )


def embedded_passages(versions: Sequence[Version], settings: StageSettings) -> ray.data.Dataset:
    """Return a lazy data set of all versions' passages and vectors (rows of `PassageRow` and `vector`)."""
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
    """A document returned by Ray: one of its rows, and the passages and vectors received so far."""

    row: PassageRow
    passages: dict[int, tuple[Passage, Sequence[float]]] = field(default_factory=dict)

    @property
    def number(self) -> int:
        return self.row.document

    @property
    def is_complete(self) -> bool:
        return len(self.passages) == self.row.of

    @property
    def in_order(self) -> list[tuple[Passage, Sequence[float]]]:
        return [self.passages[n] for n in sorted(self.passages)]


class DocumentAssembler:
    """Assemble documents from passages that arrive in any order."""

    def __init__(self) -> None:
        self._incomplete: dict[int, Document] = {}

    def feed(self, rows: Columns) -> Iterator[Document]:
        """Add rows of `PassageRow`; yield the documents that are now complete."""
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
            document = self._incomplete.setdefault(row.document, Document(row))
            if row.passage:
                passage = msgspec.json.decode(row.passage, type=Passage)
                document.passages[passage.n] = (passage, np.asarray(rows["vector"][n]).tolist())
            if document.is_complete:
                yield self._incomplete.pop(row.document)


async def write_embedded(document: Document, version: Version, services: Services, report: Report) -> IndexingResult:
    """Write embedded passages to the index and verify them; customers can't see them yet.

    Raises:
        Unreadable: the file could not be turned into passages.
        StorageUnavailable: its original could not be read.
        OriginalChanged: its original's bytes differ from the uploaded ones.
    """
    row = document.row
    for error in (StorageUnavailable, OriginalChanged):
        if row.reason == error.code:
            raise error(row.detail)
    if row.reason:
        raise Unreadable(Reason(row.reason), row.detail)
    passages = [passage for passage, _ in document.in_order]
    await clear(version.key, services.index, report)
    async with aclosing(_batches(document, services.settings.batch)) as batches:
        await upsert(len(passages), batches, services.index, services.metrics, report)
    await verify(version.key, passages, services.index, services.metrics, report)
    return indexing_result(row.format, passages, msgspec.json.decode(row.left_out, type=dict[LeftOut, int]))


async def _batches(document: Document, size: int) -> AsyncGenerator[EmbeddedBatch]:
    in_order = document.in_order
    for start in range(0, len(in_order), size):
        passages, vectors = zip(*in_order[start : start + size], strict=True)
        yield EmbeddedBatch(passages, vectors)


@contextmanager
def _translated() -> Generator[None]:
    """Raise BatchStopped for errors that end Ray's work."""
    try:
        yield
    except (RayError, ConnectionError) as exc:
        raise BatchStopped(
            f"Ray stopped ({type(exc).__name__}); start the same command again: it continues where it stopped"
        ) from exc
