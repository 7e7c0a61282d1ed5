"""Jobs: how far an upload is."""

from typing import Annotated

from fastapi import APIRouter, Path

from ingest.auth import Staff
from ingest.services import TheServices
from ingest.wire import JobOut

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("/{job_id}")
async def job(job_id: Annotated[str, Path(max_length=64)], who: Staff, services: TheServices) -> JobOut:
    """Return a job of the caller's tenant, with the reason where it failed."""
    found = await services.catalogue.job(who.tenant, job_id)
    return JobOut.of(found, await services.catalogue.version(found.key), services.now())
