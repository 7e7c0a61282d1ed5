"""Compute the windows in which a document's versions may be read: half-open intervals, without overlaps and gaps.

The only gap is one that staff ask for, by an `effective_until` before the next version begins. Instants are Unix
seconds. Each `windows_for_…` returns the windows that change, and the other windows of the document stay as they are.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from math import inf
from zoneinfo import ZoneInfo

from ingest.catalogue.versions import Metadata, State, Version, Window, WindowWritten
from ingest.errors import WrongState

NOTICE_SECONDS = 2.0  # time from an approval to the version's start, in which the window is written to all its points
LEAST_NOTICE_SECONDS = 1.0  # a version whose start is nearer than this when the writing begins is postponed


def midnight(day: date, zone: ZoneInfo) -> float:
    """Return the instant at which a day begins in a zone."""
    return datetime.combine(day, time.min, tzinfo=zone).timestamp()


def windows_for_approval(approved: Version, others: Sequence[Version], *, now: float, zone: ZoneInfo) -> list[Window]:
    """Return the windows for an approval at `now`: those of the versions that it ends, then that of `approved`.

    `approved` begins on its first day, but not before `now` + 2 s: a window must not state that customers could read a
    version before the index had it. The version that answers at that instant ends. A version that was approved for a
    later day ends `approved`, even if that day came while a rollback was indexing `approved`.

    Raises:
        WrongState: the last day of `approved` has passed, or a newer version already answers when it would begin.
    """
    first_day = approved.metadata.effective_from
    earliest_start = midnight(first_day, zone) if first_day is not None else -inf
    start = max(now + NOTICE_SECONDS, earliest_start)
    end_of_last_day = _end_of_last_day(approved.metadata, zone)
    if end_of_last_day <= start:
        raise WrongState(
            f"its last day, {approved.metadata.effective_until}, would be over before it is shown: change a draft's "
            "dates, or upload the file of a former version again"
        )
    decided_at = _decided_at(approved, now)
    planned_start = max(decided_at + NOTICE_SECONDS, earliest_start)
    later = [
        other
        for other in _visible(others)
        if _start(other) > start or _overtakes(other, approved, decided_at=decided_at, planned_start=planned_start)
    ]
    earlier = [other for other in _visible(others) if other not in later]
    if any(other.key.version > approved.key.version for other in earlier):
        raise WrongState("a later version is already in force: roll back to the old version instead")
    windows = [
        Window(version=other.key.version, visible_from=_start(other), visible_until=start)
        for other in earlier
        if _is_readable_at(other, start)
    ]
    end = min([*map(_start, later), end_of_last_day])
    new_window = Window(version=approved.key.version, visible_from=start, visible_until=None if end == inf else end)
    return [*windows, new_window]


def _decided_at(approved: Version, now: float) -> float:
    """Return the time of the decision that lets a version answer: `now`, or that of the rollback that restored it."""
    rolled_back_at = approved.approved_at if approved.state is State.INDEXED else None
    return now if rolled_back_at is None else rolled_back_at


def _overtakes(other: Version, restored: Version, *, decided_at: float, planned_start: float) -> bool:
    """Return whether `other` ends `restored` although it begins earlier.

    A restored version is indexed after the rollback, so it begins later than planned. A version that began in between
    ends it if it was approved before the rollback, or is newer.
    """
    was_approved_before = other.approved_at is not None and other.approved_at <= decided_at
    return _start(other) > planned_start and (was_approved_before or other.key.version > restored.key.version)


def windows_for_expiry(expired: Version, others: Sequence[Version], *, now: float, zone: ZoneInfo) -> list[Window]:
    """Return the windows for a version that ends at `now`; an empty list if it has ended already.

    If it has not begun, it never begins, and its predecessor among `others` continues.
    """
    if not _open_at(expired, now):
        return []
    ended = Window(version=expired.key.version, visible_from=_start(expired), visible_until=now)
    has_begun = _start(expired) <= now
    return [ended] if has_begun else [ended, *_window_of_predecessor(expired, others, zone=zone)]


def _window_of_predecessor(cancelled: Version, others: Sequence[Version], *, zone: ZoneInfo) -> list[Window]:
    """Return the window of the version that was to end at a cancelled version's start, if there is one."""
    start = _start(cancelled)
    ending = [other for other in others if other.state is State.APPROVED and other.visible_until == start]
    return [_window_until_next(version, version.metadata, others, zone=zone) for version in _last_to_begin(ending)]


def _last_to_begin(versions: Sequence[Version]) -> list[Version]:
    """Return the version that begins last, as a list; an empty list without versions.

    Several versions end at one instant if some of them were replaced before they began.
    """
    return sorted(versions, key=lambda version: (_start(version), version.key.version))[-1:]


def windows_for_new_dates(
    version: Version, metadata: Metadata, others: Sequence[Version], *, now: float, zone: ZoneInfo
) -> list[Window]:
    """Return the windows for an approved version with new dates: first the windows of other versions, then its own.

    If it has not begun, it gets a window as if it were approved at `now`. If it has begun, only its end may change.

    Raises:
        WrongState: it has ended, it has begun and its first day would change, or its last day has passed.
    """
    if not _open_at(version, now):
        raise WrongState("it is over: upload its file again with the new dates, or roll back to it")
    if _start(version) > now + NOTICE_SECONDS:
        return _windows_for_new_start(version, metadata, others, now=now, zone=zone)
    if metadata.effective_from != version.metadata.effective_from:
        raise WrongState("it has begun: its first day can no longer change")
    if _end_of_last_day(metadata, zone) <= now:
        raise WrongState(f"its last day, {metadata.effective_until}, is over: expire it instead")
    return [_window_until_next(version, metadata, others, zone=zone)]


def _windows_for_new_start(
    version: Version, metadata: Metadata, others: Sequence[Version], *, now: float, zone: ZoneInfo
) -> list[Window]:
    """Return the windows as if the version expired and were approved again with other dates."""
    by_expiry = {window.version: window for window in windows_for_expiry(version, others, now=now, zone=zone)}
    remaining = [_with_window(other, by_expiry.get(other.key.version)) for other in others]
    dated = replace(version, metadata=metadata)
    by_approval = {window.version: window for window in windows_for_approval(dated, remaining, now=now, zone=zone)}
    new_window = by_approval.pop(version.key.version)
    del by_expiry[version.key.version]
    return [*(by_expiry | by_approval).values(), new_window]


def _with_window(version: Version, window: Window | None) -> Version:
    if window is None:
        return version
    return replace(version, visible_from=window.visible_from, visible_until=window.visible_until)


def _window_until_next(version: Version, metadata: Metadata, others: Sequence[Version], *, zone: ZoneInfo) -> Window:
    """Return the window of a version from its start until its last day, or until the next version begins."""
    start = _start(version)
    later_starts = [_start(other) for other in _visible(others) if _start(other) > start]
    end = min([*later_starts, _end_of_last_day(metadata, zone)])
    return Window(version=version.key.version, visible_from=start, visible_until=None if end == inf else end)


def starts_too_soon(start: float | None, *, now: float) -> bool:
    """Return whether a window's start leaves less than LEAST_NOTICE_SECONDS to write it to the index."""
    return start is not None and start < now + LEAST_NOTICE_SECONDS


def windows_for_late_start(late: Version, others: Sequence[Version], *, now: float, zone: ZoneInfo) -> list[Window]:
    """Return the windows for a version that the index does not have in time: that of its predecessor, then its own.

    The late version begins 2 s after `now` instead, or never if it ends sooner. Its predecessor answers until then,
    also in later searches `as_of` that time.
    """
    start = min(now + NOTICE_SECONDS, _end(late))
    written = [o for o in others if o.state is State.APPROVED and o.window_written is not WindowWritten.NOTHING]
    ending = [other for other in written if other.visible_until == late.visible_from]
    windows = [Window(version=late.key.version, visible_from=start, visible_until=late.visible_until)]
    for previous in _last_to_begin(ending):
        until = min(start, _end_of_last_day(previous.metadata, zone))
        windows.insert(0, Window(version=previous.key.version, visible_from=_start(previous), visible_until=until))
    return windows


def in_writing_order(windows: Sequence[Window], versions: Sequence[Version]) -> tuple[Window, ...]:
    """Return windows in the order of writing them to the index.

    First come versions that the index does not know, then windows that only grow, then windows that lose instants. So
    at least one version can be read at every instant, however long a write takes. If two can, searches return the newer
    one (`knowledge.index`). `versions` are the document's versions before the change.
    """
    before = {version.key.version: version for version in versions}

    def order(window: Window) -> tuple[bool, bool]:
        version = before[window.version]
        return known_to_index(version), _closes(version, window)

    return tuple(sorted(windows, key=order))


def known_to_index(version: Version) -> bool:
    """Return whether the index has a version's start."""
    return version.visible_from is not None and version.window_written is not WindowWritten.NOTHING


def replaced_by_unknown(versions: Sequence[Version], *, now: float) -> list[Version]:
    """Return the versions whose end is after `now` and is the start of a successor that the index lacks."""
    unknown = [v for v in versions if v.visible_from is not None and not known_to_index(v)]
    unknown_starts = {(_document(v), v.visible_from) for v in unknown}
    ending = [v for v in versions if known_to_index(v) and v.visible_until is not None and v.visible_until > now]
    return [v for v in ending if (_document(v), v.visible_until) in unknown_starts]


def _document(version: Version) -> tuple[str, str]:
    return version.key.tenant, version.key.document_id


def _closes(before: Version, window: Window) -> bool:
    """Return whether a new window excludes instants at which the version could be read before."""
    new_end = window.visible_until if window.visible_until is not None else inf
    return window.visible_from > _start(before) or new_end < _end(before)


def in_force(versions: Sequence[Version], *, now: float) -> list[Version]:
    """Return the approved versions that answer at `now` or will answer later."""
    return [version for version in versions if version.state is State.APPROVED and _open_at(version, now)]


def answering(versions: Sequence[Version], *, now: float) -> list[Version]:
    """Return the approved versions that answer at `now` or begin within the notice; not those approved for later."""
    return [version for version in in_force(versions, now=now) if _start(version) <= now + NOTICE_SECONDS]


def _visible(versions: Sequence[Version]) -> list[Version]:
    """Return the approved versions that customers can read at some time."""
    return [version for version in versions if version.state is State.APPROVED and _is_ever_visible(version)]


def _open_at(version: Version, now: float) -> bool:
    return _is_ever_visible(version) and _end(version) > now


def _end_of_last_day(metadata: Metadata, zone: ZoneInfo) -> float:
    """Return the midnight after a document's last day; infinity without a last day."""
    return midnight(metadata.effective_until + timedelta(days=1), zone) if metadata.effective_until else inf


def _start(version: Version) -> float:
    return version.visible_from if version.visible_from is not None else inf


def _end(version: Version) -> float:
    return version.visible_until if version.visible_until is not None else inf


def _is_ever_visible(version: Version) -> bool:
    return version.visible_from is not None and _end(version) > version.visible_from


def _is_readable_at(version: Version, instant: float) -> bool:
    return _start(version) <= instant < _end(version)
