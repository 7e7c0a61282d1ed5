"""Leases and takeover: this process renews what it writes, and continues or ends what a dead replica wrote.

Every writer holds a lease, renewed by a heartbeat whose reply also reports cancels and readers on other replicas. An
answer whose lease has lapsed is continued by a process that has readers of it, ended by one that was asked to cancel
it, and by any other after the grace. `docs/decisions/0005-leases-and-epochs.md` says what a successor may assume.
"""

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import anyio
import structlog

from chatbot.errors import StoreUnavailable
from chatbot.streams.elsewhere import ReadsElsewhere
from chatbot.streams.live import LiveAnswer
from chatbot.streams.log import AnswerId, TakenOver
from chatbot.streams.writers import AnswerParts, TakeoverReason, Writers
from knowledge.identity import Principal
from telemetry.supervision import contained, supervise

log = structlog.get_logger(__name__)

OUTAGE_TERMS = 2
"""A lapsed lease counts once Redis has been back for so many lease terms: until a probe of its own Redis breaker
succeeds, which may be the second one, a live writer cannot renew its lease."""

ContinueAnswer = Callable[[LiveAnswer, TakenOver], Awaitable[None]]
"""Continues an answer that was taken over, or ends it if `TakenOver.cancelled` is set."""


class Takeover:
    """Renews the leases of this process, and takes over answers whose leases have lapsed."""

    def __init__(self, parts: AnswerParts, writers: Writers, reads: ReadsElsewhere) -> None:
        self._parts = parts
        self._log = parts.log
        self._writers = writers
        self._reads = reads
        self._continue_answer: ContinueAnswer | None = None
        self._no_renewal_at = -math.inf
        """When Redis was unavailable last, or this process stood still and could not have noticed that it was."""
        self._to_cancel: set[AnswerId] = set()

    async def maintain_leases(self, continue_answer: ContinueAnswer) -> None:
        """Renew this process's leases and end the orphans of dead replicas, until cancelled."""
        self._continue_answer = continue_answer
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervise, "renewals", self._renew_leases, self._parts.on_failure)
            tasks.start_soon(supervise, "takeovers", self._take_over_lapsed, self._parts.on_failure)

    async def _renew_leases(self) -> None:
        while True:
            try:
                self._parts.deferred.store_answered(lost_writes=await self._log.has_forgotten())
            except StoreUnavailable:  # nobody can renew
                self._no_renewal_at = anyio.current_time()
            with suppress(StoreUnavailable):
                await self._writers.renew_leases()
            slept_at = anyio.current_time()
            await anyio.sleep(self._parts.settings.heartbeat)
            if anyio.current_time() - slept_at > self._log.lease_seconds:
                self._no_renewal_at = anyio.current_time()

    async def _take_over_lapsed(self) -> None:
        while True:
            await anyio.sleep(self._parts.settings.heartbeat)
            with suppress(StoreUnavailable):
                for tenant, answer_id, lapsed_for in await self._log.lapsed():
                    reason = self._reason_for(answer_id, lapsed_for)
                    if reason is not None:
                        with contained("takeover", self._parts.on_failure):
                            await self.take_over(tenant, answer_id, reason)

    def _reason_for(self, answer_id: AnswerId, lapsed_for: float) -> TakeoverReason | None:
        """Return why this process takes over an answer whose lease lapsed so many seconds ago; None: it does not."""
        if answer_id in self._to_cancel:
            return "cancel"
        if answer_id in self._reads:
            return "reader"
        grace = self._parts.settings.grace
        return "orphan" if min(lapsed_for, self._renewable_for) >= grace else None

    @property
    def _renewable_for(self) -> float:
        """For how many seconds every live writer has been able to renew its lease.

        A lease that lapses in that time means a dead writer. Before it, Redis may have been unavailable.
        """
        return min(self._log.back_for, anyio.current_time() - self._no_renewal_at)

    async def take_over(self, tenant: str, answer_id: AnswerId, reason: TakeoverReason) -> bool:
        """Continue an answer whose writer's lease has lapsed; return whether this process writes it now.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        continue_answer, writers = self._continue_answer, self._writers
        if continue_answer is None or writers.draining or answer_id in writers:
            return False  # a lease of our own that has lapsed is renewed by the next append
        if self._renewable_for < OUTAGE_TERMS * self._log.lease_seconds:
            return False
        with anyio.CancelScope(shield=True):  # an answer that was taken over must get a writer
            taken = await self._log.take_over(tenant, answer_id)
            if taken is None:
                return False
            log.warning("answer_taken_over", answer_id=answer_id, reason=reason, epoch=taken.epoch)
            self._parts.on_taken(reason)
            self._to_cancel.discard(answer_id)
            who = Principal(tenant=tenant, sub=taken.sub)
            live = LiveAnswer(answer_id, who, epoch=taken.epoch, logged=taken.events, output=taken.output)
            live.log_opening = taken.opening
            live.unread = reason == "orphan" and not (taken.cancelled or taken.outcome)
            to_continue = replace(taken, cancelled=True) if reason == "orphan" else taken  # an orphan is only ended
            writers.run(live, lambda live: continue_answer(live, to_continue))
            self._reads.end(answer_id)
        return True

    async def cancel(self, who: Principal, answer_id: AnswerId) -> bool:
        """Stop the answer, also if another replica writes it; return whether it had not ended yet.

        Raises:
            NotFound: no such answer, or another customer's.
            StoreUnavailable: this process does not hold the answer and Redis cannot be asked.
        """
        live = self._writers.find(who, answer_id)
        if live is not None:
            live.scope.cancel()
            return not live.ended
        _, lease_left = await self._log.touch(who, answer_id, "cancelled")
        if lease_left is not None:
            self._to_cancel.add(answer_id)
        return lease_left is not None
