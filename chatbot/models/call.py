"""Calls to endpoints in progress: the result of each goes to the breaker, its record to the hooks."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import anyio

from chatbot.models.detection import calibrate, detect
from chatbot.models.endpoint import METADATA_SECONDS, ContentFiltered, GenerationRequest
from chatbot.models.pool import Group, Member, Pool, Target
from chatbot.models.wire import TopTokens
from chatbot.tokens import TokenCounter
from knowledge.breaker import BreakerState, CallResult
from knowledge.model_connection import RESULTS, EndpointFailed, FailureName, RequestRejected

CallKind = Literal["answer", "probability", "ping"]
CallOutcome = Literal["ok", "left"] | FailureName
"""A metric's label; "left": the client closed the stream."""


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
        result = RESULTS[self.outcome]
        waited = self._clock() - self._started if self._first_token_seconds is None else self._first_token_seconds
        was_generating = self.outcome not in ("busy", "stopped")
        if result in (CallResult.OK, None) and waited > self._slow_after and was_generating and alternatives:
            result = CallResult.SLOW
        if permit.probe and self.outcome == "busy":
            result = CallResult.FAILED  # probed later and later: what a rate limit refuses counts against it, too
        if result is None:
            member.breaker.abandon(permit)
        else:
            member.breaker.record(permit, result)
        if member.breaker.state is not BreakerState.CLOSED:
            member.checked = False

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


class Calls:
    """Counts the calls to a pool's endpoints."""

    def __init__(
        self,
        pool: Pool,
        counter: TokenCounter,
        *,
        hooks: Sequence[CallHook] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`counter` is calibrated by the primaries."""
        self._pool = pool
        self._counter = counter
        self._hooks = tuple(hooks)
        self._clock = clock

    async def check(self, member: Member, *, seconds: float = METADATA_SECONDS) -> None:
        """Detect an endpoint's capabilities, unless that was done since its breaker was last open.

        Raises:
            EndpointFailed: it cannot be asked, serves another model, or refuses us.
        """
        if member.checked:
            return
        await detect(member.endpoint, seconds=seconds)
        member.checked = True
        if member.group == "primary":
            calibrate(self._counter, member.able)

    @contextmanager
    def counted(
        self, target: Target, kind: CallKind, request: GenerationRequest, *, extra_prompt_tokens: int = 0
    ) -> Iterator[ModelCall]:
        """Count a call in flight; however it ends, the breaker and the hooks get its result."""
        prompt_tokens = len(request.ids) or request.chat.tokens
        slow_after = target.member.endpoint.deadlines.slow_first_token(prompt_tokens)
        call = ModelCall(target, slow_after=slow_after, clock=self._clock)
        try:
            yield call
        except EndpointFailed as exc:
            call.outcome = exc.outcome
            if kind == "answer" and is_request_at_fault(exc):
                target.member.schedule_try_out(anyio.current_time())  # or it refuses everything now
            raise
        finally:
            call.settle(alternatives=self._pool.has_alternative(target.member))
            record = call.finished(kind=kind, prompt_tokens=prompt_tokens, extra_prompt_tokens=extra_prompt_tokens)
            for hook in self._hooks:
                hook(record)

    async def top_tokens(
        self, target: Target, kind: CallKind, request: GenerationRequest, *, extra_prompt_tokens: int = 0
    ) -> TopTokens:
        """Return the most likely next tokens.

        Raises:
            EndpointFailed: a subclass says why.
        """
        with self.counted(target, kind, request, extra_prompt_tokens=extra_prompt_tokens) as call:
            await self.check(target.member)
            top_tokens = await target.member.endpoint.top_tokens(request)
            call.begin()
            call.tokens = 1
            call.outcome = "ok"
            return top_tokens


def is_request_at_fault(exc: EndpointFailed) -> bool:
    """Return whether an endpoint refuses a request for another reason than its content filter."""
    return isinstance(exc, RequestRejected) and not isinstance(exc, ContentFiltered)
