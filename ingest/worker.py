"""The worker: does the jobs that Redis brings, and each few seconds looks in SQL for what nobody works on.

It may run inside the API's process or by itself (`ingest worker`), as often as wanted: a claim in SQL decides who does
a job. Tried three times without success a job is a dead letter, listed and done again by staff
(`ingest.api.routes.jobs`). A worker whose embedder did not fill the collection that answers takes no jobs, and lets go
of those it has.
"""

from contextlib import aclosing, suppress

import anyio
import structlog

from ingest.errors import IngestError, QueueUnavailable
from ingest.job_runner import OURS, bury, run_job
from ingest.jobs import MOST_ATTEMPTS, ClaimLost, JobBroker, Later
from ingest.pipeline import finish_windows
from ingest.services import Services
from knowledge.index import EmbedderMismatch, IndexUnavailable
from telemetry.groups import first_failure

SWEEP_SECONDS = 5.0
SILENT_SECONDS = 10.0
RECONNECT_SECONDS = 1.0
LOOK_SECONDS = 1.0
ORPHAN_SECONDS = 3600.0
"""After which an original that no version names was left by an upload that came to nothing."""
ORPHANS_BELIEVED = 100
ORPHANS_SHARE = 0.1

log = structlog.get_logger(__name__)


class Worker:
    """Takes jobs and brings their versions into the index."""

    def __init__(self, services: Services, delivery: JobBroker) -> None:
        self._services = services
        self._delivery = delivery

    async def run(self) -> None:
        """Work until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._receive)
            tasks.start_soon(self._sweep)
            tasks.start_soon(self._tidy)

    async def _receive(self) -> None:
        while True:
            try:
                await self._services.index.require_current()
                with first_failure():
                    async with anyio.create_task_group() as beside:
                        beside.start_soon(self._stay_current)
                        await self._delivery.receive(self._work, at_once=self._services.settings.at_once)
            except (QueueUnavailable, IndexUnavailable) as exc:
                log.warning("jobs_not_taken", error=type(exc).__name__)
            except EmbedderMismatch as exc:
                log.error("jobs_left_to_others", detail=str(exc))  # noqa: TRY400  the sentence says it
                await anyio.sleep(SWEEP_SECONDS)
            await anyio.sleep(RECONNECT_SECONDS)

    async def _stay_current(self) -> None:
        """Look each second who filled what answers, for ever.

        Raises:
            EmbedderMismatch: another embedder; nobody would read what is written here.
        """
        while True:
            await anyio.sleep(LOOK_SECONDS)
            with suppress(IndexUnavailable):
                await self._services.index.require_current()

    async def _work(self, job_id: str) -> None:
        """Do one job.

        Raises:
            Later: somebody else is at it, it waits for its next try, or the database is away.
        """
        queue, now = self._services.queue, self._services.now()
        try:
            job = await queue.claim(job_id, now=now)
            if job is not None and job.attempts > MOST_ATTEMPTS:
                await bury(job, self._services, detail="its worker died each time")
            elif job is not None:
                await run_job(job, self._services)
            wait = await queue.claimable_in(job_id, now=self._services.now())
        except (IngestError, ClaimLost) as exc:
            raise Later(SWEEP_SECONDS) from exc
        if wait is not None:
            raise Later(wait)

    async def _sweep(self) -> None:
        """Send what nobody works on and write what a crash kept from the index, for ever."""
        while True:
            try:
                await finish_windows(self._services)
                await send_pending(self._services, self._delivery, silent_for=SILENT_SECONDS)
            except OURS as exc:
                log.warning("sweep_failed", error=type(exc).__name__)
            await anyio.sleep(SWEEP_SECONDS)

    async def _tidy(self) -> None:
        while True:
            try:
                await discard_orphans(self._services)
            except IngestError as exc:
                log.warning("orphans_not_discarded", error=exc.code)
            await anyio.sleep(ORPHAN_SECONDS)


async def discard_orphans(services: Services) -> int:
    """Remove originals that no version names, and drafts: their upload came to nothing. Return how many originals.

    Where a large part of the store is nobody's, the database is not its own (another one, or one that is yet to be
    restored), and nothing is removed.

    Raises:
        CatalogueUnavailable, StorageUnavailable: see there.
    """
    before, seen, orphans = services.now() - ORPHAN_SECONDS, 0, set[str]()
    async with aclosing(services.blobs.stored_before(before)) as stored:
        async for digests in stored:
            seen += len(digests)
            orphans |= set(digests) - await services.catalogue.contents(digests)
    if len(orphans) > max(ORPHANS_BELIEVED, seen * ORPHANS_SHARE):
        log.error("orphans_not_believed", orphans=len(orphans), originals=seen)
        return 0
    await services.blobs.discard_drafts(before)
    return sum([await _discard(digest, services) for digest in orphans])


async def _discard(digest: str, services: Services) -> bool:
    async with services.catalogue.unnamed(digest) as is_orphan:
        return is_orphan and await services.blobs.discard(digest, older_than=ORPHAN_SECONDS)


async def send_pending(services: Services, delivery: JobBroker, *, silent_for: float) -> int:
    """Send the jobs that wait and that nobody has touched for so many seconds; return how many.

    Raises:
        CatalogueUnavailable, QueueUnavailable: see there.
    """
    jobs = await services.queue.pending(now=services.now(), silent_for=silent_for)
    if jobs:
        await delivery.send(jobs)
    return len(jobs)
