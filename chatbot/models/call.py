"""One call to one endpoint in progress: its result goes to the breaker, its record to the hooks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from chatbot.models.endpoint import FailureName
from chatbot.models.pool import Group, Target
from knowledge.breaker import BreakerState, CallResult

CallKind = Literal["answer", "probability", "ping"]
CallOutcome = Literal["ok", "left"] | FailureName
"""A metric's label; "left": the client closed the stream."""


# None counts neither way: the client left, the endpoint's queue is full, or the bank stopped the endpoint.
_RESULTS: Mapping[CallOutcome, CallResult | None] = {
    "ok": CallResult.OK,
    "left": None,
    "busy": None,
    "stopped": None,
    "refused": CallResult.OK,
    "unreachable": CallResult.FAILED,
    "slow": CallResult.FAILED,
    "broken": CallResult.FAILED,
    "unfit": CallResult.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCallFinished:
    """One call to one endpoint has ended, for hooks; `extra_prompt_tokens` are those that a retry or failover cost."""

    endpoint: str
    group: Group
    kind: CallKind
    outcome: CallOutcome
    state: BreakerState  # the endpoint's breaker, after the call
    seconds: float
    first_token_seconds: float | None
    prompt_tokens: int
    answer_tokens: int
    extra_prompt_tokens: int


CallHook = Callable[[ModelCallFinished], None]


class ModelCall:
    """A call in progress: counted in flight from its creation until `settle`.

    `slow_after` is the number of seconds from which on its first token counts as slow.
    """

    def __init__(self, target: Target, *, slow_after: float, clock: Callable[[], float]) -> None:
        target.member.in_flight += 1
        self.outcome: CallOutcome = "left"
        self.tokens = 0
        """How many have arrived."""
        self.has_begun = False
        """Whether any has."""
        self._started = clock()
        self._first_token_seconds: float | None = None
        self._clock = clock
        self._target = target
        self._slow_after = slow_after

    def begin(self) -> None:
        """Note that the first token has arrived, with which a probe has succeeded."""
        self.has_begun = True
        self._first_token_seconds = self._clock() - self._started
        if self._target.permit.probe:
            self._target.member.breaker.record(self._target.permit, CallResult.OK)

    def settle(self, *, alternatives: bool) -> None:
        """Return the permit, with a result or, where the call says nothing about the endpoint, without one.

        A slow first token counts only where `alternatives` exist: other endpoints that could do better.
        """
        member, permit = self._target.member, self._target.permit
        member.in_flight -= 1
        result = _RESULTS[self.outcome]
        waited = self._clock() - self._started if self._first_token_seconds is None else self._first_token_seconds
        was_generating = self.outcome not in ("busy", "stopped")
        if result in (CallResult.OK, None) and waited > self._slow_after and was_generating and alternatives:
            result = CallResult.SLOW
        if result is None:
            member.breaker.abandon(permit)
        else:
            member.breaker.record(permit, result)
        if member.breaker.state is not BreakerState.CLOSED:
            member.tokenizer_checked = False

    def finished(self, *, kind: CallKind, prompt_tokens: int, extra_prompt_tokens: int) -> ModelCallFinished:
        """Return the record for the hooks."""
        member = self._target.member
        return ModelCallFinished(
            endpoint=member.endpoint.name,
            group=member.group,
            kind=kind,
            outcome=self.outcome,
            state=member.breaker.state,
            seconds=self._clock() - self._started,
            first_token_seconds=self._first_token_seconds,
            prompt_tokens=prompt_tokens,
            answer_tokens=self.tokens,
            extra_prompt_tokens=extra_prompt_tokens,
        )
