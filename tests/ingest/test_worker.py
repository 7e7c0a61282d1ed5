"""The worker and its claims: what fails is tried again, what a worker leaves waits for the next."""

import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from pydantic import SecretStr
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from ingest.__main__ import all_jobs, retry_dead
from ingest.bulk import SourceFile
from ingest.catalogue import JOBS, ApprovalDecision, Job, JobState, State
from ingest.errors import CatalogueUnavailable, QueueUnavailable
from ingest.jobs import (
    LEASE_SECONDS,
    MOST_ATTEMPTS,
    ClaimLost,
    JobBroker,
    JobBrokerSettings,
    JobClaims,
    Owner,
    RetryLater,
    deliver,
    this_process,
)
from ingest.parsing import Chunking, ParserSettings, open_readers
from ingest.services import Services
from ingest.worker import SWEEP_SECONDS, Worker, send_pending
from knowledge.storage import StoreClock
from tests.clock import Clock
from tests.conftest import free_port
from tests.constants import with_constants
from tests.ingest.documents import load_files, receive
from tests.ingest.taken_over import PROGRAM as TAKEN_OVER

pytestmark = [pytest.mark.anyio, pytest.mark.services]


def broker_of(services: Services) -> JobBroker:
    assert services.job_broker is not None
    return services.job_broker


async def test_an_upload_without_redis_is_refused_and_its_job_is_done_when_redis_is_back(services: Services) -> None:
    received = await receive(services)
    gone = JobBroker(SecretStr(f"redis://127.0.0.1:{free_port()}"), with_constants(JobBrokerSettings(), deadline=1.0))
    with pytest.raises(QueueUnavailable):
        await deliver(received.job, gone)
    await run_until_finished(services, received.job.id)
    assert (await services.catalogue.version(received.version.key)).state is State.INDEXED


async def run_until_finished(services: Services, job_id: str) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(Worker(services, broker_of(services)).run)
        assert await send_now(services) == 1
        with anyio.fail_after(30):
            while await services.job_claims.claimable_in(job_id, now=services.now()) is not None:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()


async def send_now(services: Services) -> int:
    return await send_pending(services.job_claims, broker_of(services), now=services.now(), silent_for=0)


@pytest.mark.both_databases
async def test_pending_jobs_are_those_that_nobody_works_on(services: Services, clock: Clock) -> None:
    received = await receive(services)
    assert await services.job_claims.pending(now=clock.now, silent_for=10) == []
    assert await services.job_claims.pending(now=clock.now + 10, silent_for=10) == [received.job.id]
    assert await services.job_claims.claim(received.job.id, now=clock.now) is not None
    assert await services.job_claims.pending(now=clock.now + 20, silent_for=10) == []
    assert await services.job_claims.pending(now=clock.now + LEASE_SECONDS, silent_for=10) == [received.job.id]


@pytest.mark.both_databases
async def test_a_clock_that_was_two_days_ahead_blocks_no_job(services: Services, clock: Clock) -> None:
    received = await receive(services)
    ahead = clock.now + 2 * 86400.0
    dead = JobClaims(services.catalogue, Owner(host="another", process=1, start="a"))
    assert await dead.claim(received.job.id, now=ahead) is not None  # and dies; then the clock is set right
    assert await services.job_claims.pending(now=clock.now, silent_for=10) == [received.job.id]
    assert await services.job_claims.claimable_in(received.job.id, now=clock.now) == 0
    claimed = await services.job_claims.claim(received.job.id, now=clock.now)
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
    other = JobClaims(services.catalogue, Owner(host="ahead", process=1, start="a"))
    assert await services.job_claims.claim(running.job.id, now=here.now()) is not None
    assert await other.claim(running.job.id, now=ahead.now()) is None, "it is being done"
    assert await other.claim(left.job.id, now=ahead.now()) is not None
    wait = await services.job_claims.claimable_in(left.job.id, now=here.now())
    assert wait is not None
    assert LEASE_SECONDS - 5 < wait <= LEASE_SECONDS + 0.5


@pytest.mark.both_databases
async def test_a_job_whose_worker_dies_each_time_is_a_dead_letter_until_somebody_wants_it_again(
    services: Services, clock: Clock
) -> None:
    received = await receive(services)
    for _ in range(MOST_ATTEMPTS):
        assert await services.job_claims.claim(received.job.id, now=clock.now) is not None
        clock.now += LEASE_SECONDS
    worker = Worker(services, broker_of(services))
    await worker.do_job(received.job.id)
    job = await services.catalogue.job("hanbit", received.job.id)
    version = await services.catalogue.version(received.version.key)
    assert (job.state, version.state, version.reason) == (JobState.DEAD, State.FAILED, "unavailable")
    assert [j.id for j, _ in await services.catalogue.jobs("hanbit", JobState.DEAD, limit=9)] == [job.id]
    again = await services.job_claims.retry(job.id, tenant="hanbit", now=clock.now)
    assert (again.state, again.attempts) == (JobState.QUEUED, 0)
    await worker.do_job(job.id)
    assert (await services.catalogue.version(received.version.key)).state is State.INDEXED


async def test_the_command_lists_and_retries_all_jobs_and_not_the_first_query_s(services: Services) -> None:
    received = [await receive(services, f"# {n}\n\ntext".encode()) for n in range(5)]
    listed = await all_jobs(services.catalogue, "hanbit", JobState.QUEUED, a_query=2)
    assert [job.id for job, _ in listed] == sorted(one.job.id for one in received)
    assert {version.key for _, version in listed} == {one.version.key for one in received}


@pytest.mark.both_databases
@pytest.mark.parametrize("is_dead_before", [True, False])
async def test_the_job_of_a_document_that_was_deleted_is_no_dead_letter(
    services: Services, clock: Clock, *, is_dead_before: bool
) -> None:
    received = await receive(services)
    for _ in range(MOST_ATTEMPTS):
        assert await services.job_claims.claim(received.job.id, now=clock.now) is not None
        clock.now += LEASE_SECONDS
    worker, key = Worker(services, broker_of(services)), received.version.key
    if is_dead_before:
        await worker.do_job(received.job.id)
        assert (await services.job_claims.backlog()).dead == 1
    await services.approvals.delete(key.tenant, key.document_id, ApprovalDecision(by="lee", at=clock.now))
    await worker.do_job(received.job.id)
    assert (await services.job_claims.backlog()).dead == 0
    assert (await services.catalogue.job(key.tenant, received.job.id)).state is JobState.FAILED


@pytest.mark.both_databases
async def test_a_dead_letter_of_a_version_withdrawn_before_or_meanwhile_waits_for_nobody(
    services: Services, clock: Clock
) -> None:
    withdrawn, wanted = [await receive(services, f"# {n}\n\ntext".encode()) for n in range(2)]
    key = withdrawn.version.key
    await services.approvals.delete(key.tenant, key.document_id, ApprovalDecision(by="lee", at=clock.now))
    await services.catalogue.mark_failed(wanted.version.key, reason="unavailable", detail="")
    async with services.catalogue.write() as connection:  # as an earlier release left it, or a job that ends meanwhile
        await connection.execute(update(JOBS).values(state=JobState.DEAD))
    assert (await services.job_claims.backlog()).dead == 1
    again, passed_over = await retry_dead(services.catalogue, services.job_claims, key.tenant, now=clock.now)
    assert ([job.id for job in again], passed_over) == ([wanted.job.id], 1)
    assert (await services.job_claims.backlog()).dead == 0


async def test_a_part_of_ours_that_is_away_is_waited_for_longer_each_time_and_three_times_at_most(
    services: Services, clock: Clock
) -> None:
    class Away:
        async def chunk(self, _path: Path, _chunking: Chunking) -> None:
            raise CatalogueUnavailable

    received = await receive(services)
    broken = replace(services, parser=Away())  # type: ignore[arg-type]  # what a part that is away does
    worker, waits = Worker(broken, broker_of(services)), []
    for _ in range(MOST_ATTEMPTS - 1):
        with pytest.raises(RetryLater) as later:
            await worker.do_job(received.job.id)
        waits.append(later.value.seconds)
        clock.now += later.value.seconds
    await worker.do_job(received.job.id)
    assert waits == [2.0, 6.0]
    assert (await services.catalogue.job("hanbit", received.job.id)).state is JobState.DEAD


@pytest.mark.both_databases
async def test_a_job_whose_process_leaves_waits_for_the_next_as_if_it_had_not_begun(
    services: Services, clock: Clock
) -> None:
    begun = anyio.Event()

    class Endless:
        async def chunk(self, _path: Path, _chunking: Chunking) -> None:
            begun.set()
            await anyio.sleep_forever()

    received = await receive(services)
    leaving = Worker(replace(services, parser=Endless()), broker_of(services))  # type: ignore[arg-type]  # a long scan
    async with anyio.create_task_group() as group:
        group.start_soon(leaving.run)
        await send_now(services)
        with anyio.fail_after(30):
            await begun.wait()
        group.cancel_scope.cancel()
    left = await services.catalogue.job("hanbit", received.job.id)
    assert (left.state, left.attempts) == (JobState.QUEUED, 0)
    job = await services.job_claims.claim(left.id, now=clock.now)
    assert job is not None
    await services.job_claims.mark_done(job, now=clock.now)
    with pytest.raises(ClaimLost):
        await services.job_claims.release(job, now=clock.now)
    assert (await services.catalogue.job("hanbit", job.id)).state is JobState.DONE


class Away(JobClaims):
    """The claims of a process whose database is away when a job ends, or before it begins."""

    before: bool = False

    async def claim(self, job_id: str, *, now: float) -> Job | None:
        if self.before:
            raise CatalogueUnavailable
        return await super().claim(job_id, now=now)

    async def mark_done(self, job: Job, *, now: float) -> None:  # noqa: ARG002  as in JobClaims
        raise CatalogueUnavailable


async def test_a_database_that_is_away_when_a_job_ends_is_waited_for(services: Services) -> None:
    received = await receive(services)
    broken = replace(services, job_claims=Away(services.catalogue, this_process()))
    with pytest.raises(RetryLater) as later:
        await Worker(broken, broker_of(services)).do_job(received.job.id)
    assert later.value.seconds == SWEEP_SECONDS


async def test_an_outage_in_a_load_is_the_reason_of_its_file(services: Services, tmp_path: Path) -> None:
    (file := tmp_path / "a.md").write_text("# 안내\n\n예금 안내입니다.", "utf-8")
    away = Away(services.catalogue, this_process())
    away.before = True
    (outcome,) = await load_files(replace(services, job_claims=away), [SourceFile(path=file, name="a")])
    assert outcome.reason == "unavailable"


async def test_a_long_file_leaves_the_worker_to_short_ones_and_its_claim_to_others(
    services: Services, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    settings = with_constants(ParserSettings(processes=2), long_seconds=0.001)
    scans = [await receive(services, f"long {gate} {n}".encode()) for n in range(3)]
    short = await receive(services)
    broker = broker_of(services)
    async with open_readers(settings, TAKEN_OVER, gives_back=True) as readers:
        pipeline = services.settings.model_copy(update={"at_once": 2})
        worker = Worker(replace(services, parser=readers, settings=pipeline), broker)
        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            for received in (*scans, short):
                await broker.send([received.job.id])
            with anyio.fail_after(60):
                while (await services.catalogue.version(short.version.key)).state is not State.INDEXED:
                    await anyio.sleep(0.01)
            jobs = [await services.catalogue.job("hanbit", received.job.id) for received in scans]
            group.cancel_scope.cancel()
    assert sum(job.attempts for job in jobs) <= 2, "who found no room has not been tried"
