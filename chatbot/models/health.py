"""Endpoint discovery and health checks: at the start, when DNS changes, and while a breaker is open.

An endpoint that is down does not stop the start: its breaker starts open. Background probes close open breakers and
detect the capabilities again; customers' calls never do.

A headless Service's name resolves to its ready pods. Each pod becomes an endpoint once its capabilities are detected. A
removed endpoint gets no new calls; its running answers continue. TLS and the Host header use the name, because
certificates are issued for names. If a lookup fails, the endpoints are kept; NXDOMAIN removes all of them.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import structlog

from chatbot.errors import ModelUnavailable
from chatbot.models.detection import word_request
from chatbot.models.pool import Member, Pool
from chatbot.models.settings import ModelsMisconfigured
from knowledge.breaker import CallResult
from knowledge.model_connection import AccessDenied, EndpointFailed, WrongModel
from telemetry.supervision import OnFailure, contained

log = structlog.get_logger(__name__)

# The deadline of a probe.
_PING_SECONDS = 1.5
_PROBE_EVERY = 1.0
# The deadline of detecting capabilities: a CPU needs seconds for the 16 tokens of one question. A hung engine misses
# the earlier deadline of the first token.
_DETECTION_SECONDS = 30.0
_RESOLVE_SECONDS = 4.0

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
    addresses = {str(entry[4][0]) for entry in resolved}
    return frozenset({a for a in addresses if ipaddress.ip_address(a).version == 4} or addresses)


@dataclass
class FollowedName:
    """A host name whose addresses are endpoints of one entry of the MODELS_FILE."""

    host: str
    member_at: Callable[[str], Member]
    members: dict[str, Member] = field(default_factory=dict)

    async def update(self, resolve: Resolve) -> tuple[list[Member], list[Member]]:
        """Resolve the host; return the added and removed members, or two empty lists if the lookup fails."""
        try:
            with anyio.fail_after(_RESOLVE_SECONDS):
                addresses = await resolve(self.host)
        except OSError as exc:  # includes TimeoutError
            log.warning("model_host_resolution_failed", host=self.host, error=str(exc) or type(exc).__name__)
            return [], []
        gone = [self.members.pop(address) for address in self.members.keys() - addresses]
        new = {address: self.member_at(address) for address in sorted(addresses - self.members.keys())}
        self.members |= new
        return list(new.values()), gone


class HealthChecks:
    """Checks and probes the endpoints of a pool."""

    def __init__(self, pool: Pool, *, on_failure: OnFailure) -> None:
        self._pool = pool
        self._on_failure = on_failure

    async def check(self) -> None:
        """Detect the capabilities of all endpoints; an endpoint that fails starts with an open breaker.

        During a rollout, so does an endpoint with another model, if its entry has one with the right model.

        Raises:
            ModelsMisconfigured: an entry serves only another model, or all endpoints deny access.
        """
        failures: dict[Member, EndpointFailed] = {}

        async def check_one(member: Member) -> None:
            if failure := await self._check(member):
                failures[member] = failure

        async with anyio.create_task_group() as tasks:
            for member in self._pool.members:
                tasks.start_soon(check_one, member)
        fit = {member.entry for member in self._pool.members if member.checked}
        errors = [f"{e}" for m, e in failures.items() if isinstance(e, WrongModel) and m.entry not in fit]
        if all(isinstance(failures.get(member), AccessDenied) for member in self._pool.serving):
            errors += [f"{e}" for e in failures.values() if isinstance(e, AccessDenied)]
        if errors:
            raise ModelsMisconfigured("; ".join(errors))

    async def ping(self) -> None:
        """Raise ModelUnavailable if no endpoint is ready."""
        if not any(member.checked and member.available for member in self._pool.serving):
            raise ModelUnavailable(retry_after=self._pool.retry_after())

    async def probe_forever(self) -> None:
        """Probe due endpoints with an open breaker, one per second in total, so that no customer's call tests them."""
        async with anyio.create_task_group() as tasks:
            while True:
                await anyio.sleep(_PROBE_EVERY)
                due = [m for m in self._pool.members if m.breaker.due and not m.endpoint.stopped]
                if due:
                    tasks.start_soon(self.probe, min(due, key=lambda member: member.breaker.due_since))

    async def follow_forever(self, names: Sequence[FollowedName], *, resolve: Resolve, every: float) -> None:
        """Resolve the names every `every` seconds; new endpoints join the pool after a check."""

        async def follow(name: FollowedName) -> None:
            while True:
                await anyio.sleep(every)
                new, gone = await name.update(resolve)
                for member in gone:
                    log.info("model_endpoint_removed", endpoint=member.endpoint.name)
                    self._pool.remove(member)
                for member in new:
                    tasks.start_soon(self._check_and_join, name, member)

        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(follow, name)

    async def _check_and_join(self, name: FollowedName, member: Member) -> None:
        """Add a new endpoint to the pool; its breaker starts open if its capabilities could not be detected."""
        with contained("follow", self._on_failure):
            await self._check(member)
        if not member.checked:
            member.breaker.trip()
        if member in name.members.values():  # otherwise it was removed during the check
            log.info("model_endpoint_added", endpoint=member.endpoint.name)
            self._pool.add(member)

    async def _check(self, member: Member) -> EndpointFailed | None:
        """Detect an endpoint's capabilities; on failure, open its breaker and return the error."""
        try:
            await self._pool.check(member, seconds=_DETECTION_SECONDS)
        except EndpointFailed as exc:
            log.warning("model_endpoint_check_failed", endpoint=member.endpoint.name, error=str(exc))
            member.breaker.trip()
            return exc
        return None

    async def probe(self, member: Member) -> None:
        """Probe an endpoint with an open breaker, if the probe is due.

        The probe requests a token, because a hung engine still answers its health check.
        """
        permit = member.breaker.probe()
        if permit is None:
            return
        try:
            with (
                contained("probe", self._on_failure),
                suppress(EndpointFailed, TimeoutError),
                self._pool.call(member, "ping", word_request(_PING_SECONDS), probe=permit) as call,
            ):
                # A hosted endpoint may queue requests: with a shorter deadline a healthy one would keep failing.
                queueing = 0.0 if member.able.token_ids else member.endpoint.deadlines.first_token(0)
                with anyio.fail_after(_DETECTION_SECONDS):
                    await self._pool.check(member, seconds=_DETECTION_SECONDS)
                if member.able.top_logprobs is not None:
                    await member.endpoint.top_tokens(word_request(max(_PING_SECONDS, queueing)))
                call.begin()
                call.outcome = "ok"
        finally:
            # Counts only if the call recorded no result: after a bug, or when this process ends.
            member.breaker.record(permit, CallResult.FAILED)
