"""Does one claimed job to its end: keeps the claim, reports how far it is, tries again what may pass by itself.

A fault of the file ends its job at once, with the reason. A fault of ours (index, embedder or database away) is tried
three times, each wait three times as long as the one before; then the job is a dead letter.

A file that takes long goes back to all workers, as if it had not been begun, while this one reads such files already.

A worker that stands still for longer than its claim holds finds it lost when it goes on: before each write it looks,
and what it was writing at that moment is put right by `finish_windows`.
"""

import math
import time
from collections.abc import Callable
from contextlib import suppress

import anyio
import structlog

from ingest.catalogue import Job, Stage, Version
from ingest.errors import IngestError, NotFound
from ingest.jobs import LEASE_SECONDS, MOST_ATTEMPTS, RENEW_SECONDS, ClaimLost
from ingest.parsing import Occupied, Unreadable
from ingest.pipeline import Report, Write, take_in
from ingest.services import Services
from knowledge.embedding import EmbeddingUnavailable
from knowledge.index import IndexUnavailable as IndexAway
from telemetry.groups import first_failure

FIRST_WAIT_SECONDS = 2.0
REPORT_SECONDS = 0.5
"""Those who watch a job's row see it move twice a second at most."""
OCCUPIED_SECONDS = 5.0
"""After which a long file is tried again, here or at another worker."""
OURS = (IngestError, IndexAway, EmbeddingUnavailable)
"""What may pass by itself: the job is tried again."""

log = structlog.get_logger(__name__)


Watch = Callable[[Stage, int, int], None]


def unwatched(_stage: Stage, _done: int, _total: int) -> None:
    """Show nobody how far a job is."""


async def run_job(job: Job, services: Services, watch: Watch = unwatched, write: Write | None = None) -> Version | None:
    """Do a claimed job to its end; None where it has to be tried again later, or is somebody else's by now."""
    claim, version = _Claim(job, services, watch), None
    try:
        with first_failure():
            async with anyio.create_task_group() as beside:
                beside.start_soon(claim.keep)
                version = await _attempt(job, services, claim.report, write)
                beside.cancel_scope.cancel()
    except ClaimLost:
        log.warning("claim_lost", job_id=job.id)
        # A write that was under way hid its passages again, and somebody may have approved them meanwhile.
        await services.catalogue.doubt_window(job.key)
        return None
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True):  # as long as a transaction may take, and its turn before it
            await _let_go(job, services)
        raise
    return version


async def _let_go(job: Job, services: Services) -> None:
    """Leave a job to others at once, because this process ends."""
    with suppress(IngestError):  # the database is away: the claim lapses by itself
        try:
            await services.queue.release(job, now=services.now())
        except ClaimLost:
            await services.catalogue.doubt_window(job.key)


class _Claim:
    """A claimed job as long as it is done: its reports reach its row twice a second, and its claim is kept."""

    def __init__(self, job: Job, services: Services, watch: Watch) -> None:
        self._job = job
        self._services = services
        self._watch = watch
        self._until = job.updated_at + LEASE_SECONDS  # the bank's clock: a machine's own stops while it is suspended
        self._reported = -math.inf

    async def report(self, stage: Stage, done: int, total: int) -> None:
        """Show how far the job is.

        Raises:
            ClaimLost: the lease has passed, and somebody else has the job.
        """
        self._watch(stage, done, total)
        now = self._services.now()
        if now < self._until and time.monotonic() - self._reported < REPORT_SECONDS:
            return
        self._reported = time.monotonic()
        await self._services.queue.report(self._job, stage=stage, done=done, total=total, now=now)
        self._until = now + LEASE_SECONDS

    async def keep(self) -> None:
        """Renew the claim for ever.

        Raises:
            ClaimLost: somebody else has the job; what runs beside this ends.
        """
        while True:
            await anyio.sleep(RENEW_SECONDS)
            now = self._services.now()
            try:
                await self._services.queue.renew(self._job, now=now)
            except IngestError:
                continue  # the next renewal, or the job's own writes, will tell
            self._until = now + LEASE_SECONDS


async def _attempt(job: Job, services: Services, report: Report, write: Write | None) -> Version | None:
    try:
        version = await take_in(job.key, services, report, write)
    except ClaimLost:
        raise
    except Unreadable as exc:
        return await _fail(job, services, reason=exc.reason.value, detail=exc.detail)
    except NotFound:  # deleted while it waited
        await services.queue.failed(job, now=services.now())
        return None
    except Occupied:
        await services.queue.release(job, after=OCCUPIED_SECONDS, now=services.now())
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
    await services.queue.renew(job, now=services.now())  # nobody else's draft fails
    version = await services.catalogue.failed(job.key, reason="unavailable", detail=detail)
    await services.queue.bury(job, now=services.now())
    services.metrics.documents.labels(outcome="dead").inc()
    log.error("job_dead", job_id=job.id, document_id=job.key.document_id, version=job.key.version, detail=detail)
    return version


async def _fail(job: Job, services: Services, *, reason: str, detail: str) -> Version:
    await services.queue.renew(job, now=services.now())  # nobody else's draft fails
    version = await services.catalogue.failed(job.key, reason=reason, detail=detail)
    await services.queue.failed(job, now=services.now())
    services.metrics.documents.labels(outcome=reason).inc()
    log.info("document_failed", document_id=job.key.document_id, version=job.key.version, reason=reason)
    return version
