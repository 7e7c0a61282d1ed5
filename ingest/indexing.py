"""Works off jobs inside this process: a bounded number at once, until the application ends.

What this is: a loop over SQL rows in the process that serves the API, woken by each upload and every second. It is not
the separate worker of the design; the Redis queue with heartbeats, retries and dead letters across workers is issue 5.
What holds already: an accepted upload is a row, so a job that ran when the process was killed is taken up again at the
next start; a fault of ours (index or database away) is tried three times; a fault of the file ends the job at once.
"""

from collections.abc import Callable

import anyio
import structlog

from ingest.errors import IngestError, NotFound
from ingest.parsing.parsed import Unreadable
from ingest.pipeline import finish_windows, take_in
from ingest.queue import MOST_ATTEMPTS, RENEW_SECONDS
from ingest.services import Services
from ingest.versions import Job, Stage, Version
from knowledge.embedding import EmbeddingUnavailable
from knowledge.index import IndexUnavailable as IndexAway

POLL_SECONDS = 1.0
WAIT_BETWEEN_ATTEMPTS = 5.0
OURS = (IngestError, IndexAway, EmbeddingUnavailable)
"""What may pass by itself: the job is tried again."""

log = structlog.get_logger(__name__)


class Indexing:
    """Takes jobs and brings their versions into the index."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def run(self) -> None:
        """Work until cancelled."""
        async with anyio.create_task_group() as workers:
            workers.start_soon(self._finish_windows)
            for _ in range(self._services.settings.at_once):
                workers.start_soon(self._work)

    async def _finish_windows(self) -> None:
        while True:
            try:
                await finish_windows(self._services)
            except OURS:
                log.warning("windows_not_written")
                await anyio.sleep(POLL_SECONDS)
            else:
                return

    async def _work(self) -> None:
        while True:
            try:
                job = await self._services.queue.claim_next(now=self._services.now())
                if job is not None:
                    await run_job(job, self._services)
                    continue
            except Exception:
                log.exception("job_crashed")  # the edge of the worker: the next job must not suffer for this one
            await self._services.queue.wait_for_more(POLL_SECONDS)


Watch = Callable[[Stage, int, int], None]


def unwatched(_stage: Stage, _done: int, _total: int) -> None:
    """Show nobody how far a job is."""


async def run_job(job: Job, services: Services, watch: Watch = unwatched) -> Version | None:
    """Do a claimed job to its end; None where it has to be tried again later."""
    async with anyio.create_task_group() as beside:
        beside.start_soon(_keep_claim, job, services)
        version = await _attempt(job, services, watch)
        beside.cancel_scope.cancel()
    return version


async def _keep_claim(job: Job, services: Services) -> None:
    while True:
        await anyio.sleep(RENEW_SECONDS)
        try:
            await services.queue.renew(job, now=services.now())
        except IngestError:
            continue  # the next renewal, or the job's own writes, will tell


async def _attempt(job: Job, services: Services, watch: Watch) -> Version | None:
    async def report(stage: Stage, done: int, total: int) -> None:
        watch(stage, done, total)
        await services.queue.report(job, stage=stage, done=done, total=total, now=services.now())

    try:
        version = await take_in(job.key, services, report)
    except Unreadable as exc:
        return await _fail(job, services, reason=exc.reason.value, detail=exc.detail)
    except NotFound:  # deleted while it waited
        await services.queue.failed(job, now=services.now())
        return None
    except OURS as exc:
        log.warning("job_attempt_failed", job_id=job.id, attempt=job.attempts, error=type(exc).__name__)
        if job.attempts >= MOST_ATTEMPTS:
            return await _fail(job, services, reason="unavailable", detail="a part of the system did not answer")
        await services.queue.put_back(job, after=WAIT_BETWEEN_ATTEMPTS, now=services.now())
        return None
    await services.queue.done(job, now=services.now())
    services.metrics.documents.labels(outcome="indexed").inc()
    return version


async def _fail(job: Job, services: Services, *, reason: str, detail: str) -> Version:
    version = await services.catalogue.failed(job.key, reason=reason, detail=detail)
    await services.queue.failed(job, now=services.now())
    services.metrics.documents.labels(outcome=reason).inc()
    log.info("document_failed", document_id=job.key.document_id, version=job.key.version, reason=reason)
    return version
