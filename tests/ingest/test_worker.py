"""The worker and its claims: what fails is tried again, what a worker leaves waits for the next."""

import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ingest.catalogue import ApprovalDecision, JobState, State
from ingest.errors import CatalogueUnavailable
from ingest.jobs import (
    LEASE_SECONDS,
    MOST_ATTEMPTS,
    ClaimLost,
    JobClaims,
)
from ingest.parsing import Chunking
from ingest.services import Services
from ingest.worker import Worker
from knowledge.storage import StoreClock
from tests.clock import Clock
from tests.ingest.documents import EndlessParser, receive

pytestmark = [pytest.mark.anyio, pytest.mark.services]


async def do_next(services: Services) -> None:
    """Claim the next job and do it, as a worker does."""
    job = await services.job_claims.claim_next(now=services.now())
    assert job is not None
    await Worker(services).do_job(job)


async def test_uploads_are_indexed_without_redis(services: Services) -> None:
    received = await receive(services)
    async with anyio.create_task_group() as group:
        group.start_soon(Worker(services).run)
        with anyio.fail_after(30):
            while (await services.catalogue.version(received.version.key)).state is not State.INDEXED:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()


@pytest.mark.both_databases
async def test_the_oldest_job_that_nobody_works_on_is_claimed_next(services: Services, clock: Clock) -> None:
    first = await receive(services)
    clock.now += 1
    second = await receive(services, b"# another\n\ntext")
    claimed = [await services.job_claims.claim_next(now=clock.now) for _ in range(3)]
    assert [job and job.id for job in claimed] == [first.job.id, second.job.id, None]
    again = await services.job_claims.claim_next(now=clock.now + LEASE_SECONDS)
    assert again is not None
    assert (again.id, again.attempts) == (first.job.id, 2)


@pytest.mark.both_databases
async def test_a_clock_that_was_two_days_ahead_blocks_no_job(services: Services, clock: Clock) -> None:
    received = await receive(services)
    ahead = clock.now + 2 * 86400.0
    dead = JobClaims(services.catalogue, "another")
    assert await dead.claim(received.job.id, now=ahead) is not None  # and dies; then the clock is set right
    claimed = await services.job_claims.claim_next(now=clock.now)
    assert claimed is not None
    assert await dead.claim(received.job.id, now=clock.now) is None, "a lease of today holds"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite's processes share the machine's clock
async def test_a_worker_whose_clock_is_two_days_ahead_steals_and_blocks_nothing(
    services: Services, engine: AsyncEngine
) -> None:
    here, ahead = StoreClock(engine), StoreClock(engine, machine=lambda: time.time() + 2 * 86400.0)
    for clock in (here, ahead):
        await clock.sync()
    running, left = await receive(services), await receive(services, b"# another\n\ntext")
    other = JobClaims(services.catalogue, "ahead")
    assert await services.job_claims.claim(running.job.id, now=here.now()) is not None
    assert await other.claim(running.job.id, now=ahead.now()) is None, "it is being done"
    assert await other.claim(left.job.id, now=ahead.now()) is not None
    assert await services.job_claims.claim(left.job.id, now=here.now() + LEASE_SECONDS - 5) is None
    assert await services.job_claims.claim(left.job.id, now=here.now() + LEASE_SECONDS + 0.5) is not None


@pytest.mark.both_databases
async def test_a_job_whose_worker_dies_each_time_is_a_dead_letter_until_it_is_retried(
    services: Services, clock: Clock
) -> None:
    received = await receive(services)
    for _ in range(MOST_ATTEMPTS):
        assert await services.job_claims.claim(received.job.id, now=clock.now) is not None
        clock.now += LEASE_SECONDS
    await do_next(services)
    job = await services.catalogue.job("hanbit", received.job.id)
    version = await services.catalogue.version(received.version.key)
    assert (job.state, version.state, version.reason) == (JobState.DEAD, State.FAILED, "unavailable")
    assert [j.id for j, _ in await services.catalogue.jobs("hanbit", JobState.DEAD, limit=9)] == [job.id]
    again = await services.job_claims.retry(job.id, tenant="hanbit", now=clock.now)
    assert (again.state, again.attempts) == (JobState.QUEUED, 0)
    await do_next(services)
    assert (await services.catalogue.version(received.version.key)).state is State.INDEXED


@pytest.mark.parametrize("is_dead_before", [True, False])
async def test_the_job_of_a_document_that_was_deleted_is_no_dead_letter(
    services: Services, clock: Clock, *, is_dead_before: bool
) -> None:
    received = await receive(services)
    for _ in range(MOST_ATTEMPTS):
        assert await services.job_claims.claim(received.job.id, now=clock.now) is not None
        clock.now += LEASE_SECONDS
    key = received.version.key
    if is_dead_before:
        await do_next(services)
        assert (await services.job_claims.backlog()).dead == 1
    await services.approvals.delete(key.tenant, key.document_id, ApprovalDecision(by="lee", at=clock.now))
    if not is_dead_before:
        await do_next(services)
    assert (await services.job_claims.backlog()).dead == 0
    assert (await services.catalogue.job(key.tenant, received.job.id)).state is JobState.FAILED


async def test_a_job_without_a_store_is_retried_three_times_ever_later(services: Services, clock: Clock) -> None:
    class Away:
        async def chunk(self, _path: Path, _chunking: Chunking) -> None:
            raise CatalogueUnavailable

    received = await receive(services)
    broken = replace(services, parser=Away())  # type: ignore[arg-type]  # what a part that is away does
    for wait in (2.0, 6.0):
        await do_next(broken)
        assert await services.job_claims.claim_next(now=clock.now + wait - 0.1) is None
        clock.now += wait
    await do_next(broken)
    assert (await services.catalogue.job("hanbit", received.job.id)).state is JobState.DEAD


@pytest.mark.both_databases
async def test_a_job_whose_process_ends_is_queued_again_without_an_attempt(services: Services, clock: Clock) -> None:
    received, scan = await receive(services), EndlessParser()
    leaving = Worker(replace(services, parser=scan))  # type: ignore[arg-type]  # a long scan
    async with anyio.create_task_group() as group:
        group.start_soon(leaving.run)
        with anyio.fail_after(30):
            await scan.begun.wait()
        group.cancel_scope.cancel()
    left = await services.catalogue.job("hanbit", received.job.id)
    assert (left.state, left.attempts) == (JobState.QUEUED, 0)
    job = await services.job_claims.claim(left.id, now=clock.now)
    assert job is not None
    await services.job_claims.mark_done(job, now=clock.now)
    with pytest.raises(ClaimLost):
        await services.job_claims.release(job, now=clock.now)
    assert (await services.catalogue.job("hanbit", job.id)).state is JobState.DONE
