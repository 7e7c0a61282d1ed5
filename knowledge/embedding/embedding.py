"""Embedders: text to vectors, in this process or at an OpenAI-compatible endpoint."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import accumulate
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Protocol

from knowledge.embedding.encoder import Encode, LoadEncode, Vectors, openvino_encoder
from knowledge.embedding.errors import EmbedderBusy, EmbedderMissing, EmbeddingUnavailable
from knowledge.embedding.hub import fetch_model
from knowledge.embedding.model_config import ModelConfig, read_model_config
from knowledge.embedding.openvino_cache import NotConverted
from knowledge.embedding.served import open_served
from knowledge.embedding.settings import DEFAULT_FOLDER, EmbedderSettings

BATCH_BYTES = 2_000
"""The most text in a batch of passages: it takes a CPU 0.1 s, during which questions wait."""


class Embedder(Protocol):
    """Computes vectors for cosine similarity; a collection records the `name` of its embedder."""

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    async def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return one vector for each question, in order."""

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Return one vector for each passage, in order; questions that arrive in between go first."""


@asynccontextmanager
async def open_embedder(settings: EmbedderSettings) -> AsyncGenerator[Embedder]:
    """Open the configured embedder and warm it up.

    Raises:
        EmbeddingUnavailable: the embedder cannot be loaded or reached.
    """
    if settings.url is not None:
        async with open_served(settings) as served:
            yield served
        return
    if settings.folder is None:
        raise EmbedderMissing("no embedder is named: set EMBEDDER__FOLDER, EMBEDDER__URL or EMBEDDER__REVISION")
    await fetch_model(settings)
    local = LocalEmbedder(settings.folder, settings, await asyncio.to_thread(read_model_config, settings))
    await local.start()
    try:
        yield local
    finally:
        await local.aclose()


@dataclass(slots=True, eq=False)
class _Job:
    """Texts to encode together; questions are urgent."""

    texts: list[str]
    urgent: bool
    arrived: float = field(default_factory=monotonic)
    result: Future[Vectors] = field(default_factory=Future)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        # In bytes: Korean and English tokens have about the same length in bytes, but not in characters.
        self.size = sum(len(text.encode()) for text in self.texts)


class LocalEmbedder:
    """A sentence-transformers model in one or several worker threads.

    Questions that arrive within the window are encoded together and before passages. The event loop acquires no lock:
    it submits a job through a SimpleQueue and awaits a future; workers skip cancelled jobs. At most `passage_window`
    passages wait in the workers; a batch contains passages of similar length, from any documents.
    """

    def __init__(self, folder: Path, settings: EmbedderSettings, config: ModelConfig) -> None:
        self.name = settings.name
        self.dimensions = 0
        self._settings = settings
        self._config = config
        self._folder = folder
        self._workers = [_Worker(settings) for _ in range(settings.workers)]
        self._waiting_requests = 0
        self._passage_slots = asyncio.Semaphore(settings.passage_window)

    async def start(self) -> None:
        """Load the model, convert it for OpenVINO if necessary, and warm up every worker.

        Raises:
            EmbedderMissing: the folder contains no model, or the model cannot be loaded.
        """
        if not (self._folder / "modules.json").is_file():
            raise EmbedderMissing(
                f"no embedding model in {self._folder}: name another by EMBEDDER__FOLDER, or run "
                f"`llm-server fetch {DEFAULT_FOLDER}`"
            )
        try:
            load = await asyncio.to_thread(_loader, self._folder, self._settings)
            for worker in self._workers:
                self.dimensions = await asyncio.wrap_future(worker.start(load))
        except (NotConverted, OSError, ValueError, KeyError, IndexError, RuntimeError) as exc:
            raise EmbedderMissing(f"the model in {self._folder} cannot be loaded: {exc}") from exc

    async def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return one vector for each question, in order."""
        if not texts:
            return []
        if self._waiting_requests >= self._settings.queue:
            raise EmbedderBusy(f"{self._waiting_requests} requests are waiting for the embedder")
        self._waiting_requests += 1
        try:
            return await self._encode(_Job([self._config.query_prefix + text for text in texts], urgent=True))
        finally:
            self._waiting_requests -= 1

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Return one vector for each passage, in order; questions that arrive in between go first."""
        prefixed = [self._config.passage_prefix + text for text in texts]
        shortest_first = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {i: group.create_task(self._encode_passage(prefixed[i])) for i in shortest_first}
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [tasks[i].result() for i in range(len(texts))]

    async def aclose(self) -> None:
        """Stop the workers after their current batches; waiting jobs fail with EmbeddingUnavailable."""
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            await asyncio.to_thread(worker.join)

    async def _encode_passage(self, text: str) -> list[float]:
        async with self._passage_slots:
            (vector,) = await self._encode(_Job([text], urgent=False))
        return vector

    async def _encode(self, job: _Job) -> Vectors:
        worker = min(self._workers, key=lambda worker: worker.waiting_texts)
        worker.waiting_texts += len(job.texts)
        try:
            worker.submit(job)
            return await asyncio.wrap_future(job.result)
        finally:
            worker.waiting_texts -= len(job.texts)


class _Worker:
    """A thread that encodes jobs in batches, questions first."""

    def __init__(self, settings: EmbedderSettings) -> None:
        self.waiting_texts = 0  # counted by the caller of `submit`
        self._settings = settings
        self._inbox: SimpleQueue[_Job | None] = SimpleQueue()
        self._queries: deque[_Job] = deque()
        self._passages: deque[_Job] = deque()
        self._closing = False
        self._ended = False
        self._thread: Thread | None = None

    def start(self, load: LoadEncode) -> Future[int]:
        """Start the thread; the future resolves to the number of dimensions when the model is loaded and warm."""
        ready: Future[int] = Future()
        self._thread = Thread(target=self._run, args=(load, ready), name="embedder", daemon=True)
        self._thread.start()
        return ready

    def submit(self, job: _Job) -> None:
        """Queue a job.

        Raises:
            EmbeddingUnavailable: the embedder is closed.
        """
        if self._closing or self._thread is None:
            raise EmbeddingUnavailable("the embedder is closed")
        self._inbox.put(job)

    def stop(self) -> None:
        """Accept no more jobs; call it in the thread of `submit`, so that no job follows the end mark."""
        self._closing = True
        self._inbox.put(None)

    def join(self) -> None:
        """Wait for the thread to end."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, load: LoadEncode, ready: Future[int]) -> None:
        try:
            encode = load()
            dimensions = len(encode(["warm up"])[0])
        except Exception as exc:  # noqa: BLE001  the thread's boundary: `start` raises it
            ready.set_exception(exc)
            return
        ready.set_result(dimensions)
        while jobs := self._next_batch():
            self._encode(encode, [job for job in jobs if job.result.set_running_or_notify_cancel()])
        for job in (*self._queries, *self._passages):
            if job.result.set_running_or_notify_cancel():
                job.result.set_exception(EmbeddingUnavailable("the embedder is closed"))

    def _next_batch(self) -> list[_Job]:
        """Return the next batch of jobs, or an empty list when the embedder closes."""
        while not self._ended and self._receive(None if not (self._queries or self._passages) else 0.0):
            pass
        if self._ended:
            return []
        if not self._queries:
            return self._next_passages()
        until = self._queries[0].arrived + self._settings.window
        while self._query_texts() < self._settings.query_batch and self._receive(max(0.0, until - monotonic())):
            pass
        jobs = [self._queries.popleft()]
        free = self._settings.query_batch - len(jobs[0].texts)
        while self._queries and len(self._queries[0].texts) <= free:
            jobs.append(self._queries.popleft())
            free -= len(jobs[-1].texts)
        return jobs

    def _next_passages(self) -> list[_Job]:
        """Return the oldest passage with others of similar length, because padding costs as much as text."""
        oldest = self._passages[0]
        similar = [job for job in self._passages if abs(job.size - oldest.size) <= self._settings.padding]
        alike = nsmallest(self._settings.passage_batch, similar, key=lambda job: abs(job.size - oldest.size))
        sizes = accumulate(job.size for job in alike)
        batch = [job for job, size in zip(alike, sizes, strict=True) if job is alike[0] or size <= BATCH_BYTES]
        for job in batch:
            self._passages.remove(job)
        return batch

    def _query_texts(self) -> int:
        return sum(len(job.texts) for job in self._queries)

    def _receive(self, timeout: float | None) -> bool:
        """Move one job from the inbox to its queue; return False if none arrives within `timeout` seconds."""
        try:
            job = self._inbox.get(block=timeout != 0.0, timeout=timeout)
        except Empty:
            return False
        if job is None:
            self._ended = True
            return False
        (self._queries if job.urgent else self._passages).append(job)
        return True

    def _encode(self, encode: Encode, jobs: list[_Job]) -> None:
        if not jobs:
            return
        try:
            vectors = iter(encode([text for job in jobs for text in job.texts]))
        except Exception as exc:  # noqa: BLE001  the worker's loop: the jobs fail, the thread continues
            for job in jobs:
                failure = EmbeddingUnavailable(f"the embedder failed: {type(exc).__name__}")
                failure.__cause__ = exc
                job.result.set_exception(failure)
            return
        for job in jobs:
            job.result.set_result([next(vectors) for _ in job.texts])


def _loader(folder: Path, settings: EmbedderSettings) -> LoadEncode:
    """Return the function that each worker calls in its thread to get its `encode`."""
    batch = max(settings.query_batch, settings.passage_batch)
    return openvino_encoder(folder, settings.dtype, workers=settings.workers, threads=settings.threads, batch=batch)
