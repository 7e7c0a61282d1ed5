"""Choose the endpoint of each call by group, conversation and load, and report the result to its breaker.

A canary gets its share of the conversations, always the same ones; the others start at a primary. If neither can
answer, the fallback does.

A conversation stays at its home endpoint, which caches its prefix, until the home has more than its share of the calls;
then the next endpoint in the conversation's own order takes the call (rendezvous hashing, Thaler and Ravishankar 1998,
with bounded loads, Mirrokni et al. 2018). Conversations of an endpoint with an open breaker spread over the others, and
return afterwards.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import structlog

from chatbot.models.detection import detect
from chatbot.models.endpoint import METADATA_SECONDS, Endpoint, GenerationRequest
from chatbot.models.settings import Group
from chatbot.models.wire import Capabilities
from chatbot.tokens import TokenCounter
from knowledge.breaker import Breaker, BreakerState, CallResult, Permit
from knowledge.model_connection import RESULTS, EndpointFailed, FailureName

log = structlog.get_logger(__name__)

SERVING_GROUPS: tuple[Group, ...] = ("primary", "canary", "fallback")
"""The groups whose answers customers see."""
# The load relative to the mean above which conversations leave their home endpoint.
_LOAD_BOUND = 1.25
_RETRY_SHARE = 0.1
_MOST_SAVED_RETRIES = 10.0
# Retry-After if all models are stopped: the end of a stop is unknown.
_ALL_STOPPED_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class ModelCall:
    """One call to one endpoint: `answer_tokens` have arrived, the first of them after `first_token_seconds`.

    `outcome` is a metric label ("left": the client closed the stream); `extra_prompt_tokens` is the cost of a retry or
    failover.
    """

    endpoint: str
    group: Group
    kind: Literal["answer", "probability", "ping"]
    prompt_tokens: int
    extra_prompt_tokens: int
    clock: Callable[[], float]
    started: float
    outcome: Literal["ok", "left"] | FailureName = "left"
    answer_tokens: int = 0
    first_token_seconds: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the start of the call."""
        return self.clock() - self.started

    def begin(self) -> None:
        """Record the arrival of the first token."""
        if self.first_token_seconds is None:
            self.first_token_seconds = self.seconds


CallHook = Callable[[ModelCall], None]


@dataclass(eq=False, slots=True)
class Member:
    """An endpoint of a group with its breaker and calls in flight; `entry` is the name of its MODELS_FILE entry.

    `checked`: the capabilities were detected after the breaker was last open.
    """

    endpoint: Endpoint
    group: Group
    breaker: Breaker
    entry: str = "primary"
    in_flight: int = 0
    checked: bool = False

    @property
    def able(self) -> Capabilities:
        """The endpoint's capabilities."""
        return self.endpoint.capabilities

    @property
    def available(self) -> bool:
        """Whether the endpoint may be called now."""
        return self.breaker.available and not self.endpoint.stopped


class Pool:
    """The members of all groups, and the token counter, which primaries calibrate.

    `canary_share` is the canary's share of the conversations. `prefill` is the rate of one primary, used while the pool
    has no endpoint.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        counter: TokenCounter | None = None,
        canary_share: float = 0.0,
        prefill: float = math.inf,
        hooks: Sequence[CallHook] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.members = tuple(members)
        self.counter = counter or TokenCounter()
        self._stopped: frozenset[str] = frozenset()
        self._canary_share = canary_share
        self._prefill = prefill
        self._hooks = hooks
        self._clock = clock
        self._saved_retries = _MOST_SAVED_RETRIES

    def add_request(self) -> None:
        """Count a request: retries are limited to a tenth of the requests, plus a saved budget for bursts."""
        self._saved_retries = min(_MOST_SAVED_RETRIES, self._saved_retries + _RETRY_SHARE)

    def take_retry(self) -> bool:
        """Take a retry from the budget; return whether one was left."""
        if self._saved_retries < 1:
            return False
        self._saved_retries -= 1
        return True

    def add(self, member: Member) -> None:
        """Add an endpoint; it is stopped if its entry is."""
        self.members = (*self.members, member)
        self.stop(self._stopped)

    def remove(self, member: Member) -> None:
        """Remove an endpoint; its calls in progress continue."""
        self.members = tuple(m for m in self.members if m is not member)

    def stop(self, entries: Collection[str]) -> None:
        """Stop the endpoints of these entries and their calls in progress; resume all others."""
        self._stopped = frozenset(entries)
        for member in self.members:
            if member.entry not in entries:
                member.endpoint.stopped = False
            elif not member.endpoint.stopped:
                log.warning("model_endpoint_stopped", endpoint=member.endpoint.name)
                member.endpoint.stop()

    def group_order(self, conversation_id: str) -> tuple[Group, ...]:
        """Return the groups that may answer the conversation, in order of attempts, the same in every process."""
        in_canary = int.from_bytes(_affinity(conversation_id, "canary"), "big") / 2**64 < self._canary_share
        return ("canary", "primary", "fallback") if in_canary else ("primary", "fallback")

    def of_group(self, group: Group) -> list[Member]:
        """Return the members of a group."""
        return [member for member in self.members if member.group == group]

    @property
    def serving(self) -> list[Member]:
        """The members that are not stopped."""
        return [member for member in self.members if not member.endpoint.stopped]

    def pick(self, conversation_id: str, members: Collection[Member], *, override: bool = False) -> Member | None:
        """Return the member to call, or None if none is available; `override` ignores breakers."""
        candidates = [m for m in members if m.available or (override and not m.endpoint.stopped)]
        most_calls = math.ceil(_LOAD_BOUND * (sum(m.in_flight for m in candidates) + 1) / max(1, len(candidates)))
        candidates.sort(key=lambda m: _affinity(conversation_id, m.endpoint.name), reverse=True)
        return next((m for m in candidates if m.in_flight < most_calls), None)

    @property
    def prefill_rate(self) -> float:
        """The total prefill rate (prompt tokens per second) of the first group with endpoints, by their profiles."""
        rates = ([m.endpoint.deadlines.prefill for m in self.of_group(group)] for group in SERVING_GROUPS)
        return sum(next(filter(None, rates), [self._prefill]))

    def retry_after(self) -> float:
        """Return the seconds until an endpoint may be called again."""
        return min((m.breaker.retry_after for m in self.serving), default=_ALL_STOPPED_SECONDS)

    async def check(self, member: Member, *, seconds: float = METADATA_SECONDS) -> None:
        """Detect an endpoint's capabilities, unless it is `checked`.

        Raises:
            EndpointFailed: the endpoint is unavailable, serves another model, or denies access.
        """
        if not member.checked:
            await detect(member.endpoint, seconds=seconds)
            member.checked = True
            if member.group == "primary" and member.able.counts:
                self.counter.calibrate(member.able.counts)

    @contextmanager
    def call(
        self,
        member: Member,
        kind: Literal["answer", "probability", "ping"],
        request: GenerationRequest,
        *,
        repeated: bool = False,
        probe: Permit | None = None,
    ) -> Iterator[ModelCall]:
        """Count a call in flight, and report its result to the breaker and the hooks.

        `repeated`: another endpoint has already read the prompt. The result of a call despite an open breaker, which
        continues a broken-off answer, does not count.
        """
        permit = probe or member.breaker.permit() or member.breaker.override()
        call = ModelCall(
            endpoint=member.endpoint.name,
            group=member.group,
            kind=kind,
            prompt_tokens=request.prompt_tokens,
            extra_prompt_tokens=request.prompt_tokens if repeated else 0,
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
        """Return a call's result for the breaker, or None; a late first token counts only with an alternative."""
        waited = call.seconds if call.first_token_seconds is None else call.first_token_seconds
        is_late = waited > member.endpoint.deadlines.slow_first_token(call.prompt_tokens)
        has_alternative = any(m.available for m in self.of_group(member.group) if m is not member)
        if is_late and has_alternative and (call.outcome == "left" or RESULTS[call.outcome] is CallResult.OK):
            return CallResult.SLOW
        # A rate-limited probe also counts as a failure, so that the interval of the probes grows.
        return CallResult.FAILED if is_probe and call.outcome == "busy" else RESULTS[call.outcome]


def _affinity(conversation_id: str, name: str) -> bytes:
    return blake2b(f"{conversation_id}\0{name}".encode(), digest_size=8).digest()
