"""`ingest status`: versions and jobs by state, the oldest unfinished job, failures, and originals without a version."""

from collections import Counter
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ingest.catalogue import Catalogue, JobState, State, Version
from ingest.jobs import JobClaims
from ingest.uploads import Blobs
from knowledge.index_state import IndexState

UNDER_WAY_SECONDS = 3600.0  # originals younger than this may belong to an upload in progress


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantStatus:
    """A tenant's versions and jobs at `now` (Unix seconds).

    `oldest_waiting` is the age in seconds of the oldest unfinished job (0: none).
    """

    versions: tuple[Version, ...]
    jobs: dict[JobState, int]
    oldest_waiting: float
    unwritten_windows: int
    index: IndexState
    """Of all tenants: the last comparison of the index with SQL."""
    originals: int
    """Of all tenants: the number of originals at least one hour old."""
    orphans: frozenset[str]
    """The digests of originals without a version."""
    now: float

    @property
    def failed(self) -> tuple[Version, ...]:
        """The versions that could not be indexed."""
        return tuple(version for version in self.versions if version.state is State.FAILED)


async def read_status(
    catalogue: Catalogue, job_claims: JobClaims, blobs: Blobs, tenant: str, *, now: float
) -> TenantStatus:
    """Return a tenant's status; raise CatalogueUnavailable or StorageUnavailable."""
    jobs, oldest = await job_claims.counts(tenant)
    originals = await blobs.stored_before(now - UNDER_WAY_SECONDS)
    return TenantStatus(
        versions=tuple(await catalogue.all_versions(tenant)),
        jobs=jobs,
        oldest_waiting=0.0 if oldest is None else max(now - oldest, 0.0),
        unwritten_windows=len(await catalogue.unwritten_windows()),
        index=await catalogue.index_state(),
        originals=len(originals),
        orphans=frozenset(originals) - await catalogue.digests(),
        now=now,
    )


def show_status(status: TenantStatus, console: Console) -> None:
    """Print a status; the versions that could not be indexed come last."""
    versions, passages = Counter[State](), Counter[State]()
    for version in status.versions:
        state = version.state_at(status.now)
        versions[state] += 1
        passages[state] += version.passages
    table = Table("state", "versions", "passages")
    for state in (state for state in State if versions[state]):
        table.add_row(state, str(versions[state]), str(passages[state]))
    console.print(table)
    jobs = ", ".join(f"{status.jobs[state]} {state}" for state in JobState if status.jobs.get(state))
    console.print(f"jobs: {jobs or 'none'}; the oldest that waits is {status.oldest_waiting:.0f} s old")
    if status.unwritten_windows:
        console.print(f"{status.unwritten_windows} decisions have not reached the index yet")
    console.print(index_line(status.index, status.now), soft_wrap=True)
    if status.orphans:
        console.print(
            f"{len(status.orphans)} of {status.originals} originals belong to no version: many are a sign that SQL and "
            "BLOB_URL do not belong together",
            soft_wrap=True,
        )
    for version in status.failed:
        console.print(f"{version.file_name}: {version.reason}: {version.detail}", markup=False, soft_wrap=True)


def index_line(state: IndexState, now: float) -> str:
    """Return a line with the result of the last comparison of the index with SQL."""
    if not state.compared_at:
        return "the index has not been compared with SQL yet: a running worker does so each minute"
    age = f"compared with SQL {max(now - state.compared_at, 0):.0f} s ago"
    if not state.missing_passages:
        return f"the index lacks nothing ({age})"
    missing = f"{state.missing_passages} passages of {state.missing_versions} versions"
    return f"the index lacks {missing} ({age}): run `ingest rebuild`"
