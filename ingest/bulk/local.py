"""The target of `ingest load`: the services of this process, without Redis or a worker."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from ingest.bulk.load import POLL_SECONDS, Pending, attempt
from ingest.bulk.manifest import SourceFile
from ingest.bulk.progress import LoadOutcome
from ingest.catalogue import ApprovalDecision, JobState, Seen, State, Upload, Version, VersionKey
from ingest.job_runner import run_job
from ingest.pipeline import approve, require_harmless
from ingest.services import Services

_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """The tenant, uploader and approver of a load; without an approver the files stay drafts."""

    tenant: str
    uploaded_by: str
    approver: str | None = None


class LocalTarget:
    """Load documents into the stores and the index of this process."""

    def __init__(self, services: Services, request: LoadRequest) -> None:
        self.services = services
        self.at_once = services.settings.at_once
        self.approves = request.approver is not None
        self._request = request

    async def receive(self, file: SourceFile) -> LoadOutcome:
        upload = Upload(
            tenant=self._request.tenant,
            file_name=file.path.name,
            metadata=file.metadata,
            uploaded_by=self._request.uploaded_by,
            document_id=file.document_id,
            path=file.name,
        )
        received = await self.services.uploads.receive(upload, _chunks(file.path))
        is_indexed = received.version.state in (State.INDEXED, State.APPROVED)
        job_id = None if received.job.state is JobState.DONE else received.job.id
        return self._updated_outcome(LoadOutcome(file=file, was_there=is_indexed, job_id=job_id), received.version)

    async def prepare(self, pending: Sequence[Pending]) -> AsyncGenerator[Pending]:
        for file in pending:
            yield file

    async def index(self, pending: Pending) -> LoadOutcome:
        """Run the job, or wait for the worker that has claimed it, until the version is a draft or has failed."""
        outcome, services = pending.outcome, self.services
        while True:
            job = await services.job_claims.claim(outcome.job_id or "", now=services.now())
            if job is not None:
                await run_job(job, services, pending.write)
            outcome = await self.refreshed(outcome)
            if outcome.state is not State.RECEIVED:
                return outcome
            await anyio.sleep(POLL_SECONDS)

    async def approve(self, drafts: Sequence[LoadOutcome]) -> list[LoadOutcome]:
        """Approve versions of one document at the same instant, so that an outdated one never answers."""
        screened = [await attempt(draft, self._screen(draft)) for draft in drafts]
        decision = ApprovalDecision(by=self._request.approver or "", at=self.services.now())
        return [await attempt(draft, self._approve(draft, decision)) if draft.is_draft else draft for draft in screened]

    async def refreshed(self, outcome: LoadOutcome) -> LoadOutcome:
        return self._updated_outcome(outcome, await self.services.catalogue.version(key_of(outcome)))

    async def _screen(self, draft: LoadOutcome) -> LoadOutcome:
        await require_harmless(key_of(draft), self.services)
        return draft

    async def _approve(self, draft: LoadOutcome, decision: ApprovalDecision) -> LoadOutcome:
        """Approve a draft, or raise DatesChanged if its dates no longer are those given with its file."""
        metadata = draft.file.metadata
        seen = Seen(effective_from=metadata.effective_from, effective_until=metadata.effective_until)
        await approve(key_of(draft), decision, self.services, seen)
        return await self.refreshed(draft)

    def _updated_outcome(self, outcome: LoadOutcome, version: Version) -> LoadOutcome:
        """Return a file's outcome with the state of its version."""
        return LoadOutcome(
            file=outcome.file,
            key=version.key,
            job_id=outcome.job_id,
            state=version.state_at(self.services.now()),
            passages=version.passages,
            was_there=outcome.was_there,
            reason=version.reason,
            detail=version.detail,
            visible_from=version.visible_from,
        )


def key_of(outcome: LoadOutcome) -> VersionKey:
    """Return the version of a received file."""
    if outcome.key is None:
        raise ValueError(f"{outcome.file.name} was not received")
    return outcome.key


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while chunk := await file.read(_CHUNK_BYTES):
            yield chunk
