"""The worker: does the jobs that Redis brings, and each few seconds looks in SQL for jobs that nobody works on.

It may run inside the API's process or by itself (`ingest worker`), in any number: a claim in SQL decides who does a
job. Tried three times without success a job is a dead letter, which staff list and retry (`ingest.api.routes.jobs`). A
worker whose embedder did not fill the collection that answers takes no jobs, and releases those it has.
"""

from contextlib import suppress

import anyio
import structlog

from ingest.catalogue import VersionKey
from ingest.errors import IngestError, QueueUnavailable
from ingest.job_runner import TRANSIENT, give_up, run_job
from ingest.jobs import MOST_ATTEMPTS, ClaimLost, JobBroker, JobClaims, RetryLater
from ingest.lost_passages import compare_index, restore_versions
from ingest.pipeline import write_pending_windows
from ingest.services import Services
from knowledge.index import EmbedderMismatch, IndexUnavailable
from telemetry.groups import first_failure
from telemetry.supervision import contained, supervise

SWEEP_SECONDS = 5.0
SILENT_SECONDS = 10.0
LATE_SECONDS = 60.0
"""A write to the index that began before a decision has ended so long after it, or its process has."""
LOOKED_BACK = 500
"""How many decisions before its start a worker looks at."""
RECONNECT_SECONDS = 1.0
EMBEDDER_CHECK_SECONDS = 1.0
COMPARE_SECONDS = 60.0

log = structlog.get_logger(__name__)


class Worker:
    """Receives jobs and brings their versions into the index."""

    def __init__(self, services: Services, broker: JobBroker) -> None:
        self._services = services
        self._broker = broker

    async def run(self) -> None:
        """Work until cancelled."""
        async with anyio.create_task_group() as tasks:
            for name, work in (
                ("receive", self._receive),
                ("sweep", self._sweep),
                ("compare_index", self._compare_index),
            ):
                tasks.start_soon(supervise, name, work, self._services.metrics.task_failed)

    async def _receive(self) -> None:
        while True:
            try:
                await self._services.index.require_current()
                with first_failure():
                    async with anyio.create_task_group() as beside:
                        beside.start_soon(self._require_current_embedder)
                        await self._broker.receive(self.do_job, at_once=self._services.settings.at_once)
            except (QueueUnavailable, IndexUnavailable) as exc:
                log.warning("jobs_not_taken", error=type(exc).__name__)
            except EmbedderMismatch as exc:
                log.error("jobs_left_to_others", detail=str(exc))  # noqa: TRY400  the sentence says it
                await anyio.sleep(SWEEP_SECONDS)
            await anyio.sleep(RECONNECT_SECONDS)

    async def _require_current_embedder(self) -> None:
        """Check each second that our embedder filled the collection that answers, for ever.

        Raises:
            EmbedderMismatch: another one did; nobody would read what is written here.
        """
        while True:
            await anyio.sleep(EMBEDDER_CHECK_SECONDS)
            with suppress(IndexUnavailable):
                await self._services.index.require_current()

    async def do_job(self, job_id: str) -> None:
        """Do a delivered job; the next one does not suffer for its failures.

        Raises:
            RetryLater: another owner has it, it waits for its next attempt, or the database is away.
        """
        wait: float | None = SWEEP_SECONDS
        with contained("job", self._services.metrics.task_failed):
            wait = await self._attempt(job_id)
        if wait is not None:
            raise RetryLater(wait)

    async def _attempt(self, job_id: str) -> float | None:
        """Do a job that nobody else has; return the seconds until it may be tried again, if it is to be."""
        job_claims = self._services.job_claims
        try:
            job = await job_claims.claim(job_id, now=self._services.now())
            if job is not None and job.attempts > MOST_ATTEMPTS:
                await give_up(job, self._services, detail="its worker died each time")
            elif job is not None:
                await run_job(job, self._services)
            return await job_claims.claimable_in(job_id, now=self._services.now())
        except (IngestError, ClaimLost) as exc:
            log.warning("job_not_done", job_id=job_id, error=type(exc).__name__)
            return SWEEP_SECONDS

    async def _sweep(self) -> None:
        """Send jobs that nobody works on and write windows that a crash kept from the index, for ever."""
        decisions: int | None = None
        while True:
            try:
                decisions = await look_at_decisions(self._services, after=decisions)
                await write_pending_windows(self._services)
                await send_pending(
                    self._services.job_claims, self._broker, now=self._services.now(), silent_for=SILENT_SECONDS
                )
            except TRANSIENT as exc:
                log.warning("sweep_failed", error=type(exc).__name__)
            await anyio.sleep(SWEEP_SECONDS)

    async def _compare_index(self) -> None:
        """Compare the index with SQL at the start and every minute, and restore what it lacked twice, until cancelled.

        Once proves no loss: a version may be written at this moment, or a node of a cluster may lag behind.
        """
        services, lost_before = self._services, frozenset[VersionKey]()
        while True:
            begun = services.now()
            try:
                lost = frozenset(await compare_index(services))
                if lost & lost_before:
                    await restore_versions(lost & lost_before, services, until=begun + COMPARE_SECONDS)
                lost_before = lost
            except EmbedderMismatch as exc:
                log.error("passages_not_restored", detail=str(exc))  # noqa: TRY400  the sentence says it
            except TRANSIENT as exc:
                log.warning("index_comparison_failed", error=type(exc).__name__)
            await anyio.sleep(max(RECONNECT_SECONDS, begun + COMPARE_SECONDS - services.now()))


async def look_at_decisions(services: Services, *, after: int | None) -> int:
    """Have windows written again that a late writer may have spoiled before it died; return the last decision seen.

    `after` is the last one that was seen before (None: none was yet).
    """
    catalogue = services.catalogue
    if after is None:
        after = max(0, await catalogue.last_decision() - LOOKED_BACK)
    return await catalogue.unconfirm_windows_decided_again(after=after, until=services.now() - LATE_SECONDS)


async def send_pending(job_claims: JobClaims, broker: JobBroker, *, now: float, silent_for: float) -> int:
    """Send the jobs that wait and were not changed for `silent_for` seconds; return how many.

    Raises:
        CatalogueUnavailable, QueueUnavailable: as the claims and the broker.
    """
    jobs = await job_claims.pending(now=now, silent_for=silent_for)
    if jobs:
        await broker.send(jobs)
    return len(jobs)
