"""Makes the faults of a schedule, each lane by itself, and heals what it has broken."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread

from tests.e2e import model
from tests.e2e.chaos.bank import TOKEN_SECONDS, Bank, start_again
from tests.e2e.chaos.schedule import LOSES, Fault
from tests.e2e.cluster import Server
from tests.e2e.faketime import set_clock
from tests.postgres import stands_still

SETTLED_SECONDS = 12.0
"""How long a replica must live after the end of an answer until Redis may lose it, and after a stall of Redis or of its
own until it may be killed: the ten seconds within which it repeats lost writes, and two. Both at once lose writes."""
HOURS = 3 * 3600.0

Say = Callable[[str], None]


class Faults:
    """Makes faults on a bank; what must not coincide by the runbook waits for its turn."""

    def __init__(self, bank: Bank, say: Say) -> None:
        self._bank = bank
        self._say = say
        self._one_of_both = anyio.Lock()
        """Held while Redis is broken, and while a replica ends: what both break at once is lost."""
        self._index_is_there = (anyio.Lock(), anyio.Lock())
        """Held while a replica's index is away, and while it starts, which it could not without."""
        self._replica_ended_at = self._writes_delayed_at = -SETTLED_SECONDS
        self.made = 0
        self.never_ended: list[str] = []
        """Drains that took longer than any may."""

    async def make(self, faults: Sequence[Fault], stopping: asyncio.Event) -> None:
        """Make every fault of the schedule in its lane, none before its second, until told to stop."""
        began = time.monotonic()
        lanes = {fault.lane: [other for other in faults if other.lane == fault.lane] for fault in faults}
        async with anyio.create_task_group() as tasks:
            for lane in lanes.values():
                tasks.start_soon(self._make_lane, lane, began, stopping)

    async def _make_lane(self, lane: Sequence[Fault], began: float, stopping: asyncio.Event) -> None:
        for fault in lane:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), max(0.0, fault.at - (time.monotonic() - began)))
            if stopping.is_set():
                return
            self._say(str(fault))
            with anyio.CancelScope(shield=True):  # what is broken is healed
                await self._make(fault)
            self.made += 1

    async def _make(self, fault: Fault) -> None:
        kinds: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "replica": self._replica,
            "redis": self._redis,
            "sql": self._sql,
            "index": self._index,
            "model": self._model,
            "clock": self._clock,
        }
        await kinds[fault.lane](fault)

    # --- replicas ----------------------------------------------------------------------------------------------------

    async def _replica(self, fault: Fault) -> None:
        replica = self._bank.cluster.replicas[fault.victim]
        if fault.kind == "stall":
            async with stopped(_pid(replica)):
                await anyio.sleep(fault.seconds)
            self._writes_delayed_at = time.monotonic()  # Redis may have been broken while it stood still
            return
        async with self._index_is_there[fault.victim]:
            async with self._one_of_both:
                await anyio.sleep(max(0.0, self._writes_delayed_at + SETTLED_SECONDS - time.monotonic()))
                await self._end(replica, signal.SIGKILL if fault.kind == "kill" else signal.SIGTERM)
                self._replica_ended_at = time.monotonic()
            await anyio.sleep(fault.seconds)
            await anyio.to_thread.run_sync(start_again, replica)

    async def _end(self, replica: Server, number: signal.Signals) -> None:
        """End a replica; one that does not go within 30 s is killed, as Kubernetes does, and told."""
        try:
            await anyio.to_thread.run_sync(replica.stop, number)
        except subprocess.TimeoutExpired:
            waiting = await anyio.to_thread.run_sync(self._bank.sql_activity)
            self.never_ended.append(f"{replica.log.stem} did not end within 30 s; SQL was at {waiting}")
            await anyio.to_thread.run_sync(replica.stop, signal.SIGKILL)

    # --- stores ------------------------------------------------------------------------------------------------------

    async def _redis(self, fault: Fault) -> None:
        async with self._one_of_both:
            if fault.kind in LOSES:
                await anyio.sleep(max(0.0, self._replica_ended_at + SETTLED_SECONDS - time.monotonic()))
            await self._break_redis(fault)
            self._writes_delayed_at = time.monotonic()

    async def _break_redis(self, fault: Fault) -> None:
        redis, run = self._bank.redis, anyio.to_thread.run_sync
        match fault.kind:
            case "stall" | "long stall":
                async with stopped(redis.leader.process.pid):
                    await anyio.sleep(fault.seconds)
                return
            case "restart":
                await run(redis.leader.stop)
                await anyio.sleep(fault.seconds)
                await run(redis.leader.restart)
                await run(redis.wait)
                await run(redis.follow)
                return
            case "demote":
                await run(redis.demote)
                await anyio.sleep(fault.seconds)
                await run(redis.hide)
            case "forget":
                await run(redis.detach)
                await anyio.sleep(fault.seconds)
                await run(redis.leader.stop)
                await run(redis.hide)
            case _:
                await run(redis.leader.stop)
                await run(redis.hide)
                await anyio.sleep(fault.seconds)
        await run(redis.promote)
        await run(redis.wait)
        if redis.follower.process.poll() is not None:
            await run(redis.follower.restart)
        await run(redis.follow)

    async def _sql(self, fault: Fault) -> None:
        if fault.kind == "lock":
            await anyio.to_thread.run_sync(self._bank.lock_audit, fault.seconds)
            return
        with stands_still(self._bank.postgres):
            await anyio.sleep(fault.seconds)

    async def _index(self, fault: Fault) -> None:
        """Take a replica's index away: the engine is in its process, which only a stall of all of it can slow."""
        folder = self._bank.folders[fault.victim]
        async with self._index_is_there[fault.victim]:
            (folder / "qdrant").rename(folder / "elsewhere")
            try:
                await anyio.sleep(fault.seconds)
            finally:
                (folder / "elsewhere").rename(folder / "qdrant")

    # --- models and clocks -------------------------------------------------------------------------------------------

    async def _model(self, fault: Fault) -> None:
        server = self._bank.cluster.models[fault.victim]
        if fault.kind == "kill":
            await anyio.to_thread.run_sync(server.stop, signal.SIGKILL)
            await anyio.sleep(fault.seconds)
            server.start()
            await anyio.to_thread.run_sync(server.wait)
        elif fault.kind == "stall":
            async with stopped(_pid(server)):
                await anyio.sleep(fault.seconds)
        else:
            await model.tell(server.url, token_seconds=10 * TOKEN_SECONDS)
            await anyio.sleep(fault.seconds)
            await model.restore(server.url)

    async def _clock(self, fault: Fault) -> None:
        clock = self._bank.clocks[fault.victim]
        set_clock(clock, HOURS if fault.kind == "ahead" else -HOURS)
        await anyio.sleep(fault.seconds)
        set_clock(clock, 0)


@asynccontextmanager
async def stopped(*pids: int) -> AsyncGenerator[None]:
    """Let processes stand still while the block runs."""
    try:
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            _send(pid, signal.SIGCONT)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _pid(server: Server) -> int:
    assert server.process is not None
    return server.process.pid
