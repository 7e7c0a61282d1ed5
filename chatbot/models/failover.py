"""The order in which one request calls endpoints, and when it gives up.

Before the first token: one retry among the primaries (a canary's conversation is retried on a primary), then the
fallback group. After it: another endpoint of the same group continues the answer, even one whose breaker is open, since
the answer is lost otherwise. An endpoint that only cut the connection is called again when no other is left. Where one
refuses the request (its content filter, a context that is smaller), no other of its group is asked; nor where one broke
and the retries are used up: what the next group is asked first repeats nothing there. Where none of them is left, a
primary is asked whose context may cut the answer short.
"""

from collections.abc import Collection

import anyio
import structlog

from chatbot.errors import ModelUnavailable, Overloaded, Unavailable
from chatbot.models.endpoint import EndpointStopped, FirewallRefused, GenerationRequest
from chatbot.models.pool import Group, Member, Pool, Target
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
    """The targets of one request, one after the other.

    `resumed`: another process has called an endpoint for this answer before. `small`: members whose context may not
    hold all of it, which are asked last.
    """

    def __init__(
        self, pool: Pool, conversation_id: str, *, resumed: bool = False, small: Collection[Member] = ()
    ) -> None:
        self._pool = pool
        self._conversation_id = conversation_id
        self._resumed = resumed
        self._small = tuple(small)
        self._avoid: tuple[Member, ...] = ()
        self._failed: list[Member] = []
        self._cut: list[Member] = []
        """Those that failed once, by cutting the connection."""
        self._last_failure: EndpointFailed | None = None
        self.models: dict[str, None] = {}
        """The models that said a part of the answer, in their order."""
        self._order = pool.group_order(conversation_id)
        self._group = self._order[0]
        self._begun = False
        self._out_of_retries = False
        self._deadline: float | None = None
        pool.retries.add_request()

    def next_target(self, unable: Collection[Member]) -> tuple[Target, bool]:
        """Return the next target, and whether the switch to it is reported to the customer.

        `unable`: members that cannot go on with it.

        Raises:
            Overloaded: the queues of all endpoints that could be called are full.
            ModelUnavailable: no endpoint can be called.
        """
        large = [m for m in self._pool.members if m not in self._small]
        asked = [(group, self._small) for group in self._groups()]
        for group, avoid in (*asked, (self._group if self._begun else "primary", large)):
            target = self._pick(group, [*avoid, *unable])
            if target is not None:
                reported = self._begun or (group != self._group and "fallback" in (group, self._group))
                self._group = group
                if self._deadline is None:
                    self._deadline = anyio.current_time() + target.member.endpoint.deadlines.answer
                return target, reported
        raise self._no_target() from self._last_failure

    def record_failure(self, target: Target, exc: EndpointFailed, *, begun: bool) -> None:
        """Note that the call to a target failed; `begun`: a part of the answer was shown.

        Raises:
            Overloaded, ModelUnavailable: the request gives up.
        """
        if target.member in self._cut:
            self._cut.remove(target.member)
        elif isinstance(exc, ReplyBroken) and target.member not in self._failed:
            self._cut.append(target.member)
        self._failed.append(target.member)
        self._last_failure = exc
        self._begun = begun
        log.warning("model_call_failed", error=str(exc), outcome=exc.outcome)
        if isinstance(exc, DeadlineExceeded) and exc.phase == "whole answer":
            raise ModelUnavailable(retry_after=self._pool.retry_after()) from exc
        # Its like would say the same; another model's server may not.
        if isinstance(exc, RequestRejected) and not isinstance(exc, FirewallRefused):
            self._avoid += tuple(m for m in self._pool.members if m.group == target.member.group)
        if not self._may_retry(exc):
            raise self._no_target() from exc

    @property
    def retried(self) -> bool:
        """Whether a target has failed."""
        return bool(self._failed)

    def deadline(self) -> float:
        """Return the event loop's time at which the whole answer is due, counted from the first target."""
        return anyio.current_time() if self._deadline is None else self._deadline

    def extra_prompt_tokens(self, request: GenerationRequest) -> int:
        """Return how many prompt tokens of the request were sent to another endpoint before."""
        return (len(request.ids) or request.chat.tokens) if self._failed or self._resumed else 0

    def _may_retry(self, exc: EndpointFailed) -> bool:
        if self._begun:
            return len(self._failed) <= _MOST_FAILOVERS
        if len(self._failed) >= _MOST_BEFORE_FIRST_TOKEN:
            return False
        # An endpoint that is unreachable or stopped, or refuses, did no work that a retry repeats; others do.
        if isinstance(exc, Unreachable | EndpointStopped | RequestRejected) or self._pool.retries.take():
            return True
        self._out_of_retries = True
        return not isinstance(exc, DeadlineExceeded) and self._failed[-1] not in self._small

    def _groups(self) -> tuple[Group, ...]:
        if self._begun:
            return (self._group,)
        failed = [member.group for member in self._failed]
        if self._out_of_retries and isinstance(self._last_failure, QueueFull):
            return ()  # the next would be flooded
        if self._out_of_retries:
            return tuple(group for group in ("primary", "fallback") if group not in failed)
        return self._order if len(failed) - failed.count("fallback") < 2 else ("fallback",)

    def _pick(self, group: Group, unable: Collection[Member]) -> Target | None:
        never = [*self._avoid, *unable]
        avoid = [*never, *self._failed]
        target = self._pool.pick(self._conversation_id, group=group, avoid=avoid)
        if target is None and self._begun:
            target = self._pool.pick(self._conversation_id, group=group, avoid=avoid, override=True)
        again = [m for m in self._cut if self._begun or (m is self._failed[-1] and group != "canary")]
        if target is None and again:
            gone = [m for m in self._failed if m not in again]
            target = self._pool.pick(self._conversation_id, group=group, avoid=[*never, *gone])
        return target

    def _no_target(self) -> Unavailable:
        if isinstance(self._last_failure, QueueFull):
            return Overloaded(retry_after=1.0)
        return ModelUnavailable(retry_after=self._pool.retry_after())
