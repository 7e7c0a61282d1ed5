"""Claim jobs in SQL with an UPDATE that only one process can win; a claim expires unless its owner renews it.

An accepted upload has a job's row before its reply is sent, so a crash cannot lose it. Instants are Unix seconds.
"""

from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import ColumnElement, RowMapping, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ingest.catalogue import JOBS, VERSIONS, Catalogue, Job, JobState, Stage, State, records, rows
from ingest.errors import NotFound, WrongState

LEASE_SECONDS = 20.0
RENEW_SECONDS = 5.0
MOST_ATTEMPTS = 3
MOST_CANDIDATES = 20
"""Number of oldest free jobs that a worker tries to claim; another worker may claim each of them first."""
MOST_AHEAD_SECONDS = 60.0  # every claim or wait ends sooner; a later end means that the clock was set back


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The number of unfinished jobs and of dead letters, and the creation time of the oldest unfinished job."""

    waiting: int
    oldest_at: float | None
    dead: int


class ClaimLost(Exception):
    """The claim of a job expired, and another owner has it."""


class JobClaims:
    """Claim, renew and end jobs for one owner, by default this process.

    Every change of a claimed job raises ClaimLost if the claim was lost.
    """

    def __init__(self, catalogue: Catalogue, owner: str | None = None) -> None:
        self._catalogue = catalogue
        self._owner = owner or uuid4().hex

    async def claim_next(self, *, now: float) -> Job | None:
        """Claim the oldest free job; None if there is none."""
        free = select(JOBS.c.id).where(_is_free(now)).order_by(JOBS.c.created_at).limit(MOST_CANDIDATES)
        async with self._catalogue.read() as connection:
            job_ids = (await connection.execute(free)).scalars().all()
        for job_id in job_ids:
            job = await self.claim(job_id, now=now)
            if job is not None:
                return job
        return None

    async def claim(self, job_id: str, *, now: float) -> Job | None:
        """Claim a job; None if it is finished, claimed by any owner, or waits before its next attempt."""
        values = {"claimed_by": self._owner, "claimed_until": now + LEASE_SECONDS, "updated_at": now}
        values |= {"state": JobState.RUNNING, "attempts": JOBS.c.attempts + 1}
        claim = update(JOBS).where(JOBS.c.id == job_id, _is_free(now)).values(**values).returning(JOBS)
        async with self._catalogue.write() as connection:
            row = (await connection.execute(claim)).mappings().one_or_none()
        return None if row is None else rows.to_job(row)

    async def retry(self, job_id: str, *, tenant: str, now: float) -> Job:
        """Queue a failed job or a dead letter again; a queued or running job is returned unchanged.

        Raises NotFound, or WrongState if the job is done or its version withdrawn.
        """
        async with self._catalogue.write() as connection:
            job = rows.to_job(await self._job_row(connection, tenant, job_id))
            if job.state in (JobState.QUEUED, JobState.RUNNING):
                return job
            if job.state is JobState.DONE:
                raise WrongState("the job is done")
            failed = records.update_version(job.key).where(VERSIONS.c.state == State.FAILED)
            reset = await connection.execute(failed.values(state=State.RECEIVED, reason=None, detail=None))
            if not reset.rowcount:
                raise WrongState("its version was withdrawn")
            await connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(**rows.requeued(now)))
            return rows.to_job(await self._job_row(connection, tenant, job_id))

    async def _job_row(self, connection: AsyncConnection, tenant: str, job_id: str) -> RowMapping:
        query = select(JOBS).where(JOBS.c.id == job_id, JOBS.c.tenant == tenant)
        row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            raise NotFound("job not found")
        return row

    async def report(self, job: Job, *, stage: Stage, done: int, total: int, now: float) -> None:
        """Record the progress of a claimed job, and renew the claim."""
        progress = {"stage": stage, "done": done, "total": total, "updated_at": now}
        await self._change(job, **progress, claimed_until=now + LEASE_SECONDS)

    async def renew(self, job: Job, *, now: float) -> None:
        """Renew a job's claim without changing its progress."""
        await self._change(job, claimed_until=now + LEASE_SECONDS)

    async def mark_done(self, job: Job, *, now: float) -> None:
        """End a job successfully."""
        await self._change(job, state=JobState.DONE, claimed_until=0.0, updated_at=now)

    async def mark_failed(self, job: Job, *, now: float) -> None:
        """End a job that cannot succeed; its version has the reason."""
        await self._change(job, state=JobState.FAILED, claimed_until=0.0, updated_at=now)

    async def mark_dead(self, job: Job, *, now: float) -> None:
        """Make a job a dead letter after MOST_ATTEMPTS attempts; staff can retry it."""
        await self._change(job, state=JobState.DEAD, claimed_until=0.0, updated_at=now)

    async def requeue(self, job: Job, *, delay: float, now: float) -> None:
        """Release a job for another attempt, which may be claimed in `delay` seconds."""
        await self._change(job, state=JobState.QUEUED, claimed_by=None, claimed_until=now + delay, updated_at=now)

    async def release(self, job: Job, *, now: float) -> None:
        """Release a job without counting the attempt; raise ClaimLost if it is finished or has another owner."""
        values = {"state": JobState.QUEUED, "attempts": JOBS.c.attempts - 1}
        values |= {"claimed_by": None, "claimed_until": now, "updated_at": now}
        is_running = JOBS.c.state == JobState.RUNNING
        release = update(JOBS).where(self._is_claimed(job), is_running).values(**values)
        async with self._catalogue.write() as connection:
            if (await connection.execute(release)).rowcount != 1:
                raise ClaimLost

    async def backlog(self) -> Backlog:
        """Return the backlog of all tenants."""
        unfinished = select(func.count(), func.min(JOBS.c.created_at)).where(_is_unfinished())
        dead = select(func.count()).select_from(JOBS).where(JOBS.c.state == JobState.DEAD)
        async with self._catalogue.read() as connection:
            unfinished_count, oldest_at = (await connection.execute(unfinished)).one()
            dead_count = (await connection.execute(dead)).scalar_one()
        return Backlog(waiting=unfinished_count, oldest_at=oldest_at, dead=dead_count)

    async def counts(self, tenant: str) -> tuple[dict[JobState, int], float | None]:
        """Return a tenant's jobs by state, and the creation time of its oldest unfinished job."""
        of_tenant = JOBS.c.tenant == tenant
        by_state = select(JOBS.c.state, func.count()).where(of_tenant).group_by(JOBS.c.state)
        oldest = select(func.min(JOBS.c.created_at)).where(of_tenant, _is_unfinished())
        async with self._catalogue.read() as connection:
            counts = (await connection.execute(by_state)).all()
            oldest_at = (await connection.execute(oldest)).scalar_one_or_none()
        return {JobState(state): count for state, count in counts}, oldest_at

    async def _change(self, job: Job, **values: object) -> None:
        change = update(JOBS).where(self._is_claimed(job)).values(**values)
        async with self._catalogue.write() as connection:
            if (await connection.execute(change)).rowcount != 1:
                raise ClaimLost

    def _is_claimed(self, job: Job) -> ColumnElement[bool]:
        # Compare the attempt too: this process may have claimed the job a second time after it was suspended.
        return (JOBS.c.id == job.id) & (JOBS.c.claimed_by == self._owner) & (JOBS.c.attempts == job.attempts)


def _is_unfinished() -> ColumnElement[bool]:
    return JOBS.c.state.in_([JobState.QUEUED, JobState.RUNNING])


def _is_free(now: float) -> ColumnElement[bool]:
    """Match unfinished jobs whose claim or wait has ended, or ends so late that the clock must have been set back."""
    return _is_unfinished() & ((JOBS.c.claimed_until <= now) | (JOBS.c.claimed_until > now + MOST_AHEAD_SECONDS))
