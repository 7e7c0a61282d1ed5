"""The target of `ingest batch`: reads and embeds on a Ray cluster, and writes the same points as `ingest load`.

    receive ──▶ Ray: read → embed (a worker per core) ──▶ here: upsert → verify

Ray only computes. This process claims jobs, writes the index and approves, as in `ingest.bulk.local`. So a second run
skips finished documents, and a worker may run jobs at the same time (docs/decisions/0013-batch.md).
"""

import logging
import os
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory

import anyio
import msgspec
import numpy as np
import ray
import ray.data
from pydantic import BaseModel, PositiveInt
from ray.exceptions import RayError

from ingest.bulk.batch_stages import EmbeddedDocument, ReadAndEmbed, StageSettings
from ingest.bulk.load import BatchStopped, Pending
from ingest.bulk.local import LoadRequest, LocalTarget, key_of
from ingest.catalogue import IndexingResult, Version
from ingest.errors import OriginalChanged, StorageUnavailable
from ingest.parsing import Reason, Unreadable
from ingest.pipeline import Report, indexing_result, write_points
from ingest.services import Services
from knowledge.passage import Passage

MOST_BLOCKS = 1000
DOCUMENTS_A_BATCH = 8  # most documents have few passages, and the embedder is fastest with dozens of passages


class Cluster(BaseModel, frozen=True):
    """A Ray cluster's address; None: this machine, with an object store of `object_store_bytes`."""

    address: str | None = None
    object_store_bytes: PositiveInt = 256 * 1024 * 1024


class RayTarget(LocalTarget):
    """Load documents into this process's stores, reading and embedding on a Ray cluster."""

    def __init__(self, services: Services, request: LoadRequest, cluster: Cluster, settings: StageSettings) -> None:
        super().__init__(services, request)
        self._cluster = cluster
        self._settings = settings

    async def prepare(self, pending: Sequence[Pending]) -> AsyncGenerator[Pending]:
        """Yield each file once its passages are embedded; raise BatchStopped if Ray doesn't start, or fails."""
        if not pending:
            return
        versions = [await self.services.catalogue.version(key_of(file.outcome)) for file in pending]
        with _translate_errors(), connected(self._cluster):
            rows = iter(embedded_documents(versions, self._settings).iter_rows())
            # If cancelled, the thread is abandoned; it ends when Ray does.
            next_row = partial(anyio.to_thread.run_sync, next, rows, None, abandon_on_cancel=True)
            while (row := await next_row()) is not None:
                document = msgspec.json.decode(row["result"], type=EmbeddedDocument)
                yield replace(pending[row["document"]], write=partial(write_embedded, document))


@contextmanager
def connected(cluster: Cluster) -> Generator[None]:
    """Connect to Ray while the block runs, or raise BatchStopped; a local Ray starts and stops with the block."""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
        stack.callback(ray.shutdown)
        try:
            _connect(cluster, folder)
        except Exception as exc:  # Ray raises a plain Exception if a node starts too slowly
            cause = str(exc).strip().partition("\n")[0] or type(exc).__name__
            failure = "Ray does not start"
            if cluster.address is not None:
                failure = f"the Ray cluster at {cluster.address} does not answer"
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
        num_cpus=len(os.sched_getaffinity(0)),
        object_store_memory=cluster.object_store_bytes,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _temp_dir=folder,
    )


def embedded_documents(versions: Sequence[Version], settings: StageSettings) -> ray.data.Dataset:
    """Return a lazy data set with each version's index in `versions` and its `EmbeddedDocument`, in any order."""
    rows = [{"document": n, "version": msgspec.json.encode(version)} for n, version in enumerate(versions)]
    most_workers = max(1, int(ray.cluster_resources()["CPU"]) - 1)
    return ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).map_batches(
        ReadAndEmbed,
        fn_constructor_args=(settings,),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most_workers),
        batch_size=DOCUMENTS_A_BATCH,
        batch_format="numpy",
        num_cpus=1,
    )


async def write_embedded(
    document: EmbeddedDocument, version: Version, services: Services, report: Report
) -> IndexingResult:
    """Write embedded passages to the index and verify them; customers can't see them yet.

    Raises:
        Unreadable: the file could not be turned into passages.
        StorageUnavailable: its original could not be read.
        OriginalChanged: its original's bytes differ from the uploaded ones.
    """
    for error in (StorageUnavailable, OriginalChanged):
        if document.reason == error.code:
            raise error(document.detail)
    if document.reason:
        raise Unreadable(Reason(document.reason), document.detail)
    vectors = np.frombuffer(document.vectors, np.float32).reshape(len(document.passages), -1).tolist()

    async def embed(batch: Sequence[Passage]) -> list[list[float]]:
        return [vectors[passage.n - 1] for passage in batch]

    await write_points(version.key, document.passages, embed, services, report)
    return indexing_result(document.format, document.passages, document.left_out)


@contextmanager
def _translate_errors() -> Generator[None]:
    """Raise BatchStopped for errors that end Ray's work."""
    try:
        yield
    except (RayError, ConnectionError) as exc:
        raise BatchStopped(
            f"Ray stopped ({type(exc).__name__}); start the same command again: it continues where it stopped"
        ) from exc
