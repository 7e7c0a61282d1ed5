"""`ingest load` in this process: receive every file, index them side by side, approve them, wait until they answer.

Whatever was done before is found done: started again after Ctrl-C or kill -9, it goes on with what is missing.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from ingest.bulk.manifest import Offering
from ingest.catalogue import ApprovalDecision, Job, JobState, Stage, State, Version, VersionKey
from ingest.errors import IngestError
from ingest.job_runner import run_job
from ingest.parsing import Unreadable
from ingest.pipeline import Write, approve, require_harmless
from ingest.services import Services
from ingest.uploads import Offer
from telemetry.groups import first_failure

_CHUNK = 1024 * 1024
_SOON = 10.0
_PAUSE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOrder:
    """For whom files are loaded, by whom, and who approves them (nobody: they stay drafts)."""

    tenant: str
    uploaded_by: str
    approver: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOutcome:
    """What became of a file; `reason` says why it is not as wished."""

    offering: Offering
    key: VersionKey | None = None
    state: State | None = None
    passages: int = 0
    was_there: bool = False
    reason: str | None = None
    detail: str | None = None
    visible_from: float | None = None


@dataclass(frozen=True, slots=True)
class ReceivedOffering:
    """A file that was received, and the job that is left to do on it."""

    position: int
    outcome: LoadOutcome
    job: Job | None


Step = Callable[[VersionKey], Awaitable[object]]


class BatchStopped(Exception):
    """`ingest batch` lost what it computes with; started again it goes on where it stopped."""


class Show(Protocol):
    """Is told how loading goes."""

    def begin(self, documents: int) -> None:
        """Take note of how many files there are."""
        ...

    def part(self, name: str, stage: Stage, done: int, total: int) -> None:
        """Show how far one file is."""
        ...

    def end(self, outcome: LoadOutcome) -> None:
        """Show what became of one file."""
        ...

    def approved(self, done: int, total: int) -> None:
        """Show of how many files the approval is decided."""
        ...


async def load(offerings: Sequence[Offering], order: LoadOrder, services: Services, show: Show) -> list[LoadOutcome]:
    """Load files and return what became of each, in their order; a file that fails stops no other."""
    show.begin(len(offerings))
    outcomes: dict[int, LoadOutcome] = {}
    send, receive = anyio.create_memory_object_stream[ReceivedOffering](services.settings.at_once)
    with first_failure():
        async with anyio.create_task_group() as group:
            for _ in range(services.settings.at_once):
                group.start_soon(_index_each, receive.clone(), outcomes, services, show)
            receive.close()
            async with send:  # in order, because the versions of a document are numbered as they come
                for position, offering in enumerate(offerings):
                    await send.send(ReceivedOffering(position, *await receive_one(offering, order, services)))
    indexed = [outcomes[position] for position in range(len(offerings))]
    return await settle(indexed, order, services, show)


async def settle(indexed: Sequence[LoadOutcome], order: LoadOrder, services: Services, show: Show) -> list[LoadOutcome]:
    """Approve what was indexed, where somebody approves, and wait until it answers."""
    if order.approver is None:
        return list(indexed)
    return await wait_until_active(await approve_all(indexed, order.approver, services, show), services)


async def _index_each(
    receive: MemoryObjectReceiveStream[ReceivedOffering],
    outcomes: dict[int, LoadOutcome],
    services: Services,
    show: Show,
) -> None:
    async with receive:
        async for taken in receive:
            outcome = taken.outcome if taken.job is None else await index_one(taken.outcome, taken.job, services, show)
            outcomes[taken.position] = outcome
            show.end(outcome)


async def wait_until_active(outcomes: Sequence[LoadOutcome], services: Services) -> list[LoadOutcome]:
    """Return when what was approved to show within seconds does show; later dates are not waited for."""
    now = services.now()
    soon = [o.visible_from for o in outcomes if o.visible_from is not None and o.visible_from - now < _SOON]
    if soon:
        await anyio.sleep(max(max(soon) - now, 0.0))
    checked = []
    for outcome in outcomes:
        version = await services.catalogue.version(outcome.key) if outcome.key else None
        checked.append(replace(outcome, state=version.state_at(services.now())) if version else outcome)
    return checked


async def receive_one(offering: Offering, order: LoadOrder, services: Services) -> tuple[LoadOutcome, Job | None]:
    """Take a file in; return the job that is left to do, None where it was indexed before or cannot be taken."""
    offer = Offer(
        tenant=order.tenant,
        file_name=offering.path.name,
        metadata=offering.metadata,
        uploaded_by=order.uploaded_by,
        document_id=offering.document_id,
    )
    try:
        received = await services.uploads.receive(offer, _chunks(offering.path))
    except IngestError as exc:
        return LoadOutcome(offering=offering, reason=exc.code, detail=exc.detail), None
    except OSError as exc:
        return LoadOutcome(offering=offering, reason="unreadable_file", detail=exc.strerror), None
    indexed = received.version.state in (State.INDEXED, State.APPROVED)
    outcome = _outcome(offering, received.version, services, was_there=indexed)
    return outcome, None if received.job.state is JobState.DONE else received.job


async def index_one(
    outcome: LoadOutcome, job: Job, services: Services, show: Show, write: Write | None = None
) -> LoadOutcome:
    """Do the job here, or wait for whoever has it, until the version is a draft or has failed."""

    def watch(stage: Stage, done: int, total: int) -> None:
        show.part(outcome.offering.name, stage, done, total)

    while True:
        claimed = await services.queue.claim(job.id, now=services.now())
        if claimed is not None:
            await run_job(claimed, services, watch, write)
        version = await services.catalogue.version(job.key)
        if version.state is not State.RECEIVED:
            return _outcome(outcome.offering, version, services, was_there=outcome.was_there)
        await anyio.sleep(_PAUSE)


async def approve_all(
    outcomes: Sequence[LoadOutcome], approver: str, services: Services, show: Show
) -> list[LoadOutcome]:
    """Approve version by version; those of one document at one instant, so that an outdated one never answers."""
    approved: list[LoadOutcome] = []
    for _, of_document in groupby(outcomes, key=lambda o: o.key.document_id if o.key else o.offering.name):
        screen = partial(require_harmless, services=services)
        harmless = [await _decide_one(outcome, screen, services) for outcome in of_document]
        decide = partial(approve, decided=ApprovalDecision(by=approver, at=services.now()), services=services)
        approved.extend([await _decide_one(outcome, decide, services) for outcome in harmless])
        show.approved(len(approved), len(outcomes))
    return approved


async def _decide_one(outcome: LoadOutcome, step: Step, services: Services) -> LoadOutcome:
    """Take a step towards a draft's approval; what is no draft, or was refused before, stays as it is."""
    if outcome.key is None or outcome.state is not State.INDEXED or outcome.reason is not None:
        return outcome
    try:
        await step(outcome.key)
    except IngestError as exc:
        return replace(outcome, reason=exc.code, detail=exc.detail)
    except Unreadable as exc:
        return replace(outcome, reason=exc.reason.value, detail=exc.detail)
    version = await services.catalogue.version(outcome.key)
    return _outcome(outcome.offering, version, services, was_there=outcome.was_there)


def _outcome(offering: Offering, version: Version, services: Services, *, was_there: bool) -> LoadOutcome:
    return LoadOutcome(
        offering=offering,
        key=version.key,
        state=version.state_at(services.now()),
        passages=version.passages,
        was_there=was_there,
        reason=version.reason,
        detail=version.detail,
        visible_from=version.visible_from,
    )


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while chunk := await file.read(_CHUNK):
            yield chunk
