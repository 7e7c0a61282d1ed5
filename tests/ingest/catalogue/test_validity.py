import contextlib
from dataclasses import replace
from datetime import date
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.catalogue.validity import (
    NOTICE_SECONDS,
    in_force,
    in_writing_order,
    midnight,
    windows_for_approval,
    windows_for_expiry,
    windows_for_late_start,
    windows_for_new_dates,
)
from ingest.catalogue.versions import Metadata, State, Version, VersionKey, Window, WindowWritten
from ingest.errors import WrongState

SEOUL = ZoneInfo("Asia/Seoul")
NOON = 1_780_023_600.0


def version(number: int, *, begins: date | None = None, ends: date | None = None) -> Version:
    return Version(
        key=VersionKey(tenant="t", document_id="d", version=number),
        file_name="d.md",
        sha256="0" * 64,
        size=1,
        metadata=Metadata(effective_from=begins, effective_until=ends),
        fingerprint="0" * 64,
        uploaded_by="kim",
        uploaded_at=0.0,
        state=State.INDEXED,
    )


def with_windows(versions: dict[int, Version], windows: list[Window]) -> dict[int, Version]:
    """Return the approved versions with these windows written."""
    changed = dict(versions)
    for window in windows:
        changed[window.version] = replace(
            versions[window.version],
            state=State.APPROVED,
            visible_from=window.visible_from,
            visible_until=window.visible_until,
        )
    return changed


def others_than(versions: dict[int, Version], number: int) -> list[Version]:
    return [version for version in versions.values() if version.key.version != number]


def approved(versions: dict[int, Version], number: int, *, now: float) -> dict[int, Version]:
    """Return the versions as they are after one of them is approved."""
    windows = windows_for_approval(versions[number], others_than(versions, number), now=now, zone=SEOUL)
    return with_windows(versions, windows)


def expired(versions: dict[int, Version], number: int, *, now: float) -> dict[int, Version]:
    """Return the versions as they are after one of them is expired."""
    windows = windows_for_expiry(versions[number], others_than(versions, number), now=now, zone=SEOUL)
    return with_windows(versions, windows)


def redated(versions: dict[int, Version], number: int, metadata: Metadata, *, now: float) -> dict[int, Version]:
    """Return the versions as they are after one of them got other dates."""
    windows = windows_for_new_dates(versions[number], metadata, others_than(versions, number), now=now, zone=SEOUL)
    return with_windows(versions | {number: replace(versions[number], metadata=metadata)}, windows)


def written(windows: list[Window], versions: dict[int, Version]) -> list[int]:
    """Return the versions in the order in which the index is told their windows."""
    return [window.version for window in in_writing_order(windows, list(versions.values()))]


def test_a_window_that_opens_is_written_before_one_that_closes() -> None:
    versions = approved({1: version(1), 2: version(2, begins=date(2026, 6, 10))}, 1, now=NOON)
    of_second = windows_for_approval(versions[2], [versions[1]], now=NOON + 60, zone=SEOUL)
    assert written(of_second, versions) == [2, 1], "the new one opens, and the former one ends"
    versions = approved(versions, 2, now=NOON + 60)
    for day, order in ((date(2026, 6, 20), [1, 2]), (date(2026, 6, 5), [2, 1])):
        moved = windows_for_new_dates(
            versions[2], Metadata(effective_from=day), [versions[1]], now=NOON + 120, zone=SEOUL
        )
        assert written(moved, versions) == order
    ended = windows_for_expiry(versions[2], [versions[1]], now=NOON + 120, zone=SEOUL)
    assert written(ended, versions) == [1, 2], "the former one goes on where the new one never begins"


def test_a_late_version_opens_before_its_predecessor_closes() -> None:
    versions = approved(approved({1: version(1), 2: version(2)}, 1, now=NOON), 2, now=NOON + 60)
    late = versions | {2: replace(versions[2], window_written=WindowWritten.NOTHING)}
    assert written(windows_of_late(versions, 2, now=NOON + 90), late) == [2, 1]


def test_a_later_date_begins_at_midnight_in_the_banks_zone_and_the_last_day_counts() -> None:
    after = approved({1: version(1, begins=date(2026, 6, 1), ends=date(2026, 6, 30))}, 1, now=NOON)
    assert after[1].visible_from == midnight(date(2026, 6, 1), SEOUL) == 1_780_239_600.0
    assert after[1].visible_until == midnight(date(2026, 7, 1), SEOUL)


def test_a_date_in_the_past_does_not_rewrite_what_customers_could_read() -> None:
    after = approved({1: version(1, begins=date(2020, 1, 1))}, 1, now=NOON)
    assert after[1].visible_from == NOON + NOTICE_SECONDS


def test_an_old_version_cannot_replace_a_newer_one_that_is_in_force() -> None:
    versions = approved({1: version(1), 2: version(2)}, 2, now=NOON)
    with pytest.raises(WrongState):
        approved(versions, 1, now=NOON + 60)


def windows_of_late(versions: dict[int, Version], number: int, *, now: float) -> list[Window]:
    """Return the windows for a version that the index has not got in time."""
    late = replace(versions[number], window_written=WindowWritten.NOTHING)
    return windows_for_late_start(late, others_than(versions, number), now=now, zone=SEOUL)


def test_a_predecessor_ends_on_its_own_last_day() -> None:
    versions = {1: version(1, ends=date(2026, 5, 31)), 2: version(2, begins=date(2026, 6, 1))}
    versions = approved(approved(versions, 1, now=NOON), 2, now=NOON + 60)
    june = midnight(date(2026, 6, 1), SEOUL)
    ended, begun = windows_of_late(versions, 2, now=june + 3)
    assert ended.visible_until == june
    assert begun.visible_from == june + 3 + NOTICE_SECONDS


days = st.one_of(st.none(), st.dates(date(2026, 5, 1), date(2026, 8, 1)))


def shown(versions: dict[int, Version]) -> list[tuple[float, float]]:
    """Return the windows in which versions can be read, in their order."""
    windows = (
        (v.visible_from, v.visible_until or float("inf")) for v in versions.values() if v.visible_from is not None
    )
    return sorted((begins, ends) for begins, ends in windows if begins < ends)


@given(
    begins=st.lists(days, min_size=2, max_size=6),
    order=st.permutations(range(6)),
    waits=st.lists(st.floats(0, 40 * 86400), min_size=6, max_size=6),
)
def test_approvals_in_any_order_show_one_version_at_every_instant(
    begins: list[date | None], order: list[int], waits: list[float]
) -> None:
    versions = {n: version(n, begins=begin) for n, begin in enumerate(begins, start=1)}
    now = NOON
    for step in order:
        now += waits[step]
        if step + 1 in versions:
            try:
                versions = approved(versions, step + 1, now=now)
            except WrongState:
                continue
    windows = shown(versions)
    assert windows, "at least one was approved"
    for (_, ended), (begin, _) in pairwise(windows):
        assert ended == begin
    assert windows[-1][1] == float("inf")


@given(
    begins=st.lists(days, min_size=2, max_size=6),
    waits=st.lists(st.floats(0, 40 * 86400), min_size=6, max_size=6),
    taken=st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True),
)
@example(begins=[None] * 5, waits=[0.0, 0.0, 0.0, 1.0, 0.0, 0.0], taken=[3, 5])
def test_an_expired_version_is_not_read_and_no_two_show_at_once(
    begins: list[date | None], waits: list[float], taken: list[int]
) -> None:
    versions = {n: version(n, begins=begin) for n, begin in enumerate(begins, start=1)}
    now = NOON
    for n in list(versions):
        now += waits[n - 1]
        with contextlib.suppress(WrongState):
            versions = approved(versions, n, now=now)
    before, ended = dict(versions), set[int]()
    for n in taken:
        if n in versions and in_force([versions[n]], now=now):
            versions = expired(versions, n, now=now)
            ended.add(n)
    for n, v in versions.items():
        if n in ended:
            assert not in_force([v], now=now)
        else:
            assert v.visible_from == before[n].visible_from
    windows = shown(versions)
    assert all(ended <= begun for (_, ended), (begun, _) in pairwise(windows))


def test_a_version_that_has_begun_gets_another_last_day_only() -> None:
    versions = approved({1: version(1, ends=date(2026, 6, 30))}, 1, now=NOON)
    longer = redated(versions, 1, Metadata(effective_until=date(2026, 7, 31)), now=NOON + 60)
    assert (longer[1].visible_from, longer[1].visible_until) == (
        versions[1].visible_from,
        midnight(date(2026, 8, 1), SEOUL),
    )
    assert redated(versions, 1, Metadata(), now=NOON + 60)[1].visible_until is None
    for metadata in (Metadata(effective_from=date(2026, 6, 1)), Metadata(effective_until=date(2026, 5, 28))):
        with pytest.raises(WrongState):
            redated(versions, 1, metadata, now=NOON + 60)


def test_a_version_that_is_over_gets_no_other_dates() -> None:
    versions = approved({1: version(1), 2: version(2)}, 1, now=NOON)
    versions = approved(versions, 2, now=NOON + 60)
    with pytest.raises(WrongState):
        redated(versions, 1, Metadata(effective_until=date(2026, 7, 1)), now=NOON + 120)


@given(
    begins=st.lists(days, min_size=2, max_size=5),
    waits=st.lists(st.floats(0, 40 * 86400), min_size=5, max_size=5),
    dated=st.lists(st.tuples(st.integers(1, 5), days, days, st.floats(0, 20 * 86400)), min_size=1, max_size=4),
)
def test_after_any_change_of_dates_no_two_versions_show_and_the_past_stays(
    begins: list[date | None], waits: list[float], dated: list[tuple[int, date | None, date | None, float]]
) -> None:
    versions = {n: version(n, begins=begin) for n, begin in enumerate(begins, start=1)}
    now = NOON
    for n in list(versions):
        now += waits[n - 1]
        with contextlib.suppress(WrongState):
            versions = approved(versions, n, now=now)
    for number, begin, last, wait in dated:
        now += wait
        if number not in versions or versions[number].state is not State.APPROVED:
            continue
        before = versions
        with contextlib.suppress(WrongState):
            versions = redated(versions, number, Metadata(effective_from=begin, effective_until=last), now=now)
        assert read_at(before, now) == read_at(versions, now), "what is read at this moment does not change"
    windows = shown(versions)
    assert all(ended <= begun for (_, ended), (begun, _) in pairwise(windows))


def read_at(versions: dict[int, Version], now: float) -> list[tuple[int, float | None]]:
    return [(n, v.visible_from) for n, v in versions.items() if v.state_at(now) is State.ACTIVE]


# --- to the instant --------------------------------------------------------------------------------------------------

JUNE = midnight(date(2026, 6, 1), SEOUL)
LAST_OF_MAY = date(2026, 5, 31)


def test_a_version_is_approved_while_an_instant_of_its_last_day_is_left() -> None:
    only = {1: version(1, ends=LAST_OF_MAY)}
    assert approved(only, 1, now=JUNE - NOTICE_SECONDS - 0.5)[1].visible_until == JUNE
    with pytest.raises(WrongState):
        approved(only, 1, now=JUNE - NOTICE_SECONDS)


def test_a_version_within_its_notice_has_begun() -> None:
    versions = approved({1: version(1, begins=date(2026, 6, 1))}, 1, now=NOON)
    moved = Metadata(effective_from=date(2026, 6, 5))
    with pytest.raises(WrongState):
        redated(versions, 1, moved, now=JUNE - NOTICE_SECONDS)
    assert redated(versions, 1, moved, now=JUNE - NOTICE_SECONDS - 0.5)[1].visible_from != JUNE
