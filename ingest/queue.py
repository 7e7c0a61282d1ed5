"""Jobs as rows: a claim is an UPDATE that only one can win, and lapses when its owner no longer renews it.

This slice's queue is the SQL table itself; issue 5 puts a Redis queue (streaq) in front of several workers. An accepted
upload is a row before its reply is sent, so no crash loses it.
"""

import os
import socket
from dataclasses import dataclass
from uuid import uuid4

import anyio
from sqlalchemy import ColumnElement, select, update

from ingest import rows
from ingest.catalogue import Catalogue
from ingest.schema import JOBS
from ingest.versions import Job, JobState, Stage

LEASE_SECONDS = 30.0
RENEW_SECONDS = 5.0
MOST_ATTEMPTS = 3
_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a claim: the host, the process and its start, so that a process that is gone can be told."""

    host: str
    process: int
    start: str

    def __str__(self) -> str:
        return f"{self.host}/{self.process}/{self.start}"


def this_process() -> Owner:
    """Return an owner that no other process, before or after, is."""
    return Owner(host=socket.gethostname().replace("/", "-"), process=os.getpid(), start=uuid4().hex[:8])


class Queue:
    """Claims, renews and ends jobs for one owner."""

    def __init__(self, catalogue: Catalogue, owner: Owner) -> None:
        self._catalogue = catalogue
        self._owner = owner
        self._more = anyio.Event()

    def wake(self) -> None:
        """Say that there may be a job: whoever waits for more looks now."""
        self._more.set()
        self._more = anyio.Event()

    async def wait_for_more(self, seconds: float) -> None:
        """Return when somebody says there may be a job, or after `seconds`: jobs of other processes ring no bell."""
        with anyio.move_on_after(seconds):
            await self._more.wait()

    async def claim_next(self, *, now: float) -> Job | None:
        """Claim the job that has waited longest, or None."""
        open_jobs = select(JOBS.c.id).where(_unfinished()).order_by(JOBS.c.created_at).limit(_LOOKED_AT)
        async with self._catalogue.begin() as connection:
            ids = (await connection.execute(open_jobs)).scalars().all()
        for job_id in ids:
            if (job := await self.claim(job_id, now=now)) is not None:
                return job
        return None

    async def claim(self, job_id: str, *, now: float) -> Job | None:
        """Claim one job; None when it is finished or somebody else is at it."""
        wanted = select(JOBS).where(JOBS.c.id == job_id)
        async with self._catalogue.begin() as connection:
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

    async def put_back(self, job: Job, *, after: float, now: float) -> None:
        """Let a job wait `after` seconds and be claimed again by anybody."""
        await self._change(job, state=JobState.QUEUED, claimed_by=None, claimed_until=now + after, updated_at=now)

    async def waiting(self) -> int:
        """Return how many jobs are not finished."""
        async with self._catalogue.begin() as connection:
            return len((await connection.execute(select(JOBS.c.id).where(_unfinished()))).all())

    async def _change(self, job: Job, **values: object) -> None:
        mine = (JOBS.c.id == job.id) & (JOBS.c.claimed_by == str(self._owner))
        async with self._catalogue.begin() as connection:
            await connection.execute(update(JOBS).where(mine).values(**values))


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
