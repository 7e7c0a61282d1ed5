"""Which endpoint answers: groups of endpoints, the home of each conversation, and what each call says of its endpoint.

A canary gets its share of the conversations, always the same ones; the others begin with a primary. Where neither can
answer, the fallback does. The shadow answers no customer: it gets the same prompts in addition (`chatbot/shadow.py`).

A conversation stays with its home, where its prefix is cached, until the home has more than its share of the calls;
the next in the conversation's own order takes the call then (rendezvous hashing, Thaler and Ravishankar 1998, with
bounded loads, Mirrokni et al. 2018). An endpoint whose breaker is open does not count; its conversations spread over
the rest and return afterwards.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
"""Those whose answers customers see."""
# How many times the mean number of calls an endpoint may have before conversations leave their home.
_LOAD_BOUND = 1.25
_RETRY_SHARE = 0.1
_MOST_SAVED_RETRIES = 10.0
# Retry-After when every model is stopped: how long the stop lasts is not known.
_ALL_STOPPED_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class ModelCall:
    """One call to one endpoint: `answer_tokens` have arrived, the first of them after `first_token_seconds`.

    `outcome` is a metric's label ("left": the client closed the stream); `extra_prompt_tokens` are those that a retry
    or failover cost.
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
        """The seconds since the call began."""
        return self.clock() - self.started

    def begin(self) -> None:
        """Note that the first token has arrived."""
        if self.first_token_seconds is None:
            self.first_token_seconds = self.seconds


CallHook = Callable[[ModelCall], None]


@dataclass(eq=False, slots=True)
class Member:
    """An endpoint in its group, with its breaker and its calls in flight; `entry` is its name in the MODELS_FILE.

    `checked`: its capabilities were detected since its breaker was last open.
    """

    endpoint: Endpoint
    group: Group
    breaker: Breaker
    entry: str = "primary"
    in_flight: int = 0
    checked: bool = False

    @property
    def able(self) -> Capabilities:
        """What its endpoint can do."""
        return self.endpoint.capabilities

    @property
    def available(self) -> bool:
        """Whether it may be called now."""
        return self.breaker.available and not self.endpoint.stopped


class Pool:
    """The members of all groups, and the counter of tokens that its primaries calibrate.

    `shares` are the shares of the conversations that the canary and the shadow get. `prefill` is the rate of one
    primary, which is promised where no endpoint is known yet.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        counter: TokenCounter | None = None,
        shares: Mapping[Group, float] | None = None,
        prefill: float = math.inf,
        hooks: Sequence[CallHook] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.members = tuple(members)
        self.counter = counter or TokenCounter()
        self._stopped: frozenset[str] = frozenset()
        self._shares = shares or {}
        self._prefill = prefill
        self._hooks = hooks
        self._clock = clock
        self._saved_retries = _MOST_SAVED_RETRIES

    def add_request(self) -> None:
        """Count a request: retries stay below a tenth of them, with some saved up for bursts of failures."""
        self._saved_retries = min(_MOST_SAVED_RETRIES, self._saved_retries + _RETRY_SHARE)

    def take_retry(self) -> bool:
        """Return whether a retry may be made, and count it."""
        if self._saved_retries < 1:
            return False
        self._saved_retries -= 1
        return True

    def add(self, member: Member) -> None:
        """Let an endpoint get calls, unless its entry is stopped."""
        self.members = (*self.members, member)
        self.stop(self._stopped)

    def remove(self, member: Member) -> None:
        """Let an endpoint get no more calls; those in progress go on."""
        self.members = tuple(m for m in self.members if m is not member)

    def stop(self, entries: Collection[str]) -> None:
        """Stop the endpoints of these entries, with the calls in progress, and resume all others."""
        self._stopped = frozenset(entries)
        for member in self.members:
            if member.entry not in entries:
                member.endpoint.stopped = False
            elif not member.endpoint.stopped:
                log.warning("model_endpoint_stopped", endpoint=member.endpoint.name)
                member.endpoint.stop()

    def group_order(self, conversation_id: str) -> tuple[Group, ...]:
        """Return the groups that may answer the conversation, in the order in which they are tried."""
        in_canary = self.in_share(conversation_id, "canary")
        return ("canary", "primary", "fallback") if in_canary else ("primary", "fallback")

    def in_share(self, conversation_id: str, group: Group) -> bool:
        """Return whether the conversation is in the group's share of all conversations; the same on every process."""
        return int.from_bytes(_affinity(conversation_id, group), "big") / 2**64 < self._shares.get(group, 0.0)

    def of_group(self, group: Group) -> list[Member]:
        """Return the members of a group."""
        return [member for member in self.members if member.group == group]

    @property
    def serving(self) -> list[Member]:
        """The members whose answers customers see and that are not stopped."""
        return [m for m in self.members if m.group in SERVING_GROUPS and not m.endpoint.stopped]

    def pick(self, conversation_id: str, members: Collection[Member], *, override: bool = False) -> Member | None:
        """Return that of the members which is called, or None where none is available; `override` ignores breakers."""
        candidates = [m for m in members if m.available or (override and not m.endpoint.stopped)]
        most_calls = math.ceil(_LOAD_BOUND * (sum(m.in_flight for m in candidates) + 1) / max(1, len(candidates)))
        candidates.sort(key=lambda m: _affinity(conversation_id, m.endpoint.name), reverse=True)
        return next((m for m in candidates if m.in_flight < most_calls), None)

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens per second that the endpoints of the first group read together, by their profiles."""
        rates = ([m.endpoint.deadlines.prefill for m in self.of_group(group)] for group in SERVING_GROUPS)
        return sum(next(filter(None, rates), [self._prefill]))

    def retry_after(self) -> float:
        """Return the seconds until an endpoint may be called again."""
        return min((m.breaker.retry_after for m in self.serving), default=_ALL_STOPPED_SECONDS)

    async def check(self, member: Member, *, seconds: float = METADATA_SECONDS) -> None:
        """Detect an endpoint's capabilities, unless that was done since its breaker was last open.

        Raises:
            EndpointFailed: it cannot be asked, serves another model, or refuses us.
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
        """Count a call in flight; however it ends, the breaker and the hooks get its result.

        `repeated`: its prompt was sent to another endpoint before. A call to an endpoint whose breaker is open rescues
        an answer, and its result does not count.
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
        """Return what a call says about its endpoint, or None; a late token counts if another could do better."""
        waited = call.seconds if call.first_token_seconds is None else call.first_token_seconds
        is_late = waited > member.endpoint.deadlines.slow_first_token(call.prompt_tokens)
        has_alternative = any(m.available for m in self.of_group(member.group) if m is not member)
        if is_late and has_alternative and (call.outcome == "left" or RESULTS[call.outcome] is CallResult.OK):
            return CallResult.SLOW
        # Probed later and later: what a rate limit refuses counts against it, too.
        return CallResult.FAILED if is_probe and call.outcome == "busy" else RESULTS[call.outcome]


def _affinity(conversation_id: str, name: str) -> bytes:
    return blake2b(f"{conversation_id}\0{name}".encode(), digest_size=8).digest()
