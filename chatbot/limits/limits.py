"""Limits as values: what a scope may spend, when a tenant's day ends, and what is left of it all (pure)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, field_validator

from chatbot.events import Limits, Usage
from knowledge.identity import Role

MICRO = 1_000_000
BUCKET_SPAN = 61
"""Seconds that a one-second bucket counts: what was spent at its very end is 60 s old only then."""

Scope = Literal["tenant", "user", "model"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
DIMENSIONS = ("tokens_per_minute", "requests_per_minute", "concurrent", "tokens_per_day")


Amount = Annotated[int, Field(ge=1, le=10**12)]
"""What Lua's numbers carry exactly, with room for what is used beyond a limit."""


class Limit(BaseModel, frozen=True, extra="forbid"):
    """What one scope may spend."""

    tokens_per_minute: Amount
    requests_per_minute: Amount
    concurrent: Amount
    tokens_per_day: Amount

    def share(self, replicas: int) -> "Limit":
        """Return one replica's part of the rates and slots, at least one of each."""
        return Limit(
            tokens_per_minute=max(1, self.tokens_per_minute // replicas),
            requests_per_minute=max(1, self.requests_per_minute // replicas),
            concurrent=max(1, self.concurrent // replicas),
            tokens_per_day=max(1, self.tokens_per_day // replicas),
        )


def most_generous(limits: Sequence[Limit]) -> Limit:
    """Return the largest of each dimension."""
    return Limit(
        tokens_per_minute=max(limit.tokens_per_minute for limit in limits),
        requests_per_minute=max(limit.requests_per_minute for limit in limits),
        concurrent=max(limit.concurrent for limit in limits),
        tokens_per_day=max(limit.tokens_per_day for limit in limits),
    )


USER = Limit(tokens_per_minute=60_000, requests_per_minute=20, concurrent=4, tokens_per_day=1_000_000)
TENANT = Limit(tokens_per_minute=2_000_000, requests_per_minute=3_000, concurrent=256, tokens_per_day=500_000_000)


class LimitSettings(BaseModel, frozen=True, extra="forbid"):
    """A tenant's plan: its limits, the zone whose midnight ends its day, and what a cached prompt token costs."""

    tenant: Limit = TENANT
    user: Limit = USER
    roles: dict[Role, Limit] = {}
    """In place of `user` for users of these roles; of several, the largest of each dimension."""
    model: Limit = TENANT
    zone: str = "Asia/Seoul"
    cached_weight: Annotated[float, Field(ge=0, le=1)] = 1.0

    @field_validator("zone")
    @classmethod
    def _zone_exists(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError) as exc:
            raise ValueError(f"{zone!r} is no time zone of this machine; set one such as Asia/Seoul") from exc
        return zone

    def each(self, roles: Iterable[str] = ()) -> tuple[Limit, Limit, Limit]:
        """Return the limits of a user with these roles, in the order of `SCOPES`."""
        mine = [limit for role, limit in self.roles.items() if role in roles]
        return self.tenant, most_generous(mine) if mine else self.user, self.model

    def charge(self, usage: Usage) -> int:
        """Return the tokens that an answer costs: its prompt, the cached part of it at its weight, and what it said."""
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        return usage.prompt_tokens - cached + round(cached * self.cached_weight) + usage.answer_tokens


@dataclass(frozen=True, slots=True)
class Use:
    """What is spent of one scope: tokens and requests of the minute with the second of the newest, slots, the day."""

    tokens: int
    newest_tokens: int
    requests: int
    newest_request: int
    slots: int
    today: int


@dataclass(frozen=True, slots=True)
class Day:
    """A calendar day of a zone: its name, and when it ends in Unix microseconds."""

    name: str
    ends: int


def day_at(micros: int, zone: str) -> Day:
    """Return the day of `zone` that the instant lies in."""
    where = ZoneInfo(zone)
    date = datetime.fromtimestamp(micros // MICRO, UTC).astimezone(where).date()
    midnight = datetime.combine(date + timedelta(days=1), time_of_day.min, tzinfo=where)
    return Day(name=f"{date:%Y%m%d}", ends=round(midnight.timestamp()) * MICRO)


def tightest(limits: Sequence[Limit], uses: Sequence[Use], micros: int) -> Limits:
    """Return what is left by the tightest scope of each dimension; `reset` is when a window is all there again."""
    pairs = list(zip(limits, uses, strict=True))
    tokens = min(pairs, key=lambda pair: pair[0].tokens_per_minute - pair[1].tokens)
    requests = min(pairs, key=lambda pair: pair[0].requests_per_minute - pair[1].requests)
    return Limits(
        limit_tokens=tokens[0].tokens_per_minute,
        remaining_tokens=max(0, tokens[0].tokens_per_minute - tokens[1].tokens),
        reset_tokens=seconds_until_gone(tokens[1].newest_tokens, micros),
        limit_requests=requests[0].requests_per_minute,
        remaining_requests=max(0, requests[0].requests_per_minute - requests[1].requests),
        reset_requests=seconds_until_gone(requests[1].newest_request, micros),
        remaining_slots=max(0, min(limit.concurrent - use.slots for limit, use in pairs)),
        remaining_today=max(0, min(limit.tokens_per_day - use.today for limit, use in pairs)),
    )


def seconds_until_gone(newest: int, micros: int) -> float:
    """Return how long until the bucket of second `newest` (0: there is none) has left the window."""
    return max(0, (newest + BUCKET_SPAN) * MICRO - micros) / MICRO if newest else 0.0


class LedgerSettings(BaseModel, frozen=True):
    """Limits by tenant (`limits` for those without their own), and how a replica behaves while Redis is away."""

    limits: LimitSettings = LimitSettings()
    tenants: dict[str, LimitSettings] = {}
    replicas: PositiveInt = 1
    share_seconds: PositiveFloat = 60.0
    plans_file: Path | None = None
    """Plans that may change while the process runs (`chatbot.limits.plans`), in place of `limits` and `tenants`."""
    plans_every: PositiveFloat = 1.0
    """Seconds between two looks at it."""
    answers_remembered: PositiveInt = 128
    answers_needed: PositiveInt = 20

    def of(self, tenant: str) -> LimitSettings:
        return self.tenants.get(tenant, self.limits)
