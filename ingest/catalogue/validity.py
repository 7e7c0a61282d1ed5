"""When versions of a document may be read: half-open intervals that never overlap and leave no gap. Pure.

The one gap that may be is the one staff ask for, by an effective_until before the next version begins.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ingest.catalogue.versions import IndexTold, Metadata, State, Version, Window
from ingest.errors import WrongState

NOTICE_SECONDS = 2.0
"""An approval shows this much later, so that every point of the version is written before anybody may read one."""
LEAST_NOTICE_SECONDS = 1.0
"""With less left when the index is told, a version begins later."""


def midnight(day: date, zone: ZoneInfo) -> float:
    """Return the instant at which a day begins in a zone."""
    return datetime.combine(day, time.min, tzinfo=zone).timestamp()


def activate(approved: Version, others: Sequence[Version], *, now: float, zone: ZoneInfo) -> list[Window]:
    """Return the windows to write when a version is approved: what it replaces first, itself last.

    It begins at the later of its effective date and `now` + 2 s, also where the date lies in the past: the window says
    what customers could read, and nobody could read it before it was approved. The version in force at that instant
    ends there; a version approved for a later date ends this one.

    Raises:
        WrongState: its last day has passed, or a later version is already in force by then.
    """
    start = now + NOTICE_SECONDS
    if approved.metadata.effective_from is not None:
        start = max(start, midnight(approved.metadata.effective_from, zone))
    last = None
    if approved.metadata.effective_until is not None:
        last = _last_midnight(approved.metadata, zone)
        if last <= start:
            raise WrongState(f"its last day, {approved.metadata.effective_until}, would be over before it is shown")
    shown = [other for other in others if other.state is State.APPROVED and _ever_visible(other)]
    if any(o.key.version > approved.key.version and _begin(o) <= start for o in shown):
        raise WrongState("a later version is already in force: bring the old text back as a new version instead")
    windows = [
        Window(version=o.key.version, visible_from=_begin(o), visible_until=start)
        for o in shown
        if _runs_into(o, start)
    ]
    later = [_begin(other) for other in shown if _begin(other) > start]
    ends = [instant for instant in (last, min(later, default=None)) if instant is not None]
    return [*windows, Window(version=approved.key.version, visible_from=start, visible_until=min(ends, default=None))]


def end(gone: Sequence[Version], others: Sequence[Version], *, now: float, zone: ZoneInfo) -> list[Window]:
    """Return the windows to write when versions may answer no more from `now` on.

    A version that was approved for later never begins; the one that would have ended with its beginning goes on.
    """
    windows = []
    for version in gone:
        if _open_at(version, now):
            windows.append(Window(version=version.key.version, visible_from=_begin(version), visible_until=now))
            if _begin(version) > now:
                windows += _go_on(version, others, zone=zone)
    return windows


def _go_on(never_begun: Version, others: Sequence[Version], *, zone: ZoneInfo) -> list[Window]:
    """Return the window of the version before one that never begins: until its own last day, or the next version."""
    start = _begin(never_begun)
    before = next((o for o in others if o.state is State.APPROVED and o.visible_until == start), None)
    return [] if before is None else [_until_next(before, before.metadata, others, zone=zone)]


def redate(version: Version, said: Metadata, others: Sequence[Version], *, now: float, zone: ZoneInfo) -> list[Window]:
    """Return the windows to write when an approved version gets other dates: what it touches first, itself last.

    One that nobody could read yet is placed anew, as if it were approved at `now`. One that has begun only ends
    elsewhere.

    Raises:
        WrongState: it is over, it has begun and would begin elsewhere, or its last day has passed.
    """
    if not _open_at(version, now):
        raise WrongState("it is over: bring its text back as a new version instead")
    if _begin(version) > now + NOTICE_SECONDS:
        return _placed_anew(version, said, others, now=now, zone=zone)
    if said.effective_from != version.metadata.effective_from:
        raise WrongState("it has begun: its first day stays what it was")
    if _last_midnight(said, zone) <= now:
        raise WrongState(f"its last day, {said.effective_until}, is over: expire it instead")
    return [_until_next(version, said, others, zone=zone)]


def _placed_anew(
    version: Version, said: Metadata, others: Sequence[Version], *, now: float, zone: ZoneInfo
) -> list[Window]:
    freed = {window.version: window for window in end([version], others, now=now, zone=zone)}
    rest = [_in_window(other, freed.get(other.key.version)) for other in others]
    placed = {window.version: window for window in activate(replace(version, metadata=said), rest, now=now, zone=zone)}
    itself = placed.pop(version.key.version)
    del freed[version.key.version]
    return [*(freed | placed).values(), itself]


def _in_window(version: Version, window: Window | None) -> Version:
    if window is None:
        return version
    return replace(version, visible_from=window.visible_from, visible_until=window.visible_until)


def _until_next(version: Version, said: Metadata, others: Sequence[Version], *, zone: ZoneInfo) -> Window:
    """Return the window of a version from its beginning until its last day, or until the next version begins."""
    start = _begin(version)
    later = [_begin(o) for o in others if o.state is State.APPROVED and _ever_visible(o) and _begin(o) > start]
    until = min([*later, _last_midnight(said, zone)])
    never = until == float("inf")
    return Window(version=version.key.version, visible_from=start, visible_until=None if never else until)


def is_late(begins: float | None, *, now: float) -> bool:
    """Tell whether what begins then does so before the index can be told of it."""
    return begins is not None and begins < now + LEAST_NOTICE_SECONDS


def begin_later(late: Version, others: Sequence[Version], *, now: float, zone: ZoneInfo) -> list[Window]:
    """Return the windows to write when the index was not told of a version in time: what it replaces, then itself.

    It begins 2 s after `now` instead. Until then customers find what it replaces, and an `as_of` search says so later.
    """
    ends = late.visible_until if late.visible_until is not None else float("inf")
    start = min(now + NOTICE_SECONDS, ends)
    known = [o for o in others if o.state is State.APPROVED and o.told is not IndexTold.NOTHING]
    before = [o for o in known if o.visible_until == late.visible_from]
    windows = [Window(version=late.key.version, visible_from=start, visible_until=late.visible_until)]
    if before:
        shown = max(before, key=lambda o: (_begin(o), o.key.version))  # the others never were, at this very instant
        until = min(start, _last_midnight(shown.metadata, zone))
        windows.insert(0, Window(version=shown.key.version, visible_from=_begin(shown), visible_until=until))
    return windows


def in_force(versions: Sequence[Version], *, now: float) -> list[Version]:
    """Return the approved versions that answer now, or will."""
    return [version for version in versions if version.state is State.APPROVED and _open_at(version, now)]


def _open_at(version: Version, now: float) -> bool:
    return _ever_visible(version) and (version.visible_until is None or version.visible_until > now)


def _last_midnight(said: Metadata, zone: ZoneInfo) -> float:
    return midnight(said.effective_until + timedelta(days=1), zone) if said.effective_until else float("inf")


def _begin(version: Version) -> float:
    return version.visible_from if version.visible_from is not None else float("inf")


def _ever_visible(version: Version) -> bool:
    return version.visible_from is not None and (
        version.visible_until is None or version.visible_until > version.visible_from
    )


def _runs_into(version: Version, start: float) -> bool:
    return _begin(version) <= start and (version.visible_until is None or version.visible_until > start)
