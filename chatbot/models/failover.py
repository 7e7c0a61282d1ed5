"""One request's way through the pool: who is called next, and when to give up.

Before the first token: one retry among the primaries (for a canary's conversation: by a primary), then the fallback
group. After it: another endpoint of the same group goes on with the answer, and were its breaker open: that it failed
others is no reason to lose this one. An endpoint that only cut the connection is called again when nobody else is left.
"""

import logging
from collections.abc import Collection

import anyio

from chatbot.errors import ModelUnavailable, Overloaded, Unavailable
from chatbot.models.endpoint import (
    DeadlineExceeded,
    EndpointFailed,
    EndpointStopped,
    GenerationRequest,
    QueueFull,
    ReplyBroken,
    RequestRejected,
    Unreachable,
)
from chatbot.models.pool import Group, Member, Pool, Target

log = logging.getLogger(__name__)

# Two primaries and a fallback; connecting takes at most 0.6 s each, so that a hand-off comes within 2 s.
_MOST_BEFORE_FIRST_TOKEN = 3
_MOST_FAILOVERS = 3


class Attempts:
    """The legs of one request; `resumed` says that another process had a leg before, `avoid` who cannot answer it."""

    def __init__(
        self, pool: Pool, conversation_id: str, *, resumed: bool = False, avoid: Collection[Member] = ()
    ) -> None:
        self._pool = pool
        self._conversation_id = conversation_id
        self._resumed = resumed
        self._avoid = tuple(avoid)
        self._failed: list[Member] = []
        self._cut: list[Member] = []
        """Those that failed once, by cutting the connection."""
        self._last: EndpointFailed | None = None
        self._order = pool.groups(conversation_id)
        self._group = self._order[0]
        self._begun = False
        self._until: float | None = None
        pool.retries.asked()

    def next(self) -> tuple[Target, bool]:
        """Return the next leg, and whether the customer is told of it.

        Raises:
            Overloaded: everybody who could be asked has a full queue.
            ModelUnavailable: nobody can be asked.
        """
        for group in self._groups():
            leg = self._pick(group)
            if leg is not None:
                told = self._begun or (group == "fallback" and group != self._group)
                self._group = group
                if self._until is None:
                    self._until = anyio.current_time() + leg.member.endpoint.speeds.whole
                return leg, told
        raise self._nobody() from self._last

    def failed(self, leg: Target, exc: EndpointFailed, *, begun: bool) -> None:
        """Take note that a leg failed, `begun` telling whether anything was shown.

        Raises:
            Overloaded, ModelUnavailable: no further leg is to be taken.
        """
        if leg.member in self._cut:
            self._cut.remove(leg.member)
        elif isinstance(exc, ReplyBroken) and leg.member not in self._failed:
            self._cut.append(leg.member)
        self._failed.append(leg.member)
        self._last = exc
        self._begun = begun
        log.warning("model call failed: %s (%s)", exc, exc.outcome)
        if isinstance(exc, RequestRejected) or (isinstance(exc, DeadlineExceeded) and exc.phase == "whole answer"):
            raise ModelUnavailable(retry_after=self._pool.retry_after()) from exc
        if not self._may_go_on(exc):
            raise self._nobody() from exc

    @property
    def retried(self) -> bool:
        """Whether a leg has failed."""
        return bool(self._failed)

    def until(self) -> float:
        """Return the loop's time at which the whole answer must be there, counted from the first leg."""
        return anyio.current_time() if self._until is None else self._until

    def again(self, call: GenerationRequest) -> int:
        """Return how many prompt tokens the call has that an earlier leg had already."""
        return len(call.prompt_ids) if self._failed or self._resumed else 0

    def _may_go_on(self, exc: EndpointFailed) -> bool:
        if self._begun:
            return len(self._failed) <= _MOST_FAILOVERS
        # Whoever does not listen, or was stopped, does no work that a retry would double; other retries have a budget.
        free = isinstance(exc, Unreachable | EndpointStopped)
        return len(self._failed) < _MOST_BEFORE_FIRST_TOKEN and (free or self._pool.retries.take())

    def _groups(self) -> tuple[Group, ...]:
        if self._begun:
            return (self._group,)
        better = sum(member.group != "fallback" for member in self._failed)
        return self._order if better < 2 else ("fallback",)

    def _pick(self, group: Group) -> Target | None:
        avoid = [*self._avoid, *self._failed]
        leg = self._pool.pick(self._conversation_id, group=group, avoid=avoid)
        if leg is None and self._begun:
            leg = self._pool.pick(self._conversation_id, group=group, avoid=avoid, overrule=True)
        again = [m for m in self._cut if self._begun or (m is self._failed[-1] and group != "canary")]
        if leg is None and again:
            gone = [m for m in self._failed if m not in again]
            leg = self._pool.pick(self._conversation_id, group=group, avoid=[*self._avoid, *gone])
        return leg

    def _nobody(self) -> Unavailable:
        if isinstance(self._last, QueueFull):
            return Overloaded(retry_after=1.0)
        return ModelUnavailable(retry_after=self._pool.retry_after())
