"""The token ledger: what a tenant, a user and a tenant's use of a model may spend (design section 6).

Reserve, extend and settle are one script each on Redis's own time, under keys that all carry `{tenant}`. While Redis
is away a replica spends its share (`chatbot.limits.outage_quota`) for a minute, then nobody spends anything.
"""

import math
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from urllib.parse import quote

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.commands.core import AsyncScript

from chatbot.errors import RateLimited, StoreUnavailable, TooLarge
from chatbot.events import Limits, Usage
from chatbot.limits.limits import (
    DIMENSIONS,
    MICRO,
    SCOPES,
    LedgerSettings,
    Limit,
    LimitSettings,
    Scope,
    Use,
    day_at,
    tightest,
)
from chatbot.limits.outage_quota import Holder, OutageQuota, QuotaClaim
from chatbot.redis_client import RedisBreaker
from knowledge.identity import Principal

__all__ = ["Caller", "Ledger", "LedgerSettings", "Limit", "LimitSettings", "Reservation"]

KEEP_UNSETTLED = 3600
"""Seconds that a reservation outlives its lease, so that whoever takes the answer over can still settle it."""
NUMBERS_A_SCOPE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who spends, on which model; the roles decide by which limits."""

    tenant: str
    sub: str
    model: str
    roles: frozenset[str] = frozenset()

    @classmethod
    def of(cls, who: Principal, model: str) -> "Caller":
        return cls(tenant=who.tenant, sub=who.sub, model=model, roles=who.roles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Tokens set aside for one answer; whoever holds it extends and settles it."""

    id: str
    caller: Caller
    prompt_tokens: int
    answer_tokens: int
    lease_seconds: float
    limits: Limits
    local: bool = False
    """Made on the replica's share: Redis knows nothing of it."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.answer_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What one scope may spend and has spent; `name` says whose it is."""

    scope: Scope
    name: str
    limit: Limit
    use: Use


class Ledger:
    """Sliding windows, slots and a day's budget over three scopes at once; never over-admits, settles once."""

    def __init__(
        self,
        redis: Redis | RedisCluster,
        breaker: RedisBreaker,
        settings: LedgerSettings,
        *,
        plan_of: Callable[[str], LimitSettings] | None = None,
        clock: Callable[[], float] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`plan_of` tells a tenant's plan, each time anew, in place of the settings.

        `clock` replaces Redis's time (for tests); with `None` Redis's own counts.
        """
        self._redis = redis
        self._breaker = breaker
        self._settings = settings
        self._plan_of = plan_of or settings.of
        self._clock = clock
        self._monotonic = monotonic
        self._share = OutageQuota(replicas=settings.replicas, seconds=settings.share_seconds)
        self._percentiles: dict[str, int] = {}
        # Redis's time less this process's monotonic time, in microseconds; unknown before the first reply.
        self._offset: int | None = None
        self._reserve = load(redis, "reserve")
        self._extend = load(redis, "extend")
        self._settle = load(redis, "settle")
        self._limits = load(redis, "limits")
        self._reset = load(redis, "reset")

    async def reserve(
        self, caller: Caller, *, prompt_tokens: int, answer_tokens: int, lease_seconds: float
    ) -> Reservation:
        """Set tokens, a request and a slot aside in all scopes, or write nothing.

        Raises:
            RateLimited: names the scope and dimension that stay full for longest, and for how long.
            TooLarge: more than a limit will ever allow.
            StoreUnavailable: Redis is away, and for longer than the share lasts.
        """
        tokens = prompt_tokens + answer_tokens
        self._refuse_what_never_fits(caller, tokens)
        now = self._monotonic()
        claim = QuotaClaim(
            id=uuid.uuid4().hex, holders=self._holders(caller), tokens=tokens, now=now, until=now + lease_seconds
        )
        try:
            limits, local = await self._reserve_in_redis(caller, claim, lease_seconds), False
        except StoreUnavailable:
            limits, local = self._reserve_share(claim), True
        return Reservation(
            id=claim.id,
            caller=caller,
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            lease_seconds=lease_seconds,
            limits=limits,
            local=local,
        )

    async def _reserve_in_redis(self, caller: Caller, claim: QuotaClaim, lease_seconds: float) -> Limits:
        days = await self._days(caller.tenant)
        arguments: list[str | int] = [claim.id, claim.tokens, round(lease_seconds * MICRO), keep_seconds(lease_seconds)]
        limits = [n for limit in self._limits_of(caller) for n in all_of(limit)]
        reply = await self._run(self._reserve, caller, claim.id, [*arguments, *days, *limits])
        if reply[0] == 0:
            *state, scope, dimension, wait = reply
            raise RateLimited(
                scope=SCOPES[scope - 1],
                dimension=DIMENSIONS[dimension - 1],
                retry_after=wait / MICRO,
                limits=self._learn(caller, state),
            )
        self._share.note(claim)
        return self._learn(caller, reply)

    def _reserve_share(self, claim: QuotaClaim) -> Limits:
        try:
            self._share.reserve(claim)
        except RateLimited as exc:
            exc.limits = self._share_limits(claim.holders)
            raise
        return self._share_limits(claim.holders)

    async def extend(self, reservation: Reservation, *, more_tokens: int) -> Reservation | None:
        """Return a reservation with `more_tokens` for the answer; None where the limits refuse them."""
        try:
            if reservation.local:
                limits = self._extend_share(reservation, more_tokens)
            else:
                limits = await self._extend_in_redis(reservation, more_tokens)
        except StoreUnavailable:
            limits = self._extend_share(reservation, more_tokens)
        if limits is None:
            return None
        return replace(reservation, answer_tokens=reservation.answer_tokens + more_tokens, limits=limits)

    async def _extend_in_redis(self, reservation: Reservation, more_tokens: int) -> Limits | None:
        caller, lease = reservation.caller, reservation.lease_seconds
        limits = [n for limit in self._limits_of(caller) for n in rate_and_day(limit)]
        total = reservation.tokens + more_tokens
        arguments: list[str | int] = [reservation.id, total, round(lease * MICRO), keep_seconds(lease)]
        reply = await self._run(self._extend, caller, reservation.id, [*arguments, *limits])
        return None if reply[0] == 0 else self._learn(caller, reply)

    def _extend_share(self, reservation: Reservation, more_tokens: int) -> Limits | None:
        holders = self._holders(reservation.caller)
        allowed = self._share.extend(holders, reservation.id, more=more_tokens, now=self._monotonic())
        return self._share_limits(holders) if allowed else None

    async def settle(self, reservation: Reservation, usage: Usage) -> Limits | None:
        """Charge what was used instead of what was reserved, once; None when it was settled before.

        Raises:
            StoreUnavailable: Redis is away; the reservation stays charged and its lease frees the slot.
        """
        caller = reservation.caller
        holders = self._holders(caller)
        charge = self._plan_of(caller.tenant).charge(usage)
        self._share.correct(holders, reservation.id, charge)
        if reservation.local:
            return self._share_limits(holders)
        remembered = [self._settings.answers_remembered, self._settings.answers_needed]
        arguments: list[str | int] = [reservation.id, charge, usage.answer_tokens, *remembered]
        reply = await self._run(self._settle, caller, reservation.id, arguments)
        return None if reply[0] == 0 else self._learn(caller, reply)

    async def limits(self, caller: Caller) -> Limits:
        """Return what the caller has left, by the tightest scope of each dimension.

        Raises:
            StoreUnavailable: Redis is away.
        """
        days = await self._days(caller.tenant)
        return self._learn(caller, await self._run(self._limits, caller, "", days))

    async def spending(self, caller: Caller) -> tuple[Spending, ...]:
        """Return what each of the caller's scopes may spend and has spent.

        Raises:
            StoreUnavailable: Redis is away.
        """
        days = await self._days(caller.tenant)
        return self._spending(caller, await self._run(self._limits, caller, "", days))

    async def reset(self, caller: Caller, scope: Scope) -> tuple[Spending, ...]:
        """Forgive what one of the caller's scopes has spent of its minute and its days; running answers keep slots.

        Raises:
            StoreUnavailable: Redis is away, and it is not known whether anything was forgiven.
        """
        arguments = [SCOPES.index(scope) + 1, *await self._days(caller.tenant)]
        return self._spending(caller, await self._run(self._reset, caller, "", arguments))

    async def expected_answer_tokens(self, tenant: str, ceiling: int) -> int:
        """Return min(`ceiling`, the tenant's 95th percentile); asks Redis only when this process never heard it."""
        if tenant not in self._percentiles:
            key = percentile_key(tenant)
            try:
                known = await self._breaker.call(lambda: self._redis.get(key))
            except StoreUnavailable:
                return ceiling
            self._percentiles[tenant] = int(known or 0)
        return min(ceiling, self._percentiles[tenant] or ceiling)

    def _refuse_what_never_fits(self, caller: Caller, tokens: int) -> None:
        for scope, limit in zip(SCOPES, self._limits_of(caller), strict=True):
            for most, unit in zip(rate_and_day(limit), ("minute", "day"), strict=True):
                if tokens > most:
                    raise TooLarge(f"{tokens} tokens are more than the {scope}'s {most} a {unit}")

    async def _run(
        self, script: AsyncScript, caller: Caller, reservation: str, arguments: Sequence[str | int]
    ) -> list[int]:
        now = "" if self._clock is None else str(round(self._clock() * MICRO))
        keys = keys_of(caller, reservation)
        line: bytes = await self._breaker.call(lambda: script(keys=keys, args=[now, *arguments]))
        reply = [int(number) for number in line.split()]
        self._share.redis_answered()
        if len(reply) > 1:
            self._offset = reply[1] - round(self._monotonic() * MICRO)
        return reply

    def _learn(self, caller: Caller, reply: Sequence[int]) -> Limits:
        """Keep what a reply tells (percentile, the day's remainder) and return it as `Limits`."""
        self._percentiles[caller.tenant] = reply[2]
        uses, now = uses_of(reply), self._monotonic()
        for holder, use in zip(self._holders(caller), uses, strict=True):
            self._share.saw_remainder(holder, max(0, holder.limit.tokens_per_day - use.today), now=now)
        return tightest(self._limits_of(caller), uses, reply[1])

    def _spending(self, caller: Caller, reply: Sequence[int]) -> tuple[Spending, ...]:
        names = (caller.tenant, caller.sub, caller.model)
        whole = zip(SCOPES, names, self._limits_of(caller), uses_of(reply), strict=True)
        return tuple(Spending(scope=scope, name=name, limit=limit, use=use) for scope, name, limit, use in whole)

    def _limits_of(self, caller: Caller) -> tuple[Limit, Limit, Limit]:
        return self._plan_of(caller.tenant).each(caller.roles)

    def _share_limits(self, holders: Sequence[Holder]) -> Limits:
        now = self._monotonic()
        shares = [holder.limit.share(self._settings.replicas) for holder in holders]
        return tightest(shares, [self._share.use(holder, now=now) for holder in holders], round(now * MICRO))

    def _holders(self, caller: Caller) -> tuple[Holder, ...]:
        whole = zip(SCOPES, scope_keys(caller), self._limits_of(caller), strict=True)
        return tuple(Holder(scope=scope, key=key, limit=limit) for scope, key, limit in whole)

    async def _days(self, tenant: str) -> list[str | int]:
        """Return today and tomorrow with their ends, on Redis's time: this process's clock may be days off."""
        zone = self._plan_of(tenant).zone
        today = day_at(await self._now(), zone)
        tomorrow = day_at(today.ends, zone)
        return [today.name, today.ends, tomorrow.name, tomorrow.ends]

    async def _now(self) -> int:
        if self._clock is not None:
            return round(self._clock() * MICRO)
        monotonic = round(self._monotonic() * MICRO)
        if self._offset is None:
            seconds, micros = await self._breaker.call(self._redis.time)
            self._offset = seconds * MICRO + micros - monotonic
        return self._offset + monotonic


def load(redis: Redis | RedisCluster, name: str) -> AsyncScript:
    """Return a script of `chatbot/lua`, behind the functions that all of them share."""
    folder = files("chatbot.limits") / "lua"
    texts = [(folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("window", name)]
    return redis.register_script("\n".join(texts))


def uses_of(reply: Sequence[int]) -> list[Use]:
    """Return the scopes' state as `lua/window.lua` tells it."""
    return [Use(*reply[at : at + NUMBERS_A_SCOPE]) for at in range(3, len(reply), NUMBERS_A_SCOPE)]


def all_of(limit: Limit) -> tuple[int, int, int, int]:
    return limit.tokens_per_minute, limit.requests_per_minute, limit.concurrent, limit.tokens_per_day


def rate_and_day(limit: Limit) -> tuple[int, int]:
    return limit.tokens_per_minute, limit.tokens_per_day


def keep_seconds(lease_seconds: float) -> int:
    return math.ceil(lease_seconds) + KEEP_UNSETTLED


@lru_cache(maxsize=4096)
def tenant_key(tenant: str) -> str:
    """Return the prefix of a tenant's keys; quoted, so that no name can leave its braces or imitate another's."""
    return f"ledger:{{{quote(tenant, safe='')}}}"


def percentile_key(tenant: str) -> str:
    return f"{tenant_key(tenant)}:answers:p95"


@lru_cache(maxsize=4096)
def scope_keys(caller: Caller) -> tuple[str, str, str]:
    """Return what the keys of the caller's three scopes begin with."""
    tenant, sub, model = tenant_key(caller.tenant), quote(caller.sub, safe=""), quote(caller.model, safe="")
    return f"{tenant}:all", f"{tenant}:user:{sub}", f"{tenant}:model:{model}"


@lru_cache(maxsize=4096)
def scoped_keys(caller: Caller) -> tuple[str, ...]:
    """Return the caller's part of KEYS."""
    return tuple(f"{key}:{part}" for key in scope_keys(caller) for part in ("window", "days", "leases"))


def keys_of(caller: Caller, reservation: str) -> list[str]:
    """Return KEYS as `lua/window.lua` numbers them."""
    tenant = tenant_key(caller.tenant)
    percentile = percentile_key(caller.tenant)
    return [*scoped_keys(caller), f"{tenant}:reservation:{reservation}", f"{tenant}:answers", percentile]
