"""Decisions about versions: approve, reject, set dates, expire, roll back, delete. Each is one transaction.

The transaction changes the catalogue, records who decided, and withdraws the versions that may no longer answer
(`knowledge.withdrawals`, which every replica of the chatbot reads each second). Then the caller writes the index
(`ingest.pipeline`); after a crash in between, the worker does.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ingest.catalogue import records, rows, validity
from ingest.catalogue.catalogue import Catalogue
from ingest.catalogue.tables import DECISIONS, JOBS
from ingest.catalogue.versions import (
    Dates,
    Decision,
    JobState,
    Metadata,
    Received,
    Seen,
    State,
    Upload,
    Version,
    VersionKey,
    Window,
    WindowWritten,
)
from ingest.errors import DatesChanged, Forbidden, NotFound, SecondPersonNeeded, WrongState
from knowledge.service_keys import person_behind
from knowledge.withdrawals import remove_end, write_withdrawal


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalDecision:
    """Who decides, when (Unix seconds) and why."""

    by: str
    at: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedWindows:
    """The changes of a decision to the index: windows to write, in this order, and versions to delete."""

    windows: tuple[Window, ...] = ()
    dropped: tuple[VersionKey, ...] = ()


class Approvals:
    """Carries out decisions; raises NotFound for an unknown version. Days begin at midnight in the bank's zone."""

    def __init__(self, catalogue: Catalogue, zone: ZoneInfo) -> None:
        self._catalogue = catalogue
        self._zone = zone

    async def approve(self, key: VersionKey, decision: ApprovalDecision, *, seen: Seen | None = None) -> ChangedWindows:
        """Approve a version; its predecessor ends when the version begins.

        A second approval changes nothing, and returns the document's windows that the index lacks. `seen` holds the
        dates and the title that the approver was shown, if known.

        Raises:
            DatesChanged: its dates or its title differ from `seen`.
            SecondPersonNeeded: the approver has uploaded it, or set its dates or its title.
            WrongState: the version is not a draft, or its last day has passed, or a newer version answers.
        """
        async with self._locked(key, decision.at) as (connection, versions):
            version = _version_in(versions, key)
            if version.state is State.APPROVED:
                return ChangedWindows(windows=_unwritten_windows(versions))
            if version.state is not State.INDEXED:
                raise WrongState(f"only an indexed draft can be approved; this version is {version.state}")
            await _require_second_person(connection, version, decision.by)
            _require_as_seen(version.metadata, seen)
            if version.approved_by is None:  # only approvers can set the dates of a version that a rollback restored
                for kind in (Decision.DATED, Decision.TITLED):
                    await _refuse_last_editor(connection, key, kind, decision.by)
            others = _without(versions, key)
            windows = validity.windows_for_approval(version, others, now=decision.at, zone=self._zone)
            await _write_windows(connection, key, windows, versions, now=decision.at)
            approval = {"state": State.APPROVED, "approved_by": decision.by, "approved_at": decision.at}
            await connection.execute(records.update_version(key).values(**approval))
            await _record(connection, key, Decision.APPROVED, decision, windows[-1])
            return ChangedWindows(windows=validity.in_writing_order(windows, versions))

    async def reject(self, key: VersionKey, decision: ApprovalDecision) -> ChangedWindows:
        """Withdraw a draft; a rejected version doesn't change, others raise WrongState."""
        async with self._locked(key, decision.at) as (connection, versions):
            version = _version_in(versions, key)
            if version.state is State.WITHDRAWN and version.reason == Decision.REJECTED:
                return ChangedWindows(dropped=(key,))
            if version.state is not State.INDEXED:
                raise WrongState(f"only an indexed draft can be rejected; this version is {version.state}")
            await _withdraw(connection, version, Decision.REJECTED, decision)
            return ChangedWindows(dropped=(key,))

    async def set_dates(
        self, key: VersionKey, dates: Dates, decision: ApprovalDecision, *, may_approve: bool
    ) -> ChangedWindows:
        """Change the first and the last day of a version; a draft's new dates take effect with its approval.

        Raises:
            Forbidden: the version is approved, and the caller may not approve (`may_approve`).
            SecondPersonNeeded: the version is approved, and the caller has uploaded it.
            WrongState: the version can no longer answer, or as `ingest.catalogue.validity.windows_for_new_dates`.
        """
        async with self._locked(key, decision.at) as (connection, versions):
            version = _version_in(versions, key)
            first, last = dates.effective_from, dates.effective_until
            metadata = replace(version.metadata, effective_from=first, effective_until=last)
            if version.state not in (State.RECEIVED, State.INDEXED, State.APPROVED):
                raise WrongState(f"the dates of a version that is {version.state} cannot be changed")
            if metadata == version.metadata:
                return ChangedWindows()
            if version.approved_by is not None:
                await _require_approver(connection, version, decision.by, may_approve=may_approve)
            windows = self._windows_for_new_dates(version, metadata, versions, decision)
            await connection.execute(records.update_version(key).values(effective_from=first, effective_until=last))
            await _write_windows(connection, key, windows, versions, now=decision.at)
            dated = replace(decision, reason=f"{first or ''}/{last or ''}")
            await _record(connection, key, Decision.DATED, dated, windows[-1] if windows else None)
            return ChangedWindows(windows=validity.in_writing_order(windows, versions))

    async def set_title(self, key: VersionKey, title: str, decision: ApprovalDecision) -> Received:
        """Give a draft another title and queue its job again; copy an approved version to a new draft with that title.

        Raises WrongState for other versions, and if the title doesn't change.
        """
        titled = replace(decision, reason=title)
        async with self._locked(key, decision.at) as (connection, versions):
            version = _version_in(versions, key)
            if version.metadata.title == title:
                raise WrongState("this version has that title already")
            if version.state is State.APPROVED:
                retitled = replace(version, metadata=replace(version.metadata, title=title))
                received = await _receive_again(connection, retitled, decision.at)
                await _record(connection, received.version.key, Decision.TITLED, titled, None)
                return received
            if version.state is not State.INDEXED or version.approved_by is not None:
                raise WrongState(
                    f"only a draft or an approved version can get a title; this version is {version.state}"
                )
            draft = {"title": title, "state": State.RECEIVED}
            await connection.execute(records.update_version(key).values(**draft))
            await connection.execute(rows.update_job(key).values(**rows.requeued(decision.at)))
            await _record(connection, key, Decision.TITLED, titled, None)
            version = await records.read_version(connection, key)
            return Received(version=version, job=await records.read_job(connection, key))

    async def dismiss(self, key: VersionKey, decision: ApprovalDecision) -> ChangedWindows:
        """Withdraw a failed version; a dismissed version doesn't change, others raise WrongState."""
        async with self._locked(key, decision.at) as (connection, versions):
            version = _version_in(versions, key)
            if version.state is State.FAILED:
                await _withdraw(connection, version, Decision.DISMISSED, decision)
            elif version.reason != Decision.DISMISSED:
                raise WrongState(f"only a failed version can be dismissed; this version is {version.state}")
            return ChangedWindows(dropped=(key,))

    async def expire(self, key: VersionKey, decision: ApprovalDecision) -> ChangedWindows:
        """End an approved version now, unless it has ended already; raise WrongState for other versions."""
        async with self._locked(key, decision.at) as (connection, versions):
            version = _version_in(versions, key)
            if version.state is not State.APPROVED:
                raise WrongState(f"only an approved version can expire; this version is {version.state}")
            windows = validity.windows_for_expiry(version, _without(versions, key), now=decision.at, zone=self._zone)
            await _write_windows(connection, key, windows, versions, now=decision.at)
            if windows:
                await _revoke(connection, version, Decision.EXPIRED, decision)
                await _record(connection, key, Decision.EXPIRED, decision, windows[0])
            return ChangedWindows(windows=validity.in_writing_order(windows, versions))

    async def delete(self, tenant: str, document_id: str, decision: ApprovalDecision) -> ChangedWindows:
        """Withdraw every version of a document; the catalogue keeps them for rollbacks."""
        first = VersionKey(tenant=tenant, document_id=document_id, version=1)
        async with self._locked(first, decision.at) as (connection, versions):
            if not versions:
                raise NotFound("there is no such document")
            windows = self._windows_for_end(validity.in_force(versions, now=decision.at), decision)
            await _write_windows(connection, first, windows, versions, now=decision.at)
            withdrawn = [version for version in versions if version.state is not State.WITHDRAWN]
            for version in withdrawn:
                await _withdraw(connection, version, Decision.DELETED, decision)
            dropped = tuple(version.key for version in withdrawn if version.visible_from is None)
            return ChangedWindows(windows=validity.in_writing_order(windows, versions), dropped=dropped)

    async def roll_back(
        self, tenant: str, document_id: str, to_version: int, decision: ApprovalDecision
    ) -> tuple[Received, ChangedWindows]:
        """Withdraw the version that answers now, and receive an earlier version's bytes and metadata as a new version.

        The text was approved once and needs no second approval, so the new version answers as soon as it is indexed. A
        version that was approved for a later day still begins on that day.

        Raises:
            SecondPersonNeeded: the caller has uploaded the earlier version.
            WrongState: the earlier version was never approved, answers now or later, or its last day has passed.
        """
        key = VersionKey(tenant=tenant, document_id=document_id, version=to_version)
        async with self._locked(key, decision.at) as (connection, versions):
            old = _version_in(versions, key)
            self._require_restorable(old, validity.in_force(versions, now=decision.at), decision)
            await _require_second_person(connection, old, decision.by)
            current = validity.answering(versions, now=decision.at)
            windows = self._windows_for_end(current, decision)
            await _write_windows(connection, key, windows, versions, now=decision.at)
            for version in current:
                await _withdraw(connection, version, Decision.ROLLED_BACK, decision)
            received = await _receive_again(connection, old, decision.at)
            # Keep the fingerprint of the uploaded metadata, to which indexing may have added the title.
            approval = {"fingerprint": old.fingerprint, "approved_by": decision.by, "approved_at": decision.at}
            await connection.execute(records.update_version(received.version.key).values(**approval))
            await _record(connection, received.version.key, Decision.RESTORED, decision, None)
            return received, ChangedWindows(windows=validity.in_writing_order(windows, versions))

    async def postpone_late_start(self, key: VersionKey, *, now: float) -> list[Window]:
        """Postpone the start of a version if it would reach the index too late; return the windows to write."""
        async with self._locked(key, now) as (connection, versions):
            version = _version_in(versions, key)
            is_written = version.window_written is not WindowWritten.NOTHING
            if is_written or not validity.starts_too_soon(version.visible_from, now=now):
                return []
            windows = validity.windows_for_late_start(version, _without(versions, key), now=now, zone=self._zone)
            await _write_windows(connection, key, windows, versions, now=now)
            return list(validity.in_writing_order(windows, versions))

    @asynccontextmanager
    async def _locked(self, key: VersionKey, at: float) -> AsyncGenerator[tuple[AsyncConnection, Sequence[Version]]]:
        """Open a transaction that locks the document's row; yield its connection and all versions of the document."""
        async with self._catalogue.write() as connection:
            await records.lock_document(connection, key, at)
            yield connection, await records.read_versions(connection, key.tenant, key.document_id)

    def _windows_for_end(self, current: Sequence[Version], decision: ApprovalDecision) -> list[Window]:
        """Return the windows for versions that end without a successor."""
        ends = (validity.windows_for_expiry(version, [], now=decision.at, zone=self._zone) for version in current)
        return [window for windows in ends for window in windows]

    def _windows_for_new_dates(
        self, version: Version, metadata: Metadata, versions: Sequence[Version], decision: ApprovalDecision
    ) -> list[Window]:
        if version.state is not State.APPROVED:
            return []
        others = _without(versions, version.key)
        return validity.windows_for_new_dates(version, metadata, others, now=decision.at, zone=self._zone)

    def _require_restorable(self, old: Version, in_force: Sequence[Version], decision: ApprovalDecision) -> None:
        if old.approved_at is None or old.visible_from is None:
            raise WrongState("only a version that was once approved can be rolled back to")
        if any(version.key == old.key for version in in_force):
            raise WrongState("this version is in force: expire the later version instead")
        validity.windows_for_approval(old, [], now=decision.at, zone=self._zone)  # raises if its last day has passed


def _version_in(versions: Sequence[Version], key: VersionKey) -> Version:
    version = next((version for version in versions if version.key == key), None)
    if version is None:
        raise NotFound("there is no such version")
    return version


def _without(versions: Sequence[Version], key: VersionKey) -> list[Version]:
    return [version for version in versions if version.key != key]


def _unwritten_windows(versions: Sequence[Version]) -> tuple[Window, ...]:
    unwritten = [version for version in versions if version.window_written is not WindowWritten.WHOLE]
    return tuple(version.window for version in sorted(unwritten, key=validity.known_to_index) if version.window)


async def _require_second_person(connection: AsyncConnection, version: Version, approver: str) -> None:
    uploader = await person_behind(connection, version.key.tenant, version.uploaded_by)
    if _is_same_person(approver, uploader):
        raise SecondPersonNeeded("the uploader of a version cannot approve it: another approver must")


async def _require_approver(connection: AsyncConnection, version: Version, caller: str, *, may_approve: bool) -> None:
    if not may_approve:
        raise Forbidden("only approvers may change the dates of an approved version")
    await _require_second_person(connection, version, caller)


async def _refuse_last_editor(connection: AsyncConnection, key: VersionKey, kind: Decision, approver: str) -> None:
    """Refuse an approver who was the last to set the draft's dates or title; a second person must check them."""
    of_version = rows.of_version(DECISIONS, key)
    subjects = select(DECISIONS.c.decided_by).where(of_version, DECISIONS.c.decision == kind)
    last = (await connection.execute(subjects.order_by(DECISIONS.c.id.desc()).limit(1))).scalar_one_or_none()
    if last is not None and _is_same_person(await person_behind(connection, key.tenant, last), approver):
        fields = "dates" if kind is Decision.DATED else "title"
        raise SecondPersonNeeded(f"the person who set the {fields} cannot approve the version: another approver must")


def _require_as_seen(metadata: Metadata, seen: Seen | None) -> None:
    if seen is None:
        return
    if (seen.effective_from, seen.effective_until) != (metadata.effective_from, metadata.effective_until):
        first, last = metadata.effective_from or "its approval", metadata.effective_until or "further notice"
        raise DatesChanged(f"its dates were changed after you looked: from {first} until {last}")
    if seen.title not in (None, metadata.title):
        raise DatesChanged(f"its title was changed after you looked: {metadata.title}")


def _is_same_person(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


async def _receive_again(connection: AsyncConnection, old: Version, now: float) -> Received:
    """Add a version with the bytes and metadata of the earlier version `old`, and a job to index it."""
    tenant, document_id = old.key.tenant, old.key.document_id
    number = await records.take_next_number(connection, tenant, document_id, now)
    new = replace(old.key, version=number)
    upload = Upload(
        tenant=tenant,
        document_id=document_id,
        file_name=old.file_name,
        sha256=old.sha256,
        size=old.size,
        metadata=old.metadata,
        uploaded_by=old.uploaded_by,
    )
    previous = await records.last_version_of_content(connection, tenant, old.sha256)
    await records.add_version(connection, new, upload, replaces=previous, now=now)
    version = await records.read_version(connection, new)
    return Received(version=version, job=await records.read_job(connection, new))


async def _write_windows(
    connection: AsyncConnection,
    document: VersionKey,
    windows: Sequence[Window],
    before: Sequence[Version],
    *,
    now: float,
) -> None:
    """Write windows into the rows of a document's versions; `before` are the versions before the change.

    `document` is the key of any of these versions. The ends published to the chatbot's replicas are removed; once the
    index has the new windows, `Catalogue.confirm_window` publishes the new ends.
    """
    for window in windows:
        version = _version_in(before, replace(document, version=window.version))
        is_same_start = version.visible_from == window.visible_from
        has_start = version.window_written is not WindowWritten.NOTHING and is_same_start
        written = WindowWritten.START if has_start else WindowWritten.NOTHING
        columns = rows.window_columns(window) | {"window_written": written}
        await connection.execute(records.update_version(version.key).values(**columns))
        key = version.key
        await remove_end(connection, key.tenant, key.document_id, key.version, now=now)


async def _withdraw(connection: AsyncConnection, version: Version, kind: Decision, decision: ApprovalDecision) -> None:
    """Withdraw a version and record the decision; the replicas of the chatbot stop using it within seconds."""
    withdrawal = {"state": State.WITHDRAWN, "reason": kind, "detail": decision.reason or None}
    await connection.execute(records.update_version(version.key).values(**withdrawal))
    # A dead job waits for an operator, who has nothing to do for a withdrawn version.
    dead = rows.update_job(version.key).where(JOBS.c.state == JobState.DEAD)
    await connection.execute(dead.values(state=JobState.FAILED))
    await _revoke(connection, version, kind, decision)
    await _record(connection, version.key, kind, decision, None)


async def _revoke(connection: AsyncConnection, version: Version, kind: Decision, decision: ApprovalDecision) -> None:
    """Publish to every replica of the chatbot that a version must no longer answer."""
    key, reason = version.key, decision.reason or kind
    await write_withdrawal(connection, key.tenant, key.document_id, key.version, reason=reason, at=decision.at)


async def _record(
    connection: AsyncConnection, key: VersionKey, kind: Decision, decision: ApprovalDecision, window: Window | None
) -> None:
    row = rows.new_decision(key, kind, decision.by, decision.at, decision.reason)
    await connection.execute(insert(DECISIONS).values(**row, **(rows.window_columns(window) if window else {})))
