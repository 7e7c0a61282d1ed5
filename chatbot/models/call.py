"""Calls to endpoints, their order in one request, and when it gives up.

Before the first token: one retry among the primaries (a canary's conversation is retried on a primary), then the
fallback group. After it: another endpoint of the same group continues the answer, even one whose breaker is open, since
the answer is lost otherwise. An endpoint that only cut the connection is called again when no other is left. Where one
refuses the request (its content filter, a context that is smaller), no other of its group is asked; nor where one broke
and the retries are used up: what the next group is asked first repeats nothing there.

Each call is counted in flight; its result goes to the breaker, its record to the hooks.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import anyio
import structlog

from chatbot.errors import ModelUnavailable, Overloaded, Unavailable
from chatbot.models.detection import calibrate, detect
from chatbot.models.endpoint import METADATA_SECONDS, EndpointStopped, GenerationRequest
from chatbot.models.pool import Member, Pool
from chatbot.models.settings import Group
from chatbot.tokens import TokenCounter
from knowledge.breaker import BreakerState, CallResult, Permit
from knowledge.model_connection import (
    RESULTS,
    DeadlineExceeded,
    EndpointFailed,
    FailureName,
    QueueFull,
    ReplyBroken,
    RequestRejected,
    Unreachable,
)

log = structlog.get_logger(__name__)

# Two primaries and a fallback; connecting to a vLLM takes at most 0.6 s each, so that a hand-off comes within 2 s.
_MOST_BEFORE_FIRST_TOKEN = 3
_MOST_FAILOVERS = 3

CallKind = Literal["answer", "probability", "ping"]


@dataclass(slots=True, kw_only=True)
class ModelCall:
    """One call to one endpoint: `answer_tokens` have arrived, the first of them after `first_token_seconds`.

    `outcome` is a metric's label ("left": the client closed the stream); `extra_prompt_tokens` are those that a retry
    or failover cost.
    """

    endpoint: str
    group: Group
    kind: CallKind
    prompt_tokens: int
    extra_prompt_tokens: int
    clock: Callable[[], float]
    started: float
    outcome: Literal["ok", "left"] | FailureName = "left"
    answer_tokens: int = 0
    first_token_seconds: float | None = None

    @property
    def seconds(self) -> float:
        """The seconds since the call began."""
        return self.clock() - self.started

    def begin(self) -> None:
        """Note that the first token has arrived."""
        if self.first_token_seconds is None:
            self.first_token_seconds = self.seconds


CallHook = Callable[[ModelCall], None]


class Calls:
    """Counts the calls to a pool's endpoints; `counter` is calibrated by the primaries."""

    def __init__(
        self, pool: Pool, counter: TokenCounter, *, hooks: Sequence[CallHook], clock: Callable[[], float]
    ) -> None:
        self._pool = pool
        self._counter = counter
        self._hooks = hooks
        self._clock = clock

    async def check(self, member: Member, *, seconds: float = METADATA_SECONDS) -> None:
        """Detect an endpoint's capabilities, unless that was done since its breaker was last open.

        Raises:
            EndpointFailed: it cannot be asked, serves another model, or refuses us.
        """
        if not member.checked:
            await detect(member.endpoint, seconds=seconds)
            member.checked = True
            if member.group == "primary":
                calibrate(self._counter, member.able)

    @contextmanager
    def counted(
        self,
        member: Member,
        kind: CallKind,
        request: GenerationRequest,
        *,
        extra_prompt_tokens: int = 0,
        probe: Permit | None = None,
    ) -> Iterator[ModelCall]:
        """Count a call in flight; however it ends, the breaker and the hooks get its result.

        A call to an endpoint whose breaker is open rescues an answer, and its result does not count.
        """
        permit = probe or member.breaker.permit() or member.breaker.override()
        call = ModelCall(
            endpoint=member.endpoint.name,
            group=member.group,
            kind=kind,
            prompt_tokens=len(request.ids) or request.chat.tokens,
            extra_prompt_tokens=extra_prompt_tokens,
            clock=self._clock,
            started=self._clock(),
        )
        member.in_flight += 1
        try:
            yield call
        except EndpointFailed as exc:
            call.outcome = exc.outcome
            raise
        finally:
            member.in_flight -= 1
            result = self._result(member, call, is_probe=probe is not None)
            if result is None:
                member.breaker.abandon(permit)
            else:
                member.breaker.record(permit, result)
            if member.breaker.state is not BreakerState.CLOSED:
                member.checked = False
            for hook in self._hooks:
                hook(call)

    def _result(self, member: Member, call: ModelCall, *, is_probe: bool) -> CallResult | None:
        """Return what a call says about its endpoint, or None; a late token counts if another could do better."""
        result = RESULTS[call.outcome]
        waited = call.seconds if call.first_token_seconds is None else call.first_token_seconds
        is_late = waited > member.endpoint.deadlines.slow_first_token(call.prompt_tokens)
        if is_late and (result is CallResult.OK or call.outcome == "left") and self._pool.has_alternative(member):
            return CallResult.SLOW
        # Probed later and later: what a rate limit refuses counts against it, too.
        return CallResult.FAILED if is_probe and call.outcome == "busy" else result


class Attempts:
    """The endpoints of one request, one after the other; `resumed`: another process has called an endpoint before."""

    def __init__(
        self, pool: Pool, conversation_id: str, *, groups: Sequence[Group] = (), resumed: bool = False
    ) -> None:
        self._pool = pool
        self._conversation_id = conversation_id
        self._resumed = resumed
        self._refused: set[Group] = set()
        self._failed: list[Member] = []
        self._cut: list[Member] = []
        """Those that failed once, by cutting the connection."""
        self._last_failure: EndpointFailed | None = None
        self.models: dict[str, None] = {}
        """The models that generated a part of the answer, in their order."""
        self._order = groups or pool.group_order(conversation_id)
        self._group = self._order[0]
        self._mid_answer = False
        self._out_of_retries = False
        self._deadline: float | None = None
        pool.add_request()

    def next_member(self, unable: Collection[Member]) -> tuple[Member, bool]:
        """Return the next endpoint, and whether the switch to it is reported to the customer.

        `unable`: members that cannot go on with it.

        Raises:
            Overloaded: the queues of all endpoints that could be called are full.
            ModelUnavailable: no endpoint can be called.
        """
        for group in self._groups():
            member = self._pick(group, unable)
            if member is not None:
                reported = self._mid_answer or (group != self._group and "fallback" in (group, self._group))
                self._group = group
                if self._deadline is None:
                    self._deadline = anyio.current_time() + member.endpoint.deadlines.answer
                return member, reported
        raise self._no_target() from self._last_failure

    def record_failure(self, member: Member, exc: EndpointFailed, *, mid_answer: bool) -> None:
        """Record a failed call to an endpoint; `mid_answer` if part of the answer was already shown.

        Raises:
            Overloaded, ModelUnavailable: the request gives up.
        """
        if member in self._cut:
            self._cut.remove(member)
        elif isinstance(exc, ReplyBroken) and member not in self._failed:
            self._cut.append(member)
        self._failed.append(member)
        self._last_failure = exc
        self._mid_answer = mid_answer
        log.warning("model_call_failed", error=str(exc), outcome=exc.outcome)
        if isinstance(exc, RequestRejected):  # other endpoints of this group would reject it too
            self._refused.add(member.group)
        if (isinstance(exc, DeadlineExceeded) and exc.phase == "whole answer") or not self._may_retry(exc):
            raise self._no_target() from exc

    @property
    def retried(self) -> bool:
        """Whether an endpoint has failed."""
        return bool(self._failed)

    def deadline(self) -> float:
        """Return the event loop's time at which the whole answer is due, counted from the first call."""
        return anyio.current_time() if self._deadline is None else self._deadline

    def extra_prompt_tokens(self, request: GenerationRequest) -> int:
        """Return how many prompt tokens of the request were sent to another endpoint before."""
        return (len(request.ids) or request.chat.tokens) if self._failed or self._resumed else 0

    def _may_retry(self, exc: EndpointFailed) -> bool:
        if self._mid_answer:
            return len(self._failed) <= _MOST_FAILOVERS
        if len(self._failed) >= _MOST_BEFORE_FIRST_TOKEN:
            return False
        # An endpoint that is unreachable or stopped, or refuses, did no work that a retry repeats; others do.
        if isinstance(exc, Unreachable | EndpointStopped | RequestRejected) or self._pool.take_retry():
            return True
        self._out_of_retries = True
        return not isinstance(exc, DeadlineExceeded | QueueFull)  # the next group would be flooded

    def _groups(self) -> Collection[Group]:
        if self._mid_answer:
            return (self._group,)
        failed = [member.group for member in self._failed]
        if self._out_of_retries:
            return [group for group in self._order if group not in failed]
        return self._order if len(failed) - failed.count("fallback") < 2 else ("fallback",)

    def _pick(self, group: Group, unable: Collection[Member]) -> Member | None:
        if group in self._refused:
            return None
        avoid = [*unable, *self._failed]
        member = self._pool.pick(self._conversation_id, group=group, avoid=avoid)
        if member is None and self._mid_answer:
            member = self._pool.pick(self._conversation_id, group=group, avoid=avoid, override=True)
        again = [m for m in self._cut if self._mid_answer or (m is self._failed[-1] and group != "canary")]
        if member is None and again:
            gone = [m for m in self._failed if m not in again]
            member = self._pool.pick(self._conversation_id, group=group, avoid=[*unable, *gone])
        return member

    def _no_target(self) -> Unavailable:
        if isinstance(self._last_failure, QueueFull):
            return Overloaded(retry_after=1.0)
        return ModelUnavailable(retry_after=self._pool.retry_after())
