from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest

from ingest import job_runner, pipeline
from ingest.catalogue import (
    IndexingResult,
    JobState,
    Received,
    Stage,
    State,
    Version,
)
from ingest.errors import WrongState
from ingest.job_runner import run_job
from ingest.jobs import LEASE_SECONDS, JobClaims
from ingest.parsing import Reason, Unreadable
from ingest.pipeline import activate, write_pending_windows
from ingest.services import Services
from knowledge.index import Index
from knowledge.passage import Passage
from tests.clock import Clock
from tests.ingest import samples
from tests.ingest.conftest import NOON
from tests.ingest.documents import (
    do_job,
    passages_of,
    receive,
    unfinished_jobs,
    unreported,
    versions_found,
)

pytestmark = pytest.mark.anyio


async def test_the_passages_of_a_document_carry_its_title_readers_and_order(services: Services) -> None:
    version = await do_job(services, await receive(services))
    assert (version.state, version.metadata.title, version.metadata.language) == (State.INDEXED, "정기예금 안내", "ko")
    passages = await passages_of(services, version)
    assert len(passages) == version.passages
    assert [p.n for p in passages] == list(range(1, len(passages) + 1))
    assert {(p.title, p.readers, p.visible_from) for p in passages} == {("정기예금 안내", ("customers",), None)}
    assert any("연 2.35%" in p.text for p in passages)


async def test_only_a_draft_can_be_approved(services: Services) -> None:
    received = await receive(services)
    with pytest.raises(WrongState):
        await activate(received.version.key, "lee", services)


@pytest.mark.both_databases
async def test_fifty_identical_uploads_are_one_document_and_one_embedding_run(services: Services) -> None:
    received: list[Received] = []
    indexed: list[Version | None] = []

    async def upload() -> None:
        received.append(await receive(services))

    async def work(job_id: str) -> None:
        job = await services.job_claims.claim(job_id, now=services.now())
        if job is not None:
            indexed.append(await run_job(job, services))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(upload)
    assert len({(r.version.key, r.job.id) for r in received}) == 1
    assert await unfinished_jobs(services) == 1
    async with anyio.create_task_group() as group:
        for accepted in received:
            group.start_soon(work, accepted.job.id)
    assert [version is not None and version.state for version in indexed] == [State.INDEXED]
    count = services.metrics.registry.get_sample_value("ingest_stage_seconds_count", {"stage": "embed"})
    assert count == 1, "embedded more than once"


async def test_a_job_left_open_by_a_crash_takes_no_approval_back(services: Services, clock: Clock) -> None:
    received = await receive(services)
    await pipeline.index_version(received.version.key, services, unreported)  # and the crash comes before the job's end
    await activate(received.version.key, "lee", services)
    clock.now = NOON + 60
    version = await do_job(services, received)
    assert version.state is State.APPROVED
    assert await versions_found(services, at=NOON + 60) == {1}
    assert await unfinished_jobs(services) == 0


async def test_a_broken_file_fails_with_its_reason_and_its_next_upload_is_tried(services: Services) -> None:
    locked = samples.pdf(password="1234")
    failed = await do_job(services, await receive(services, locked))
    assert (failed.state, failed.reason, failed.passages) == (State.FAILED, "encrypted", 0)
    again = await receive(services, locked)
    assert (again.version.key, again.version.state, again.job.state) == (failed.key, State.RECEIVED, JobState.QUEUED)


@pytest.mark.both_databases
async def test_a_nul_in_a_title_or_a_detail_is_not_stored(services: Services) -> None:
    key = (await receive(services)).version.key
    failed = await services.catalogue.mark_failed(key, reason="damaged", detail="at \x00 the end")
    assert failed.detail == "at  the end"
    result = IndexingResult(format="text", title="안\x00내", language="ko", passages=1, left_out={})
    assert (await services.catalogue.mark_indexed(key, result)).metadata.title == "안내"


@pytest.mark.both_databases
async def test_a_lapsed_job_is_claimed_again_and_its_half_written_points_are_replaced(
    services: Services, clock: Clock
) -> None:
    received = await receive(services)
    assert await services.job_claims.claim(received.job.id, now=clock.now) is not None
    assert await services.job_claims.claim(received.job.id, now=clock.now) is None
    left = Passage(
        tenant="hanbit", document_id=received.version.key.document_id, version=1, n=99, title="", section="", page=None,
        text="what an earlier run left", language="en", product=None, readers=("customers",), effective_from=None,
    )  # fmt: skip
    await services.index.upsert([left])
    clock.now += 3600
    version = await do_job(services, received)
    stored = await passages_of(services, version)
    assert len(stored) == version.passages
    assert left.text not in {passage.text for passage in stored}


class StandsStill:
    """An index before one of whose methods a worker stands still until it may go on."""

    def __init__(self, index: Index, method: str) -> None:
        self._index = index
        self._method = method
        self.stands, self.may_go_on = anyio.Event(), anyio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._index, name)
        return partial(self._late, method) if name == self._method else method

    async def _late(self, method: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        self.stands.set()
        await self.may_go_on.wait()
        return await method(*args, **kwargs)


@pytest.mark.parametrize("same_process", [False, True])
@pytest.mark.parametrize(("method", "hidden"), [("count", 0), ("embed", 0), ("upsert", 1), ("count_differing", 0)])
async def test_a_stalled_worker_takes_nothing_from_a_version_approved_meanwhile(
    services: Services, clock: Clock, monkeypatch: pytest.MonkeyPatch, method: str, hidden: int, *, same_process: bool
) -> None:
    monkeypatch.setattr(job_runner, "RENEW_SECONDS", 600.0)  # its renewal would end the stalled job
    received = await receive(services)
    key = received.version.key
    still = StandsStill(services.index, method)
    slow = replace(services, index=still)  # type: ignore[arg-type]  # an index that takes its time
    quick = services if same_process else replace(services, job_claims=JobClaims(services.catalogue, "other"))
    results: list[Version | None] = []

    async def stand_still() -> None:
        job = await slow.job_claims.claim(received.job.id, now=clock.now)
        assert job is not None
        results.append(await run_job(job, slow))

    async with anyio.create_task_group() as group:
        group.start_soon(stand_still)
        await still.stands.wait()
        clock.now += LEASE_SECONDS
        await do_job(quick, received)
        approved = await activate(key, "lee", quick)
        still.may_go_on.set()
    assert results == [None]
    assert (await services.catalogue.version(key)).state is State.APPROVED
    stored = await passages_of(services, approved)
    assert sum(passage.visible_from is None for passage in stored) == hidden * approved.passages
    assert await write_pending_windows(services) == 1
    stored = await passages_of(services, approved)
    assert [passage.visible_from for passage in stored] == [approved.visible_from] * approved.passages
    assert await unfinished_jobs(services) == 0


@pytest.mark.parametrize(
    ("n", "reason"),
    [(2, "the index does not give back 1 of 2 passages"), (99, "the index holds 3 of 2 passages")],
    ids=["another text", "a passage too many"],
)
async def test_a_draft_that_the_index_returns_differently_is_refused(services: Services, n: int, reason: str) -> None:
    received = await receive(services)

    async def report(stage: Stage, _done: int, _total: int) -> None:
        """Touch the index at the last moment: when all is written, and nothing read back."""
        if stage is Stage.VERIFY:
            stored = await passages_of(services, received.version)
            await services.index.upsert([replace(stored[1], n=n, text="예금은 보호되지 않습니다.")])

    with pytest.raises(Unreadable, match=reason) as refused:
        await pipeline.write_draft(received.version, services, report)
    assert refused.value.reason is Reason.NOT_INDEXED
