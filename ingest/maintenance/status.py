"""`ingest status`: how many versions and jobs are where, how far work is behind, what failed; from SQL alone."""

from collections import Counter
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ingest.catalogue import Catalogue, JobState, State, Version
from ingest.jobs import JobClaims


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What there is of a tenant's documents at an instant; ages in seconds, 0 where nothing waits."""

    versions: tuple[Version, ...]
    jobs: dict[JobState, int]
    oldest_waiting: float
    unwritten_windows: int
    now: float

    @property
    def failed(self) -> tuple[Version, ...]:
        """The versions that could not be indexed."""
        return tuple(version for version in self.versions if version.state is State.FAILED)


async def read_status(catalogue: Catalogue, queue: JobClaims, tenant: str, *, now: float) -> Overview:
    """Return how things stand.

    Raises:
        CatalogueUnavailable: the database cannot be asked.
    """
    jobs, oldest = await queue.counts(tenant)
    return Overview(
        versions=tuple(await catalogue.all_versions(tenant)),
        jobs=jobs,
        oldest_waiting=0.0 if oldest is None else max(now - oldest, 0.0),
        unwritten_windows=len(await catalogue.unwritten_windows()),
        now=now,
    )


def show_status(overview: Overview, console: Console) -> None:
    """Print it, failures last."""
    states = Counter(version.state_at(overview.now) for version in overview.versions)
    table = Table("state", "versions", "passages")
    for state in (state for state in State if states[state]):
        passages = sum(v.passages for v in overview.versions if v.state_at(overview.now) is state)
        table.add_row(state, str(states[state]), str(passages))
    console.print(table)
    jobs = ", ".join(f"{overview.jobs[state]} {state}" for state in JobState if overview.jobs.get(state))
    console.print(f"jobs: {jobs or 'none'}; the oldest that waits is {overview.oldest_waiting:.0f} s old")
    if overview.unwritten_windows:
        console.print(f"{overview.unwritten_windows} decisions have not reached the index yet")
    for version in overview.failed:
        said = f"{version.file_name}: {version.reason}: {version.detail}"
        console.print(said, markup=False, soft_wrap=True)
