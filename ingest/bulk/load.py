"""`ingest load` in this process: receive every file, index them side by side, approve them, wait until they answer.

What an earlier run did is not done again: started again after Ctrl-C or kill -9, it goes on with what is missing.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Protocol

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream

from ingest.bulk.manifest import SourceFile
from ingest.catalogue import (
    ApprovalDecision,
    Catalogue,
    Dates,
    Job,
    JobState,
    Metadata,
    Stage,
    State,
    Version,
    VersionKey,
)
from ingest.errors import IngestError, Unavailable
from ingest.job_runner import UNAVAILABLE, run_job
from ingest.lost_passages import compare_index, lost_versions, restore
from ingest.parsing import Unreadable
from ingest.pipeline import Write, approve, require_harmless, write_pending_windows
from ingest.services import Services
from ingest.uploads import UploadRequest, Uploads
from knowledge.embedding import EmbeddingUnavailable
from knowledge.index import IndexUnavailable as IndexAway
from telemetry.groups import first_failure

MOST_UNAVAILABLE = 3
"""Documents in a row that a part which is away has failed: a load stops then."""
NOT_TRIED = "not_tried"
"""The reason of a document that a load which stopped has left."""
OUTAGE = (Unavailable, IndexAway, EmbeddingUnavailable)
"""What is raised where a store or the embedder is away."""
_CHUNK_BYTES = 1024 * 1024
_SOON_SECONDS = 10.0
_POLL_SECONDS = 0.2

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOrder:
    """The tenant for which files are loaded, who uploads them, and who approves them (None: they stay drafts)."""

    tenant: str
    uploaded_by: str
    approver: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOutcome:
    """How far a file came; `was_there`: an earlier run has indexed it; `restored`: the index had lost it since;
    `reason`: why it is not in the wanted state.
    """

    file: SourceFile
    key: VersionKey | None = None
    state: State | None = None
    passages: int = 0
    was_there: bool = False
    restored: bool = False
    reason: str | None = None
    detail: str | None = None
    visible_from: float | None = None


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file that was received, its position in the list, and the job that is left to do."""

    position: int
    outcome: LoadOutcome
    job: Job | None


Step = Callable[[VersionKey, Metadata], Awaitable[object]]


class OutageWatch:
    """Cancels a load once MOST_UNAVAILABLE documents in a row were unavailable; the others stay untried."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self._scope = scope
        self._in_a_row = 0

    def record(self, outcome: LoadOutcome) -> None:
        """Count how a document ended."""
        self._in_a_row = self._in_a_row + 1 if outcome.reason == UNAVAILABLE else 0
        if self._in_a_row == MOST_UNAVAILABLE:
            self._scope.cancel()


class BatchStopped(Exception):
    """`ingest batch` lost its Ray cluster; started again it goes on where it stopped."""


class ProgressDisplay(Protocol):
    """Shows the progress of a load."""

    def begin(self, documents: int) -> None:
        """Show that so many files are to be loaded."""
        ...

    def part(self, name: str, stage: Stage, done: int, total: int) -> None:
        """Show the progress of one file within a stage."""
        ...

    def end(self, outcome: LoadOutcome) -> None:
        """Show the outcome of one file."""
        ...

    def approved(self, done: int, total: int) -> None:
        """Show for how many files the approval is decided."""
        ...


async def load(
    files: Sequence[SourceFile], order: LoadOrder, services: Services, display: ProgressDisplay
) -> list[LoadOutcome]:
    """Load files and return their outcomes, in their order; a file that fails stops no other, an outage does."""
    display.begin(len(files))
    lost = await find_lost_versions(services)
    outcomes: dict[int, LoadOutcome] = {}
    send, receive = anyio.create_memory_object_stream[ReceivedFile](services.settings.at_once)
    with first_failure():
        async with anyio.create_task_group() as group:
            watch = OutageWatch(group.cancel_scope)
            for _ in range(services.settings.at_once):
                group.start_soon(_index_each, receive.clone(), outcomes, lost, services, display, watch)
            receive.close()
            async with send:  # in order, because the versions of a document are numbered as they come
                for position, file in enumerate(files):
                    outcome, job = await receive_one(file, order, services.uploads, services.now)
                    await send.send(ReceivedFile(position, outcome, job))
    indexed = [outcomes.get(n) or LoadOutcome(file=file, reason=NOT_TRIED) for n, file in enumerate(files)]
    return await approve_and_wait(indexed, order, services, display)


async def find_lost_versions(services: Services) -> Collection[VersionKey] | None:
    """Return the versions of which the index lacks passages; None in an outage: look at each by itself then."""
    with _outage_logged("lost_versions_failed"):
        return await lost_versions(services)
    return None


@contextmanager
def _outage_logged(event: str) -> Generator[None]:
    """Log what ends the block where a store is away: the load goes on to its summary."""
    try:
        yield
    except OUTAGE as exc:
        log.warning(event, error=type(exc).__name__)


async def approve_and_wait(
    indexed: Sequence[LoadOutcome], order: LoadOrder, services: Services, display: ProgressDisplay
) -> list[LoadOutcome]:
    """Approve what was indexed, where the order names an approver, and wait until it answers.

    What an earlier run has approved and not shown, since it was killed, is shown first. What the index lacks in the
    end, of other documents too, is logged. After an outage nothing of this is done.
    """
    if any(outcome.reason == NOT_TRIED for outcome in indexed):
        return list(indexed)
    with _outage_logged("windows_failed"):
        await write_pending_windows(services)
    ended = list(indexed)
    if order.approver is not None:
        ended = await approve_all(indexed, order.approver, services, display)
    with _outage_logged("index_comparison_failed"):
        if order.approver is not None:
            ended = await wait_until_active(ended, services.catalogue, services.now)
        await compare_index(services)
    return ended


async def _index_each(
    receive: MemoryObjectReceiveStream[ReceivedFile],
    outcomes: dict[int, LoadOutcome],
    lost: Collection[VersionKey] | None,
    services: Services,
    display: ProgressDisplay,
    watch: OutageWatch,
) -> None:
    async with receive:
        async for received in receive:
            outcome = received.outcome
            if received.job is not None:
                outcome = await index_one(outcome, received.job, services, display)
            else:
                outcome = await restore_one(outcome, lost, services)
            outcomes[received.position] = outcome
            display.end(outcome)
            watch.record(outcome)


async def wait_until_active(
    outcomes: Sequence[LoadOutcome], catalogue: Catalogue, now: Callable[[], float]
) -> list[LoadOutcome]:
    """Return when what starts within _SOON_SECONDS has started; later starts are not waited for."""
    begun, standing = now(), await _as_they_stand(outcomes, catalogue, now)
    starts = [o.visible_from for o in standing if o.visible_from is not None and o.visible_from - begun < _SOON_SECONDS]
    if not starts:
        return standing
    await anyio.sleep(max(max(starts) - begun, 0.0))
    return await _as_they_stand(outcomes, catalogue, now)


async def _as_they_stand(
    outcomes: Sequence[LoadOutcome], catalogue: Catalogue, now: Callable[[], float]
) -> list[LoadOutcome]:
    """Return the outcomes with the state and the start that the catalogue has now."""

    async def as_it_stands(outcome: LoadOutcome) -> LoadOutcome:
        if outcome.key is None:
            return outcome
        version = await catalogue.version(outcome.key)
        return replace(outcome, state=version.state_at(now()), visible_from=version.visible_from)

    return [await as_it_stands(outcome) for outcome in outcomes]


async def receive_one(
    file: SourceFile, order: LoadOrder, uploads: Uploads, now: Callable[[], float]
) -> tuple[LoadOutcome, Job | None]:
    """Receive a file; return the job that is left to do, None where it was indexed before or cannot be received."""
    request = UploadRequest(
        tenant=order.tenant,
        file_name=file.path.name,
        metadata=file.metadata,
        uploaded_by=order.uploaded_by,
        document_id=file.document_id,
    )
    try:
        received = await uploads.receive(request, _chunks(file.path))
    except OUTAGE as exc:
        return LoadOutcome(file=file, reason=UNAVAILABLE, detail=str(exc)), None
    except IngestError as exc:
        return LoadOutcome(file=file, reason=exc.code, detail=exc.detail), None
    except OSError as exc:
        return LoadOutcome(file=file, reason="unreadable_file", detail=exc.strerror), None
    indexed = received.version.state in (State.INDEXED, State.APPROVED)
    outcome = _outcome(file, received.version, now=now(), was_there=indexed)
    return outcome, None if received.job.state is JobState.DONE else received.job


async def index_one(
    outcome: LoadOutcome, job: Job, services: Services, display: ProgressDisplay, write: Write | None = None
) -> LoadOutcome:
    """Do the job here, or wait for the worker that has it, until the version is a draft or has failed."""

    def watch(stage: Stage, done: int, total: int) -> None:
        display.part(outcome.file.name, stage, done, total)

    try:
        while True:
            claimed = await services.job_claims.claim(job.id, now=services.now())
            if claimed is not None:
                await run_job(claimed, services, watch, write)
            version = await services.catalogue.version(job.key)
            if version.state is not State.RECEIVED:
                return _outcome(outcome.file, version, now=services.now(), was_there=outcome.was_there)
            await anyio.sleep(_POLL_SECONDS)
    except OUTAGE as exc:
        return replace(outcome, reason=UNAVAILABLE, detail=str(exc))


async def restore_one(outcome: LoadOutcome, lost: Collection[VersionKey] | None, services: Services) -> LoadOutcome:
    """Write a version again that an earlier run has indexed, if it is lost (None: look whether it is)."""
    if outcome.key is None or not (outcome.was_there if lost is None else outcome.key in lost):
        return outcome
    try:
        return replace(outcome, restored=await restore(outcome.key, services))
    except OUTAGE as exc:
        return replace(outcome, reason=UNAVAILABLE, detail=str(exc))
    except IngestError as exc:
        return replace(outcome, reason=exc.code, detail=exc.detail)
    except Unreadable as exc:
        return replace(outcome, reason=exc.reason.value, detail=exc.detail)


async def approve_all(
    outcomes: Sequence[LoadOutcome], approver: str, services: Services, display: ProgressDisplay
) -> list[LoadOutcome]:
    """Approve version by version; those of one document at one instant, so that an outdated one never answers.

    An outage ends it: drafts that are left then were not tried.
    """
    approved: list[LoadOutcome] = []
    scope = anyio.CancelScope()
    watch = OutageWatch(scope)
    decide_one = partial(_decide_one, catalogue=services.catalogue, now=services.now)
    for _, group in groupby(outcomes, key=lambda o: o.key.document_id if o.key else o.file.name):
        of_document = list(group)
        if scope.cancel_called:
            approved.extend(replace(o, reason=NOT_TRIED) if _is_draft(o) else o for o in of_document)
            continue
        harmless = [await decide_one(outcome, partial(_screen, services=services)) for outcome in of_document]
        decision = ApprovalDecision(by=approver, at=services.now())
        decide = partial(_approve, decision=decision, services=services)
        decided = [await decide_one(outcome, decide) for outcome in harmless]
        for before, after in zip(of_document, decided, strict=True):
            if _is_draft(before):
                watch.record(after)
        approved.extend(decided)
        display.approved(len(approved), len(outcomes))
    return approved


async def _screen(key: VersionKey, _given: Metadata, *, services: Services) -> None:
    await require_harmless(key, services)


async def _approve(key: VersionKey, given: Metadata, *, decision: ApprovalDecision, services: Services) -> None:
    """Approve a draft with the dates that were given with its file: whoever loads it has seen no others."""
    seen = Dates(effective_from=given.effective_from, effective_until=given.effective_until)
    await approve(key, decision, services, seen)


async def _decide_one(
    outcome: LoadOutcome, step: Step, *, catalogue: Catalogue, now: Callable[[], float]
) -> LoadOutcome:
    """Take a step towards a draft's approval; what is no draft, or was refused before, stays as it is."""
    if outcome.key is None or not _is_draft(outcome):
        return outcome
    try:
        await step(outcome.key, outcome.file.metadata)
        version = await catalogue.version(outcome.key)
    except OUTAGE as exc:
        return replace(outcome, reason=UNAVAILABLE, detail=str(exc))
    except IngestError as exc:
        return replace(outcome, reason=exc.code, detail=exc.detail)
    except Unreadable as exc:
        return replace(outcome, reason=exc.reason.value, detail=exc.detail)
    return _outcome(outcome.file, version, now=now(), was_there=outcome.was_there)


def _is_draft(outcome: LoadOutcome) -> bool:
    return outcome.state is State.INDEXED and outcome.reason is None


def _outcome(file: SourceFile, version: Version, *, now: float, was_there: bool) -> LoadOutcome:
    return LoadOutcome(
        file=file,
        key=version.key,
        state=version.state_at(now),
        passages=version.passages,
        was_there=was_there,
        reason=version.reason,
        detail=version.detail,
        visible_from=version.visible_from,
    )


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while chunk := await file.read(_CHUNK_BYTES):
            yield chunk
