"""Jobs: how far an upload is, as one reply or as a stream; dead letters, and how to do a job again."""

from collections.abc import AsyncGenerator
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Path, Query, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from ingest.api.auth import Staff
from ingest.api.dependencies import TheServices
from ingest.api.schemas import JobOut, JobsOut
from ingest.catalogue import Job, JobState
from ingest.errors import BadRequest, IngestError
from ingest.jobs import deliver
from ingest.services import Services

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

LOOK_SECONDS = 0.3
HEARTBEAT_SECONDS = 15
_ENDS = {JobState.DONE: "done", JobState.FAILED: "error", JobState.DEAD: "error"}

JobId = Annotated[str, Path(max_length=64)]


@router.get("")
async def jobs(
    who: Staff,
    services: TheServices,
    state: JobState = JobState.DEAD,
    cursor: Annotated[str, Query(max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobsOut:
    """List jobs in a state by id: without one the dead letters, tried often enough and waiting for somebody."""
    found = await services.catalogue.jobs(who.tenant, state, limit=limit + 1, after=cursor)
    shown = [JobOut.of(job, version, services.now()) for job, version in found[:limit]]
    return JobsOut(jobs=shown, next=shown[-1].job_id if len(found) > limit else None)


@router.get("/{job_id}")
async def job(job_id: JobId, who: Staff, services: TheServices) -> JobOut:
    """Return a job of the caller's tenant, with the reason where it failed."""
    return await _told(await services.catalogue.job(who.tenant, job_id), services)


@router.post("/{job_id}/retry", status_code=202)
async def retry(job_id: JobId, who: Staff, services: TheServices) -> JobOut:
    """Let a failed job or a dead letter be done again from its beginning."""
    again = await services.queue.again(job_id, tenant=who.tenant, now=services.now())
    await deliver(again, services.delivery)
    return await _told(again, services)


@router.get("/{job_id}/events", response_model=None, responses={200: {"content": {"text/event-stream": {}}}})
async def events(
    job_id: JobId, who: Staff, services: TheServices, last_event_id: Annotated[str, Header(max_length=200)] = ""
) -> Response:
    """Tell each step of a job as `progress`, and its end once: `done`, or `error` with the reason.

    An id names a step: after `Last-Event-ID` only later steps are told; 204 says that there will be none.
    """
    first = await services.catalogue.job(who.tenant, job_id)
    if last_event_id and not last_event_id.startswith(f"{job_id}."):
        raise BadRequest("Last-Event-ID is of another job")
    if first.state in _ENDS and last_event_id == _step_of(first):
        return Response(status_code=204)
    followed = _follow(first, services, after=last_event_id)
    return EventSourceResponse(followed, ping=HEARTBEAT_SECONDS, headers={"x-accel-buffering": "no"})


async def _follow(job: Job, services: Services, *, after: str) -> AsyncGenerator[ServerSentEvent]:
    told = await _told(job, services) if _step_of(job) == after else None
    while True:
        try:
            job = await services.catalogue.job(job.key.tenant, job.id)
            now = await _told(job, services)
        except IngestError:
            await anyio.sleep(LOOK_SECONDS)  # the database is away: the heartbeat goes on, and so does this
            continue
        if told is None or now.model_copy(update={"seconds_left": told.seconds_left}) != told:
            told = now
            yield ServerSentEvent(event=_ENDS.get(job.state, "progress"), data=now.model_dump_json(), id=_step_of(job))
        if job.state in _ENDS:
            return
        await anyio.sleep(LOOK_SECONDS)


def _step_of(job: Job) -> str:
    return f"{job.id}.{job.attempts}.{job.state}.{job.stage}.{job.done}"


async def _told(job: Job, services: Services) -> JobOut:
    return JobOut.of(job, await services.catalogue.version(job.key), services.now())
