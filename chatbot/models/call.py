"""One call to one endpoint, from its permit to the records that hooks and the breaker get."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from chatbot.models.breaker import BreakerState, CallResult
from chatbot.models.endpoint import FailureName
from chatbot.models.pool import Group, Target

CallKind = Literal["answer", "probability", "ping"]
CallOutcome = Literal["ok", "left"] | FailureName


# None counts neither way: the client left, or the endpoint is only full, or the bank stopped it.
_VERDICTS: Mapping[CallOutcome, CallResult | None] = {
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
    """A call on its way: counted in flight from the start, told to the breaker at the end."""

    def __init__(self, leg: Target, *, late: float, clock: Callable[[], float]) -> None:
        leg.member.in_flight += 1
        self.started = clock()
        self.outcome: CallOutcome = "left"
        self.first_token: float | None = None
        self.tokens = 0
        self._clock = clock
        self._leg = leg
        self._late = late

    def arrived(self, tokens: int) -> None:
        """Count tokens; a probe has proved itself with the first."""
        self.tokens += tokens
        if self.first_token is None:
            self.first_token = self._clock() - self.started
            if self._leg.permit.probe:
                self._leg.member.breaker.record(self._leg.permit, CallResult.OK)

    def settle(self, *, alternatives: bool) -> None:
        """Give the permit back: with an outcome, or without where the call says nothing about the endpoint."""
        member, permit = self._leg.member, self._leg.permit
        member.in_flight -= 1
        outcome = _VERDICTS[self.outcome]
        waited = self._clock() - self.started if self.first_token is None else self.first_token
        # Slowness is held against an endpoint only where somebody else could do better.
        says = self.outcome not in ("busy", "stopped")
        if outcome in (CallResult.OK, None) and waited > self._late and says and alternatives:
            outcome = CallResult.SLOW
        if outcome is None:
            member.breaker.abandon(permit)
        else:
            member.breaker.record(permit, outcome)
        if member.breaker.state is not BreakerState.CLOSED:
            member.checked = False

    def finished(self, *, kind: CallKind, prompt_tokens: int, again: int) -> ModelCallFinished:
        """Return the record for the hooks."""
        member = self._leg.member
        return ModelCallFinished(
            endpoint=member.endpoint.name,
            group=member.group,
            kind=kind,
            outcome=self.outcome,
            state=member.breaker.state,
            seconds=self._clock() - self.started,
            first_token_seconds=self.first_token,
            prompt_tokens=prompt_tokens,
            answer_tokens=self.tokens,
            extra_prompt_tokens=again,
        )
