"""The worker: claims jobs in SQL and runs them; repairs index writes that crashes or outages prevented.

Any number of workers can run, inside the API's process or separately (`ingest worker`). After three failed attempts a
job becomes a dead letter, which staff list and retry (`ingest.api.routes.jobs`). A worker whose embedder did not fill
the live collection takes no jobs and releases those it has.
"""

from contextlib import suppress

import anyio
import structlog
from anyio.abc import TaskGroup

from ingest.catalogue import Job, VersionKey
from ingest.errors import CatalogueUnavailable, IngestError
from ingest.job_runner import TRANSIENT, give_up, run_job
from ingest.jobs import MOST_ATTEMPTS, ClaimLost
from ingest.lost_passages import compare_index, restore_versions
from ingest.pipeline import write_pending_windows
from ingest.services import Services
from knowledge.index import EmbedderMismatch, IndexUnavailable
from telemetry.groups import first_failure
from telemetry.supervision import contained, supervise

SWEEP_SECONDS = 5.0
POLL_SECONDS = 0.5
LATE_SECONDS = 60.0  # an index write that is running when a decision is made finishes within this time
MOST_EARLIER_DECISIONS = 500  # a worker also checks this many decisions that precede its start
RECONNECT_SECONDS = 1.0
EMBEDDER_CHECK_SECONDS = 1.0
COMPARE_SECONDS = 60.0

log = structlog.get_logger(__name__)


class Worker:
    """Claim jobs and index their versions."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def run(self) -> None:
        """Run jobs, write pending windows and compare the index with SQL, until cancelled."""
        async with anyio.create_task_group() as tasks:
            for name, work in (
                ("take_jobs", self._take_jobs),
                ("sweep", self._sweep),
                ("compare_index", self._compare_index),
            ):
                tasks.start_soon(supervise, name, work, self._services.metrics.task_failed)

    async def _take_jobs(self) -> None:
        """Run up to `at_once` jobs concurrently, until cancelled; none while the index has another embedder."""
        while True:
            try:
                await self._services.index.require_current()
                with first_failure():
                    async with anyio.create_task_group() as group:
                        group.start_soon(self._require_current_embedder)
                        await self._run_jobs(group)
            except IndexUnavailable as exc:
                log.warning("job_claim_failed", error=type(exc).__name__)
            except EmbedderMismatch as exc:
                log.error("embedder_mismatch_not_taking_jobs", detail=str(exc))  # noqa: TRY400  the detail is enough
                await anyio.sleep(SWEEP_SECONDS)
            await anyio.sleep(RECONNECT_SECONDS)

    async def _run_jobs(self, group: TaskGroup) -> None:
        """Claim jobs and run them in the task group, until cancelled."""
        capacity = anyio.Semaphore(self._services.settings.at_once)

        async def run_job_and_release(job: Job) -> None:
            try:
                await self.do_job(job)
            finally:
                capacity.release()

        while True:
            await capacity.acquire()
            job = await self._claim_next_job()
            if job is not None:
                group.start_soon(run_job_and_release, job)
            else:
                capacity.release()
                await anyio.sleep(POLL_SECONDS)

    async def _claim_next_job(self) -> Job | None:
        try:
            return await self._services.job_claims.claim_next(now=self._services.now())
        except CatalogueUnavailable as exc:
            log.warning("job_claim_failed", error=type(exc).__name__)
            return None

    async def _require_current_embedder(self) -> None:
        """Wait until the live collection has another embedder's vectors, and raise EmbedderMismatch.

        Searches would not find the passages of this process's embedder.
        """
        while True:
            await anyio.sleep(EMBEDDER_CHECK_SECONDS)
            with suppress(IndexUnavailable):
                await self._services.index.require_current()

    async def do_job(self, job: Job) -> None:
        """Run a claimed job; contain its failures so that they don't affect the next one."""
        with contained("job", self._services.metrics.task_failed):
            try:
                if job.attempts > MOST_ATTEMPTS:
                    await give_up(job, self._services, detail="its worker died each time")
                else:
                    await run_job(job, self._services)
            except (IngestError, ClaimLost) as exc:  # the claim expires, and the job is claimed again
                log.warning("job_update_failed", job_id=job.id, error=type(exc).__name__)

    async def _sweep(self) -> None:
        """Write windows that the index lacks after a crash or an outage, until cancelled."""
        last_decision: int | None = None
        while True:
            try:
                last_decision = await queue_overwritten_windows(self._services, after=last_decision)
                await write_pending_windows(self._services)
            except TRANSIENT as exc:
                log.warning("validity_window_sync_failed", error=type(exc).__name__)
            await anyio.sleep(SWEEP_SECONDS)

    async def _compare_index(self) -> None:
        """Compare the index with SQL now and every minute; restore versions that twice in a row lack passages.

        A single mismatch is not a loss: a version may be being written, or a cluster node may lag behind.
        """
        services = self._services
        missing_before = frozenset[VersionKey]()
        while True:
            started_at = services.now()
            try:
                missing = frozenset(await compare_index(services))
                if missing & missing_before:
                    await restore_versions(missing & missing_before, services, until=started_at + COMPARE_SECONDS)
                missing_before = missing
            except EmbedderMismatch as exc:
                log.error("passage_restore_failed", detail=str(exc))  # noqa: TRY400  the detail is enough
            except TRANSIENT as exc:
                log.warning("index_comparison_failed", error=type(exc).__name__)
            await anyio.sleep(max(RECONNECT_SECONDS, started_at + COMPARE_SECONDS - services.now()))


async def queue_overwritten_windows(services: Services, *, after: int | None) -> int:
    """Queue the windows that a late writer may have overwritten; return the id of the last decision checked.

    `after` is the id that the previous call returned; None at the start.
    """
    catalogue = services.catalogue
    if after is None:
        after = max(0, await catalogue.last_decision() - MOST_EARLIER_DECISIONS)
    return await catalogue.unconfirm_windows_decided_again(after=after, until=services.now() - LATE_SECONDS)
