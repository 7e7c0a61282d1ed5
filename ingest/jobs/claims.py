"""Jobs as rows: a claim is an UPDATE that only one can win, and lapses when its owner no longer renews it.

The rows are the truth: an accepted upload is a row before its reply is sent, so no crash loses it. Redis
(`ingest.jobs.broker`) only brings the ids of jobs to workers, and what it loses is sent again.
"""

import os
import socket
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import ColumnElement, RowMapping, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ingest.catalogue import JOBS, VERSIONS, Catalogue, Job, JobState, Stage, State, records, rows
from ingest.errors import NotFound, WrongState

LEASE_SECONDS = 30.0
RENEW_SECONDS = 5.0
MOST_ATTEMPTS = 3
MOST_SENT = 500


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a claim: the host, the process and its start, so that a process that is gone can be told."""

    host: str
    process: int
    start: str

    def __str__(self) -> str:
        return f"{self.host}/{self.process}/{self.start}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Unfinished jobs, since when the oldest of them waits (Unix seconds), and dead letters."""

    waiting: int
    since: float | None
    dead: int


class ClaimLost(Exception):
    """A job is no longer ours: the claim lapsed, and somebody else has taken it."""


def this_process() -> Owner:
    """Return an owner that no other process, before or after, is."""
    return Owner(host=socket.gethostname().replace("/", "-"), process=os.getpid(), start=uuid4().hex[:8])


class JobClaims:
    """Claims, renews and ends jobs for one owner; lists those that nobody works on.

    Every change of a claimed job raises ClaimLost where the claim is no longer the one that was made.
    """

    def __init__(self, catalogue: Catalogue, owner: Owner) -> None:
        self._catalogue = catalogue
        self._owner = owner

    async def claim(self, job_id: str, *, now: float) -> Job | None:
        """Claim one job; None when it is finished or somebody else is at it."""
        wanted = select(JOBS).where(JOBS.c.id == job_id)
        async with self._catalogue.write() as connection:
            row = (await connection.execute(wanted)).mappings().one_or_none()
            if row is None or not (row["claimed_until"] <= now or _is_gone(row["claimed_by"], self._owner)):
                return None
            as_seen = (JOBS.c.claimed_until == row["claimed_until"]) & (JOBS.c.updated_at == row["updated_at"])
            claimed = {"claimed_by": str(self._owner), "claimed_until": now + LEASE_SECONDS, "updated_at": now}
            taken = await connection.execute(
                update(JOBS)
                .where(JOBS.c.id == job_id, _unfinished(), as_seen)
                .values(state=JobState.RUNNING, attempts=JOBS.c.attempts + 1, **claimed)
            )
            if taken.rowcount != 1:
                return None
            return rows.job((await connection.execute(wanted)).mappings().one())

    async def claimable_in(self, job_id: str, *, now: float) -> float | None:
        """Return in how many seconds an unfinished job may be claimed; None when it is finished, or not there."""
        wanted = select(JOBS.c.claimed_until).where(JOBS.c.id == job_id, _unfinished())
        async with self._catalogue.read() as connection:
            until = (await connection.execute(wanted)).scalar_one_or_none()
        return None if until is None else max(until - now, 0.0)

    async def pending(self, *, now: float, silent_for: float) -> list[str]:
        """Return the jobs that anybody may claim and that nobody has touched for a while, oldest first."""
        waiting = (JOBS.c.claimed_until <= now) & (JOBS.c.updated_at <= now - silent_for)
        wanted = select(JOBS.c.id).where(_unfinished(), waiting).order_by(JOBS.c.created_at).limit(MOST_SENT)
        async with self._catalogue.read() as connection:
            return list((await connection.execute(wanted)).scalars().all())

    async def again(self, job_id: str, *, tenant: str, now: float) -> Job:
        """Let a job that failed or is dead be done again from its beginning; one that is not finished stays as it is.

        Raises:
            NotFound: there is no such job.
            WrongState: it is done, or its version was withdrawn.
        """
        async with self._catalogue.write() as connection:
            row = await self._of_tenant(connection, tenant, job_id)
            job = rows.job(row)
            if job.state in (JobState.QUEUED, JobState.RUNNING):
                return job
            if job.state is JobState.DONE:
                raise WrongState("the job is done")
            failed = records.at(job.key).where(VERSIONS.c.state == State.FAILED)
            reset = await connection.execute(failed.values(state=State.RECEIVED, reason=None, detail=None))
            if not reset.rowcount:
                raise WrongState("its version is no longer wanted")
            await connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(**rows.job_again(now)))
            return rows.job(await self._of_tenant(connection, tenant, job_id))

    async def _of_tenant(self, connection: AsyncConnection, tenant: str, job_id: str) -> RowMapping:
        wanted = select(JOBS).where(JOBS.c.id == job_id, JOBS.c.tenant == tenant)
        row = (await connection.execute(wanted)).mappings().one_or_none()
        if row is None:
            raise NotFound("there is no such job")
        return row

    async def report(self, job: Job, *, stage: Stage, done: int, total: int, now: float) -> None:
        """Record how far a claimed job is, and renew the claim."""
        progress = {
            "stage": stage,
            "done": done,
            "total": total,
            "updated_at": now,
            "claimed_until": now + LEASE_SECONDS,
        }
        await self._change(job, **progress)

    async def renew(self, job: Job, *, now: float) -> None:
        """Keep the claim of a job that takes long over one step."""
        await self._change(job, claimed_until=now + LEASE_SECONDS)

    async def done(self, job: Job, *, now: float) -> None:
        """End a job that came to its end."""
        await self._change(job, state=JobState.DONE, claimed_until=0.0, updated_at=now)

    async def failed(self, job: Job, *, now: float) -> None:
        """End a job that cannot be done; the version says why."""
        await self._change(job, state=JobState.FAILED, claimed_until=0.0, updated_at=now)

    async def bury(self, job: Job, *, now: float) -> None:
        """End a job that was tried often enough: a dead letter, until somebody looks at it."""
        await self._change(job, state=JobState.DEAD, claimed_until=0.0, updated_at=now)

    async def put_back(self, job: Job, *, after: float, now: float) -> None:
        """Let a job wait `after` seconds and be claimed again by anybody."""
        await self._change(job, state=JobState.QUEUED, claimed_by=None, claimed_until=now + after, updated_at=now)

    async def release(self, job: Job, *, after: float = 0.0, now: float) -> None:
        """Let anybody claim a job that was not done, without the attempt; one that has ended stays so.

        Raises:
            ClaimLost: it has ended, or is somebody else's.
        """
        waits = {"state": JobState.QUEUED, "attempts": JOBS.c.attempts - 1}
        waits |= {"claimed_by": None, "claimed_until": now + after}
        async with self._catalogue.write() as connection:
            running = update(JOBS).where(self._mine(job), JOBS.c.state == JobState.RUNNING)
            if (await connection.execute(running.values(**waits, updated_at=now))).rowcount != 1:
                raise ClaimLost

    async def waiting(self) -> int:
        """Return how many jobs are not finished."""
        return (await self.backlog()).waiting

    async def backlog(self) -> Backlog:
        """Return what waits, of all tenants."""
        waiting = select(func.count(), func.min(JOBS.c.created_at)).where(_unfinished())
        dead = select(func.count()).where(JOBS.c.state == JobState.DEAD)
        async with self._catalogue.read() as connection:
            count, since = (await connection.execute(waiting)).one()
            return Backlog(waiting=count, since=since, dead=(await connection.execute(dead)).scalar_one())

    async def counts(self, tenant: str) -> tuple[dict[JobState, int], float | None]:
        """Return how many of a tenant's jobs are in which state, and since when the oldest unfinished one waits."""
        mine = JOBS.c.tenant == tenant
        by_state = select(JOBS.c.state, func.count()).where(mine).group_by(JOBS.c.state)
        oldest = select(func.min(JOBS.c.created_at)).where(mine, _unfinished())
        async with self._catalogue.read() as connection:
            found = (await connection.execute(by_state)).all()
            since = (await connection.execute(oldest)).scalar_one_or_none()
        return {JobState(state): count for state, count in found}, since

    async def _change(self, job: Job, **values: object) -> None:
        async with self._catalogue.write() as connection:
            if (await connection.execute(update(JOBS).where(self._mine(job)).values(**values))).rowcount != 1:
                raise ClaimLost

    def _mine(self, job: Job) -> ColumnElement[bool]:
        # By the attempt too: a process that stood still may have claimed the job anew beside the run that it resumes.
        return (JOBS.c.id == job.id) & (JOBS.c.claimed_by == str(self._owner)) & (JOBS.c.attempts == job.attempts)


def _unfinished() -> ColumnElement[bool]:
    return JOBS.c.state.in_([JobState.QUEUED, JobState.RUNNING])


def _is_gone(claimed_by: str | None, me: Owner) -> bool:
    """Tell whether a claim's owner was a process of this machine that runs no more: nobody need wait for its lease."""
    if claimed_by is None or claimed_by.count("/") != 2:
        return False
    host, process, start = claimed_by.split("/")
    if host != me.host or not process.isdecimal():
        return False
    if int(process) == me.process:
        return start != me.start
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
