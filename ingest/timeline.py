"""When versions of a document may be read: half-open intervals that never overlap and leave no gap. Pure.

The one gap that may be is the one staff ask for, by an effective_until before the next version begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ingest.errors import WrongState
from ingest.versions import State, Version

NOTICE_SECONDS = 2.0
"""An approval shows this much later, so that every point of the version is written before anybody may read one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From when until when a version may be read, in Unix seconds."""

    version: int
    visible_from: float
    visible_until: float | None


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
    end = None
    if approved.metadata.effective_until is not None:
        end = midnight(approved.metadata.effective_until + timedelta(days=1), zone)
        if end <= start:
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
    ends = [instant for instant in (end, min(later, default=None)) if instant is not None]
    return [*windows, Window(version=approved.key.version, visible_from=start, visible_until=min(ends, default=None))]


def _begin(version: Version) -> float:
    return version.visible_from if version.visible_from is not None else float("inf")


def _ever_visible(version: Version) -> bool:
    return version.visible_from is not None and (
        version.visible_until is None or version.visible_until > version.visible_from
    )


def _runs_into(version: Version, start: float) -> bool:
    return _begin(version) <= start and (version.visible_until is None or version.visible_until > start)
