"""Which endpoint answers: groups of endpoints, the home of each conversation, and whether an endpoint may be called.

A canary gets its share of the conversations, always the same ones; the others begin with a primary. Where neither can
answer, the fallback does. The shadow answers no customer: it gets the same prompts in addition (`chatbot/shadow.py`).

A conversation stays with its home, where its prefix is cached, until the home has more than its share of the calls
(rendezvous hashing, Thaler and Ravishankar 1998, with bounded loads, Mirrokni et al. 2018). Then the less busy of two
other endpoints, drawn at random, takes the call (the power of two choices, Mitzenmacher 2001). An endpoint whose
breaker is open does not count; its conversations spread over the rest and return afterwards.
"""

import math
import random
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b

import structlog

from chatbot.models.capabilities import Capabilities
from chatbot.models.endpoint import Endpoint
from chatbot.models.settings import Group
from knowledge.breaker import Breaker

log = structlog.get_logger(__name__)

SERVING_GROUPS: tuple[Group, ...] = ("primary", "canary", "fallback")
"""Those whose answers customers see."""
# How many times the mean number of calls an endpoint may have before conversations leave their home.
_LOAD_BOUND = 1.25
_RETRY_SHARE = 0.1
_MOST_SAVED_RETRIES = 10.0
# Retry-After when every model is stopped: how long the stop lasts is not known.
_ALL_STOPPED_SECONDS = 60.0


class Member:
    """An endpoint in its group, with its breaker and its calls in flight; `entry` is its name in the MODELS_FILE."""

    def __init__(self, endpoint: Endpoint, group: Group, breaker: Breaker, *, entry: str = "") -> None:
        self.endpoint = endpoint
        self.group = group
        self.breaker = breaker
        self.entry = entry or group
        self.in_flight = 0
        self.checked = False
        """Whether its capabilities were detected since its breaker was last open."""

    @property
    def able(self) -> Capabilities:
        """What its endpoint can do."""
        return self.endpoint.capabilities

    @property
    def available(self) -> bool:
        """Whether it may be called now."""
        return self.breaker.available and not self.endpoint.stopped

    def holds(self, tokens: int) -> bool:
        """Return whether its context has so many tokens, or is not known."""
        return self.able.context_tokens is None or self.able.context_tokens >= tokens


class Pool:
    """The members of all groups."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        shares: Mapping[Group, float] | None = None,
        prefill: float = math.inf,
        randomness: random.Random | None = None,
    ) -> None:
        """Take the members; `shares` are the shares of the conversations that the canary and the shadow get.

        `prefill` is the rate of one primary, which is promised where no endpoint is known yet.
        """
        self.members = tuple(members)
        self._stopped: frozenset[str] = frozenset()
        self._shares = shares or {}
        self._prefill = prefill
        self._saved_retries = _MOST_SAVED_RETRIES
        self._randomness = randomness or random.SystemRandom()

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
        if member.entry in self._stopped:
            member.endpoint.stop()
        self.members = (*self.members, member)

    def remove(self, member: Member) -> None:
        """Let an endpoint get no more calls; those in progress go on."""
        self.members = tuple(m for m in self.members if m is not member)

    def stop(self, entries: Collection[str]) -> None:
        """Stop the endpoints of these entries, with the calls in progress, and resume all others."""
        self._stopped = frozenset(entries)
        for member in self.members:
            if member.entry not in entries:
                member.endpoint.resume()
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

    @property
    def serving(self) -> tuple[Member, ...]:
        """The members whose answers customers see and that are not stopped."""
        return tuple(m for m in self.members if m.group in SERVING_GROUPS and not m.endpoint.stopped)

    def pick(
        self, conversation_id: str, *, group: Group, avoid: Collection[Member] = (), override: bool = False
    ) -> Member | None:
        """Return the endpoint of a call, or None where no member of the group is available.

        `override` ignores the breakers.
        """
        candidates = [
            m
            for m in self.members
            if m.group == group and m not in avoid and (m.available or (override and not m.endpoint.stopped))
        ]
        if not candidates:
            return None
        member = max(candidates, key=lambda m: _affinity(conversation_id, m.endpoint.name))
        most_calls = math.ceil(_LOAD_BOUND * (sum(m.in_flight for m in candidates) + 1) / len(candidates))
        if member.in_flight + 1 > most_calls:
            others = [m for m in candidates if m is not member]
            member = min(self._randomness.sample(others, min(2, len(others))), key=lambda m: m.in_flight)
        return member

    def has_alternative(self, member: Member) -> bool:
        """Return whether another member of the group could be called."""
        return any(m.available for m in self.members if m.group == member.group and m is not member)

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens per second that the endpoints of the first group read together, by their profiles."""
        for group in SERVING_GROUPS:
            if rates := [m.endpoint.deadlines.prefill for m in self.members if m.group == group]:
                return sum(rates)
        return self._prefill

    def retry_after(self) -> float:
        """Return the seconds until an endpoint may be called again."""
        return min((m.breaker.retry_after for m in self.serving), default=_ALL_STOPPED_SECONDS)


def _affinity(conversation_id: str, name: str) -> bytes:
    return blake2b(f"{conversation_id}\0{name}".encode(), digest_size=8).digest()
