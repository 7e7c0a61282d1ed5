"""The token ledger: sliding-window limits of a tenant, a user and a tenant's use of a model (docs/decisions/0022).

Reserve, extend and settle are one script each, which uses Redis's time; all keys contain `{tenant}`. While Redis is
unavailable, a replica admits on its own quota (`chatbot.limits.outage_quota`) for a minute; then it rejects everything.
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
from chatbot.limits.limits import MICRO, SCOPES, Day, Dimension, LedgerSettings, Limit, Scope, Use, day_at, tightest
from chatbot.limits.outage_quota import ChargedScope, OutageQuota
from chatbot.redis_client import RedisBreaker
from knowledge.identity import Principal

log = structlog.get_logger(__name__)

KEEP_UNSETTLED_SECONDS = 3600
"""How long Redis keeps a reservation after its lease, so that a successor can settle it, and how long it keeps the mark
of a settled reservation, so that it is settled once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A user and the requested model; the roles decide the user's limits."""

    tenant: str
    sub: str
    model: str
    roles: frozenset[str] = frozenset()

    @classmethod
    def of(cls, who: Principal, model: str) -> "Caller":
        return cls(tenant=who.tenant, sub=who.sub, model=model, roles=who.roles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Tokens reserved for one answer, whose writer extends and settles them. A turn's checkpoint stores it."""

    id: str
    caller: Caller
    prompt_tokens: int
    answer_tokens: int
    lease_seconds: float
    limits: Limits
    local: bool = False
    """Whether the outage quota admitted it, so that Redis may have no record of it."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.answer_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """A scope's limit and use; `name` names the tenant, the user or the model."""

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
        """The uses in the order of `SCOPES`."""
        return self.tenant, self.user, self.model


class Refusal(msgspec.Struct, frozen=True):
    """The scope and dimension that stay full for the longest time."""

    scope: Scope
    dimension: Dimension
    wait: int
    """Microseconds until the reservation fits; 0 if that is unknown."""


class LedgerReply(msgspec.Struct, frozen=True):
    """The reply of every script (`report` in `lua/window.lua`)."""

    now: int
    """Redis's time in Unix microseconds."""
    percentile: int
    """The 95th percentile of the tokens of the tenant's answers; 0 before there are enough answers."""
    uses: Uses
    was_lost: bool
    """Whether Redis had lost the reservation, and has charged it again."""
    refusal: Refusal | None = None


class Ledger:
    """Enforces the limits of three scopes at once: sliding windows, slots and a day's tokens; settles once.

    `limits`, `spending` and `reset` raise `StoreUnavailable` while Redis is unavailable.
    """

    def __init__(  # noqa: PLR0913  two clocks and a hook for tests and metrics
        self,
        redis: Redis,
        breaker: RedisBreaker,
        settings: LedgerSettings,
        *,
        deferred: DeferredWrites,
        on_lost: Callable[[], None] = lambda: None,
        clock: Callable[[], float] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deferred` releases reservations that this process has rejected although Redis may still execute them.

        `on_lost` is called for a reservation that Redis had lost and that was charged again.
        `clock` replaces Redis's time in tests; both clocks are in seconds.
        """
        self._redis = redis
        self._breaker = breaker
        self._settings = settings
        self._deferred = deferred
        self._on_lost = on_lost
        self._clock = clock
        self._monotonic = monotonic
        self._outage_quota = OutageQuota(replicas=settings.replicas, seconds=settings.share_seconds)
        self._attempts = Attempts(clock=monotonic)
        self._percentiles: dict[str, int] = {}
        # Redis's time minus this process's monotonic time, in microseconds; None before the first reply.
        self._clock_offset: int | None = None
        self._reserve = load_script(redis, "reserve")
        self._extend = load_script(redis, "extend")
        self._settle = load_script(redis, "settle")
        self._limits = load_script(redis, "limits")
        self._reset = load_script(redis, "reset")

    def count_request(self, caller: Caller) -> None:
        """Count a request in this process before any other work is done for it; `reserve` counts it for all replicas.

        Raises:
            RateLimited: the user sends far more requests than the limit.
        """
        _, user, _ = scope_prefixes(caller)
        _, limit, _ = self._limits_of(caller)
        self._attempts.count(user, requests_per_minute=limit.requests_per_minute)

    async def reserve(
        self, caller: Caller, *, prompt_tokens: int, answer_tokens: int, lease_seconds: float
    ) -> Reservation:
        """Reserve tokens, a request and a slot in all scopes, or write nothing.

        Raises:
            RateLimited: a limit is reached; the error names the scope and dimension that stay full for longest.
            TooLarge: the tokens exceed a limit even without other use.
            StoreUnavailable: Redis is unavailable, and the outage quota has ended or is too small.
        """
        tokens = prompt_tokens + answer_tokens
        self._check_fits_limits(caller, tokens)
        reservation_id = uuid.uuid4().hex
        scopes = self._scopes(caller)
        reservation_with = partial(
            Reservation,
            id=reservation_id,
            caller=caller,
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            lease_seconds=lease_seconds,
        )
        # Shielded: after a cancellation it would be unknown whether Redis executed the command.
        with anyio.CancelScope(shield=True):
            try:
                limits = await self._reserve_in_redis(caller, reservation_id, tokens, lease_seconds)
                return reservation_with(limits=limits)
            except StoreUnavailable as exc:
                may_be_executed = exc.may_be_executed
        try:
            return reservation_with(limits=self._admit_on_quota(scopes, reservation_id, tokens), local=True)
        except ChatError:
            if may_be_executed:  # then Redis may hold the reservation, and must release it
                rejected = reservation_with(limits=self._quota_limits(scopes), local=True)
                self._deferred.defer(DeferredWrite("settlement", partial(self.settle, rejected, Usage())))
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
        refusal = reply.refusal
        if refusal is not None:
            raise RateLimited(
                scope=refusal.scope,
                dimension=refusal.dimension,
                # It is unknown when a running answer ends.
                retry_after=None if refusal.dimension == "concurrent" else refusal.wait / MICRO,
                limits=self._limits_left(caller, reply),
            )
        self._outage_quota.record(self._scopes(caller), reservation_id, tokens, now=self._monotonic())
        return self._limits_after_charge(caller, reply)

    def _admit_on_quota(self, scopes: Sequence[ChargedScope], reservation_id: str, tokens: int) -> Limits:
        try:
            self._outage_quota.admit(scopes, reservation_id, tokens, now=self._monotonic())
        except RateLimited as exc:
            exc.limits = self._quota_limits(scopes)
            raise
        return self._quota_limits(scopes)

    async def extend(self, reservation: Reservation, *, more_tokens: int) -> Reservation | None:
        """Reserve `more_tokens` for the answer; return it extended, or None if a limit or an outage forbids it."""
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
        caller = reservation.caller
        args = {
            "id": reservation.id,
            "total": reservation.tokens + more_tokens,
            "lease": round(reservation.lease_seconds * MICRO),
            "keep_seconds": keep_seconds(reservation.lease_seconds),
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
            return self._admit_on_quota(self._scopes(reservation.caller), reservation.id, more_tokens)
        except (StoreUnavailable, RateLimited):
            return None

    async def settle(self, reservation: Reservation, usage: Usage) -> Limits | None:
        """Charge the used tokens in place of the reserved ones, once; return None if it was settled before.

        Redis may lack the reservation, because it was unavailable or has lost it in a failover. Then the used tokens
        are charged now, and a `reserve` command that Redis executes later is rejected.

        Raises:
            StoreUnavailable: Redis is unavailable; the unsettled reservation stays charged and keeps its slot until its
                lease ends (`lease_seconds` of `reserve`).
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
        """Return the caller's remaining limits; in each dimension, the scope with the least left counts."""
        args = {"days": await self._days(caller.tenant)}
        return self._limits_left(caller, await self._run(self._limits, caller, "", args))

    async def spending(self, caller: Caller) -> tuple[Spending, ...]:
        """Return the limit and use of each of the caller's scopes."""
        args = {"days": await self._days(caller.tenant)}
        return self._spending(caller, await self._run(self._limits, caller, "", args))

    async def reset(self, caller: Caller, scope: Scope) -> tuple[Spending, ...]:
        """Reset the minute's and the day's use of one of the caller's scopes to 0; running answers keep their slots."""
        args = {"scope": scope, "days": await self._days(caller.tenant)}
        return self._spending(caller, await self._run(self._reset, caller, "", args))

    async def expected_answer_tokens(self, tenant: str, ceiling: int) -> int:
        """Return the 95th percentile of the tokens of the tenant's answers, at most `ceiling`; `ceiling` if unknown.

        The scripts' replies update the percentile; it is read from Redis only before the tenant's first reply.
        """
        if tenant not in self._percentiles:
            key = percentile_key(tenant)
            try:
                percentile = await self._breaker.call(lambda: self._redis.get(key))
            except StoreUnavailable:
                return ceiling
            self._percentiles[tenant] = int(percentile or 0)
        return min(ceiling, self._percentiles[tenant] or ceiling)

    def _check_fits_limits(self, caller: Caller, tokens: int) -> None:
        """Raise `TooLarge` if the tokens exceed a limit even without other use."""
        for scope, limit in zip(SCOPES, self._limits_of(caller), strict=True):
            for most, unit in ((limit.tokens_per_minute, "minute"), (limit.tokens_per_day, "day")):
                if tokens > most:
                    raise TooLarge(f"{tokens} tokens are more than the {scope}'s {most} a {unit}")

    async def _run(
        self, script: AsyncScript, caller: Caller, reservation_id: str, args: Mapping[str, object]
    ) -> LedgerReply:
        return self._decode(await self._call(script, caller, reservation_id, args))

    async def _run_on(
        self, script: AsyncScript, reservation: Reservation, args: Mapping[str, object]
    ) -> LedgerReply | None:
        """Run a script on a reservation; return None if it was settled before, or a limit prevents its extension."""
        encoded = await self._call(script, reservation.caller, reservation.id, args)
        if encoded is None:
            return None
        reply = self._decode(encoded)
        if reply.was_lost and not reservation.local:
            log.warning("reservation_lost", reservation=reservation.id)
            self._on_lost()
        return reply

    async def _call(self, script: AsyncScript, caller: Caller, reservation_id: str, args: Mapping[str, object]) -> Any:
        """Run a script; return its encoded reply, or None if it replies nothing."""
        if self._clock is not None:
            args = {"now": round(self._clock() * MICRO), **args}
        keys = keys_of(caller, reservation_id)
        encoded = msgspec.msgpack.encode(args)
        return await self._breaker.call(lambda: script(keys=keys, args=[encoded]))

    def _decode(self, encoded: bytes) -> LedgerReply:
        """Decode a script's reply, and keep the offset of Redis's clock."""
        reply = msgspec.msgpack.decode(encoded, type=LedgerReply)
        self._clock_offset = reply.now - round(self._monotonic() * MICRO)
        return reply

    def _limits_left(self, caller: Caller, reply: LedgerReply) -> Limits:
        return tightest(self._limits_of(caller), reply.uses.in_order, reply.now)

    def _limits_after_charge(self, caller: Caller, reply: LedgerReply) -> Limits:
        """Return the remaining limits after a charge; keep the percentile and the days' remainders for an outage.

        A charge ends an outage, because Redis has accepted a write. A reply to a read does not end it: Redis may be
        unable to write (full disk, lost replica).
        """
        self._outage_quota.end_outage()
        self._percentiles[caller.tenant] = reply.percentile
        now = self._monotonic()
        for scope, use in zip(self._scopes(caller), reply.uses.in_order, strict=True):
            remainder = max(0, scope.limit.tokens_per_day - use.today)
            self._outage_quota.set_remainder(scope, remainder, now=now)
        return self._limits_left(caller, reply)

    def _spending(self, caller: Caller, reply: LedgerReply) -> tuple[Spending, ...]:
        names = (caller.tenant, caller.sub, caller.model)
        rows = zip(SCOPES, names, self._limits_of(caller), reply.uses.in_order, strict=True)
        return tuple(Spending(scope=scope, name=name, limit=limit, use=use) for scope, name, limit, use in rows)

    def _limits_of(self, caller: Caller) -> tuple[Limit, Limit, Limit]:
        return self._settings.of(caller.tenant).limits_of(caller.roles)

    def _limits_by_scope(self, caller: Caller) -> dict[Scope, dict[str, int]]:
        # `vars` is used because pydantic's own conversion takes longer than encoding all other arguments.
        return {scope: vars(limit) for scope, limit in zip(SCOPES, self._limits_of(caller), strict=True)}

    def _quota_limits(self, scopes: Sequence[ChargedScope]) -> Limits:
        """Return the remaining limits of this replica's outage quota."""
        now = self._monotonic()
        shares = [scope.limit.share(self._settings.replicas) for scope in scopes]
        uses = [self._outage_quota.use(scope, now=now) for scope in scopes]
        return tightest(shares, uses, round(now * MICRO))

    def _scopes(self, caller: Caller) -> tuple[ChargedScope, ...]:
        rows = zip(SCOPES, scope_prefixes(caller), self._limits_of(caller), strict=True)
        return tuple(ChargedScope(scope=scope, key=key, limit=limit) for scope, key, limit in rows)

    async def _days(self, tenant: str) -> dict[str, Day]:
        """Return today and tomorrow by Redis's clock, since this process's clock may be days off."""
        zone = self._settings.of(tenant).zone
        today = day_at(await self._now(), zone)
        tomorrow = day_at(today.ends, zone)
        return {"today": today, "tomorrow": tomorrow}

    async def _now(self) -> int:
        """Return Redis's time in Unix microseconds, or the test's time."""
        if self._clock is not None:
            return round(self._clock() * MICRO)
        monotonic = round(self._monotonic() * MICRO)
        if self._clock_offset is None:
            seconds, micros = await self._breaker.call(self._redis.time)
            self._clock_offset = seconds * MICRO + micros - monotonic
        return self._clock_offset + monotonic


def load_script(redis: Redis, name: str) -> AsyncScript:
    """Return a script of `chatbot/limits/lua`, with the functions of `window.lua` before it."""
    folder = files("chatbot.limits") / "lua"
    texts = [(folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("window", name)]
    return redis.register_script("\n".join(texts))


def keep_seconds(lease_seconds: float) -> int:
    """Return how long Redis keeps a reservation with this lease."""
    return math.ceil(lease_seconds) + KEEP_UNSETTLED_SECONDS


@lru_cache(maxsize=4096)
def tenant_key(tenant: str) -> str:
    """Return the prefix of a tenant's keys; the name is quoted, so that it cannot imitate another tenant's prefix."""
    return f"ledger:{{{quote(tenant, safe='')}}}"


def percentile_key(tenant: str) -> str:
    return f"{tenant_key(tenant)}:answers:p95"


@lru_cache(maxsize=4096)
def scope_prefixes(caller: Caller) -> tuple[str, str, str]:
    """Return the prefixes of the keys of the caller's three scopes, in the order of `SCOPES`."""
    tenant = tenant_key(caller.tenant)
    user = f"{tenant}:user:{quote(caller.sub, safe='')}"
    model = f"{tenant}:model:{quote(caller.model, safe='')}"
    return f"{tenant}:all", user, model


@lru_cache(maxsize=4096)
def scope_keys(caller: Caller) -> tuple[str, ...]:
    """Return the keys of the caller's three scopes."""
    return tuple(f"{prefix}:{part}" for prefix in scope_prefixes(caller) for part in ("window", "days", "leases"))


def keys_of(caller: Caller, reservation_id: str) -> list[str]:
    """Return KEYS in the order of `lua/window.lua`."""
    tenant = tenant_key(caller.tenant)
    reservation = f"{tenant}:reservation:{reservation_id}"
    settled = f"{tenant}:settled:{reservation_id}"
    return [*scope_keys(caller), reservation, f"{tenant}:answers", percentile_key(caller.tenant), settled]
