"""The broker brings ids of jobs through Redis: each once, back to others when its worker leaves, none without Redis."""

import contextlib
import signal
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from ingest.errors import QueueUnavailable
from ingest.jobs.broker import DoJob, JobBroker, JobBrokerSettings, RetryLater
from tests.conftest import NOT_DURABLE, RedisServer, redis_server
from tests.constants import with_constants
from tests.patience import patient

pytestmark = [pytest.mark.anyio, pytest.mark.services]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, that may be stopped."""
    with redis_server(tmp_path, *NOT_DURABLE) as server:
        yield server


@pytest.fixture
def broker(redis_url: str) -> JobBroker:
    return JobBroker(SecretStr(redis_url), JobBrokerSettings(queue=f"test-{uuid4().hex}", idle=1.0))


class Deliveries:
    """Notes the ids that are delivered, and raises one of the faults for each as long as there are any."""

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
async def receiving(broker: JobBroker, do_job: DoJob) -> AsyncGenerator[None]:
    """Receive jobs while the block runs; then leave."""

    async def receive() -> None:
        await broker.receive(do_job, at_once=2)

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        yield
        group.cancel_scope.cancel()


async def test_what_is_sent_is_delivered_once_and_can_be_sent_again_when_it_is_done(broker: JobBroker) -> None:
    delivered = Deliveries()
    await broker.send(["a", "b"])
    await broker.send(["a"])
    async with receiving(broker, delivered):
        await delivered.until(2)
        await broker.send(["c"])
        await delivered.until(3)
        assert sorted(delivered.jobs) == ["a", "b", "c"]
        with anyio.fail_after(20):
            while delivered.jobs.count("a") < 2:
                await broker.send(["a"])


async def test_a_job_that_cannot_be_done_now_comes_later(broker: JobBroker) -> None:
    delivered = Deliveries(RetryLater(0.2))
    await broker.send(["a"])
    async with receiving(broker, delivered):
        await delivered.until(2)


async def test_what_a_worker_that_leaves_was_doing_goes_to_the_next(broker: JobBroker) -> None:
    begun = anyio.Event()

    async def forever(_job_id: str) -> None:
        begun.set()
        await anyio.sleep_forever()

    await broker.send(["a"])
    async with receiving(broker, forever):
        with anyio.fail_after(20):
            await begun.wait()
    delivered = Deliveries()
    async with receiving(broker, delivered):
        await delivered.until(1)


async def test_what_a_worker_that_leaves_was_doing_goes_at_once_to_one_that_waits(redis_url: str) -> None:
    # After `idle` seconds a job of a dead worker goes to another in any case.
    broker = JobBroker(SecretStr(redis_url), JobBrokerSettings(queue=f"test-{uuid4().hex}", idle=60.0))
    workers, done, held = [anyio.CancelScope(), anyio.CancelScope()], list[tuple[int, str]](), anyio.Event()

    async def receive(worker: int) -> None:
        async def do_job(job_id: str) -> None:
            done.append((worker, job_id))
            if job_id == "a" and not held.is_set():
                held.set()
                await anyio.sleep_forever()

        with workers[worker]:
            await broker.receive(do_job, at_once=1)

    async with anyio.create_task_group() as group:
        for worker in range(2):
            group.start_soon(receive, worker)
        with anyio.fail_after(30):
            while {worker for worker, _ in done} != {0, 1}:
                await broker.send([uuid4().hex])
            await broker.send(["a"])
            await held.wait()
            holder = next(worker for worker, job in done if job == "a")
            left = time.monotonic()
            workers[holder].cancel()
            while (1 - holder, "a") not in done:
                await anyio.sleep(0.01)
            assert time.monotonic() - left < patient(2.0)
        group.cancel_scope.cancel()


@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_without_redis_sending_fails_within_its_deadline(own_redis: RedisServer, how: signal.Signals) -> None:
    broker = JobBroker(SecretStr(own_redis.url), with_constants(JobBrokerSettings(), deadline=1.0))
    await broker.send(["a"])
    own_redis.signal(how)
    begun = time.monotonic()
    with pytest.raises(QueueUnavailable):
        await broker.send(["b"])
    assert time.monotonic() - begun < patient(2.0)


@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_worker_whose_redis_dies_says_so_and_works_on_when_it_is_back(
    own_redis: RedisServer, how: signal.Signals
) -> None:
    """Also where nobody hears of it: its machine is lost, and its packets with it."""
    broker = JobBroker(SecretStr(own_redis.url), JobBrokerSettings(idle=0.5))
    await broker.send(["a"])
    delivered = Deliveries()

    async def receive() -> None:
        with pytest.raises(QueueUnavailable):
            await broker.receive(delivered, at_once=1)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            await delivered.until(1)
            own_redis.signal(how)


@pytest.mark.faults
async def test_a_worker_whose_redis_forgets_everything_goes_on(own_redis: RedisServer) -> None:
    broker = JobBroker(SecretStr(own_redis.url), JobBrokerSettings())
    delivered = Deliveries()

    async def receive() -> None:
        while True:
            with contextlib.suppress(QueueUnavailable):
                await broker.receive(delivered, at_once=1)
            await anyio.sleep(0.1)  # as the worker does

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await broker.send(["a"])
        with anyio.fail_after(30):
            await delivered.until(1)
            async with Redis.from_url(own_redis.url) as client:
                await client.flushall()
            while "b" not in delivered.jobs:  # as the sweep sends what nobody works on
                await broker.send(["b"])
                await anyio.sleep(0.1)
        group.cancel_scope.cancel()
