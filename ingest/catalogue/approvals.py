"""What people decide about versions: approve, reject, date, expire, roll back, delete. Each is one transaction.

It changes the catalogue, writes down who decided, and withdraws what may answer no more (`knowledge.withdrawals`, which
every replica of the chatbot reads each second) all at once; the index is told next (`ingest.pipeline`), and by the
worker where a crash comes between.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ingest.catalogue import records, rows
from ingest.catalogue import validity as timeline
from ingest.catalogue.catalogue import Catalogue
from ingest.catalogue.tables import DECISIONS
from ingest.catalogue.versions import (
    Dates,
    Decision,
    IndexTold,
    Metadata,
    Received,
    State,
    Upload,
    Version,
    VersionKey,
    Window,
)
from ingest.errors import Forbidden, NotFound, SecondPersonNeeded, WrongState
from knowledge.withdrawals import write_withdrawal


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalDecision:
    """Somebody's decision: who, when (Unix seconds) and why."""

    by: str
    at: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedWindows:
    """What the index has to be told: windows in this order, and versions whose points nobody will ever read."""

    windows: tuple[Window, ...] = ()
    dropped: tuple[VersionKey, ...] = ()


class Approvals:
    """Decides, in the bank's time zone."""

    def __init__(self, catalogue: Catalogue, zone: ZoneInfo) -> None:
        self._catalogue = catalogue
        self._zone = zone

    async def approve(self, key: VersionKey, decided: ApprovalDecision) -> ChangedWindows:
        """Record an approval; its predecessor ends where it begins.

        Approving again decides nothing; what the index was not told yet is to be told then.

        Raises:
            NotFound: there is no such version.
            SecondPersonNeeded: the approver has uploaded it, or set its dates.
            WrongState: the version is no draft, or comes too late (`ingest.catalogue.validity`).
        """
        async with self._locked(key, decided.at) as (connection, everyone):
            version = _find(everyone, key)
            if version.state is State.APPROVED:
                return ChangedWindows(windows=_untold(everyone))
            if version.state is not State.INDEXED:
                raise WrongState(f"only an indexed draft can be approved; this version is {version.state}")
            _require_second_person(version, decided.by)
            if version.approved_by is None:  # else it is brought back, and its dates were an approver's to set
                await _require_dates_of_another(connection, key, decided.by)
            others = [v for v in everyone if v.key != key]
            windows = timeline.activate(version, others, now=decided.at, zone=self._zone)
            await _write_windows(connection, key, windows, everyone)
            approval = {"state": State.APPROVED, "approved_by": decided.by, "approved_at": decided.at}
            await connection.execute(records.at(key).values(**approval))
            await _write_down(connection, key, Decision.APPROVED, decided, windows[-1])
            return ChangedWindows(windows=tuple(windows))

    async def reject(self, key: VersionKey, decided: ApprovalDecision) -> ChangedWindows:
        """Withdraw a draft before anybody could read it. Rejecting again changes nothing.

        Raises:
            NotFound: there is no such version.
            WrongState: it is no draft.
        """
        async with self._locked(key, decided.at) as (connection, everyone):
            version = _find(everyone, key)
            if version.state is State.WITHDRAWN and version.reason == Decision.REJECTED:
                return ChangedWindows(dropped=(key,))
            if version.state is not State.INDEXED:
                raise WrongState(f"only an indexed draft can be rejected; this version is {version.state}")
            await _withdraw(connection, version, Decision.REJECTED, decided)
            return ChangedWindows(dropped=(key,))

    async def date(
        self, key: VersionKey, dates: Dates, decided: ApprovalDecision, *, may_approve: bool
    ) -> ChangedWindows:
        """Change from when until when a version counts; for a draft they do so from its approval on.

        Raises:
            NotFound: there is no such version.
            Forbidden: it was approved, and whoever asks may not approve.
            SecondPersonNeeded: it was approved, and whoever asks has uploaded it.
            WrongState: it never answers, or see `ingest.timeline.redate`.
        """
        async with self._locked(key, decided.at) as (connection, everyone):
            version = _find(everyone, key)
            said = replace(version.metadata, effective_from=dates.effective_from, effective_until=dates.effective_until)
            if version.state not in (State.RECEIVED, State.INDEXED, State.APPROVED):
                raise WrongState(f"a version that is {version.state} has no dates to change")
            if said == version.metadata:
                return ChangedWindows()
            if version.approved_by is not None:
                _require_approver(version, decided.by, may_approve=may_approve)
            windows = self._redated(version, said, everyone, decided)
            await connection.execute(
                records.at(key).values(effective_from=said.effective_from, effective_until=said.effective_until)
            )
            await _write_windows(connection, key, windows, everyone)
            await _write_down(connection, key, Decision.DATED, decided, windows[-1] if windows else None)
            return ChangedWindows(windows=tuple(windows))

    async def expire(self, key: VersionKey, decided: ApprovalDecision) -> ChangedWindows:
        """Let an approved version answer no more from now on; one that is over already stays as it is.

        Raises:
            NotFound: there is no such version.
            WrongState: it was never approved.
        """
        async with self._locked(key, decided.at) as (connection, everyone):
            version = _find(everyone, key)
            if version.state is not State.APPROVED:
                raise WrongState(f"only an approved version can expire; this version is {version.state}")
            windows = self._end([version], everyone, decided)
            await _write_windows(connection, key, windows, everyone)
            if windows:
                await _revoke(connection, version, Decision.EXPIRED, decided)
                await _write_down(connection, key, Decision.EXPIRED, decided, windows[0])
            return ChangedWindows(windows=tuple(windows))

    async def delete(self, tenant: str, document_id: str, decided: ApprovalDecision) -> ChangedWindows:
        """Withdraw every version of a document; the catalogue keeps them, and any can be rolled back to.

        Raises:
            NotFound: there is no such document.
        """
        first = VersionKey(tenant=tenant, document_id=document_id, version=1)
        async with self._locked(first, decided.at) as (connection, everyone):
            if not everyone:
                raise NotFound("there is no such document")
            windows = self._end(timeline.in_force(everyone, now=decided.at), everyone, decided)
            await _write_windows(connection, first, windows, everyone)
            gone = [version for version in everyone if version.state is not State.WITHDRAWN]
            for version in gone:
                await _withdraw(connection, version, Decision.DELETED, decided)
            dropped = tuple(version.key for version in gone if version.visible_from is None)
            return ChangedWindows(windows=tuple(windows), dropped=dropped)

    async def roll_back(
        self, tenant: str, document_id: str, to_version: int, decided: ApprovalDecision
    ) -> tuple[Received, ChangedWindows]:
        """Withdraw what answers now, and receive the bytes and metadata of an earlier version as a new, approved one.

        The text was approved once, so nobody has to look again: it answers as soon as it is indexed.

        Raises:
            NotFound: there is no such version.
            SecondPersonNeeded: whoever rolls back has uploaded that version.
            WrongState: that version was never approved, answers now, or is over by its own last day.
        """
        key = VersionKey(tenant=tenant, document_id=document_id, version=to_version)
        async with self._locked(key, decided.at) as (connection, everyone):
            old = _find(everyone, key)
            current = timeline.in_force(everyone, now=decided.at)
            self._require_restorable(old, current, decided)
            windows = self._end(current, everyone, decided)
            await _write_windows(connection, key, windows, everyone)
            for version in current:
                await _withdraw(connection, version, Decision.ROLLED_BACK, decided)
            number = await records.next_version(connection, tenant, document_id, decided.at)
            new = replace(key, version=number)
            upload = _again(old)
            holder = await records.content_holder(connection, tenant, old.sha256)
            await records.add_version(connection, new, upload, instead_of=holder, now=decided.at)
            # Its title may be one that indexing found: the fingerprint is of what was said at the upload.
            said = {"fingerprint": old.fingerprint, "approved_by": decided.by, "approved_at": decided.at}
            await connection.execute(records.at(new).values(**said))
            received = await records.version(connection, new)
            job = await records.job_of(connection, new)
            return Received(version=received, job=job, is_new=True), ChangedWindows(windows=tuple(windows))

    async def begin_in_time(self, key: VersionKey, *, now: float) -> list[Window]:
        """Let a version of which the index was not told in time begin later; return what it has to be told for that.

        Raises:
            NotFound: there is no such version.
        """
        async with self._locked(key, now) as (connection, everyone):
            version = _find(everyone, key)
            if version.told is not IndexTold.NOTHING or not timeline.is_late(version.visible_from, now=now):
                return []
            others = [other for other in everyone if other.key != key]
            windows = timeline.begin_later(version, others, now=now, zone=self._zone)
            await _write_windows(connection, key, windows, everyone)
            return windows

    @asynccontextmanager
    async def _locked(self, key: VersionKey, at: float) -> AsyncGenerator[tuple[AsyncConnection, Sequence[Version]]]:
        """Open a transaction that holds the document's row, with all its versions."""
        async with self._catalogue.write() as connection:
            await records.lock(connection, key, at)
            yield connection, await records.versions(connection, key.tenant, key.document_id)

    def _end(self, gone: Sequence[Version], everyone: Sequence[Version], decided: ApprovalDecision) -> list[Window]:
        names = {version.key for version in gone}
        others = [version for version in everyone if version.key not in names]
        return timeline.end(gone, others, now=decided.at, zone=self._zone)

    def _redated(
        self, version: Version, said: Metadata, everyone: Sequence[Version], decided: ApprovalDecision
    ) -> list[Window]:
        if version.state is not State.APPROVED:
            return []
        others = [other for other in everyone if other.key != version.key]
        return timeline.redate(version, said, others, now=decided.at, zone=self._zone)

    def _require_restorable(self, old: Version, current: Sequence[Version], decided: ApprovalDecision) -> None:
        if old.approved_at is None or old.visible_from is None:
            raise WrongState("only a version that was approved once can be brought back")
        if any(version.key == old.key for version in current):
            raise WrongState("this version is in force: expire what is to come after it instead")
        _require_second_person(old, decided.by)
        timeline.activate(old, [], now=decided.at, zone=self._zone)


def _find(everyone: Sequence[Version], key: VersionKey) -> Version:
    version = next((version for version in everyone if version.key == key), None)
    if version is None:
        raise NotFound("there is no such version")
    return version


def _untold(everyone: Sequence[Version]) -> tuple[Window, ...]:
    return tuple(one.window for one in everyone if one.window is not None and one.told is not IndexTold.WINDOW)


def _require_second_person(version: Version, approver: str) -> None:
    if _is_same_person(approver, version.uploaded_by):
        raise SecondPersonNeeded("whoever uploaded a version cannot approve it: a second person has to look")


def _require_approver(version: Version, who: str, *, may_approve: bool) -> None:
    if not may_approve:
        raise Forbidden("only approvers may change the dates of an approved version")
    _require_second_person(version, who)


async def _require_dates_of_another(connection: AsyncConnection, key: VersionKey, approver: str) -> None:
    """Refuse whoever set a draft's dates last: they are part of what a second person looks at."""
    of_version = (
        (DECISIONS.c.tenant == key.tenant)
        & (DECISIONS.c.document_id == key.document_id)
        & (DECISIONS.c.version == key.version)
    )
    dated = select(DECISIONS.c.decided_by).where(of_version, DECISIONS.c.decision == Decision.DATED)
    last = (await connection.execute(dated.order_by(DECISIONS.c.id.desc()).limit(1))).scalar_one_or_none()
    if last is not None and _is_same_person(last, approver):
        raise SecondPersonNeeded("whoever set its dates cannot approve a version: a second person has to look")


def _is_same_person(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


def _again(old: Version) -> Upload:
    return Upload(
        tenant=old.key.tenant,
        document_id=old.key.document_id,
        file_name=old.file_name,
        sha256=old.sha256,
        size=old.size,
        metadata=old.metadata,
        uploaded_by=old.uploaded_by,
    )


async def _write_windows(
    connection: AsyncConnection, of: VersionKey, windows: Sequence[Window], before: Sequence[Version]
) -> None:
    for window in windows:
        version = _find(before, replace(of, version=window.version))
        begins_as_told = version.told is not IndexTold.NOTHING and version.visible_from == window.visible_from
        told = IndexTold.BEGINNING if begins_as_told else IndexTold.NOTHING
        await connection.execute(records.at(version.key).values(**rows.window(window), window_written=told))


async def _withdraw(connection: AsyncConnection, version: Version, why: Decision, decided: ApprovalDecision) -> None:
    said = {"state": State.WITHDRAWN, "reason": why, "detail": decided.reason or None}
    await connection.execute(records.at(version.key).values(**said))
    await _revoke(connection, version, why, decided)
    await _write_down(connection, version.key, why, decided, None)


async def _revoke(connection: AsyncConnection, version: Version, why: Decision, decided: ApprovalDecision) -> None:
    key, reason = version.key, decided.reason or why
    await write_withdrawal(connection, key.tenant, key.document_id, key.version, reason=reason, at=decided.at)


async def _write_down(
    connection: AsyncConnection, key: VersionKey, what: Decision, decided: ApprovalDecision, window: Window | None
) -> None:
    row = rows.decision(key, what, decided.by, decided.at)
    await connection.execute(insert(DECISIONS).values(**row, **(rows.window(window) if window else {})))
