"""The token ledger: sliding-window limits of a tenant, a user and a tenant's use of a model (docs/decisions/0022).

Reserve, extend and settle are one script each on Redis's own time, under keys that all carry `{tenant}`. While Redis
is away a replica admits on its quota (`chatbot.limits.outage_quota`) for a minute, then nothing.
"""

import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import anyio
import msgspec
import structlog
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from chatbot.deferred import DeferredWrite, DeferredWrites
from chatbot.errors import ChatError, RateLimited, StoreUnavailable, TooLarge
from chatbot.events import Limits, Usage
from chatbot.limits.attempts import Attempts
from chatbot.limits.limits import (
    MICRO,
    SCOPES,
    Day,
    Dimension,
    LedgerSettings,
    Limit,
    Scope,
    Use,
    day_at,
    tightest,
)
from chatbot.limits.outage_quota import ChargedScope, OutageQuota
from chatbot.redis_client import RedisBreaker
from knowledge.identity import Principal

log = structlog.get_logger(__name__)

KEEP_UNSETTLED_SECONDS = 3600
"""How long a reservation outlives its lease, so that a successor can still settle it, and how long it is known that it
is settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A user and the model that it asks; the roles choose the user's limits."""

    tenant: str
    sub: str
    model: str
    roles: frozenset[str] = frozenset()

    @classmethod
    def of(cls, who: Principal, model: str) -> "Caller":
        return cls(tenant=who.tenant, sub=who.sub, model=model, roles=who.roles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Tokens reserved for one answer, which its writer extends and settles. A turn's checkpoint stores it."""

    id: str
    caller: Caller
    prompt_tokens: int
    answer_tokens: int
    lease_seconds: float
    limits: Limits
    local: bool = False
    """Whether it was admitted on the outage quota: Redis may have no record of it before it is settled."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.answer_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """A scope's limit and use; `name` is the tenant's, the user's or the model's."""

    scope: Scope
    name: str
    limit: Limit
    use: Use


class Uses(msgspec.Struct, frozen=True):
    """The use of each of a caller's scopes."""

    tenant: Use
    user: Use
    model: Use

    @property
    def in_order(self) -> tuple[Use, Use, Use]:
        """In the order of `SCOPES`."""
        return self.tenant, self.user, self.model


class Refusal(msgspec.Struct, frozen=True):
    """The scope and dimension that stay full for longest, and for how many microseconds; 0 where nobody knows."""

    scope: Scope
    dimension: Dimension
    wait: int


class LedgerReply(msgspec.Struct, frozen=True):
    """The reply of every script (`report` in `lua/window.lua`): Redis's time in microseconds and the caller's state."""

    now: int
    percentile: int
    uses: Uses
    forgotten: bool
    """Whether Redis had forgotten the reservation, and charged it again."""
    refusal: Refusal | None = None


class Ledger:
    """Sliding windows, slots and a day's budget over three scopes at once; never over-admits, settles once."""

    def __init__(  # noqa: PLR0913  two clocks and a hook for tests and metrics
        self,
        redis: Redis,
        breaker: RedisBreaker,
        settings: LedgerSettings,
        *,
        deferred: DeferredWrites,
        on_forgotten: Callable[[], None] = lambda: None,
        clock: Callable[[], float] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deferred` releases reservations that were refused here and that Redis may execute all the same.

        `on_forgotten` is called for a reservation that Redis had forgotten and that was charged again.

        `clock` replaces Redis's time in tests; both clocks are in seconds.
        """
        self._redis = redis
        self._breaker = breaker
        self._settings = settings
        self._deferred = deferred
        self._on_forgotten = on_forgotten
        self._clock = clock
        self._monotonic = monotonic
        self._outage_quota = OutageQuota(replicas=settings.replicas, seconds=settings.share_seconds)
        self._attempts = Attempts(clock=monotonic)
        self._percentiles: dict[str, int] = {}
        # Redis's time less this process's monotonic time, in microseconds; unknown before the first reply.
        self._clock_offset: int | None = None
        self._reserve = load_script(redis, "reserve")
        self._extend = load_script(redis, "extend")
        self._settle = load_script(redis, "settle")
        self._limits = load_script(redis, "limits")
        self._reset = load_script(redis, "reset")

    def count_request(self, caller: Caller) -> None:
        """Count a request in this process before any work is done for it; `reserve` counts it for all replicas.

        Raises:
            RateLimited: the user sends far more than their limit.
        """
        _, user, _ = scope_keys(caller)
        _, limit, _ = self._limits_of(caller)
        self._attempts.count(user, requests_per_minute=limit.requests_per_minute)

    async def reserve(
        self, caller: Caller, *, prompt_tokens: int, answer_tokens: int, lease_seconds: float
    ) -> Reservation:
        """Reserve tokens, a request and a slot in all scopes, or write nothing.

        Raises:
            RateLimited: names the scope and dimension that stay full for longest, and for how long.
            TooLarge: more than a limit will ever allow.
            StoreUnavailable: Redis is away, for longer than the outage quota lasts or with a quota that is too small.
        """
        tokens = prompt_tokens + answer_tokens
        self._refuse_what_never_fits(caller, tokens)
        reservation_id, scopes = uuid.uuid4().hex, self._scopes(caller)
        reservation = partial(
            Reservation,
            id=reservation_id,
            caller=caller,
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            lease_seconds=lease_seconds,
        )
        # Shielded: after a cancellation it is unknown whether Redis executed the command.
        with anyio.CancelScope(shield=True):
            try:
                return reservation(limits=await self._reserve_in_redis(caller, reservation_id, tokens, lease_seconds))
            except StoreUnavailable as exc:
                may_be_executed = exc.may_be_executed
        try:
            return reservation(limits=self._take_quota(scopes, reservation_id, tokens), local=True)
        except ChatError:
            if may_be_executed:
                refused = reservation(limits=self._quota_limits(scopes), local=True)
                self._deferred.defer(DeferredWrite("settlement", partial(self.settle, refused, Usage())))
            raise

    async def _reserve_in_redis(self, caller: Caller, reservation_id: str, tokens: int, lease_seconds: float) -> Limits:
        args = {
            "id": reservation_id,
            "tokens": tokens,
            "lease": round(lease_seconds * MICRO),
            "keep_seconds": keep_seconds(lease_seconds),
            "days": await self._days(caller.tenant),
            "limits": self._limits_by_scope(caller),
        }
        reply = await self._run(self._reserve, caller, reservation_id, args)
        if (refusal := reply.refusal) is not None:
            raise RateLimited(
                scope=refusal.scope,
                dimension=refusal.dimension,
                # When a running answer ends is unknown.
                retry_after=None if refusal.dimension == "concurrent" else refusal.wait / MICRO,
                limits=self._limits_left(caller, reply),
            )
        self._outage_quota.record(self._scopes(caller), reservation_id, tokens, now=self._monotonic())
        return self._limits_after_charge(caller, reply)

    def _take_quota(self, scopes: Sequence[ChargedScope], reservation_id: str, tokens: int) -> Limits:
        try:
            self._outage_quota.take(scopes, reservation_id, tokens, now=self._monotonic())
        except RateLimited as exc:
            exc.limits = self._quota_limits(scopes)
            raise
        return self._quota_limits(scopes)

    async def extend(self, reservation: Reservation, *, more_tokens: int) -> Reservation | None:
        """Return the reservation with `more_tokens` for the answer; None where the limits refuse them."""
        try:
            if reservation.local:
                limits = self._extend_quota(reservation, more_tokens)
            else:
                limits = await self._extend_in_redis(reservation, more_tokens)
        except StoreUnavailable:
            limits = self._extend_quota(reservation, more_tokens)
        if limits is None:
            return None
        return replace(reservation, answer_tokens=reservation.answer_tokens + more_tokens, limits=limits)

    async def _extend_in_redis(self, reservation: Reservation, more_tokens: int) -> Limits | None:
        caller, lease_seconds = reservation.caller, reservation.lease_seconds
        args = {
            "id": reservation.id,
            "total": reservation.tokens + more_tokens,
            "lease": round(lease_seconds * MICRO),
            "keep_seconds": keep_seconds(lease_seconds),
            "days": await self._days(caller.tenant),
            "limits": self._limits_by_scope(caller),
        }
        reply = await self._run_on(self._extend, reservation, args)
        if reply is None:
            return None
        self._outage_quota.record(self._scopes(caller), reservation.id, more_tokens, now=self._monotonic())
        return self._limits_after_charge(caller, reply)

    def _extend_quota(self, reservation: Reservation, more_tokens: int) -> Limits | None:
        try:
            return self._take_quota(self._scopes(reservation.caller), reservation.id, more_tokens)
        except (StoreUnavailable, RateLimited):
            return None

    async def settle(self, reservation: Reservation, usage: Usage) -> Limits | None:
        """Charge what was used instead of what was reserved, once; None when it was settled before.

        A reservation that Redis does not know (it was away, or has forgotten it in a failover) is charged now, and is
        refused should Redis execute it after all.

        Raises:
            StoreUnavailable: Redis is away; the unsettled reservation stays charged and keeps its slot until its lease
                ends (`lease_seconds` of `reserve`).
        """
        caller = reservation.caller
        charge = self._settings.of(caller.tenant).charge(usage)
        self._outage_quota.settle(self._scopes(caller), reservation.id, charge, now=self._monotonic())
        args = {
            "id": reservation.id,
            "charge": charge,
            "answer_tokens": usage.generated_tokens,
            "remember": self._settings.answers_remembered,
            "needed": self._settings.answers_needed,
            "keep_seconds": KEEP_UNSETTLED_SECONDS,
            "days": await self._days(caller.tenant),
        }
        reply = await self._run_on(self._settle, reservation, args)
        return None if reply is None else self._limits_after_charge(caller, reply)

    async def limits(self, caller: Caller) -> Limits:
        """Return what the caller has left, by the tightest scope of each dimension.

        Raises:
            StoreUnavailable: Redis is away.
        """
        args = {"days": await self._days(caller.tenant)}
        return self._limits_left(caller, await self._run(self._limits, caller, "", args))

    async def spending(self, caller: Caller) -> tuple[Spending, ...]:
        """Return the limit and use of each of the caller's scopes.

        Raises:
            StoreUnavailable: Redis is away.
        """
        args = {"days": await self._days(caller.tenant)}
        return self._spending(caller, await self._run(self._limits, caller, "", args))

    async def reset(self, caller: Caller, scope: Scope) -> tuple[Spending, ...]:
        """Forgive the spending of one of the caller's scopes in its minute and days; running answers keep their slots.

        Raises:
            StoreUnavailable: Redis is away, and it is not known whether anything was forgiven.
        """
        args = {"scope": scope, "days": await self._days(caller.tenant)}
        return self._spending(caller, await self._run(self._reset, caller, "", args))

    async def expected_answer_tokens(self, tenant: str, ceiling: int) -> int:
        """Return min(`ceiling`, the tenant's 95th percentile); asks Redis only before the tenant's first reply."""
        if tenant not in self._percentiles:
            key = percentile_key(tenant)
            try:
                percentile = await self._breaker.call(lambda: self._redis.get(key))
            except StoreUnavailable:
                return ceiling
            self._percentiles[tenant] = int(percentile or 0)
        return min(ceiling, self._percentiles[tenant] or ceiling)

    def _refuse_what_never_fits(self, caller: Caller, tokens: int) -> None:
        for scope, limit in zip(SCOPES, self._limits_of(caller), strict=True):
            for most, unit in ((limit.tokens_per_minute, "minute"), (limit.tokens_per_day, "day")):
                if tokens > most:
                    raise TooLarge(f"{tokens} tokens are more than the {scope}'s {most} a {unit}")

    async def _run(
        self, script: AsyncScript, caller: Caller, reservation_id: str, args: Mapping[str, object]
    ) -> LedgerReply:
        return self._decoded(await self._evaluated(script, caller, reservation_id, args))

    async def _run_on(
        self, script: AsyncScript, reservation: Reservation, args: Mapping[str, object]
    ) -> LedgerReply | None:
        """Run a script that replies nothing where there is no such reservation, or it is not extended."""
        encoded = await self._evaluated(script, reservation.caller, reservation.id, args)
        if encoded is None:
            return None
        reply = self._decoded(encoded)
        if reply.forgotten and not reservation.local:
            log.warning("reservation_lost", reservation=reservation.id)
            self._on_forgotten()
        return reply

    async def _evaluated(
        self, script: AsyncScript, caller: Caller, reservation_id: str, args: Mapping[str, object]
    ) -> Any:
        if self._clock is not None:
            args = {"now": round(self._clock() * MICRO), **args}
        keys, encoded = keys_of(caller, reservation_id), msgspec.msgpack.encode(args)
        return await self._breaker.call(lambda: script(keys=keys, args=[encoded]))

    def _decoded(self, encoded: bytes) -> LedgerReply:
        reply = msgspec.msgpack.decode(encoded, type=LedgerReply)
        self._clock_offset = reply.now - round(self._monotonic() * MICRO)
        return reply

    def _limits_left(self, caller: Caller, reply: LedgerReply) -> Limits:
        return tightest(self._limits_of(caller), reply.uses.in_order, reply.now)

    def _limits_after_charge(self, caller: Caller, reply: LedgerReply) -> Limits:
        """Return a reply as `Limits`; the percentile and the days' remainders are kept.

        Redis has taken a write: where it only reads (its disk is full, its replica gone) the outage continues.
        """
        self._outage_quota.end_outage()
        self._percentiles[caller.tenant] = reply.percentile
        uses, now = reply.uses.in_order, self._monotonic()
        for scope, use in zip(self._scopes(caller), uses, strict=True):
            self._outage_quota.note_remainder(scope, max(0, scope.limit.tokens_per_day - use.today), now=now)
        return self._limits_left(caller, reply)

    def _spending(self, caller: Caller, reply: LedgerReply) -> tuple[Spending, ...]:
        names = (caller.tenant, caller.sub, caller.model)
        rows = zip(SCOPES, names, self._limits_of(caller), reply.uses.in_order, strict=True)
        return tuple(Spending(scope=scope, name=name, limit=limit, use=use) for scope, name, limit, use in rows)

    def _limits_of(self, caller: Caller) -> tuple[Limit, Limit, Limit]:
        return self._settings.of(caller.tenant).limits_of(caller.roles)

    def _limits_by_scope(self, caller: Caller) -> dict[Scope, dict[str, int]]:
        # `vars`: pydantic's own ways to a dictionary take longer than all the rest of the arguments.
        return {scope: vars(limit) for scope, limit in zip(SCOPES, self._limits_of(caller), strict=True)}

    def _quota_limits(self, scopes: Sequence[ChargedScope]) -> Limits:
        now = self._monotonic()
        shares = [scope.limit.share(self._settings.replicas) for scope in scopes]
        return tightest(shares, [self._outage_quota.use(scope, now=now) for scope in scopes], round(now * MICRO))

    def _scopes(self, caller: Caller) -> tuple[ChargedScope, ...]:
        rows = zip(SCOPES, scope_keys(caller), self._limits_of(caller), strict=True)
        return tuple(ChargedScope(scope=scope, key=key, limit=limit) for scope, key, limit in rows)

    async def _days(self, tenant: str) -> dict[str, Day]:
        """Return today and tomorrow with their ends, on Redis's time: this process's clock may be days off."""
        zone = self._settings.of(tenant).zone
        today = day_at(await self._now(), zone)
        tomorrow = day_at(today.ends, zone)
        return {"today": today, "tomorrow": tomorrow}

    async def _now(self) -> int:
        """Return Redis's time in microseconds, or the test's."""
        if self._clock is not None:
            return round(self._clock() * MICRO)
        monotonic = round(self._monotonic() * MICRO)
        if self._clock_offset is None:
            seconds, micros = await self._breaker.call(self._redis.time)
            self._clock_offset = seconds * MICRO + micros - monotonic
        return self._clock_offset + monotonic


def load_script(redis: Redis, name: str) -> AsyncScript:
    """Return a script of `chatbot/limits/lua`, behind the functions that all of them share."""
    folder = files("chatbot.limits") / "lua"
    texts = [(folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("window", name)]
    return redis.register_script("\n".join(texts))


def keep_seconds(lease_seconds: float) -> int:
    return math.ceil(lease_seconds) + KEEP_UNSETTLED_SECONDS


@lru_cache(maxsize=4096)
def tenant_key(tenant: str) -> str:
    """Return the prefix of a tenant's keys; quoted, so that no name can leave its braces or imitate another's."""
    return f"ledger:{{{quote(tenant, safe='')}}}"


def percentile_key(tenant: str) -> str:
    return f"{tenant_key(tenant)}:answers:p95"


@lru_cache(maxsize=4096)
def scope_keys(caller: Caller) -> tuple[str, str, str]:
    """Return the prefixes of the keys of the caller's three scopes."""
    tenant, sub, model = tenant_key(caller.tenant), quote(caller.sub, safe=""), quote(caller.model, safe="")
    return f"{tenant}:all", f"{tenant}:user:{sub}", f"{tenant}:model:{model}"


@lru_cache(maxsize=4096)
def scoped_keys(caller: Caller) -> tuple[str, ...]:
    """Return the keys of the caller's three scopes."""
    return tuple(f"{key}:{part}" for key in scope_keys(caller) for part in ("window", "days", "leases"))


def keys_of(caller: Caller, reservation_id: str) -> list[str]:
    """Return KEYS in the order of `lua/window.lua`."""
    tenant = tenant_key(caller.tenant)
    reservation, settled = (f"{tenant}:{kind}:{reservation_id}" for kind in ("reservation", "settled"))
    return [*scoped_keys(caller), reservation, f"{tenant}:answers", percentile_key(caller.tenant), settled]
