"""Endpoints found by DNS: each address of a name is an endpoint, and the name is resolved every few seconds.

The name of a headless Service has the addresses of its ready pods. A new address is an endpoint after its capabilities
were detected; one that is gone gets no more calls, and answers that run there go on. TLS and the Host header keep the
name: an address has no certificate. Where the name cannot be resolved now, the endpoints stay as they are; an answer
that says "no such name" means that there are none.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import structlog

from chatbot.models.pool import Member
from chatbot.models.settings import ModelsFileEntry

log = structlog.get_logger(__name__)

_RESOLVE_SECONDS = 4.0

Resolve = Callable[[str], Awaitable[frozenset[str]]]
"""Returns the addresses of a host; raises `OSError` where it cannot be resolved now."""


async def addresses_of(host: str) -> frozenset[str]:
    """Return the addresses that the system's resolver knows of a host: of IPv4, or where there are none, of IPv6.

    A pod with two families has an address of each, and is one endpoint.

    Raises:
        OSError: the resolver cannot answer.
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
    entry: ModelsFileEntry
    member_at: Callable[[str], Member]
    members: dict[str, Member] = field(default_factory=dict)

    async def update(self, resolve: Resolve) -> tuple[list[Member], list[Member]]:
        """Return the members that are new and those that are gone; neither where the host cannot be resolved."""
        try:
            with anyio.fail_after(_RESOLVE_SECONDS):
                addresses = await resolve(self.host)
        except OSError as exc:  # TimeoutError is one
            log.warning("model_name_not_resolved", host=self.host, error=str(exc) or type(exc).__name__)
            return [], []
        gone = [self.members.pop(address) for address in self.members.keys() - addresses]
        new = {address: self.member_at(address) for address in sorted(addresses - self.members.keys())}
        self.members |= new
        return list(new.values()), gone


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """The names that are followed, who resolves them, and the seconds between two lookups of a name."""

    resolve: Resolve = addresses_of
    every: float = 5.0
    names: tuple[FollowedName, ...] = ()
