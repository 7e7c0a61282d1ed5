"""Jobs: the progress of an upload, dead letters, and retries."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from ingest.api.auth import Staff
from ingest.api.dependencies import NO_NUL, TheServices
from ingest.api.routes.documents import emit_event
from ingest.api.schemas import JobOut, JobsOut
from ingest.catalogue import ApprovalDecision, Job, JobState
from ingest.pipeline import update_index
from ingest.services import Services
from telemetry.ocsf import Code

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobId = Annotated[str, Path(max_length=64, pattern=NO_NUL)]


@router.get("")
async def jobs(
    who: Staff,
    services: TheServices,
    state: JobState = JobState.DEAD,
    cursor: Annotated[str, Query(max_length=64, pattern=NO_NUL)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobsOut:
    """List jobs in a state by id, by default dead letters; jobs of withdrawn versions are omitted."""
    in_state = await services.catalogue.jobs(who.tenant, state, limit=limit + 1, after=cursor)
    page = [JobOut.of(job, version) for job, version in in_state[:limit]]
    return JobsOut(jobs=page, next=page[-1].job_id if len(in_state) > limit else None)


@router.get("/{job_id}")
async def job(job_id: JobId, who: Staff, services: TheServices) -> JobOut:
    """Return a job of the caller's tenant, with the reason if it failed."""
    return await _progress(await services.catalogue.job(who.tenant, job_id), services)


@router.post("/{job_id}/retry", status_code=202)
async def retry(job_id: JobId, who: Staff, services: TheServices) -> JobOut:
    """Restart a failed job or a dead letter from the beginning."""
    queued = await services.job_claims.retry(job_id, tenant=who.tenant, now=services.now())
    return await _progress(queued, services)


@router.post("/{job_id}/dismiss")
async def dismiss(job_id: JobId, who: Staff, services: TheServices) -> JobOut:
    """Dismiss a failed job: its version is withdrawn, and the same file can be uploaded again."""
    job = await services.catalogue.job(who.tenant, job_id)
    changed = await services.approvals.dismiss(job.key, ApprovalDecision(by=who.sub, at=services.now()))
    emit_event(Code.VERSION_DISMISSED, who, job.key, services)
    await update_index(job.key, changed, services)
    return await _progress(job, services)


async def _progress(job: Job, services: Services) -> JobOut:
    return JobOut.of(job, await services.catalogue.version(job.key))
