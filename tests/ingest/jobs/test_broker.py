"""Redis brings ids of jobs; what it loses is sent again, and without it no upload is said to be accepted."""

import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from pydantic import SecretStr

from evals.redis_program import redis_program
from ingest.bulk import LoadOrder, Offering, load
from ingest.catalogue import Job, JobState, State
from ingest.errors import CatalogueUnavailable, QueueUnavailable
from ingest.jobs.broker import JobBroker, JobBrokerSettings, Later, deliver
from ingest.jobs.claims import LEASE_SECONDS, MOST_ATTEMPTS, ClaimLost, JobClaims, this_process
from ingest.parsing import ParserSettings, open_readers
from ingest.services import Services
from ingest.worker import SWEEP_SECONDS, Worker, send_pending
from tests.conftest import free_port, wait_until_answering
from tests.ingest.conftest import Clock, Unseen
from tests.ingest.parsing.test_process import TAKEN_OVER
from tests.ingest.test_pipeline import hand_in
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.services]


@pytest.fixture
def delivery(redis_url: str) -> JobBroker:
    return JobBroker(SecretStr(redis_url), JobBrokerSettings(queue=f"test-{uuid4().hex}", idle=1.0))


class Heard:
    """Notes what is delivered, and fails as it is told."""

    def __init__(self, *faults: Exception) -> None:
        self.jobs: list[str] = []
        self.faults = list(faults)

    async def __call__(self, job_id: str) -> None:
        self.jobs.append(job_id)
        if self.faults:
            raise self.faults.pop(0)

    async def until(self, count: int) -> None:
        with anyio.fail_after(20):
            while len(self.jobs) < count:
                await anyio.sleep(0.01)


@asynccontextmanager
async def receiving(delivery: JobBroker, heard: Heard) -> AsyncGenerator[None]:
    async with anyio.create_task_group() as group:

        async def receive() -> None:
            await delivery.receive(heard, at_once=2)

        group.start_soon(receive)
        yield
        group.cancel_scope.cancel()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A Redis of the test's own, that may be stopped."""
    port = free_port()
    with subprocess.Popen([redis_program(), "--port", str(port), "--dir", str(tmp_path), "--save", ""]) as server:  # noqa: S603
        url = f"redis://127.0.0.1:{port}/0"
        wait_until_answering(url, server)
        yield url, server
        server.send_signal(signal.SIGCONT)
        server.kill()


async def test_what_is_sent_is_delivered_once_and_can_be_sent_again_when_it_is_done(delivery: JobBroker) -> None:
    heard = Heard()
    await delivery.send(["a", "b"])
    await delivery.send(["a"])
    async with receiving(delivery, heard):
        await heard.until(2)
        await delivery.send(["c"])
        await heard.until(3)
        assert sorted(heard.jobs) == ["a", "b", "c"]
        with anyio.fail_after(20):
            while heard.jobs.count("a") < 2:
                await delivery.send(["a"])


async def test_a_job_that_cannot_be_done_now_comes_later(delivery: JobBroker) -> None:
    heard = Heard(Later(0.2))
    await delivery.send(["a"])
    async with receiving(delivery, heard):
        await heard.until(2)


async def test_what_a_worker_that_leaves_was_doing_goes_to_the_next(delivery: JobBroker) -> None:
    begun = anyio.Event()

    async def forever(_job_id: str) -> None:
        begun.set()
        await anyio.sleep_forever()

    await delivery.send(["a"])
    async with anyio.create_task_group() as group:

        async def receive() -> None:
            await delivery.receive(forever, at_once=1)

        group.start_soon(receive)
        with anyio.fail_after(20):
            await begun.wait()
        group.cancel_scope.cancel()
    heard = Heard()
    async with receiving(delivery, heard):
        await heard.until(1)


@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_without_redis_sending_fails_within_its_deadline(
    own_redis: tuple[str, "subprocess.Popen[bytes]"], how: signal.Signals
) -> None:
    url, server = own_redis
    delivery = JobBroker(SecretStr(url), JobBrokerSettings(deadline=1.0))
    await delivery.send(["a"])
    server.send_signal(how)
    begun = time.monotonic()
    with pytest.raises(QueueUnavailable):
        await delivery.send(["b"])
    assert time.monotonic() - begun < patient(2.0)


@pytest.mark.faults
async def test_a_worker_whose_redis_dies_says_so_and_works_on_when_it_is_back(
    own_redis: tuple[str, "subprocess.Popen[bytes]"],
) -> None:
    url, server = own_redis
    delivery = JobBroker(SecretStr(url), JobBrokerSettings())
    await delivery.send(["a"])
    heard = Heard()

    async def receive() -> None:
        with pytest.raises(QueueUnavailable):
            await delivery.receive(heard, at_once=1)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            await heard.until(1)
            server.kill()


async def test_an_upload_without_redis_is_refused_and_its_job_is_done_when_redis_is_back(services: Services) -> None:
    received = await hand_in(services)
    gone = JobBroker(SecretStr(f"redis://127.0.0.1:{free_port()}"), JobBrokerSettings(deadline=1.0))
    with pytest.raises(QueueUnavailable):
        await deliver(received.job, gone)
    await run_until_finished(services, received.job.id)
    assert (await services.catalogue.version(received.version.key)).state is State.INDEXED


async def run_until_finished(services: Services, job_id: str) -> None:
    assert services.delivery is not None
    async with anyio.create_task_group() as group:
        group.start_soon(Worker(services, services.delivery).run)
        assert await send_pending(services, services.delivery, silent_for=0) == 1
        with anyio.fail_after(30):
            while await services.queue.claimable_in(job_id, now=services.now()) is not None:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()


@pytest.mark.both_databases
async def test_pending_jobs_are_those_that_nobody_works_on(services: Services, clock: Clock) -> None:
    received = await hand_in(services)
    assert await services.queue.pending(now=clock.now, silent_for=10) == []
    assert await services.queue.pending(now=clock.now + 10, silent_for=10) == [received.job.id]
    assert await services.queue.claim(received.job.id, now=clock.now) is not None
    assert await services.queue.pending(now=clock.now + 20, silent_for=10) == []
    assert await services.queue.pending(now=clock.now + LEASE_SECONDS, silent_for=10) == [received.job.id]


@pytest.mark.both_databases
async def test_a_job_whose_worker_dies_each_time_is_a_dead_letter_until_somebody_wants_it_again(
    services: Services, clock: Clock
) -> None:
    received = await hand_in(services)
    for _ in range(MOST_ATTEMPTS):
        assert await services.queue.claim(received.job.id, now=clock.now) is not None
        clock.now += LEASE_SECONDS
    assert services.delivery is not None
    await Worker(services, services.delivery)._work(received.job.id)
    job = await services.catalogue.job("hanbit", received.job.id)
    version = await services.catalogue.version(received.version.key)
    assert (job.state, version.state, version.reason) == (JobState.DEAD, State.FAILED, "unavailable")
    assert [j.id for j, _ in await services.catalogue.jobs("hanbit", JobState.DEAD, limit=9)] == [job.id]
    again = await services.queue.again(job.id, tenant="hanbit", now=clock.now)
    assert (again.state, again.attempts) == (JobState.QUEUED, 0)
    await Worker(services, services.delivery)._work(job.id)
    assert (await services.catalogue.version(received.version.key)).state is State.INDEXED


async def test_a_part_of_ours_that_is_away_is_waited_for_longer_each_time_and_three_times_at_most(
    services: Services, clock: Clock
) -> None:
    class Away:
        async def parse(self, _path: Path) -> None:
            raise CatalogueUnavailable

    received = await hand_in(services)
    broken = replace(services, parser=Away())  # type: ignore[arg-type]  # what a part that is away does
    assert services.delivery is not None
    worker, waits = Worker(broken, services.delivery), []
    for _ in range(MOST_ATTEMPTS - 1):
        with pytest.raises(Later) as later:
            await worker._work(received.job.id)
        waits.append(later.value.seconds)
        clock.now += later.value.seconds
    await worker._work(received.job.id)
    assert waits == [2.0, 6.0]
    assert (await services.catalogue.job("hanbit", received.job.id)).state is JobState.DEAD


@pytest.mark.both_databases
async def test_a_job_whose_process_leaves_waits_for_the_next_as_if_it_had_not_begun(
    services: Services, clock: Clock
) -> None:
    begun = anyio.Event()

    class Endless:
        async def parse(self, _path: Path) -> None:
            begun.set()
            await anyio.sleep_forever()

    received = await hand_in(services)
    assert services.delivery is not None
    leaving = Worker(replace(services, parser=Endless()), services.delivery)  # type: ignore[arg-type]  # a long scan
    async with anyio.create_task_group() as group:
        group.start_soon(leaving.run)
        await send_pending(services, services.delivery, silent_for=0)
        with anyio.fail_after(30):
            await begun.wait()
        group.cancel_scope.cancel()
    left = await services.catalogue.job("hanbit", received.job.id)
    assert (left.state, left.attempts) == (JobState.QUEUED, 0)
    job = await services.queue.claim(left.id, now=clock.now)
    assert job is not None
    await services.queue.done(job, now=clock.now)
    with pytest.raises(ClaimLost):
        await services.queue.release(job, now=clock.now)
    assert (await services.catalogue.job("hanbit", job.id)).state is JobState.DONE


class Away(JobClaims):
    """The queue of a process whose database is away when a job ends, or before it begins."""

    before: bool = False

    async def claim(self, job_id: str, *, now: float) -> Job | None:
        if self.before:
            raise CatalogueUnavailable
        return await super().claim(job_id, now=now)

    async def done(self, job: Job, *, now: float) -> None:  # noqa: ARG002  as in Queue
        raise CatalogueUnavailable


async def test_a_database_that_is_away_when_a_job_ends_is_waited_for(services: Services) -> None:
    received = await hand_in(services)
    broken = replace(services, queue=Away(services.catalogue, this_process()))
    assert services.delivery is not None
    with pytest.raises(Later) as later:
        await Worker(broken, services.delivery)._work(received.job.id)
    assert later.value.seconds == SWEEP_SECONDS


async def test_what_ends_a_load_leaves_it_as_itself(services: Services, tmp_path: Path) -> None:
    (file := tmp_path / "a.md").write_text("# 안내\n\n예금 안내입니다.", "utf-8")
    away = Away(services.catalogue, this_process())
    away.before = True
    order = LoadOrder(tenant="hanbit", uploaded_by="kim")
    with pytest.raises(CatalogueUnavailable):
        await load([Offering(path=file, name="a")], order, replace(services, queue=away), Unseen())


async def test_a_long_file_leaves_the_worker_to_short_ones_and_its_claim_to_others(
    services: Services, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    settings = ParserSettings(processes=2, long_seconds=0.001)
    scans = [await hand_in(services, f"long {gate} {n}".encode()) for n in range(3)]
    short = await hand_in(services)
    assert services.delivery is not None
    async with open_readers(settings, TAKEN_OVER, gives_back=True) as readers:
        pipeline = services.settings.model_copy(update={"at_once": 2})
        worker = Worker(replace(services, parser=readers, settings=pipeline), services.delivery)
        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            for received in (*scans, short):
                await services.delivery.send([received.job.id])
            with anyio.fail_after(60):
                while (await services.catalogue.version(short.version.key)).state is not State.INDEXED:
                    await anyio.sleep(0.01)
            jobs = [await services.catalogue.job("hanbit", received.job.id) for received in scans]
            group.cancel_scope.cancel()
    assert sum(job.attempts for job in jobs) <= 2, "who found no room has not been tried"
