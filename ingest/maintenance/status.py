"""`ingest status`: versions and jobs by state, the age of the oldest unfinished job, and failures; from SQL alone."""

from collections import Counter
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ingest.catalogue import Catalogue, JobState, State, Version
from ingest.jobs import JobClaims


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantStatus:
    """A tenant's versions and jobs at `now` (Unix seconds); `oldest_waiting` is an age in seconds, 0 without a job."""

    versions: tuple[Version, ...]
    jobs: dict[JobState, int]
    oldest_waiting: float
    unwritten_windows: int
    now: float

    @property
    def failed(self) -> tuple[Version, ...]:
        """The versions that could not be indexed."""
        return tuple(version for version in self.versions if version.state is State.FAILED)


async def read_status(catalogue: Catalogue, job_claims: JobClaims, tenant: str, *, now: float) -> TenantStatus:
    """Return a tenant's status.

    Raises:
        CatalogueUnavailable: the database cannot be asked.
    """
    jobs, oldest = await job_claims.counts(tenant)
    return TenantStatus(
        versions=tuple(await catalogue.all_versions(tenant)),
        jobs=jobs,
        oldest_waiting=0.0 if oldest is None else max(now - oldest, 0.0),
        unwritten_windows=len(await catalogue.unwritten_windows()),
        now=now,
    )


def show_status(status: TenantStatus, console: Console) -> None:
    """Print a status, failures last."""
    states = Counter(version.state_at(status.now) for version in status.versions)
    table = Table("state", "versions", "passages")
    for state in (state for state in State if states[state]):
        passages = sum(v.passages for v in status.versions if v.state_at(status.now) is state)
        table.add_row(state, str(states[state]), str(passages))
    console.print(table)
    jobs = ", ".join(f"{status.jobs[state]} {state}" for state in JobState if status.jobs.get(state))
    console.print(f"jobs: {jobs or 'none'}; the oldest that waits is {status.oldest_waiting:.0f} s old")
    if status.unwritten_windows:
        console.print(f"{status.unwritten_windows} decisions have not reached the index yet")
    for version in status.failed:
        console.print(f"{version.file_name}: {version.reason}: {version.detail}", markup=False, soft_wrap=True)
