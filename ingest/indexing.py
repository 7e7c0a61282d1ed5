"""Does one claimed job to its end: keeps the claim, reports how far it is, tries again what may pass by itself.

A fault of the file ends its job at once, with the reason. A fault of ours (index, embedder or database away) is tried
three times, each wait three times as long as the one before; then the job is a dead letter.
"""

import math
import time
from collections.abc import Callable

import anyio
import structlog

from ingest.errors import IngestError, NotFound
from ingest.parsing.parsed import Unreadable
from ingest.pipeline import Write, take_in
from ingest.queue import MOST_ATTEMPTS, RENEW_SECONDS
from ingest.services import Services
from ingest.versions import Job, Stage, Version
from knowledge.embedding import EmbeddingUnavailable
from knowledge.index import IndexUnavailable as IndexAway

FIRST_WAIT_SECONDS = 2.0
REPORT_SECONDS = 0.5
"""Those who watch a job's row see it move twice a second at most."""
OURS = (IngestError, IndexAway, EmbeddingUnavailable)
"""What may pass by itself: the job is tried again."""

log = structlog.get_logger(__name__)


Watch = Callable[[Stage, int, int], None]


def unwatched(_stage: Stage, _done: int, _total: int) -> None:
    """Show nobody how far a job is."""


async def run_job(job: Job, services: Services, watch: Watch = unwatched, write: Write | None = None) -> Version | None:
    """Do a claimed job to its end; None where it has to be tried again later, or is somebody else's by now."""
    version = None
    async with anyio.create_task_group() as beside:
        beside.start_soon(_keep_claim, job, services, beside.cancel_scope)
        version = await _attempt(job, services, watch, write)
        beside.cancel_scope.cancel()
    return version


async def _keep_claim(job: Job, services: Services, work: anyio.CancelScope) -> None:
    """Renew the claim for ever; a job that was taken over is left alone."""
    while True:
        await anyio.sleep(RENEW_SECONDS)
        try:
            if not await services.queue.renew(job, now=services.now()):
                log.warning("claim_lost", job_id=job.id)
                work.cancel()
        except IngestError:
            continue  # the next renewal, or the job's own writes, will tell


async def _attempt(job: Job, services: Services, watch: Watch, write: Write | None) -> Version | None:
    written = -math.inf

    async def report(stage: Stage, done: int, total: int) -> None:
        nonlocal written
        watch(stage, done, total)
        if time.monotonic() - written < REPORT_SECONDS:
            return
        written = time.monotonic()
        await services.queue.report(job, stage=stage, done=done, total=total, now=services.now())

    try:
        version = await take_in(job.key, services, report, write)
    except Unreadable as exc:
        return await _fail(job, services, reason=exc.reason.value, detail=exc.detail)
    except NotFound:  # deleted while it waited
        await services.queue.failed(job, now=services.now())
        return None
    except OURS as exc:
        log.warning("job_attempt_failed", job_id=job.id, attempt=job.attempts, error=type(exc).__name__)
        return await _try_later(exc, job, services)
    except Exception as exc:  # the edge of a job: the next one must not suffer for this one
        log.exception("job_crashed", job_id=job.id, attempt=job.attempts)
        return await _try_later(exc, job, services)
    await services.queue.done(job, now=services.now())
    services.metrics.documents.labels(outcome="indexed").inc()
    return version


async def _try_later(exc: Exception, job: Job, services: Services) -> Version | None:
    if job.attempts >= MOST_ATTEMPTS:
        return await bury(job, services, detail=f"{type(exc).__name__}: {exc}"[:400])
    wait = FIRST_WAIT_SECONDS * 3 ** (job.attempts - 1)
    await services.queue.put_back(job, after=wait, now=services.now())
    return None


async def bury(job: Job, services: Services, *, detail: str) -> Version:
    """Make a job a dead letter: it was tried often enough."""
    version = await services.catalogue.failed(job.key, reason="unavailable", detail=detail)
    await services.queue.bury(job, now=services.now())
    services.metrics.documents.labels(outcome="dead").inc()
    log.error("job_dead", job_id=job.id, document_id=job.key.document_id, version=job.key.version, detail=detail)
    return version


async def _fail(job: Job, services: Services, *, reason: str, detail: str) -> Version:
    version = await services.catalogue.failed(job.key, reason=reason, detail=detail)
    await services.queue.failed(job, now=services.now())
    services.metrics.documents.labels(outcome=reason).inc()
    log.info("document_failed", document_id=job.key.document_id, version=job.key.version, reason=reason)
    return version
