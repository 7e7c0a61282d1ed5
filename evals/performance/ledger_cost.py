"""What a reservation costs, in plain GETs: in turn on one connection, several rounds, all buckets of its windows full.

A part of `make bench`; `python -m evals.performance.ledger_cost` runs it alone, on a Redis of its own.
"""

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from uuid import uuid4

import anyio
from redis.asyncio import Redis
from rich.console import Console

from chatbot.events import Usage
from chatbot.limits import Caller, Ledger, LedgerSettings, Limit, LimitSettings
from chatbot.redis_client import RedisBreaker, RedisSettings, open_redis
from evals.product import Wanted, redis

MOST_GETS = 6.0
PLENTY = Limit(tokens_per_minute=10**9, requests_per_minute=10**6, concurrent=10**6, tokens_per_day=10**12)
LIMITS = LedgerSettings(limits=LimitSettings(tenant=PLENTY, user=PLENTY, model=PLENTY))
PATIENT = RedisSettings().breaker.model_copy(update={"slow_after": 5.0})
"""A loaded machine must not open the breaker in the middle of a measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Medians of one round, in seconds."""

    get: float
    reserve: float

    @property
    def ratio(self) -> float:
        return self.reserve / self.get


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """All rounds."""

    rounds: tuple[Round, ...]

    @property
    def get(self) -> float:
        return median(one.get for one in self.rounds)

    @property
    def reserve(self) -> float:
        return median(one.reserve for one in self.rounds)

    @property
    def ratios(self) -> list[float]:
        return sorted(one.ratio for one in self.rounds)


async def ledger_cost(redis_url: str, *, rounds: int, calls: int) -> Cost:
    """Return what reserving costs beside a plain GET, each first every other time."""
    caller = Caller(tenant=f"bench-{uuid4().hex}", sub="bench", model="none")
    async with open_redis(redis_url, RedisSettings()) as client:
        await fill(client, caller)
        ledger = Ledger(client, RedisBreaker(PATIENT), LIMITS)
        await one_round(client, ledger, caller, calls=20)
        return Cost(rounds=tuple([await one_round(client, ledger, caller, calls=calls) for _ in range(rounds)]))


async def fill(client: Redis, caller: Caller) -> None:
    """Charge something in each second of the last minute."""
    seconds, _ = await client.time()
    for ago in range(60, 0, -1):
        ledger = Ledger(client, RedisBreaker(PATIENT), LIMITS, clock=partial(float, seconds - ago))
        reservation = await ledger.reserve(caller, prompt_tokens=1200, answer_tokens=200, lease_seconds=60)
        await ledger.settle(reservation, Usage(prompt_tokens=1200, answer_tokens=100))


async def one_round(client: Redis, ledger: Ledger, caller: Caller, *, calls: int) -> Round:
    """Time GETs and reservations in turn; settling is not timed."""
    gets: list[float] = []
    reserves: list[float] = []

    async def get() -> None:
        began = time.perf_counter()
        await client.get("bench")
        gets.append(time.perf_counter() - began)

    for n in range(calls):
        if n % 2:
            await get()
        began = time.perf_counter()
        reservation = await ledger.reserve(caller, prompt_tokens=1200, answer_tokens=200, lease_seconds=60)
        reserves.append(time.perf_counter() - began)
        if not n % 2:
            await get()
        await ledger.settle(reservation, Usage(prompt_tokens=1200, answer_tokens=100))
    return Round(get=median(gets), reserve=median(reserves))


def main(environment: Mapping[str, str]) -> int:
    """Measure on a Redis of its own, print, and return the exit status."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    with tempfile.TemporaryDirectory(prefix="ledger-cost-") as folder:
        wanted = Wanted(profile="none", data=Path(folder), weights=Path(folder), environment=environment)
        with redis(wanted) as (url, _):
            cost = anyio.run(partial(ledger_cost, url, rounds=9, calls=400))
    console.print(
        f"a plain GET {cost.get * 1e3:.3f} ms, a reservation {cost.reserve * 1e3:.3f} ms: "
        f"{median(cost.ratios):.2f} × (rounds from {cost.ratios[0]:.2f} to {cost.ratios[-1]:.2f}; bound {MOST_GETS:g})",
        highlight=False,
        soft_wrap=True,
    )
    return 0 if median(cost.ratios) <= MOST_GETS else 1


if __name__ == "__main__":
    sys.exit(main(dict(os.environ)))  # noqa: TID251  the command line's own edge: what Redis is started with
