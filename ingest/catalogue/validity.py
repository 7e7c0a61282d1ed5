"""The windows in which a document's versions may be read: half-open intervals, without overlaps and gaps. Pure.

The only gap is one that staff ask for, by an `effective_until` before the next version begins. Instants are Unix
seconds; each `windows_for_…` returns the windows to write, and those that it does not return stay as they are.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from math import inf
from zoneinfo import ZoneInfo

from ingest.catalogue.versions import Metadata, State, Version, Window, WindowWritten
from ingest.errors import WrongState

NOTICE_SECONDS = 2.0
"""Between an approval and the version's start: every point of the version is written before one may be read."""
LEAST_NOTICE_SECONDS = 1.0
"""With less left when the index is written, a version begins later."""


def midnight(day: date, zone: ZoneInfo) -> float:
    """Return the instant at which a day begins in a zone."""
    return datetime.combine(day, time.min, tzinfo=zone).timestamp()


def windows_for_approval(approved: Version, others: Sequence[Version], *, now: float, zone: ZoneInfo) -> list[Window]:
    """Return the windows for an approval at `now`: those of the versions it replaces, and last its own.

    It begins at the later of its first day and `now` + 2 s, also where that day lies in the past: a window says what
    customers could read, and before the approval they could not. The version in force at that instant ends there. A
    version approved for a later day ends this one, also if that day came while this one was indexed again for a
    rollback.

    Raises:
        WrongState: its last day has passed, or a later version is in force on it.
    """
    first = midnight(approved.metadata.effective_from, zone) if approved.metadata.effective_from is not None else -inf
    start = max(now + NOTICE_SECONDS, first)
    last = None
    if approved.metadata.effective_until is not None:
        last = _end_of_last_day(approved.metadata, zone)
        if last <= start:
            raise WrongState(
                f"its last day, {approved.metadata.effective_until}, would be over before it is shown: change a "
                "draft's dates, or upload the file of a former version again"
            )
    visible_versions = [other for other in others if other.state is State.APPROVED and _ever_visible(other)]
    decided = _decided_at(approved, now)
    due = max(decided + NOTICE_SECONDS, first)
    later = [
        other
        for other in visible_versions
        if _start(other) > start or _overtakes(other, approved, decided=decided, due=due)
    ]
    before = [other for other in visible_versions if other not in later]
    if any(other.key.version > approved.key.version for other in before):
        raise WrongState("a later version is already in force: roll back to the old version instead")
    windows = [
        Window(version=other.key.version, visible_from=_start(other), visible_until=start)
        for other in before
        if _runs_into(other, start)
    ]
    ends = [*map(_start, later), *([] if last is None else [last])]
    return [*windows, Window(version=approved.key.version, visible_from=start, visible_until=min(ends, default=None))]


def _decided_at(approved: Version, now: float) -> float:
    """Return when it was decided that a version answers: of a draft that was brought back, at the rollback."""
    decided = approved.approved_at if approved.state is State.INDEXED else None
    return now if decided is None else decided


def _overtakes(other: Version, approved: Version, *, decided: float, due: float) -> bool:
    """Return whether a version that has begun since another was due goes before it: decided before, or as a newer one.

    Only what was brought back is due before it begins: it is indexed first.
    """
    was_decided = other.approved_at is not None and other.approved_at <= decided
    return _start(other) > due and (was_decided or other.key.version > approved.key.version)


def windows_for_expiry(expired: Version, others: Sequence[Version], *, now: float, zone: ZoneInfo) -> list[Window]:
    """Return the windows for a version that ends at `now`; none where it has ended already.

    One that was approved for later never begins; of `others` the one that would have ended with its start continues.
    """
    if not _open_at(expired, now):
        return []
    own = Window(version=expired.key.version, visible_from=_start(expired), visible_until=now)
    return [own, *(_continued(expired, others, zone=zone) if _start(expired) > now else [])]


def _continued(never_begun: Version, others: Sequence[Version], *, zone: ZoneInfo) -> list[Window]:
    """Return the window of the version before one that never begins: until its own last day, or the next version."""
    start = _start(never_begun)
    before = [other for other in others if other.state is State.APPROVED and other.visible_until == start]
    return [_until_next(last, last.metadata, others, zone=zone) for last in _last_to_begin(before)]


def _last_to_begin(versions: Sequence[Version]) -> list[Version]:
    """Return the last version to begin, if any: several end at one instant where some were replaced beforehand."""
    return sorted(versions, key=lambda version: (_start(version), version.key.version))[-1:]


def windows_for_new_dates(
    version: Version, metadata: Metadata, others: Sequence[Version], *, now: float, zone: ZoneInfo
) -> list[Window]:
    """Return the windows for an approved version that gets other dates: those it touches first, its own last.

    One that has not begun is placed again, as if it were approved at `now`. One that has begun only ends elsewhere.

    Raises:
        WrongState: it has ended, it has begun and would begin elsewhere, or its last day has passed.
    """
    if not _open_at(version, now):
        raise WrongState("it is over: upload its file again with the new dates, or roll back to it")
    if _start(version) > now + NOTICE_SECONDS:
        return _placed_anew(version, metadata, others, now=now, zone=zone)
    if metadata.effective_from != version.metadata.effective_from:
        raise WrongState("it has begun: its first day can no longer change")
    if _end_of_last_day(metadata, zone) <= now:
        raise WrongState(f"its last day, {metadata.effective_until}, is over: expire it instead")
    return [_until_next(version, metadata, others, zone=zone)]


def _placed_anew(
    version: Version, metadata: Metadata, others: Sequence[Version], *, now: float, zone: ZoneInfo
) -> list[Window]:
    freed = {window.version: window for window in windows_for_expiry(version, others, now=now, zone=zone)}
    rest = [_in_window(other, freed.get(other.key.version)) for other in others]
    dated = replace(version, metadata=metadata)
    placed = {window.version: window for window in windows_for_approval(dated, rest, now=now, zone=zone)}
    own = placed.pop(version.key.version)
    del freed[version.key.version]
    return [*(freed | placed).values(), own]


def _in_window(version: Version, window: Window | None) -> Version:
    if window is None:
        return version
    return replace(version, visible_from=window.visible_from, visible_until=window.visible_until)


def _until_next(version: Version, metadata: Metadata, others: Sequence[Version], *, zone: ZoneInfo) -> Window:
    """Return the window of a version from its start until its last day, or until the next version begins."""
    start = _start(version)
    visible_versions = [other for other in others if other.state is State.APPROVED and _ever_visible(other)]
    later = [_start(other) for other in visible_versions if _start(other) > start]
    until = min([*later, _end_of_last_day(metadata, zone)])
    return Window(version=version.key.version, visible_from=start, visible_until=None if until == inf else until)


def starts_too_soon(start: float | None, *, now: float) -> bool:
    """Return whether a window's start leaves less than LEAST_NOTICE_SECONDS to write it to the index."""
    return start is not None and start < now + LEAST_NOTICE_SECONDS


def windows_for_late_start(late: Version, others: Sequence[Version], *, now: float, zone: ZoneInfo) -> list[Window]:
    """Return the windows for a version that the index does not have in time: that of its predecessor, then its own.

    It begins 2 s after `now` instead. Until then customers find its predecessor, and so does an `as_of` search later.
    """
    ends = late.visible_until if late.visible_until is not None else inf
    start = min(now + NOTICE_SECONDS, ends)
    written = [o for o in others if o.state is State.APPROVED and o.window_written is not WindowWritten.NOTHING]
    before = [other for other in written if other.visible_until == late.visible_from]
    windows = [Window(version=late.key.version, visible_from=start, visible_until=late.visible_until)]
    for previous in _last_to_begin(before):
        until = min(start, _end_of_last_day(previous.metadata, zone))
        windows.insert(0, Window(version=previous.key.version, visible_from=_start(previous), visible_until=until))
    return windows


def in_writing_order(windows: Sequence[Window], versions: Sequence[Version]) -> tuple[Window, ...]:
    """Return windows in the order of writing them to the index: those that it lacks, that open, that close.

    So one version or the other may be read at every instant, however long a write takes; of two the newer one is
    (`knowledge.index`). `versions` are the document's as they were before.
    """
    before = {version.key.version: version for version in versions}

    def place(window: Window) -> tuple[bool, bool]:
        return known_to_index(before[window.version]), _closes(before[window.version], window)

    return tuple(sorted(windows, key=place))


def known_to_index(version: Version) -> bool:
    """Return whether customers may read a version already: it is written to the index before its window opens."""
    return version.visible_from is not None and version.window_written is not WindowWritten.NOTHING


def replaced_by_unknown(versions: Sequence[Version], *, now: float) -> list[Version]:
    """Return the versions that answer until a version begins of which the index knows nothing."""
    begin = {(_document(v), v.visible_from) for v in versions if v.visible_from is not None and not known_to_index(v)}
    return [
        v
        for v in versions
        if v.visible_until is not None
        and v.visible_until > now
        and known_to_index(v)
        and (_document(v), v.visible_until) in begin
    ]


def _document(version: Version) -> tuple[str, str]:
    return version.key.tenant, version.key.document_id


def _closes(before: Version, window: Window) -> bool:
    """Return whether a window takes instants from a version at which it could be read."""
    ended, ends = (until if until is not None else inf for until in (before.visible_until, window.visible_until))
    return window.visible_from > _start(before) or ends < ended


def in_force(versions: Sequence[Version], *, now: float) -> list[Version]:
    """Return the approved versions that answer at `now`, or later."""
    return [version for version in versions if version.state is State.APPROVED and _open_at(version, now)]


def answering(versions: Sequence[Version], *, now: float) -> list[Version]:
    """Return the approved versions that answer at `now`, or whose notice runs; not those approved for later."""
    return [version for version in in_force(versions, now=now) if _start(version) <= now + NOTICE_SECONDS]


def _open_at(version: Version, now: float) -> bool:
    return _ever_visible(version) and (version.visible_until is None or version.visible_until > now)


def _end_of_last_day(metadata: Metadata, zone: ZoneInfo) -> float:
    """Return the midnight after a document's last day, infinity where it has none."""
    return midnight(metadata.effective_until + timedelta(days=1), zone) if metadata.effective_until else inf


def _start(version: Version) -> float:
    return version.visible_from if version.visible_from is not None else inf


def _ever_visible(version: Version) -> bool:
    return version.visible_from is not None and (
        version.visible_until is None or version.visible_until > version.visible_from
    )


def _runs_into(version: Version, start: float) -> bool:
    return _start(version) <= start and (version.visible_until is None or version.visible_until > start)
