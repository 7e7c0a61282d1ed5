"""Brings the ids of jobs to workers through Redis (streaq). The job itself is a row in SQL (`ingest.jobs.claims`).

So Redis may lose everything: a job that nobody works on is sent again. An id that is on its way is not sent twice. A
worker that leaves puts its ids back into the queue; one that dies leaves them in the stream, where another one takes
them up after `idle` seconds.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar

import anyio
import msgspec
from anyio import CancelScope
from coredis.exceptions import RedisError
from pydantic import BaseModel, Field, PositiveFloat, SecretStr
from streaq import StreaqRetry, Worker

from ingest.catalogue import Job, JobState
from ingest.errors import QueueUnavailable
from knowledge.tls import SYSTEM_TLS, TlsSettings

_TASK = "index"
_ENCODER = msgspec.json.Encoder(enc_hook=str)


class JobBrokerSettings(BaseModel, frozen=True):
    """The queue of jobs in Redis, and when a worker counts as dead."""

    queue: str = Field("ingest", description="the name of the queue of uploads in Redis")
    deadline: ClassVar[float] = 2.0  # seconds: the deadline of sending a job
    idle: PositiveFloat = Field(10.0, description="seconds: after which a silent worker's job goes to another")


class RetryLater(Exception):
    """A job that cannot be done now: deliver its id again after so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds:.1f} s")
        self.seconds = seconds


DoJob = Callable[[str], Awaitable[None]]


class JobBroker:
    """The queue of job ids."""

    def __init__(self, url: SecretStr, settings: JobBrokerSettings, tls: TlsSettings = SYSTEM_TLS) -> None:
        self._url = url
        self._settings = settings
        # A worker reads for `idle` seconds at most; that a server is lost with its machine nobody hears.
        self._redis: dict[str, Any] = {
            "connect_timeout": settings.deadline,
            "stream_timeout": settings.idle + settings.deadline,
        }
        if url.get_secret_value().startswith("rediss:"):
            self._redis["ssl_context"] = tls.context()

    async def send(self, job_ids: Sequence[str]) -> None:
        """Put jobs into the queue; they are as durable there as Redis is.

        Each call opens a connection: staff upload seldom, and an idle connection would have to be kept alive.

        Raises:
            QueueUnavailable: the ids may not have arrived.
        """
        worker = self._worker(at_once=1)
        task = worker.task(name=_TASK)(_not_run_here)
        tasks = [task.enqueue(job_id) for job_id in job_ids]
        for queued, job_id in zip(tasks, job_ids, strict=True):
            queued.id = job_id
        with _translated(), anyio.fail_after(self._settings.deadline):
            async with worker:
                await worker.enqueue_many(tasks)

    async def receive(self, do_job: DoJob, *, at_once: int) -> None:
        """Do the jobs that are delivered, at most `at_once` side by side, until cancelled.

        On cancellation the jobs under way are cancelled too, and their ids go back to the queue.

        Raises:
            QueueUnavailable: the connection is lost; start again.
        """
        worker, under_way = self._worker(at_once=at_once), set[CancelScope]()

        async def run(job_id: str) -> None:
            with CancelScope() as job:
                under_way.add(job)
                try:
                    if not worker.stop.is_set():
                        await do_job(job_id)
                        return
                except RetryLater as later:
                    raise StreaqRetry(delay=timedelta(seconds=later.seconds)) from None
                finally:
                    under_way.remove(job)
            raise StreaqRetry(delay=timedelta())  # the worker leaves: any other may have the job at once

        async def stop_when_cancelled(running: CancelScope) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                running.deadline = anyio.current_time() + self._settings.deadline
                worker.stop.set()
                for job in under_way:
                    job.cancel()

        worker.task(name=_TASK, max_tries=None, ttl=0, silent=True)(run)
        with _translated():
            async with anyio.create_task_group() as beside:
                # Cancelled from outside, streaq would lose its connection before it has put its jobs back.
                with CancelScope(shield=True) as running:
                    beside.start_soon(stop_when_cancelled, running)
                    await worker.run_async()
                beside.cancel_scope.cancel()

    def _worker(self, *, at_once: int) -> "_StoppableWorker":
        return _StoppableWorker(
            redis_url=self._url.get_secret_value(),
            redis_kwargs=dict(self._redis),
            concurrency=at_once,
            prefetch=1,
            queue_name=self._settings.queue,
            serializer=_ENCODER.encode,
            deserializer=msgspec.json.decode,
            idle_timeout=self._settings.idle,
        )


async def deliver(job: Job, broker: JobBroker | None) -> None:
    """Send a job that is queued or running to the workers.

    Raises:
        QueueUnavailable: the job may not have arrived; its row stays, and is sent when Redis is back.
    """
    if job.state not in (JobState.QUEUED, JobState.RUNNING):
        return
    if broker is None:
        raise QueueUnavailable("no queue is set (REDIS_URL)")
    await broker.send([job.id])


# What coredis raises when Redis is away, and what anyio raises at the deadline and below it.
UNAVAILABLE = (RedisError, OSError, TimeoutError, anyio.BrokenResourceError, anyio.ClosedResourceError)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the driver raises, alone or in a task group, into QueueUnavailable."""
    try:
        yield
    except BaseExceptionGroup as group:
        if group.split(UNAVAILABLE)[1] is not None:
            raise
        raise QueueUnavailable from group
    except UNAVAILABLE as exc:
        raise QueueUnavailable from exc


class _StoppableWorker(Worker[None]):
    """A streaq worker inside a process that handles signals itself: an event stops it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.stop = anyio.Event()

    async def signal_handler(self, scope: CancelScope) -> None:
        await self.stop.wait()
        scope.cancel()


async def _not_run_here(_job_id: str) -> None:
    """Stand for the task in a process that only sends it."""
