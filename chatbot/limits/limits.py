"""Limits as values: the limits and the use of a scope, a tenant's days, and the remaining limits (pure)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from typing import Annotated, ClassVar, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, Field, PositiveInt, field_validator

from chatbot.events import Limits, Usage
from knowledge.identity import Role

MICRO = 1_000_000
BUCKET_SPAN = 61
"""Seconds for which a one-second bucket counts, so that even a token spent at its end counts for 60 s."""

Scope = Literal["tenant", "user", "model"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
Dimension = Literal["tokens_per_minute", "requests_per_minute", "concurrent", "tokens_per_day"]
Amount = Annotated[int, Field(ge=1, le=10**12)]
"""The upper bound leaves room for use beyond a limit within the integers that Lua's numbers represent exactly."""


class Limit(BaseModel, frozen=True, extra="forbid"):
    """The limits of one scope."""

    tokens_per_minute: Amount = Field(description="tokens: At most this many tokens are spent in any 60 seconds.")
    requests_per_minute: Amount = Field(
        description="requests: At most this many requests are admitted in any 60 seconds."
    )
    concurrent: Amount = Field(description="answers: At most this many answers run at once.")
    tokens_per_day: Amount = Field(description="tokens: At most this many tokens are spent a day.")

    def share(self, replicas: int) -> "Limit":
        """Return one replica's share of each dimension, at least 1."""
        return Limit(**{dimension: max(1, most // replicas) for dimension, most in vars(self).items()})


def most_generous(limits: Sequence[Limit]) -> Limit:
    """Return the largest limit of each dimension."""
    return Limit(**{dimension: max(vars(limit)[dimension] for limit in limits) for dimension in Limit.model_fields})


USER = Limit(tokens_per_minute=60_000, requests_per_minute=20, concurrent=4, tokens_per_day=1_000_000)
TENANT = Limit(tokens_per_minute=2_000_000, requests_per_minute=3_000, concurrent=256, tokens_per_day=500_000_000)


class LimitSettings(BaseModel, frozen=True, extra="forbid"):
    """A tenant's limits, the time zone of its days, and the weight of a cached prompt token."""

    tenant: Limit = TENANT
    user: Limit = USER
    roles: dict[Role, Limit] = Field(
        default={},
        description=(
            "These limits replace the user's for users with these roles, as JSON. With several roles the largest limit"
            " of each kind applies."
        ),
    )
    model: Limit = TENANT
    zone: str = Field("Asia/Seoul", description="The day of the daily limit ends at midnight in this time zone.")
    cached_weight: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="ratio: A prompt token that the model had cached is charged as this part of a token."
    )

    @field_validator("zone")
    @classmethod
    def _zone_exists(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError) as exc:
            raise ValueError(f"{zone!r} is not a time zone of this machine: set one such as Asia/Seoul") from exc
        return zone

    def limits_of(self, roles: Iterable[str] = ()) -> tuple[Limit, Limit, Limit]:
        """Return the limits of a user with these roles, in the order of `SCOPES`."""
        role_limits = [limit for role, limit in self.roles.items() if role in roles]
        user = most_generous(role_limits) if role_limits else self.user
        return self.tenant, user, self.model

    def charge(self, usage: Usage) -> int:
        """Return the tokens to charge: prompt tokens, cached ones by their weight, and generated ones."""
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        uncached = usage.prompt_tokens - cached
        return uncached + round(cached * self.cached_weight) + usage.generated_tokens


@dataclass(frozen=True, slots=True)
class Use:
    """The use of one scope: tokens and requests in the last minute, running answers (`slots`), and tokens today.

    `newest_…` is the Unix second of the newest tokens or request in that minute; 0 if there are none.
    """

    tokens: int
    newest_tokens: int
    requests: int
    newest_request: int
    slots: int
    today: int


@dataclass(frozen=True, slots=True)
class Day:
    """A calendar day of a zone: its name (YYYYMMDD), and its end in Unix microseconds."""

    name: str
    ends: int


def day_at(micros: int, zone: str) -> Day:
    """Return the day of `zone` at a time in Unix microseconds."""
    timezone = ZoneInfo(zone)
    date = datetime.fromtimestamp(micros // MICRO, UTC).astimezone(timezone).date()
    midnight = datetime.combine(date + timedelta(days=1), time_of_day.min, tzinfo=timezone)
    return Day(name=f"{date:%Y%m%d}", ends=round(midnight.timestamp()) * MICRO)


def tightest(limits: Sequence[Limit], uses: Sequence[Use], now_micros: int) -> Limits:
    """Return the remaining limits of the tightest scope in each dimension; `reset_…` is in seconds."""
    pairs = list(zip(limits, uses, strict=True))
    token_limit, token_use = min(pairs, key=lambda pair: pair[0].tokens_per_minute - pair[1].tokens)
    request_limit, request_use = min(pairs, key=lambda pair: pair[0].requests_per_minute - pair[1].requests)
    return Limits(
        limit_tokens=token_limit.tokens_per_minute,
        remaining_tokens=max(0, token_limit.tokens_per_minute - token_use.tokens),
        reset_tokens=seconds_until_gone(token_use.newest_tokens, now_micros),
        limit_requests=request_limit.requests_per_minute,
        remaining_requests=max(0, request_limit.requests_per_minute - request_use.requests),
        reset_requests=seconds_until_gone(request_use.newest_request, now_micros),
        remaining_slots=max(0, min(limit.concurrent - use.slots for limit, use in pairs)),
        remaining_today=max(0, min(limit.tokens_per_day - use.today for limit, use in pairs)),
    )


def seconds_until_gone(newest: int, now_micros: int) -> float:
    """Return the seconds until the bucket of Unix second `newest` has left the window; 0 if `newest` is 0 (none)."""
    if newest == 0:
        return 0.0
    leaves_at = (newest + BUCKET_SPAN) * MICRO
    return max(0, leaves_at - now_micros) / MICRO


class LedgerSettings(BaseModel, frozen=True):
    """The limits of all tenants and of single ones, and a replica's quota while Redis is unavailable."""

    limits: LimitSettings = LimitSettings()
    tenants: dict[str, LimitSettings] = Field(
        default={}, description="These limits apply to single tenants, as JSON. An entry has the fields of `limits`."
    )
    replicas: PositiveInt = Field(
        1, description="replicas: The limits are divided by this number of replicas while Redis is unavailable."
    )
    share_seconds: ClassVar[float] = 60.0  # seconds: how long a replica admits on its share; then 503
    # answers: how many of a tenant's newest are remembered; the 95th percentile of their tokens is reserved
    answers_remembered: ClassVar[int] = 128
    # answers: the fewest with a percentile; with fewer answers, the requested maximum is reserved
    answers_needed: ClassVar[int] = 20

    def of(self, tenant: str) -> LimitSettings:
        """Return the tenant's limits."""
        return self.tenants.get(tenant, self.limits)
