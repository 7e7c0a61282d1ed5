"""Jobs: the progress of an upload as a single reply or a stream, dead letters, and retries."""

from collections.abc import AsyncGenerator
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Path, Query, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from ingest.api.auth import Staff
from ingest.api.dependencies import NO_NUL, Clock, TheCatalogue, TheClock, TheServices
from ingest.api.routes.documents import emit_event
from ingest.api.schemas import JobOut, JobsOut
from ingest.catalogue import ApprovalDecision, Catalogue, Job, JobState
from ingest.errors import BadRequest, IngestError
from ingest.pipeline import update_index
from telemetry.ocsf import Code

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

POLL_SECONDS = 0.3
HEARTBEAT_SECONDS = 15
_ENDS = {JobState.DONE: "done", JobState.FAILED: "error", JobState.DEAD: "error"}

JobId = Annotated[str, Path(max_length=64, pattern=NO_NUL)]


@router.get("")
async def jobs(
    who: Staff,
    catalogue: TheCatalogue,
    now: TheClock,
    state: JobState = JobState.DEAD,
    cursor: Annotated[str, Query(max_length=64, pattern=NO_NUL)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobsOut:
    """List jobs in a state by id, by default dead letters; jobs of withdrawn versions are omitted."""
    in_state = await catalogue.jobs(who.tenant, state, limit=limit + 1, after=cursor)
    page = [JobOut.of(job, version, now()) for job, version in in_state[:limit]]
    return JobsOut(jobs=page, next=page[-1].job_id if len(in_state) > limit else None)


@router.get("/{job_id}")
async def job(job_id: JobId, who: Staff, catalogue: TheCatalogue, now: TheClock) -> JobOut:
    """Return a job of the caller's tenant, with the reason if it failed."""
    return await _progress(await catalogue.job(who.tenant, job_id), catalogue, now)


@router.post("/{job_id}/retry", status_code=202)
async def retry(job_id: JobId, who: Staff, services: TheServices) -> JobOut:
    """Restart a failed job or a dead letter from the beginning."""
    queued = await services.job_claims.retry(job_id, tenant=who.tenant, now=services.now())
    return await _progress(queued, services.catalogue, services.now)


@router.post("/{job_id}/dismiss")
async def dismiss(job_id: JobId, who: Staff, services: TheServices) -> JobOut:
    """Dismiss a failed job: its version is withdrawn, and the same file can be uploaded again."""
    job = await services.catalogue.job(who.tenant, job_id)
    changed = await services.approvals.dismiss(job.key, ApprovalDecision(by=who.sub, at=services.now()))
    emit_event(Code.VERSION_DISMISSED, who, job.key, services)
    await update_index(job.key, changed, services)
    return await _progress(job, services.catalogue, services.now)


@router.get("/{job_id}/events", response_model=None, responses={200: {"content": {"text/event-stream": {}}}})
async def events(
    job_id: JobId,
    who: Staff,
    catalogue: TheCatalogue,
    now: TheClock,
    last_event_id: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """Stream each step of a job as a `progress` event, then one `done`, or `error` with the reason.

    The event id identifies a step: with `Last-Event-ID` only later steps are sent, or 204 if there are none.
    """
    job = await catalogue.job(who.tenant, job_id)
    if last_event_id and not last_event_id.startswith(f"{job_id}."):
        raise BadRequest("Last-Event-ID is of another job")
    if job.state in _ENDS and last_event_id == _step_of(job):
        return Response(status_code=204)
    steps = _follow(job, catalogue, now, after=last_event_id)
    return EventSourceResponse(steps, ping=HEARTBEAT_SECONDS, headers={"x-accel-buffering": "no"})


async def _follow(job: Job, catalogue: Catalogue, now: Clock, *, after: str) -> AsyncGenerator[ServerSentEvent]:
    """Yield an event for each change of a job until it ends, without the step `after`."""
    sent = await _progress(job, catalogue, now) if _step_of(job) == after else None
    while True:
        try:
            job = await catalogue.job(job.key.tenant, job.id)
            progress = await _progress(job, catalogue, now)
        except IngestError:
            await anyio.sleep(POLL_SECONDS)  # the database is unavailable; heartbeats continue, so keep polling
            continue
        if sent is None or progress.model_copy(update={"seconds_left": sent.seconds_left}) != sent:
            sent = progress
            kind = _ENDS.get(job.state, "progress")
            yield ServerSentEvent(event=kind, data=progress.model_dump_json(), id=_step_of(job))
        if job.state in _ENDS:
            return
        await anyio.sleep(POLL_SECONDS)


def _step_of(job: Job) -> str:
    return f"{job.id}.{job.attempts}.{job.state}.{job.stage}.{job.done}"


async def _progress(job: Job, catalogue: Catalogue, now: Clock) -> JobOut:
    return JobOut.of(job, await catalogue.version(job.key), now())
