"""Leases and takeover: this process renews what it writes, and continues or ends what a dead replica wrote.

Every writer holds a lease, renewed by a heartbeat whose reply also reports cancels and readers on other replicas. A
reader of an answer whose lease has lapsed takes the answer over and continues it in this process; a sweep ends those
without readers. `docs/decisions/0005-leases-and-epochs.md` says what a successor may assume.
"""

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import anyio
import structlog

from chatbot.errors import StoreUnavailable
from chatbot.streams.live import LiveAnswer
from chatbot.streams.log import AnswerId, LogOpening, TakenOver
from chatbot.streams.writers import AnswerParts, Writers
from knowledge.identity import Principal
from telemetry.supervision import contained, supervise

log = structlog.get_logger(__name__)

_TERMS = 2
"""For how many terms of a lease Redis must have been back before a lapsed one counts: a writer may need two probes."""

Resume = Callable[[LiveAnswer, TakenOver], Awaitable[None]]
"""Continues an answer that was taken over, or ends it where it is marked cancelled."""
TakeoverReason = Literal["reader", "cancel", "orphan"]


class Takeover:
    """Renews the leases of this process, and takes over answers whose leases have lapsed."""

    def __init__(
        self, parts: AnswerParts, writers: Writers, *, on_taken: Callable[[TakeoverReason], None] = lambda _: None
    ) -> None:
        self._parts = parts
        self._log = parts.log
        self._writers = writers
        self._on_taken = on_taken
        self._resume: Resume | None = None
        self._no_renewal_at = -math.inf

    async def maintain_leases(self, resume: Resume) -> None:
        """Renew this process's leases and end the orphans of dead replicas, until cancelled."""
        self._resume = resume
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervise, "renewals", self._renew_leases, self._parts.on_failure)
            tasks.start_soon(supervise, "orphans", self._end_orphans, self._parts.on_failure)

    async def _renew_leases(self) -> None:
        while True:
            await self._ask_store()
            if leases := self._writers.leases_to_renew():
                with suppress(StoreUnavailable):
                    for answer_id, standing in (await self._log.renew(leases)).items():
                        self._writers.apply_renewal(answer_id, standing)
            slept_at = anyio.current_time()
            await anyio.sleep(self._parts.settings.heartbeat)
            if anyio.current_time() - slept_at > self._log.lease_seconds:
                self._no_renewal_at = anyio.current_time()
            self._writers.complete_logs()

    async def _ask_store(self) -> None:
        """Check Redis for lost writes; the check also records when Redis was unavailable."""
        try:
            self._parts.deferred.store_seen(lost_writes=await self._log.has_forgotten())
        except StoreUnavailable:
            self._no_renewal_at = anyio.current_time()

    async def _end_orphans(self) -> None:
        while True:
            await anyio.sleep(self._parts.settings.sweep_every)
            grace = self._parts.settings.grace
            if not self._trusts_lapsed_leases(grace):
                continue
            with suppress(StoreUnavailable):
                for tenant, answer_id in await self._log.orphans(lapsed_for=grace):
                    with contained("orphan", self._parts.on_failure):
                        await self.take_over(tenant, answer_id, "orphan")

    def _trusts_lapsed_leases(self, seconds: float) -> bool:
        """Return whether a lease that has lapsed means a dead writer: Redis was there, and we were, for so long.

        While Redis was away, or took no writes, nobody could renew. A process that stood still may have missed that.
        """
        return min(self._log.back_for, anyio.current_time() - self._no_renewal_at) >= seconds

    async def take_over(self, tenant: str, answer_id: AnswerId, reason: TakeoverReason) -> bool:
        """Continue an answer whose writer's lease has lapsed; return whether this process writes it now.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        resume, writers = self._resume, self._writers
        if resume is None or writers.draining or answer_id in writers:
            return False  # a lease of our own that has lapsed is renewed by the next append
        if not self._trusts_lapsed_leases(_TERMS * self._log.lease_seconds):
            return False
        with anyio.CancelScope(shield=True):  # what was taken over is run
            taken = await self._log.take_over(tenant, answer_id)
            if taken is None:
                return False
            log.warning("answer_taken_over", answer_id=answer_id, why=reason, epoch=taken.epoch)
            self._on_taken(reason)
            live = LiveAnswer(
                answer_id,
                Principal(tenant=tenant, sub=taken.sub, roles=frozenset(), groups=frozenset()),
                epoch=taken.epoch,
                logged=taken.events,
                output=taken.output,
            )
            live.opening = LogOpening(taken.conversation_id, taken.passages, taken.checkpoint)
            live.abandoned = reason == "orphan" and not (taken.cancelled or taken.outcome)
            marked = replace(taken, cancelled=taken.cancelled or reason == "orphan")
            writers.run(live, lambda live: resume(live, marked))
        return True

    async def cancel(self, who: Principal, answer_id: AnswerId) -> bool:
        """Stop the answer on whichever replica writes it; return whether it had not ended yet.

        Raises:
            NotFound: no such answer, or another customer's.
            StoreUnavailable: this process does not hold the answer and Redis cannot be asked.
        """
        live = self._writers.find(who, answer_id)
        if live is not None:
            live.scope.cancel()
            return not live.ended
        _, left = await self._log.touch(who, answer_id, "cancelled")
        if left is not None:
            self._parts.tasks.start_soon(self._end_if_lapsed, who.tenant, answer_id, left)
        return left is not None

    async def _end_if_lapsed(self, tenant: str, answer_id: AnswerId, lease_left: float) -> None:
        """End a cancelled answer whose writer is dead, once its lease has lapsed; else the sweep does."""
        await anyio.sleep(max(0.0, lease_left))
        with contained("cancel", self._parts.on_failure), suppress(StoreUnavailable):
            await self.take_over(tenant, answer_id, "cancel")
