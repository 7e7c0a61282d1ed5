"""The order in which the endpoints of one request are called, and when it gives up.

Before the first token: one retry among the primaries (a canary's conversation is retried on a primary), then the
fallback group. After it: another endpoint of the same group continues the answer, even one whose breaker is open, since
the answer is lost otherwise. An endpoint that only cut the connection is called again when no other is left. Where one
refuses the request (its content filter, a context that is smaller), no other of its group is asked; nor where one broke
and the retries are used up: what the next group is asked first repeats nothing there.
"""

from collections.abc import Collection, Sequence
from functools import partial

import anyio
import structlog

from chatbot.errors import ModelUnavailable, Overloaded, Unavailable
from chatbot.models.endpoint import EndpointStopped
from chatbot.models.pool import Member, Pool
from chatbot.models.settings import Group
from knowledge.model_connection import (
    DeadlineExceeded,
    EndpointFailed,
    QueueFull,
    ReplyBroken,
    RequestRejected,
    Unreachable,
)

log = structlog.get_logger(__name__)

# Two primaries and a fallback; connecting to a vLLM takes at most 0.6 s each, so that a hand-off comes within 2 s.
_MOST_BEFORE_FIRST_TOKEN = 3
_MOST_FAILOVERS = 3


class Attempts:
    """The endpoints of one request, one after the other, and the `failures` of those that were called."""

    def __init__(self, pool: Pool, conversation_id: str, *, groups: Sequence[Group] = ()) -> None:
        self._pool = pool
        self._conversation_id = conversation_id
        self._order = groups or pool.group_order(conversation_id)
        self._group = self._order[0]
        self.failures: list[tuple[Member, EndpointFailed]] = []
        self._mid_answer = False
        self._out_of_retries = False
        self.deadline = 0.0
        """The event loop's time at which the whole answer is due, counted from the first call."""
        pool.add_request()

    def next_member(self, able: Collection[Member]) -> tuple[Member, bool]:
        """Return the next endpoint of those `able` to go on, and whether the switch is reported to the customer.

        Raises:
            Overloaded: the queues of all endpoints that could be called are full.
            ModelUnavailable: no endpoint can be called.
        """
        for group in self._groups():
            member = self._pick([m for m in able if m.group == group])
            if member is not None:
                reported = self._mid_answer or (group == "fallback" and self._order[0] != "fallback")
                self._group = group
                self.deadline = self.deadline or anyio.current_time() + member.endpoint.deadlines.answer
                return member, reported
        raise self._no_target() from (self.failures[-1][1] if self.failures else None)

    def record_failure(self, member: Member, exc: EndpointFailed, *, mid_answer: bool) -> None:
        """Record a failed call to an endpoint; `mid_answer` if part of the answer was already shown.

        Raises:
            Overloaded, ModelUnavailable: the request gives up.
        """
        log.warning("model_call_failed", error=str(exc), outcome=exc.outcome)
        self.failures.append((member, exc))
        self._mid_answer = mid_answer
        if (isinstance(exc, DeadlineExceeded) and exc.phase == "whole answer") or not self._may_retry(exc):
            raise self._no_target() from exc

    def _may_retry(self, exc: EndpointFailed) -> bool:
        if self._mid_answer:
            return len(self.failures) <= _MOST_FAILOVERS
        if len(self.failures) >= _MOST_BEFORE_FIRST_TOKEN:
            return False
        # An endpoint that is unreachable or stopped, or refuses, did no work that a retry repeats; others do.
        if isinstance(exc, Unreachable | EndpointStopped | RequestRejected) or self._pool.take_retry():
            return True
        self._out_of_retries = True
        return not isinstance(exc, DeadlineExceeded | QueueFull)  # the next group would be flooded

    def _groups(self) -> Collection[Group]:
        failed = [member.group for member, _ in self.failures]
        # Other endpoints of a group would reject it, too.
        over = [member.group for member, exc in self.failures if isinstance(exc, RequestRejected)]
        if self._mid_answer:
            over += [group for group in self._order if group != self._group]
        elif self._out_of_retries:
            over += failed
        elif len(failed) - failed.count("fallback") >= 2:
            over += ["primary", "canary"]
        return [group for group in self._order if group not in over]

    def _pick(self, able: Sequence[Member]) -> Member | None:
        pick, failed = partial(self._pool.pick, self._conversation_id), [member for member, _ in self.failures]
        fresh = [member for member in able if member not in failed]
        member = pick(fresh)
        if member is None and self._mid_answer:
            member = pick(fresh, override=True)
        if member is None:
            cut = [m for m, exc in self.failures if failed.count(m) == 1 and isinstance(exc, ReplyBroken)]
            member = pick([m for m in cut if m in able and (self._mid_answer or m.group != "canary")])
        return member

    def _no_target(self) -> Unavailable:
        if self.failures and isinstance(self.failures[-1][1], QueueFull):
            return Overloaded(retry_after=1.0)
        return ModelUnavailable(retry_after=self._pool.retry_after())
