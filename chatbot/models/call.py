"""Calls to endpoints: each is counted in flight; its result goes to the breaker, its record to the hooks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from chatbot.models.detection import calibrate, detect
from chatbot.models.endpoint import METADATA_SECONDS, GenerationRequest
from chatbot.models.pool import Member, Pool
from chatbot.models.settings import Group
from chatbot.tokens import TokenCounter
from knowledge.breaker import BreakerState, CallResult, Permit
from knowledge.model_connection import RESULTS, EndpointFailed, FailureName

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
