"""Choose the endpoint of each call by group, conversation and load; check, probe and discover endpoints.

The canary gets a fixed share of the conversations; the others start at a primary. The fallback answers if neither can.

A conversation stays at its home endpoint, which caches its prefix, until the home has more than its share of the calls;
then the next endpoint in the conversation's own order takes the call (rendezvous hashing, Thaler and Ravishankar 1998,
with bounded loads, Mirrokni et al. 2018).

The process starts even if an endpoint is unavailable: that endpoint's breaker starts open. Background probes close open
breakers and detect the capabilities again; customers' calls never do.

A headless Service's name resolves to its ready pods, each of which becomes an endpoint after a check. A removed
endpoint gets no new calls; its running answers continue. A failed lookup changes nothing; NXDOMAIN removes all.
"""

import ipaddress
import math
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

import anyio
import structlog

from chatbot.chat import Chat, Message
from chatbot.errors import ModelUnavailable
from chatbot.models.detection import detect
from chatbot.models.endpoint import Endpoint, GenerationRequest, Group, Sampling
from chatbot.models.settings import ModelsMisconfigured
from chatbot.tokens import TokenCounter
from knowledge.breaker import BreakerState, CallResult, Permit
from knowledge.model_connection import RESULTS, AccessDenied, EndpointFailed, FailureName, WrongModel
from telemetry.supervision import OnFailure, contained, uncounted

log = structlog.get_logger(__name__)

SERVING_GROUPS: tuple[Group, ...] = ("primary", "canary", "fallback")
"""The groups whose answers customers see."""
# Conversations leave their home endpoint when its load exceeds this multiple of the mean.
_LOAD_BOUND = 1.25
_RETRY_SHARE = 0.1
_MOST_SAVED_RETRIES = 10.0
# Retry-After if all models are stopped: the end of a stop is unknown.
_ALL_STOPPED_SECONDS = 60.0
_PROBE_EVERY = 1.0
_RESOLVE_SECONDS = 4.0
_PING = GenerationRequest(
    chat=Chat(messages=(Message("user", "ping"),), tokens=8, thinks=False),
    sampling=Sampling(max_tokens=1),
    cache_salt="none",
)


@dataclass(slots=True, kw_only=True)
class ModelCall:
    """One call to one endpoint; `outcome` is a metric label ("left": the client closed the stream)."""

    group: Group
    kind: Literal["answer", "probability", "ping"]
    started: float = field(default_factory=time.monotonic)
    outcome: Literal["ok", "left"] | FailureName = "left"
    first_token_seconds: float | None = None

    def record_token(self) -> None:
        """Record the time of the first token; do nothing for further ones."""
        if self.first_token_seconds is None:
            self.first_token_seconds = time.monotonic() - self.started


CallHook = Callable[[ModelCall], None]
Resolve = Callable[[str], Awaitable[frozenset[str]]]
"""Returns the addresses of a host; raises `OSError` if the lookup fails."""


async def addresses_of(host: str) -> frozenset[str]:
    """Resolve a host through the system's resolver to its IPv4 addresses, or its IPv6 addresses if it has no IPv4.

    A dual-stack pod has an address of each family, but is one endpoint.
    """
    try:
        resolved = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as exc:
        if exc.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
            return frozenset()
        raise
    addresses = frozenset(str(entry[4][0]) for entry in resolved)
    ipv4_addresses = frozenset(address for address in addresses if ipaddress.ip_address(address).version == 4)
    return ipv4_addresses or addresses


@dataclass
class FollowedName:
    """A host name whose addresses are endpoints of one entry of the MODELS_FILE."""

    host: str
    endpoint_at: Callable[..., Endpoint]
    endpoints: dict[str, Endpoint] = field(default_factory=dict)

    async def update(self, resolve: Resolve) -> tuple[list[Endpoint], list[Endpoint]]:
        """Resolve the host; return the added and the removed endpoints. A failed lookup changes nothing."""
        try:
            with anyio.fail_after(_RESOLVE_SECONDS):
                addresses = await resolve(self.host)
        except OSError as exc:  # includes TimeoutError
            log.warning("model_host_resolution_failed", host=self.host, error=str(exc) or type(exc).__name__)
            return [], []
        removed = [self.endpoints.pop(address) for address in self.endpoints.keys() - addresses]
        new_addresses = sorted(addresses - self.endpoints.keys())
        added = {address: self.endpoint_at(address=address) for address in new_addresses}
        self.endpoints |= added
        return list(added.values()), removed


class Pool:
    """The endpoints of all groups, and the token counter, which primaries calibrate.

    `canary_share` is the canary's share of the conversations. `prefill` is the prefill rate of one primary, which
    applies while the pool has no endpoint.
    """

    def __init__(
        self,
        members: Sequence[Endpoint],
        *,
        counter: TokenCounter | None = None,
        canary_share: float = 0.0,
        prefill: float = math.inf,
        on_call: CallHook = lambda _: None,
        on_failure: OnFailure = uncounted,
    ) -> None:
        self.members = tuple(members)
        self.counter = counter or TokenCounter()
        self._stopped_entries: frozenset[str] = frozenset()
        self._canary_share = canary_share
        self._prefill = prefill
        self._on_call = on_call
        self._on_failure = on_failure
        self._saved_retries = _MOST_SAVED_RETRIES

    def add_request(self) -> None:
        """Add a request's share to the retry budget: a tenth of a retry, up to the budget that is saved for bursts."""
        self._saved_retries = min(_MOST_SAVED_RETRIES, self._saved_retries + _RETRY_SHARE)

    def take_retry(self) -> bool:
        """Take a retry from the budget; return False if none is left."""
        if self._saved_retries < 1:
            return False
        self._saved_retries -= 1
        return True

    def stop(self, entries: Collection[str]) -> None:
        """Stop the endpoints of these entries and their calls in progress; resume all others."""
        self._stopped_entries = frozenset(entries)
        for endpoint in self.members:
            if endpoint.entry not in entries:
                endpoint.stopped = False
            elif not endpoint.stopped:
                log.warning("model_endpoint_stopped", endpoint=endpoint.name)
                endpoint.stop()

    def group_order(self, conversation_id: str) -> tuple[Group, ...]:
        """Return the groups to try for the conversation, in an order that is the same in every process."""
        place_in_shares = int.from_bytes(_affinity(conversation_id, "canary"), "big") / 2**64
        if place_in_shares < self._canary_share:
            return ("canary", "primary", "fallback")
        return ("primary", "fallback")

    def of_group(self, group: Group) -> list[Endpoint]:
        """Return the endpoints of a group."""
        return [endpoint for endpoint in self.members if endpoint.group == group]

    @property
    def serving(self) -> list[Endpoint]:
        """The endpoints that are not stopped."""
        return [endpoint for endpoint in self.members if not endpoint.stopped]

    def pick(self, conversation_id: str, members: Collection[Endpoint], *, even_open: bool = False) -> Endpoint | None:
        """Return the endpoint to call, or None if none is available; `even_open` permits open breakers."""
        candidates = [e for e in members if e.available or (even_open and not e.stopped)]
        if not candidates:
            return None
        calls = sum(e.in_flight for e in candidates) + 1
        most_calls = math.ceil(_LOAD_BOUND * calls / len(candidates))
        home_first = sorted(candidates, key=lambda e: _affinity(conversation_id, e.name), reverse=True)
        return next((e for e in home_first if e.in_flight < most_calls), None)

    @property
    def prefill_rate(self) -> float:
        """The total prefill rate (prompt tokens per second) of the first group with endpoints, by their profiles."""
        for group in SERVING_GROUPS:
            endpoints = self.of_group(group)
            if endpoints:
                return sum(endpoint.deadlines.prefill for endpoint in endpoints)
        return self._prefill

    def retry_after(self) -> float:
        """Return the seconds until an endpoint may be called again."""
        return min((endpoint.breaker.retry_after for endpoint in self.serving), default=_ALL_STOPPED_SECONDS)

    @contextmanager
    def call(
        self, endpoint: Endpoint, kind: Literal["answer", "probability", "ping"], *, probe: Permit | None = None
    ) -> Iterator[ModelCall]:
        """Count a call in flight, and report its result to the breaker and the hook.

        If a call continues a broken-off answer although the breaker is open, its result does not change the breaker.
        """
        permit = probe or endpoint.breaker.permit() or endpoint.breaker.override()
        call = ModelCall(group=endpoint.group, kind=kind)
        endpoint.in_flight += 1
        try:
            yield call
        except EndpointFailed as exc:
            call.outcome = exc.outcome
            raise
        finally:
            endpoint.in_flight -= 1
            # A rate-limited probe also counts as a failure, so that the interval of the probes grows.
            is_busy_probe = probe is not None and call.outcome == "busy"
            endpoint.breaker.record(permit, CallResult.FAILED if is_busy_probe else RESULTS[call.outcome])
            if endpoint.breaker.state is not BreakerState.CLOSED:
                endpoint.checked = False
            self._on_call(call)

    async def check(self, endpoint: Endpoint) -> None:
        """Detect an endpoint's capabilities, unless it is `checked`.

        Raises:
            EndpointFailed: the endpoint is unavailable, serves another model, or denies access.
        """
        if not endpoint.checked:
            await detect(endpoint)
            endpoint.checked = True
            if endpoint.group == "primary" and endpoint.capabilities.counts:
                self.counter.calibrate(endpoint.capabilities.counts)

    async def check_all(self) -> None:
        """Detect the capabilities of all endpoints; an endpoint that fails starts with an open breaker.

        An endpoint with the wrong model does too if its entry has an endpoint with the right one, as during a rollout.

        Raises:
            ModelsMisconfigured: an entry serves only another model, or all endpoints deny access.
        """
        failures: dict[Endpoint, EndpointFailed] = {}
        async with anyio.create_task_group() as tasks:
            for endpoint in self.members:
                tasks.start_soon(self._check_first, endpoint, failures)
        checked_entries = {endpoint.entry for endpoint in self.members if endpoint.checked}
        errors = []
        for endpoint, exc in failures.items():
            if isinstance(exc, WrongModel) and endpoint.entry not in checked_entries:
                errors.append(str(exc))
        if all(isinstance(failures.get(endpoint), AccessDenied) for endpoint in self.serving):
            errors += [str(exc) for exc in failures.values() if isinstance(exc, AccessDenied)]
        if errors:
            raise ModelsMisconfigured("; ".join(errors))

    async def _check_first(self, endpoint: Endpoint, failures: dict[Endpoint, EndpointFailed]) -> None:
        """Detect a new endpoint's capabilities; if that fails, add the error to `failures` and open the breaker."""
        try:
            await self.check(endpoint)
        except EndpointFailed as exc:
            log.warning("model_endpoint_check_failed", endpoint=endpoint.name, error=str(exc))
            failures[endpoint] = exc
        finally:
            if not endpoint.checked:
                endpoint.breaker.trip()

    async def ping(self) -> None:
        """Raise ModelUnavailable if no endpoint is ready."""
        if not any(endpoint.checked and endpoint.available for endpoint in self.serving):
            raise ModelUnavailable(retry_after=self.retry_after())

    async def probe_forever(self) -> None:
        """Probe the endpoints whose breakers are due for a probe, one endpoint per second, until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                await anyio.sleep(_PROBE_EVERY)
                due_endpoints = [member for member in self.members if member.breaker.due and not member.stopped]
                if due_endpoints:
                    tasks.start_soon(self.probe, min(due_endpoints, key=lambda member: member.breaker.due_since))

    async def probe(self, endpoint: Endpoint) -> None:
        """Probe an endpoint if its breaker is due for it: detect its capabilities, and generate a token.

        The token is needed because a hung engine still answers a health check.
        """
        permit = endpoint.breaker.probe()
        if permit is None:
            return
        endpoint.checked = False
        with (
            contained("probe", self._on_failure),
            suppress(EndpointFailed),
            self.call(endpoint, "ping", probe=permit) as call,
        ):
            await self.check(endpoint)
            if endpoint.capabilities.top_logprobs is not None:
                await endpoint.top_tokens(_PING)
            call.record_token()
            call.outcome = "ok"

    async def follow_forever(self, names: Sequence[FollowedName], *, resolve: Resolve, every: float) -> None:
        """Resolve the names each `every` seconds, until cancelled; new endpoints join the pool after a check."""

        async def follow(name: FollowedName) -> None:
            while True:
                await anyio.sleep(every)
                added, removed = await name.update(resolve)
                for endpoint in removed:
                    log.info("model_endpoint_removed", endpoint=endpoint.name)
                self.members = tuple(endpoint for endpoint in self.members if endpoint not in removed)
                for endpoint in added:
                    tasks.start_soon(self._check_and_join, name, endpoint)

        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(follow, name)

    async def _check_and_join(self, name: FollowedName, endpoint: Endpoint) -> None:
        """Check a new endpoint and add it to the pool; it is stopped if its entry is stopped."""
        with contained("follow", self._on_failure):
            await self._check_first(endpoint, {})
        if endpoint in name.endpoints.values():  # otherwise it was removed during the check
            log.info("model_endpoint_added", endpoint=endpoint.name)
            self.members = (*self.members, endpoint)
            self.stop(self._stopped_entries)


def _affinity(conversation_id: str, name: str) -> bytes:
    """Return a hash of the conversation and an endpoint; the endpoint with the highest hash is the home."""
    return blake2b(f"{conversation_id}\0{name}".encode(), digest_size=8).digest()
