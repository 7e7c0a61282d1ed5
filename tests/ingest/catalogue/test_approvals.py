"""Reject, expire, roll back, delete: what customers can read, what every replica is told, what stays written down."""

from dataclasses import replace
from datetime import date

import pytest
from sqlalchemy import select

from ingest.catalogue import Received
from ingest.catalogue.approvals import ApprovalDecision, ChangedWindows
from ingest.catalogue.tables import DECISIONS
from ingest.catalogue.versions import Dates, Metadata, Seen, State, Version, VersionKey
from ingest.errors import DatesChanged, Forbidden, NotFound, SecondPersonNeeded, Unavailable, WrongState
from ingest.pipeline import activate, update_index, write_pending_windows, write_window
from ingest.services import Services
from ingest.worker import LATE_SECONDS, queue_overwritten_windows
from knowledge.access import Access
from knowledge.withdrawals import WITHDRAWN
from tests.clock import Clock
from tests.ingest import samples
from tests.ingest.conftest import NOON
from tests.ingest.documents import TERMS, do_job, indexed_terms, receive, versions_found

pytestmark = pytest.mark.anyio

DAY = 86_400.0


def by(sub: str, at: float, reason: str = "") -> ApprovalDecision:
    return ApprovalDecision(by=sub, at=at, reason=reason)


async def approved(services: Services, clock: Clock, rate: str, **dates: date) -> Version:
    version = await indexed_terms(services, rate, **dates)
    shown = await activate(version.key, "lee", services)
    clock.now += 60
    return shown


async def roll_back(services: Services, to_version: int, sub: str, *, reason: str = "") -> Received:
    """Roll the document back now, and write what changed into the index."""
    decision = by(sub, services.now(), reason)
    received, changed = await services.approvals.roll_back("hanbit", "term-deposit", to_version, decision)
    await update_index(received.version.key, changed, services)
    return received


async def delete(services: Services, *, reason: str = "") -> None:
    """Delete the document now, and write what changed into the index."""
    changed = await services.approvals.delete("hanbit", "term-deposit", by("lee", services.now(), reason))
    await update_index(VersionKey(tenant="hanbit", document_id="term-deposit", version=1), changed, services)


async def withdrawn(services: Services) -> set[str]:
    async with services.catalogue.read() as connection:
        return set((await connection.execute(select(WITHDRAWN.c.name).where(WITHDRAWN.c.kind == "version"))).scalars())


async def ends(services: Services) -> dict[str, float]:
    """Return when versions end, as the chatbot's replicas are told."""
    async with services.catalogue.read() as connection:
        rows = (await connection.execute(select(WITHDRAWN).where(WITHDRAWN.c.kind == "ends"))).all()
    return {row.name: row.at for row in rows}


async def reasons(services: Services) -> list[str]:
    """Return why versions answer no more, as the chatbot's replicas are told."""
    async with services.catalogue.read() as connection:
        reasons = select(WITHDRAWN.c.reason).where(WITHDRAWN.c.kind == "version")
        return list((await connection.execute(reasons)).scalars())


async def decided(services: Services) -> list[tuple[int, str, str]]:
    columns = select(DECISIONS.c.version, DECISIONS.c.decision, DECISIONS.c.decided_by).order_by(DECISIONS.c.id)
    async with services.catalogue.read() as connection:
        return [tuple(row) for row in (await connection.execute(columns)).all()]


@pytest.mark.both_databases
async def test_a_rejected_draft_is_gone_from_the_index_and_its_bytes_may_come_again(
    services: Services, clock: Clock
) -> None:
    draft = await indexed_terms(services, "2.35")
    for _ in range(2):
        await update_index(draft.key, await services.approvals.reject(draft.key, by("lee", NOON, "old form")), services)
    rejected = await services.catalogue.version(draft.key)
    assert (rejected.state, rejected.reason, rejected.detail) == (State.WITHDRAWN, "rejected", "old form")
    assert await services.index.count(tenant="hanbit", document_id="term-deposit", version=1) == 0
    assert await decided(services) == [(1, "rejected", "lee")]
    assert await reasons(services) == ["old form"]
    with pytest.raises(WrongState):
        await services.approvals.approve(draft.key, by("lee", NOON))
    again = await indexed_terms(services, "2.35")
    assert again.key.version == 2
    await activate(again.key, "lee", services)
    assert await versions_found(services, at=clock.now + 2) == {2}


async def test_a_draft_that_the_index_has_lost_is_not_approved_unseen(services: Services) -> None:
    draft = await indexed_terms(services, "2.35")
    await services.index.delete(tenant="hanbit", document_id="term-deposit", version=1)
    with pytest.raises(Unavailable):
        await activate(draft.key, "lee", services)
    assert (await services.catalogue.version(draft.key)).state is State.INDEXED


@pytest.mark.both_databases
async def test_an_expired_version_ends_now_and_stays_what_customers_saw_before(
    services: Services, clock: Clock
) -> None:
    version = await approved(services, clock, "2.35")
    await update_index(version.key, await services.approvals.expire(version.key, by("lee", clock.now)), services)
    assert await versions_found(services, at=clock.now - 0.001) == {1}
    assert await versions_found(services, at=clock.now) == set()
    assert (await services.catalogue.version(version.key)).state_at(clock.now) is State.EXPIRED
    assert await withdrawn(services) == {"term-deposit@1"}
    assert await reasons(services) == ["expired"]
    assert await services.approvals.expire(version.key, by("park", clock.now + 1)) == ChangedWindows()
    assert await decided(services) == [(1, "approved", "lee"), (1, "expired", "lee")]


@pytest.mark.both_databases
async def test_a_rollback_ends_the_present_text_at_once_and_brings_the_old_one_back_as_a_new_version(
    services: Services, clock: Clock
) -> None:
    first = await approved(services, clock, "2.35")
    second = await approved(services, clock, "9.99")
    begun = clock.now
    received = await roll_back(services, 1, "park", reason="typo")
    assert await versions_found(services, at=begun) == set()
    assert await withdrawn(services) == {"term-deposit@2"}
    clock.now += 5
    third = await do_job(services, received)
    assert (third.key.version, third.sha256, third.uploaded_by) == (3, first.sha256, "kim")
    assert (third.state, third.approved_by, third.visible_from) == (State.APPROVED, "park", clock.now + 2)
    assert await versions_found(services, at=clock.now + 2) == {3}
    assert await versions_found(services, at=begun - 1) == {2}
    gone = await services.catalogue.version(second.key)
    assert (gone.state, gone.reason, gone.detail) == (State.WITHDRAWN, "rolled_back", "typo")
    assert await decided(services) == [
        (1, "approved", "lee"), (2, "approved", "lee"), (2, "rolled_back", "park"), (3, "restored", "park"),
        (3, "approved", "park"),
    ]  # fmt: skip
    same_bytes = await receive(services, samples.MARKDOWN.encode(), TERMS)
    assert same_bytes.version.key == third.key


async def test_a_rollback_leaves_a_version_that_is_approved_for_a_later_day(services: Services, clock: Clock) -> None:
    await approved(services, clock, "2.35")
    await approved(services, clock, "9.99")
    third = await approved(services, clock, "2.75", effective_from=date(2026, 6, 1))
    received = await roll_back(services, 1, "park")
    assert await withdrawn(services) == {"term-deposit@2"}
    await do_job(services, received)
    assert third.visible_from is not None
    assert await versions_found(services, at=clock.now + 2) == {4}
    assert await versions_found(services, at=third.visible_from - 0.001) == {4}
    assert await versions_found(services, at=third.visible_from) == {3}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_of_two_rollbacks_the_later_one_answers_whichever_text_is_indexed_first(
    services: Services, clock: Clock, order: tuple[int, int]
) -> None:
    for rate in ("2.35", "2.75", "9.99"):
        await approved(services, clock, rate)
    rolled_back = []
    for to_version in (1, 2):
        rolled_back.append(await roll_back(services, to_version, "park"))
        clock.now += 5
    for n in order:
        clock.now += 60
        await do_job(services, rolled_back[n])
    assert await versions_found(services, at=clock.now + 3) == {5}


async def test_a_rollback_ends_a_version_approved_a_second_ago(services: Services, clock: Clock) -> None:
    await approved(services, clock, "2.35")
    await approved(services, clock, "2.75")
    third = await indexed_terms(services, "9.99")
    await activate(third.key, "lee", services)
    clock.now += 1
    received = await roll_back(services, 1, "park")
    assert await withdrawn(services) == {"term-deposit@2", "term-deposit@3"}
    await do_job(services, received)
    assert await versions_found(services, at=clock.now + 2) == {4}


async def test_an_approval_of_other_dates_than_were_shown_is_refused(services: Services) -> None:
    seen = Seen(effective_from=date(2026, 6, 1), effective_until=None)
    draft = await indexed_terms(services, "2.35", effective_from=date(2026, 6, 1))
    cleared = Seen(effective_from=None, effective_until=None)
    await services.approvals.set_dates(draft.key, cleared, by("kim", NOON), may_approve=False)
    with pytest.raises(DatesChanged, match="from its approval until further notice"):
        await activate(draft.key, "lee", services, seen)
    assert (await services.catalogue.version(draft.key)).state is State.INDEXED
    assert (await activate(draft.key, "lee", services, cleared)).approved_by == "lee"
    assert (await activate(draft.key, "lee", services, seen)).approved_by == "lee", "asked again, nothing changes"


async def test_a_rollback_needs_a_version_that_was_approved_and_somebody_else_than_its_uploader(
    services: Services, clock: Clock
) -> None:
    first = await approved(services, clock, "2.35")
    await approved(services, clock, "2.75")
    draft = await indexed_terms(services, "3.00")
    for to_version, who, refused in (
        (first.key.version, " KIM ", Forbidden),
        (draft.key.version, "lee", WrongState),
        (2, "lee", WrongState),
        (9, "lee", NotFound),
    ):
        with pytest.raises(refused):
            await services.approvals.roll_back("hanbit", "term-deposit", to_version, by(who, clock.now))
    assert await versions_found(services, at=clock.now) == {2}
    assert len(await services.catalogue.versions("hanbit", "term-deposit")) == 3


async def test_a_text_whose_last_day_is_over_cannot_be_brought_back(services: Services, clock: Clock) -> None:
    await approved(services, clock, "2.35", effective_until=date(2026, 5, 31))
    clock.now += 10 * DAY
    await approved(services, clock, "2.75")
    with pytest.raises(WrongState):
        await services.approvals.roll_back("hanbit", "term-deposit", 1, by("lee", clock.now))


@pytest.mark.both_databases
async def test_a_deleted_document_ends_everywhere_with_its_drafts_and_can_be_brought_back(
    services: Services, clock: Clock
) -> None:
    await approved(services, clock, "2.35")
    await approved(services, clock, "2.75", effective_from=date(2026, 6, 1))
    await indexed_terms(services, "3.00")
    await delete(services, reason="wrong product")
    for at in (clock.now, clock.now + 100 * DAY):
        assert await versions_found(services, at=at) == set()
    assert await withdrawn(services) == {f"term-deposit@{n}" for n in (1, 2, 3)}
    versions = await services.catalogue.versions("hanbit", "term-deposit")
    assert {version.state for version in versions} == {State.WITHDRAWN}
    with pytest.raises(WrongState):
        await services.approvals.reject(versions[2].key, by("lee", clock.now))
    assert await services.index.count(tenant="hanbit", document_id="term-deposit", version=3) == 0
    with pytest.raises(NotFound):
        await services.approvals.delete("other", "term-deposit", by("lee", clock.now))
    await do_job(services, await roll_back(services, 1, "lee"))
    assert await versions_found(services, at=clock.now + 2) == {4}


async def test_a_document_deleted_while_its_job_waits_never_gets_into_the_index(services: Services) -> None:
    received = await receive(services, request=TERMS)
    await services.approvals.delete("hanbit", "term-deposit", by("lee", NOON))
    version = await do_job(services, received)
    assert version.state is State.WITHDRAWN
    assert await services.index.count(tenant="hanbit", document_id="term-deposit", version=1) == 0


async def test_a_revocation_lost_in_a_crash_reaches_the_index_at_the_next_sweep(
    services: Services, clock: Clock
) -> None:
    version = await approved(services, clock, "2.35")
    await services.approvals.expire(version.key, by("lee", clock.now))
    assert await withdrawn(services) == {"term-deposit@1"}, "every replica of the chatbot knows already"
    assert await versions_found(services, at=clock.now) == {1}
    assert await write_pending_windows(services) == 1
    assert await versions_found(services, at=clock.now) == set()


@pytest.mark.both_databases
async def test_an_approval_lost_in_a_crash_begins_when_the_index_has_it(services: Services, clock: Clock) -> None:
    await approved(services, clock, "2.35")
    second = await indexed_terms(services, "2.75")
    decided_at = clock.now
    await services.approvals.approve(second.key, by("lee", decided_at))
    clock.now += 30
    assert await versions_found(services, at=clock.now) == {1}, "what customers read meanwhile"
    assert await write_pending_windows(services) == 2
    assert await versions_found(services, at=decided_at + 3) == {1}, "what they have read, as it is told later"
    assert await versions_found(services, at=clock.now + 1.9) == {1}
    assert await versions_found(services, at=clock.now + 2) == {2}
    assert (await services.catalogue.version(second.key)).visible_from == clock.now + 2


async def test_a_late_write_of_a_window_writes_the_last_decision(services: Services, clock: Clock) -> None:
    version = await approved(services, clock, "2.35")
    assert version.window is not None
    await update_index(version.key, await services.approvals.expire(version.key, by("lee", clock.now)), services)
    await write_window(
        version.key, version.window, services.catalogue, services.index
    )  # a sweep that had read it before
    assert await versions_found(services, at=clock.now) == set()
    assert await services.catalogue.unwritten_windows() == []


async def is_open(services: Services, version: Version, *, at: float) -> bool:
    """Return whether the index lets a customer read a version at an instant, a newer one or not."""
    key = version.key
    access = Access(tenant=key.tenant, groups=frozenset(("customers",)), as_of=at)
    found = await services.index.passage(document_id=key.document_id, version=key.version, n=1, access=access)
    return found is not None


@pytest.mark.both_databases
async def test_a_stale_window_of_a_dead_writer_is_written_again_a_minute_later(
    services: Services, clock: Clock
) -> None:
    first = await approved(services, clock, "2.35")
    assert first.window is not None
    second = await approved(services, clock, "2.75")
    late = first.window  # of a process that read it before the second version was approved, and dies having written it
    await services.index.set_visibility(
        tenant=first.key.tenant,
        document_id=first.key.document_id,
        version=1,
        visible_from=late.visible_from,
        visible_until=late.visible_until,
    )
    assert await is_open(services, first, at=clock.now + 100), "although it was replaced"
    seen = await queue_overwritten_windows(services, after=None)
    assert await write_pending_windows(services) == 0, "the late write may still come"
    clock.now += LATE_SECONDS + 1
    assert await queue_overwritten_windows(services, after=seen) > seen
    assert await write_pending_windows(services) == 2
    assert not await is_open(services, first, at=clock.now)
    assert await versions_found(services, at=clock.now) == {2}
    assert (await services.catalogue.version(second.key)).visible_from == second.visible_from
    assert await write_pending_windows(services) == 0


@pytest.mark.both_databases
async def test_a_drafts_dates_change_and_whoever_set_them_cannot_approve_it(services: Services) -> None:
    draft = await indexed_terms(services, "2.35")
    june = Dates(effective_from=date(2026, 6, 1), effective_until=date(2026, 6, 30))
    assert await services.approvals.set_dates(draft.key, june, by("lee", NOON), may_approve=False) == ChangedWindows()
    with pytest.raises(SecondPersonNeeded):
        await services.approvals.approve(draft.key, by("Lee ", NOON))
    version = await activate(draft.key, "park", services)
    assert version.visible_from == 1_780_239_600.0  # 1 June in Seoul
    assert [kind for _, kind, _ in await decided(services)] == ["dated", "approved"]
    stored = await services.index.passages(tenant="hanbit", document_id="term-deposit", version=1)
    assert {passage.effective_from for passage in stored} == {date(2026, 6, 1)}
    again = await receive(services, samples.MARKDOWN.encode(), replace(TERMS, metadata=Metadata()))
    assert again.version.key == draft.key, "the same bytes with the same metadata"


@pytest.mark.both_databases
async def test_an_approved_versions_dates_are_an_approvers_and_every_search_follows(
    services: Services, clock: Clock
) -> None:
    first = await approved(services, clock, "2.35")
    second = await approved(services, clock, "2.75", effective_from=date(2026, 6, 10))
    sooner = Dates(effective_from=date(2026, 6, 1), effective_until=None)
    for who, may_approve, refusal in (("park", False, Forbidden), ("kim", True, SecondPersonNeeded)):
        with pytest.raises(refusal):
            await services.approvals.set_dates(second.key, sooner, by(who, clock.now), may_approve=may_approve)
    changed = await services.approvals.set_dates(second.key, sooner, by("park", clock.now), may_approve=True)
    await update_index(second.key, changed, services)
    begins = 1_780_239_600.0
    assert await versions_found(services, at=begins - 1) == {1}
    assert await versions_found(services, at=begins) == {2}
    same = await services.approvals.set_dates(second.key, sooner, by("park", clock.now), may_approve=True)
    assert same == ChangedWindows()
    assert len(await decided(services)) == 3
    await delete(services)
    with pytest.raises(WrongState):
        await services.approvals.set_dates(first.key, sooner, by("park", clock.now), may_approve=True)


@pytest.mark.both_databases
async def test_every_replica_reads_when_a_version_is_replaced_ends_or_continues(
    services: Services, clock: Clock
) -> None:
    await approved(services, clock, "2.35")
    assert await ends(services) == {}
    later = await approved(services, clock, "2.45", effective_from=date(2026, 7, 1))
    assert await ends(services) == {"term-deposit@1": later.visible_from}
    await update_index(later.key, await services.approvals.expire(later.key, by("lee", clock.now)), services)
    assert "term-deposit@1" not in await ends(services), "the later one never begins"
    second = await approved(services, clock, "2.55", effective_until=date(2026, 12, 31))
    assert await ends(services) == {
        "term-deposit@1": second.visible_from,
        "term-deposit@2": clock.now - 60,
        "term-deposit@3": second.visible_until,
    }
    await delete(services)
    assert (await ends(services))["term-deposit@3"] == clock.now
