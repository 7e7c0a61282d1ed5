"""Brings the ids of jobs to workers through Redis (streaq). The job itself is a row in SQL (`ingest.jobs.claims`).

So Redis may lose everything: what nobody works on is sent again. An id that is on its way is not sent twice. A worker
that dies leaves its message in the stream, where another one takes it up after `idle` seconds.
QueueUnavailable    Redis cannot be reached, or does not answer in time
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import anyio
import msgspec
from anyio import CancelScope
from coredis.exceptions import RedisError
from pydantic import BaseModel, PositiveFloat, SecretStr
from streaq import StreaqRetry, Worker

from ingest.catalogue import Job, JobState
from ingest.errors import QueueUnavailable

_TASK = "index"
_ENCODER = msgspec.json.Encoder(enc_hook=str)


class JobBrokerSettings(BaseModel, frozen=True):
    """The queue's name in Redis, how long sending may take, and after how long a silent worker counts as dead."""

    queue: str = "ingest"
    deadline: PositiveFloat = 2.0
    idle: PositiveFloat = 10.0


class Later(Exception):
    """A job that cannot be done now: deliver it again after so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds:.1f} s")
        self.seconds = seconds


Work = Callable[[str], Awaitable[None]]


class JobBroker:
    """The queue of job ids."""

    def __init__(self, url: SecretStr, settings: JobBrokerSettings) -> None:
        self._url = url
        self._settings = settings

    async def send(self, job_ids: Sequence[str]) -> None:
        """Let a worker hear of these jobs; durable as Redis is.

        A connection a call: staff upload seldom, and a connection that is kept would have to be kept alive.

        Raises:
            QueueUnavailable: they may not have arrived.
        """
        worker = self._worker(at_once=1)
        task = worker.task(name=_TASK)(_nobody)
        sent = [task.enqueue(job_id) for job_id in job_ids]
        for one, job_id in zip(sent, job_ids, strict=True):
            one.id = job_id
        with _translated():
            with anyio.fail_after(self._settings.deadline):
                async with worker:
                    await worker.enqueue_many(sent)

    async def receive(self, work: Work, *, at_once: int) -> None:
        """Do what is delivered, so many at once, until cancelled; what runs then is delivered again at once.

        Raises:
            QueueUnavailable: the connection is lost; start again.
        """
        worker = self._worker(at_once=at_once)

        async def run(job_id: str) -> None:
            try:
                await work(job_id)
            except Later as later:
                raise StreaqRetry(delay=timedelta(seconds=later.seconds)) from None

        worker.task(name=_TASK, max_tries=None, ttl=0, silent=True)(run)
        with _translated():
            async with anyio.create_task_group() as beside:
                # Cancelled from outside, streaq would lose its connection before it has let go of what it runs.
                with CancelScope(shield=True) as running:
                    beside.start_soon(self._stop_when_cancelled, worker, running)
                    await worker.run_async()
                beside.cancel_scope.cancel()

    async def _stop_when_cancelled(self, worker: "_Quiet", running: CancelScope) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            running.deadline = anyio.current_time() + self._settings.deadline
            worker.stop.set()

    def _worker(self, *, at_once: int) -> "_Quiet":
        return _Quiet(
            redis_url=self._url.get_secret_value(),
            redis_kwargs={"connect_timeout": self._settings.deadline},
            concurrency=at_once,
            prefetch=1,
            queue_name=self._settings.queue,
            serializer=_ENCODER.encode,
            deserializer=msgspec.json.decode,
            idle_timeout=self._settings.idle,
        )


async def deliver(job: Job, delivery: JobBroker | None) -> None:
    """Let a worker hear of a job that is queued or running.

    Raises:
        QueueUnavailable: none may have heard of it; the row stays, and is sent when Redis is back.
    """
    if job.state not in (JobState.QUEUED, JobState.RUNNING):
        return
    if delivery is None:
        raise QueueUnavailable("no queue is set (REDIS_URL)")
    await delivery.send([job.id])


# What coredis raises when Redis is away, and what anyio raises at the deadline and below it.
UNAVAILABLE = (RedisError, OSError, TimeoutError, anyio.BrokenResourceError, anyio.ClosedResourceError)


@contextmanager
def _translated() -> Iterator[None]:
    """Let what the driver raises, alone or in a task group, become QueueUnavailable."""
    try:
        yield
    except BaseExceptionGroup as group:
        if group.split(UNAVAILABLE)[1] is not None:
            raise
        raise QueueUnavailable from group
    except UNAVAILABLE as exc:
        raise QueueUnavailable from exc


class _Quiet(Worker[None]):
    """A worker inside somebody's process: an event stops it instead of a signal, and it lets go of what it runs."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.stop = anyio.Event()

    async def signal_handler(self, scope: CancelScope) -> None:
        await self.stop.wait()
        scope.cancel()
        for running in tuple(self._cancel_scopes.values()):
            running.deadline = anyio.current_time()


async def _nobody(_job_id: str) -> None:
    """Stand for the task where it is only sent."""
