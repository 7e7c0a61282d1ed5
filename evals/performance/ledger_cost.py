"""The time of a reservation, in plain GETs: alternating on one connection, with all buckets of its windows full.

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

from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.events import Usage
from chatbot.limits import Caller, Ledger, LedgerSettings, Limit, LimitSettings
from chatbot.redis_client import RedisBreaker, RedisSettings, open_redis
from evals.product import run_redis

MOST_GETS = 6.0
UNLIMITED = Limit(tokens_per_minute=10**9, requests_per_minute=10**6, concurrent=10**6, tokens_per_day=10**12)
LIMITS = LedgerSettings(limits=LimitSettings(tenant=UNLIMITED, user=UNLIMITED, model=UNLIMITED))
PATIENT_BREAKER = RedisSettings().breaker.model_copy(update={"slow_after": 5.0})
"""On a busy machine the breaker must not open during a measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRound:
    """Medians of one round, in seconds."""

    get: float
    reserve: float

    @property
    def ratio(self) -> float:
        """The time of a reservation in plain GETs."""
        return self.reserve / self.get


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerCost:
    """Medians over the rounds, in seconds, and the ratios of the rounds in rising order."""

    rounds: tuple[LedgerRound, ...]

    @property
    def get(self) -> float:
        return median(measured.get for measured in self.rounds)

    @property
    def reserve(self) -> float:
        return median(measured.reserve for measured in self.rounds)

    @property
    def ratios(self) -> list[float]:
        return sorted(measured.ratio for measured in self.rounds)


async def ledger_cost(redis_url: str, *, rounds: int, calls: int) -> LedgerCost:
    """Measure reservations and plain GETs, in alternating order."""
    caller = Caller(tenant=f"bench-{uuid4().hex}", sub="bench", model="none")
    async with open_redis(redis_url) as client:
        await fill(client, caller)
        ledger = Ledger(client, RedisBreaker(PATIENT_BREAKER), LIMITS, deferred=DeferredWrites(DeferredSettings()))
        await measure_round(client, ledger, caller, calls=20)
        measured = [await measure_round(client, ledger, caller, calls=calls) for _ in range(rounds)]
        return LedgerCost(rounds=tuple(measured))


async def fill(client: Redis, caller: Caller) -> None:
    """Charge tokens in each second of the last minute."""
    seconds, _ = await client.time()
    for ago in range(60, 0, -1):
        ledger = Ledger(
            client,
            RedisBreaker(PATIENT_BREAKER),
            LIMITS,
            clock=partial(float, seconds - ago),
            deferred=DeferredWrites(DeferredSettings()),
        )
        reservation = await ledger.reserve(caller, prompt_tokens=1200, answer_tokens=200, lease_seconds=60)
        await ledger.settle(reservation, Usage(prompt_tokens=1200, answer_tokens=100))


async def measure_round(client: Redis, ledger: Ledger, caller: Caller, *, calls: int) -> LedgerRound:
    """Time GETs and reservations in alternating order; settling is not timed."""
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
    return LedgerRound(get=median(gets), reserve=median(reserves))


def main(environment: Mapping[str, str]) -> int:
    """Measure on a Redis of its own, print, and return the exit status."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    with (
        tempfile.TemporaryDirectory(prefix="ledger-cost-") as folder,
        run_redis(Path(folder), environment) as (url, _),
    ):
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
