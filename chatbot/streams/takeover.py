"""Leases and takeover: renew the leases of this process's answers, and continue or end the answers of dead replicas.

Every writer renews its lease by a heartbeat, whose reply also reports cancels and readers on other replicas. An answer
whose lease has lapsed is continued by a process that has readers of it. A process that received a cancel of the answer
ends it at once, and any other process ends it after the grace. `docs/decisions/0005-leases-and-epochs.md` lists the
assumptions of a successor.
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
"""For this many lease terms after an outage of Redis, a lapsed lease does not mean a dead writer: a live writer can
renew its lease only after a probe of its own Redis breaker has succeeded, which may be the second probe."""

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
        """When this process last found Redis unavailable, or was paused and so could not check Redis."""
        self._to_cancel: set[AnswerId] = set()  # answers of other replicas that customers have cancelled here

    async def maintain_leases(self, continue_answer: ContinueAnswer) -> None:
        """Renew this process's leases and take over the answers of dead replicas, until cancelled."""
        self._continue_answer = continue_answer
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervise, "renewals", self._renew_leases, self._parts.on_failure)
            tasks.start_soon(supervise, "takeovers", self._take_over_lapsed, self._parts.on_failure)

    async def _renew_leases(self) -> None:
        while True:
            try:
                self._parts.deferred.store_answered(lost_writes=await self._log.may_have_lost_writes())
            except StoreUnavailable:  # other replicas cannot renew their leases either
                self._no_renewal_at = anyio.current_time()
            with suppress(StoreUnavailable):
                await self._writers.renew_leases()
            slept_at = anyio.current_time()
            await anyio.sleep(self._parts.settings.heartbeat)
            if anyio.current_time() - slept_at > self._log.lease_seconds:  # this process was paused
                self._no_renewal_at = anyio.current_time()

    async def _take_over_lapsed(self) -> None:
        while True:
            await anyio.sleep(self._parts.settings.heartbeat)
            with suppress(StoreUnavailable):
                for tenant, answer_id, lapsed_for in await self._log.lapsed_answers():
                    reason = self._reason_for(answer_id, lapsed_for)
                    if reason is not None:
                        with contained("takeover", self._parts.on_failure):
                            await self.take_over(tenant, answer_id, reason)

    def _reason_for(self, answer_id: AnswerId, lapsed_for: float) -> TakeoverReason | None:
        """Return why this process takes over an answer whose lease lapsed `lapsed_for` seconds ago, or None."""
        if answer_id in self._to_cancel:
            return "cancel"
        if answer_id in self._reads:
            return "reader"
        is_orphan = min(lapsed_for, self._renewable_for) >= self._parts.settings.grace
        return "orphan" if is_orphan else None

    @property
    def _renewable_for(self) -> float:
        """The seconds for which Redis has been available, so that every live writer could renew its lease.

        A lease that lapsed in this time means a dead writer.
        """
        return min(self._log.available_for, anyio.current_time() - self._no_renewal_at)

    async def take_over(self, tenant: str, answer_id: AnswerId, reason: TakeoverReason) -> bool:
        """Continue an answer whose writer's lease has lapsed; return whether this process has taken it over.

        Raises:
            StoreUnavailable: Redis is unavailable.
        """
        continue_answer, writers = self._continue_answer, self._writers
        # If this process writes the answer, its next append renews the lapsed lease.
        if continue_answer is None or writers.draining or answer_id in writers:
            return False
        if self._renewable_for < OUTAGE_TERMS * self._log.lease_seconds:  # the writer may live
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
            if reason == "orphan":  # nobody reads it: it is only ended
                live.unread = not (taken.cancelled or taken.outcome)
                taken = replace(taken, cancelled=True)
            writers.run(live, lambda live: continue_answer(live, taken))
            self._reads.end(answer_id)
        return True

    async def cancel(self, who: Principal, answer_id: AnswerId) -> bool:
        """Cancel the answer, also if another replica writes it; return False if it had already ended.

        Raises:
            NotFound: the answer does not exist, or belongs to another customer.
            StoreUnavailable: this process does not hold the answer, and Redis is unavailable.
        """
        live = self._writers.find(who, answer_id)
        if live is not None:
            live.scope.cancel()
            return not live.ended
        _, lease_left = await self._log.touch(who, answer_id, "cancelled")
        if lease_left is None:
            return False
        self._to_cancel.add(answer_id)
        return True
