"""Choose the endpoints of one request in order, and decide when the request gives up.

Before the first token, a request is retried once on a primary, also for a canary's conversation, and then on the
fallback group. After the first token, another endpoint of the same group continues the answer, even one with an open
breaker, because the answer would be lost otherwise. An endpoint that cut the connection is called again only if no
other remains. The rest of a group is skipped after it rejected the request (content filter, smaller context), or after
a failure without a retry budget; the first call to the next group repeats no work there.
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

# Two primaries and a fallback: connecting to a vLLM takes at most 0.6 s each, so a hand-off comes within 2 s.
_MOST_BEFORE_FIRST_TOKEN = 3
_MOST_FAILOVERS = 3


class Attempts:
    """The attempts of one request on successive endpoints, and their `failures`."""

    def __init__(self, pool: Pool, conversation_id: str) -> None:
        self._pool = pool
        self._conversation_id = conversation_id
        self._order = pool.group_order(conversation_id)
        self._group = self._order[0]
        self.failures: list[tuple[Member, EndpointFailed]] = []
        self._mid_answer = False
        self._out_of_retries = False
        self.deadline = 0.0
        """The deadline of the whole answer in event loop time, set at the first call."""
        pool.add_request()

    def next_member(self, able: Collection[Member]) -> tuple[Member, bool]:
        """Return the next endpoint among the `able` members, and whether the customer is notified of the switch.

        Raises:
            Overloaded: the last endpoint's queue was full, and no other can be called.
            ModelUnavailable: no endpoint can be called.
        """
        for group in self._groups():
            member = self._pick([m for m in able if m.group == group])
            if member is not None:
                reported = self._mid_answer or group == "fallback"
                self._group = group
                self.deadline = self.deadline or anyio.current_time() + member.endpoint.deadlines.answer
                return member, reported
        raise self._no_target() from (self.failures[-1][1] if self.failures else None)

    def record_failure(self, member: Member, exc: EndpointFailed, *, mid_answer: bool) -> None:
        """Record a failed call to an endpoint; `mid_answer` if a part of the answer was already shown.

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
        # An unreachable or stopped endpoint, or one that rejects the request, did no work that a retry would repeat.
        if isinstance(exc, Unreachable | EndpointStopped | RequestRejected) or self._pool.take_retry():
            return True
        self._out_of_retries = True
        return not isinstance(exc, DeadlineExceeded | QueueFull)  # do not flood the next group

    def _groups(self) -> Collection[Group]:
        failed = [member.group for member, _ in self.failures]
        # Other endpoints of this group would reject it too.
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
