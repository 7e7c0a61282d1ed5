"""Endpoint discovery and health checks: at the start, when DNS changes, and while a breaker is open.

An endpoint that is down at the start does not stop it: its breaker starts open. Open breakers are closed by probes in
the background, which also detect the capabilities again; never by a customer's call.

The name of a headless Service has the addresses of its ready pods, each of which is an endpoint after its capabilities
were detected. A removed endpoint gets no new calls; its running answers continue. TLS and the Host header use the
name, since certificates are issued for names. If a lookup fails, the endpoints are kept; NXDOMAIN removes all of them.
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
# The deadline of the questions that find an endpoint's capabilities: a CPU needs seconds for the 16 tokens of one. Of
# an engine that hangs the first token is late before.
_DETECTION_SECONDS = 30.0
_RESOLVE_SECONDS = 4.0

Resolve = Callable[[str], Awaitable[frozenset[str]]]
"""Returns the addresses of a host; raises `OSError` where it cannot be resolved now."""


async def addresses_of(host: str) -> frozenset[str]:
    """Resolve a host by the system's resolver to its IPv4 addresses, or to its IPv6 addresses if it has no IPv4.

    A pod with two families has an address of each, and is one endpoint.
    """
    try:
        found = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as exc:
        if exc.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
            return frozenset()
        raise
    addresses = {str(entry[4][0]) for entry in found}
    return frozenset({a for a in addresses if ipaddress.ip_address(a).version == 4} or addresses)


@dataclass
class FollowedName:
    """A host whose addresses are endpoints of one entry of the MODELS_FILE."""

    host: str
    member_at: Callable[[str], Member]
    members: dict[str, Member] = field(default_factory=dict)

    async def update(self, resolve: Resolve) -> tuple[list[Member], list[Member]]:
        """Return the added and the removed members; two empty lists if the host cannot be resolved."""
        try:
            with anyio.fail_after(_RESOLVE_SECONDS):
                addresses = await resolve(self.host)
        except OSError as exc:  # TimeoutError is one
            log.warning("model_host_resolution_failed", host=self.host, error=str(exc) or type(exc).__name__)
            return [], []
        gone = [self.members.pop(address) for address in self.members.keys() - addresses]
        new = {address: self.member_at(address) for address in sorted(addresses - self.members.keys())}
        self.members |= new
        return list(new.values()), gone


class HealthChecks:
    """Checks that the endpoints of a pool serve the model."""

    def __init__(self, pool: Pool, *, on_failure: OnFailure) -> None:
        self._pool = pool
        self._on_failure = on_failure

    async def check(self) -> None:
        """Detect every endpoint's capabilities; one that is down starts with an open breaker.

        So does one of another model where its entry has one of ours: a rollout is under way.

        Raises:
            ModelsMisconfigured: an entry's endpoints serve another model, or none of all lets us in.
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
        """Raise ModelUnavailable where no endpoint is ready."""
        if not any(member.checked and member.available for member in self._pool.serving):
            raise ModelUnavailable(retry_after=self._pool.retry_after())

    async def probe_forever(self) -> None:
        """Probe endpoints whose breaker is open as they are due, one a second in all: none is tried on a customer."""
        async with anyio.create_task_group() as tasks:
            while True:
                await anyio.sleep(_PROBE_EVERY)
                due = [m for m in self._pool.members if m.breaker.due and not m.endpoint.stopped]
                if due:
                    tasks.start_soon(self.probe, min(due, key=lambda member: member.breaker.due_since))

    async def follow_forever(self, names: Sequence[FollowedName], *, resolve: Resolve, every: float) -> None:
        """Resolve the names every few seconds; the pool gets new endpoints when checked."""

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
        """Add a new endpoint to the pool; its breaker starts open where its capabilities could not be detected."""
        with contained("follow", self._on_failure):
            await self._check(member)
        if not member.checked:
            member.breaker.trip()
        if member in name.members.values():  # otherwise it went while it was checked
            log.info("model_endpoint_added", endpoint=member.endpoint.name)
            self._pool.add(member)

    async def _check(self, member: Member) -> EndpointFailed | None:
        """Detect an endpoint's capabilities; return why it failed, and open its breaker then."""
        try:
            await self._pool.check(member, seconds=_DETECTION_SECONDS)
        except EndpointFailed as exc:
            log.warning("model_endpoint_check_failed", endpoint=member.endpoint.name, error=str(exc))
            member.breaker.trip()
            return exc
        return None

    async def probe(self, member: Member) -> None:
        """Probe an endpoint whose breaker is open, if that is due.

        It is asked for a token: a hung engine still answers its health check.
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
                # A hosted one may queue: with less time a healthy one would stay open.
                queueing = 0.0 if member.able.token_ids else member.endpoint.deadlines.first_token(0)
                with anyio.fail_after(_DETECTION_SECONDS):
                    await self._pool.check(member, seconds=_DETECTION_SECONDS)
                if member.able.top_logprobs is not None:
                    await member.endpoint.top_tokens(word_request(max(_PING_SECONDS, queueing)))
                call.begin()
                call.outcome = "ok"
        finally:
            # Counts only where the call has brought no result: a bug, or the end of this process.
            member.breaker.record(permit, CallResult.FAILED)
