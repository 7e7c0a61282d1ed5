"""Run one claimed job to its end: keep the claim, report progress, retry transient failures.

A fault of the file fails the job at once, with the reason. After a fault on our side (index, embedder or database
unavailable) the job is retried; after three attempts it is a dead letter.

A worker that was suspended for longer than its lease notices the lost claim before its next write. What its interrupted
write spoiled is repaired by `write_pending_windows`.
"""

import math
import time
from collections.abc import Callable
from contextlib import suppress

import anyio
import structlog

from ingest.catalogue import Job, Stage, State, Version
from ingest.errors import IngestError, NotFound, OriginalChanged
from ingest.jobs import LEASE_SECONDS, MOST_ATTEMPTS, RENEW_SECONDS, ClaimLost, JobClaims
from ingest.parsing import Unreadable
from ingest.pipeline import Report, Write, index_version
from ingest.services import Services
from knowledge.embedding import EmbeddingUnavailable
from knowledge.index import IndexUnavailable as PassageIndexUnavailable
from telemetry.groups import first_failure

FIRST_WAIT_SECONDS = 2.0
REPORT_SECONDS = 0.5  # the minimum time between progress reports written to a job's row
UNAVAILABLE = "unavailable"  # failure reason of a document whose job failed because a dependency was unavailable
TRANSIENT = (
    IngestError,
    PassageIndexUnavailable,
    EmbeddingUnavailable,
)  # failures that may be temporary, so the job is retried

log = structlog.get_logger(__name__)


async def run_job(job: Job, services: Services, write: Write | None = None) -> Version | None:
    """Run a claimed job to its end; return None if it will be retried later or its claim is lost."""
    claim = _HeldClaim(job, services.job_claims, services.now)
    version = None
    try:
        with first_failure():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(claim.renew_regularly)
                version = await _attempt(job, services, claim.report, write)
                tasks.cancel_scope.cancel()
    except ClaimLost:
        log.warning("job_claim_lost", job_id=job.id)
        # The version may have been approved since, and this worker's last write may have removed its window afterwards.
        await services.catalogue.unconfirm_window(job.key)
        return None
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True):  # for one transaction, which has a deadline
            await _release(job, services)
        raise
    return version


async def _release(job: Job, services: Services) -> None:
    """Release a job to other workers at once, because this process is ending."""
    with suppress(IngestError):  # if the database is unavailable, the claim expires by itself
        try:
            await services.job_claims.release(job, now=services.now())
        except ClaimLost:
            await services.catalogue.unconfirm_window(job.key)


class _HeldClaim:
    """The claim of a running job: renewed regularly; progress is written at most every REPORT_SECONDS."""

    def __init__(self, job: Job, job_claims: JobClaims, now: Callable[[], float]) -> None:
        self._job = job
        self._job_claims = job_claims
        self._now = now
        # By the bank's clock, because a monotonic clock stops while the process is suspended.
        self._claimed_until = job.updated_at + LEASE_SECONDS
        self._reported_at = -math.inf

    async def report(self, stage: Stage, done: int, total: int) -> None:
        """Write the progress of the job; raise ClaimLost if another owner has the job.

        Nothing is written within REPORT_SECONDS of the last report, unless the claim may have expired.
        """
        now = self._now()
        if now < self._claimed_until and time.monotonic() - self._reported_at < REPORT_SECONDS:
            return
        self._reported_at = time.monotonic()
        await self._job_claims.report(self._job, stage=stage, done=done, total=total, now=now)
        self._claimed_until = now + LEASE_SECONDS

    async def renew_regularly(self) -> None:
        """Renew the claim every RENEW_SECONDS, until cancelled; raise ClaimLost if another owner has the job."""
        while True:
            await anyio.sleep(RENEW_SECONDS)
            now = self._now()
            try:
                await self._job_claims.renew(self._job, now=now)
            except IngestError:
                continue  # if the database is unavailable, the claim outlasts a few missed renewals
            self._claimed_until = now + LEASE_SECONDS


async def _attempt(job: Job, services: Services, report: Report, write: Write | None) -> Version | None:
    """Index the job's version and end the job, or queue it for another attempt."""
    try:
        version = await index_version(job.key, services, report, write)
    except ClaimLost:
        raise
    except Unreadable as exc:
        return await _fail(job, services, reason=exc.reason.value, detail=exc.detail)
    except NotFound:  # deleted while queued
        await services.job_claims.mark_failed(job, now=services.now())
        return None
    except OriginalChanged as exc:  # retrying would find the same wrong bytes, and they must not be indexed
        return await _fail(job, services, reason=exc.code, detail=exc.detail)
    except TRANSIENT as exc:
        log.warning("job_attempt_failed", job_id=job.id, attempt=job.attempts, error=type(exc).__name__)
        return await _try_later(exc, job, services)
    except Exception as exc:  # any other failure, which must not affect the next job
        log.exception("job_crashed", job_id=job.id, attempt=job.attempts)
        return await _try_later(exc, job, services)
    await services.job_claims.mark_done(job, now=services.now())
    services.metrics.documents.labels(outcome="indexed").inc()
    return version


async def _try_later(exc: Exception, job: Job, services: Services) -> Version | None:
    """Queue a job for another attempt, after three times the previous wait; give up after the last attempt."""
    if job.attempts >= MOST_ATTEMPTS:
        return await give_up(job, services, detail=f"{type(exc).__name__}: {exc}"[:400])
    wait = FIRST_WAIT_SECONDS * 3 ** (job.attempts - 1)
    await services.job_claims.requeue(job, delay=wait, now=services.now())
    return None


async def give_up(job: Job, services: Services, *, detail: str) -> Version:
    """Turn a job into a dead letter after MOST_ATTEMPTS; if its version is approved or withdrawn, only fail the job."""
    version = await _mark_version_failed(job, services, reason=UNAVAILABLE, detail=detail)
    if version.state is not State.FAILED:
        await services.job_claims.mark_failed(job, now=services.now())
        return version
    await services.job_claims.mark_dead(job, now=services.now())
    services.metrics.documents.labels(outcome="dead").inc()
    log.error("job_dead", job_id=job.id, document_id=job.key.document_id, version=job.key.version, detail=detail)
    return version


async def _fail(job: Job, services: Services, *, reason: str, detail: str) -> Version:
    """End a job and its version as failed, because of a fault that a retry would meet again."""
    version = await _mark_version_failed(job, services, reason=reason, detail=detail)
    await services.job_claims.mark_failed(job, now=services.now())
    services.metrics.documents.labels(outcome=reason).inc()
    log.info("document_failed", document_id=job.key.document_id, version=job.key.version, reason=reason)
    return version


async def _mark_version_failed(job: Job, services: Services, *, reason: str, detail: str) -> Version:
    await services.job_claims.renew(job, now=services.now())  # raises ClaimLost if another owner has the job
    return await services.catalogue.mark_failed(job.key, reason=reason, detail=detail)
