"""Embedders: text to vectors, in this process or at an OpenAI-compatible endpoint."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import monotonic
from typing import Protocol

from knowledge.embedding.encoder import Encode, LoadEncode, Vectors, compile_encoder
from knowledge.embedding.errors import EmbeddingUnavailable
from knowledge.embedding.model_config import ModelConfig, read_model_config
from knowledge.embedding.openvino_cache import NotConverted, cached_model
from knowledge.embedding.served import open_served
from knowledge.embedding.settings import DEFAULT_FOLDER, EmbedderSettings

BATCH_BYTES = 2_000
"""The most text in a batch of passages; a CPU needs 0.1 s for it, during which questions wait."""


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
        raise EmbeddingUnavailable("no embedder configured: set EMBEDDER__FOLDER, EMBEDDER__URL or EMBEDDER__REVISION")
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
    """Implements `Embedder` by a sentence-transformers model in one or several worker threads.

    Questions that arrive within the window are encoded together and before passages. The event loop acquires no lock:
    it submits a job through a SimpleQueue and awaits a future. The workers take turns at that queue and skip cancelled
    jobs.
    """

    def __init__(self, folder: Path, settings: EmbedderSettings, config: ModelConfig) -> None:
        self.name = settings.name
        self.dimensions = 0
        self._settings = settings
        self._config = config
        self._folder = folder
        self._threads: list[Thread] = []
        self._waiting_requests = 0
        self._closing = False
        self._inbox: SimpleQueue[_Job | None] = SimpleQueue()
        # Only the thread that holds `_scheduling_lock` may use the fields below it.
        self._scheduling_lock = Lock()
        self._queries: deque[_Job] = deque()
        self._passages: deque[_Job] = deque()
        self._inbox_closed = False

    async def start(self) -> None:
        """Load the model and warm up every worker.

        Raises:
            EmbeddingUnavailable: the folder contains no model, or the model cannot be loaded.
        """
        if not (self._folder / "modules.json").is_file():
            is_from_hub = self._settings.revision is not None
            model = f"{self._settings.model}@{self._settings.revision}" if is_from_hub else DEFAULT_FOLDER
            raise EmbeddingUnavailable(
                f"no embedding model in {self._folder}: name another by EMBEDDER__FOLDER, or run "
                f"`llm-server fetch {model}`"
            )
        try:
            load = await asyncio.to_thread(_loader, self._folder, self._settings)
            for _ in range(self._settings.workers):
                encode = await asyncio.to_thread(load)
                (vector,) = await asyncio.to_thread(encode, ["warm up"])
                self.dimensions = len(vector)
                # Daemon threads do not block the exit of a process that never calls `aclose`, such as an actor of Ray.
                self._threads.append(Thread(target=self._work, args=(encode,), name="embedder", daemon=True))
                self._threads[-1].start()
        except (NotConverted, OSError, ValueError, KeyError, IndexError, RuntimeError) as exc:
            await self.aclose()
            raise EmbeddingUnavailable(f"the model in {self._folder} cannot be loaded: {exc}") from exc

    async def embed_queries(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return []
        if self._waiting_requests >= self._settings.queue:
            raise EmbeddingUnavailable(f"{self._waiting_requests} requests are waiting for the embedder")
        self._waiting_requests += 1
        try:
            return await self._submit([_Job([self._config.query_prefix + text for text in texts], urgent=True)])
        finally:
            self._waiting_requests -= 1

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        return await self._submit([_Job([self._config.passage_prefix + text], urgent=False) for text in texts])

    async def aclose(self) -> None:
        """Stop the workers after their current batches; waiting requests fail with EmbeddingUnavailable."""
        self._closing = True
        self._inbox.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        for waiting in (self._queries, self._passages):
            while waiting:
                job = waiting.popleft()
                if job.result.set_running_or_notify_cancel():
                    job.result.set_exception(EmbeddingUnavailable("the embedder is closed"))

    async def _submit(self, jobs: Sequence[_Job]) -> Vectors:
        """Submit the jobs to the workers, and return their vectors in order; cancel them if the caller is cancelled."""
        if self._closing:
            raise EmbeddingUnavailable("the embedder is closed")
        for job in sorted(jobs, key=lambda job: job.size):  # padding costs as much as text
            self._inbox.put(job)
        try:
            return [vector for job in jobs for vector in await asyncio.wrap_future(job.result)]
        finally:
            for job in jobs:
                job.result.cancel()  # no effect on finished jobs

    def _work(self, encode: Encode) -> None:
        while jobs := self._next_batch():
            self._run_batch(encode, [job for job in jobs if job.result.set_running_or_notify_cancel()])

    def _next_batch(self) -> list[_Job]:
        """Return the next batch of jobs, or an empty list when the embedder closes."""
        with self._scheduling_lock:
            self._empty_inbox()
            if self._inbox_closed:
                return []
            return self._next_queries() if self._queries else self._next_passages()

    def _empty_inbox(self) -> None:
        """Move all jobs from the inbox to their queues; if inbox and queues are empty, wait for the first job."""
        while not self._inbox_closed:
            has_jobs = bool(self._queries or self._passages)
            if not self._receive(0.0 if has_jobs else None):
                return

    def _next_queries(self) -> list[_Job]:
        """Return the oldest questions that fit into a batch, after waiting within the window for further ones."""
        window_end = self._queries[0].arrived + self._settings.window
        has_received = True
        while has_received and sum(len(job.texts) for job in self._queries) < self._settings.query_batch:
            has_received = self._receive(max(0.0, window_end - monotonic()))
        jobs = [self._queries.popleft()]
        free = self._settings.query_batch - len(jobs[0].texts)
        while self._queries and len(self._queries[0].texts) <= free:
            jobs.append(self._queries.popleft())
            free -= len(jobs[-1].texts)
        return jobs

    def _next_passages(self) -> list[_Job]:
        """Return the oldest passages that fit into a batch; those of one caller are sorted by length."""
        jobs = [self._passages.popleft()]
        free = BATCH_BYTES - jobs[0].size
        while self._passages and len(jobs) < self._settings.passage_batch and self._passages[0].size <= free:
            jobs.append(self._passages.popleft())
            free -= jobs[-1].size
        return jobs

    def _receive(self, timeout: float | None) -> bool:
        """Move a job from the inbox to its queue; return False if none comes in `timeout` seconds (None: wait)."""
        try:
            job = self._inbox.get(block=timeout != 0.0, timeout=timeout)
        except Empty:
            return False
        if job is None:
            self._inbox_closed = True
            return False
        queue = self._queries if job.urgent else self._passages
        queue.append(job)
        return True

    def _run_batch(self, encode: Encode, jobs: list[_Job]) -> None:
        """Encode the jobs together, and set their results or their failure."""
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
    """Return the function that each worker calls to get its `encode`."""
    batch = max(settings.query_batch, settings.passage_batch)
    return compile_encoder(
        cached_model(folder), settings.dtype, workers=settings.workers, threads=settings.threads, batch=batch
    )
