"""`python -m evals.performance.load`: the API with real Redis under overload; exits with code 1 over a bound.

The scripted server replaces the model, with a fixed capacity that the API has to find. The peak is measured in a closed
loop: a few more customers than slots, who ask again after each answer. Then new customers arrive at three times the
peak rate in an open loop. A good answer is complete, with its first text in time.
"""

import math
import os
import random
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import mean

import aiohttp
import anyio
from rich.console import Console

from chatbot.api import LocalSigner
from chatbot.events import Done, FinishReason, Queued, Token
from evals.event_stream import read_events
from evals.performance.bench import QUESTION, BenchFigure, copy_passages, run_measurement, session
from evals.product import ProductSpec, run_product, run_scripted_model, scripted_settings, started_part
from evals.quality import loaded_corpus
from evals.questions import HANBIT, read_dataset
from ingest.settings import Settings
from knowledge.identity import Principal
from llm_server.scripted import Behaviour

QUIET, LOUD = "load-quiet", "load-loud"
MODEL_SLOTS = 16
# Like a small model on a CPU or a large one on a busy GPU: 20 tokens/s per stream, 0.5 s of prefill.
MODEL = Behaviour(slots=MODEL_SLOTS, sentences=1, first_token_seconds=0.5, token_seconds=0.05)
NO_LIMITS = {
    f"LEDGER__LIMITS__{scope}__{dimension}": str(10**9)
    for scope in ("TENANT", "USER", "MODEL")
    for dimension in ("TOKENS_PER_MINUTE", "REQUESTS_PER_MINUTE", "CONCURRENT", "TOKENS_PER_DAY")
}
SETTINGS = {
    "ADMISSION__SLOTS": "32",
    "ADMISSION__FIRST_TOKEN_TARGET": "5",
    "TURN__ANSWERABILITY__THRESHOLD": "0",  # one probe per question, whatever its result
}
IN_TIME = 15.0
"""The most seconds to the first text of a good answer: the queue's target, and twice that for answering and checks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """The duration of each part in seconds, and question rates as multiples of the peak."""

    warm_up: float = 15.0
    peak: float = 60.0
    overload: float = 120.0
    times: float = 3.0
    burst: float = 6.0
    burst_times: float = 4.0
    fairness: float = 80.0
    quiet_share: float = 0.15
    loud_times: float = 10.0  # times the quiet tenant's rate


@dataclass(slots=True, kw_only=True)
class CustomerResult:
    """The answer to one customer; times in seconds, `…_after` since `sent_at`."""

    sent_at: float
    status: int = 0
    headers_after: float = math.inf
    retry_after: float | None = None
    estimated_wait: float | None = None
    first_text_after: float | None = None
    finished_after: float = math.inf
    is_complete: bool = False

    @property
    def is_good(self) -> bool:
        """Whether the answer is complete and its first text was in time."""
        return self.is_complete and self.first_text_after is not None and self.first_text_after <= IN_TIME


@dataclass(slots=True)
class Crowd:
    """Customers of one API, each a separate user."""

    http: aiohttp.ClientSession
    signer: LocalSigner
    rng: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311  arrival times, not secrets
    _count: int = 0

    async def ask(self, tenant: str) -> CustomerResult:
        """Ask as a new customer and read the stream to its end."""
        self._count += 1
        user = Principal(tenant=tenant, sub=f"load-{self._count}", roles=frozenset({"customer"}), groups=frozenset())
        headers = {"authorization": f"Bearer {self.signer.token(user)[0]}"}
        result = CustomerResult(sent_at=time.perf_counter())
        async with self.http.post("/v1/chat", json={"message": QUESTION}, headers=headers) as response:
            result.status = response.status
            result.headers_after = time.perf_counter() - result.sent_at
            if response.status != 200:
                if "retry-after" in response.headers:
                    result.retry_after = float(response.headers["retry-after"])
                return result
            async with aclosing(read_events(response)) as events:
                async for event in events:
                    seconds = time.perf_counter() - result.sent_at
                    match event:
                        case Queued() if result.estimated_wait is None:
                            result.estimated_wait = event.estimated_wait_ms / 1000
                        case Token() if result.first_text_after is None:
                            result.first_text_after = seconds
                        case Done():
                            result.finished_after = seconds
                            result.is_complete = event.finish_reason is FinishReason.STOP
        return result

    async def arrive(self, tenant: str, *, rate: float, seconds: float) -> list[CustomerResult]:
        """Open loop: new customers arrive as a Poisson process of `rate` per second; return their results."""
        results: list[CustomerResult] = []

        async def ask() -> None:
            results.append(await self.ask(tenant))

        async with anyio.create_task_group() as tasks:
            began = time.perf_counter()
            arrival = began + self.rng.expovariate(rate)
            while arrival < began + seconds:
                await anyio.sleep(max(0.0, arrival - time.perf_counter()))
                tasks.start_soon(ask)
                arrival += self.rng.expovariate(rate)
        return results

    async def repeat(self, tenant: str, *, customers: int, seconds: float) -> list[CustomerResult]:
        """Closed loop: customers ask again after each answer; return the results that finished within `seconds`."""
        results: list[CustomerResult] = []
        until = time.perf_counter() + seconds

        async def ask_repeatedly() -> None:
            while time.perf_counter() < until:
                result = await self.ask(tenant)
                if result.status != 200:
                    await anyio.sleep(result.retry_after or 1)
                elif time.perf_counter() <= until:
                    results.append(result)

        async with anyio.create_task_group() as tasks:
            for _ in range(customers):
                tasks.start_soon(ask_repeatedly)
        return results


async def load(plan: LoadPlan, spec: ProductSpec, settings: Settings, console: Console) -> list[BenchFigure]:
    """Run all measurements on one running product."""
    async with loaded_corpus(read_dataset(HANBIT), settings, spec.data, console) as (services, _):
        await copy_passages(services.index, [QUIET, LOUD], [QUESTION], 12)
    async with started_part(run_scripted_model(spec, MODEL)) as model:
        scripted = await anyio.to_thread.run_sync(scripted_settings, spec)
        async with (
            started_part(run_product(spec, model, **scripted, **NO_LIMITS, **SETTINGS)) as product,
            session(product.url) as http,
        ):
            crowd = Crowd(http, product.signer)
            console.print("warming up", highlight=False)
            await crowd.repeat(LOUD, customers=MODEL_SLOTS + 2, seconds=plan.warm_up)
            console.print("measuring the peak", highlight=False)
            results = await crowd.repeat(LOUD, customers=MODEL_SLOTS + 2, seconds=plan.peak)
            peak = good_per_second(results, plan.peak)
            figures = [BenchFigure(name="peak", value=peak, unit="good answers/s")]
            figures += await overload(crowd, product.pids["chatbot"], plan, peak, console)
            figures += await burst(crowd, plan, peak, console)
            figures += await fairness(crowd, plan, peak, console)
    return figures


async def overload(crowd: Crowd, pid: int, plan: LoadPlan, peak: float, console: Console) -> list[BenchFigure]:
    """Let customers arrive at a multiple of the peak rate; `pid` is the chatbot's process id."""
    console.print(f"{plan.times:g} times the peak for {plan.overload:g} s", highlight=False)
    wait_before = await queue_wait(crowd.http)
    async with sampled_memory(pid) as resident:
        results = await crowd.arrive(LOUD, rate=plan.times * peak, seconds=plan.overload)
    true_wait = await queue_wait(crowd.http) - wait_before
    estimated_wait = sum(result.estimated_wait or 0.0 for result in results)
    began = min(result.sent_at for result in results)
    in_phase = [result for result in results if result.sent_at + result.finished_after - began <= plan.overload]
    goodput = good_per_second(in_phase, plan.overload)
    refused = [result for result in results if result.status == 503]
    without_retry_after = sum(result.retry_after is None for result in refused)
    refusals = [result.headers_after for result in refused]
    return [
        BenchFigure(name="asked under overload", value=len(results) / plan.overload, unit="questions/s"),
        BenchFigure(name="goodput under overload", value=goodput, unit="good answers/s"),
        BenchFigure(name="goodput lost, of the peak", value=100 * (1 - goodput / peak), unit="%", most=10),
        BenchFigure(name="refused", value=len(refused), unit=f"of {len(results)}"),
        BenchFigure(name="refused without Retry-After", value=without_retry_after, unit="", most=0),
        BenchFigure(name="neither complete nor refused", value=other_endings(results), unit="", most=0),
        BenchFigure(name="refusal, median", value=1e3 * quantile(refusals, 0.5), unit="ms"),
        BenchFigure(name="refusal, p99", value=1e3 * quantile(refusals, 0.99), unit="ms", most=50),
        BenchFigure(name="first text, p95", value=quantile(first_texts(results), 0.95), unit="s", most=IN_TIME),
        BenchFigure(name="estimated waits, of the true", value=100 * estimated_wait / max(true_wait, 1e-9), unit="%"),
        *growth(resident),
    ]


async def burst(crowd: Crowd, plan: LoadPlan, peak: float, console: Console) -> list[BenchFigure]:
    """Let too many customers arrive for a few seconds; refused ones ask again after their Retry-After."""
    console.print(f"{plan.burst_times:g} times the peak for {plan.burst:g} s; refused customers retry", highlight=False)
    results = await crowd.arrive(LOUD, rate=plan.burst_times * peak, seconds=plan.burst)
    retries: list[CustomerResult] = []

    async def retry(refused: CustomerResult) -> None:
        retry_at = refused.sent_at + refused.headers_after + (refused.retry_after or 0)
        await anyio.sleep(max(0.0, retry_at - time.perf_counter()))
        retries.append(await crowd.ask(LOUD))

    async with anyio.create_task_group() as tasks:
        for result in results:
            if result.status == 503:
                tasks.start_soon(retry, result)
    share = 100 * sum(result.status != 200 for result in retries) / max(1, len(retries))
    name = f"refused again, of {len(retries)} who waited as long as Retry-After"
    return [BenchFigure(name=name, value=share, unit="%", most=10)]


async def fairness(crowd: Crowd, plan: LoadPlan, peak: float, console: Console) -> list[BenchFigure]:
    """Compare a small tenant's first text alone and beside a tenant that asks ten times as often."""
    rate = plan.quiet_share * peak
    console.print(f"a tenant alone for {plan.fairness:g} s", highlight=False)
    alone = await crowd.arrive(QUIET, rate=rate, seconds=plan.fairness)
    console.print(f"beside one with {plan.loud_times:g} times its demand", highlight=False)
    beside: list[CustomerResult] = []
    loud: list[CustomerResult] = []
    async with anyio.create_task_group() as tasks:

        async def arrive(tenant: str, rate: float, results: list[CustomerResult]) -> None:
            results += await crowd.arrive(tenant, rate=rate, seconds=plan.fairness)

        tasks.start_soon(arrive, LOUD, plan.loud_times * rate, loud)
        tasks.start_soon(arrive, QUIET, rate, beside)
    alone_p95, beside_p95 = (quantile(first_texts(results), 0.95) for results in (alone, beside))
    loud_refused = sum(result.status == 503 for result in loud)
    quiet_refused = sum(result.status != 200 for result in beside)
    return [
        BenchFigure(name="both tenants ask, of the peak", value=(1 + plan.loud_times) * rate / peak, unit="×"),
        BenchFigure(name="the loud one refused", value=loud_refused, unit=f"of {len(loud)}"),
        BenchFigure(name="the quiet one refused", value=quiet_refused, unit=f"of {len(beside)}", most=0),
        BenchFigure(name="the loud one's first text, p95", value=quantile(first_texts(loud), 0.95), unit="s"),
        BenchFigure(name="the quiet one's first text alone, p95", value=alone_p95, unit="s"),
        BenchFigure(name="the quiet one's first text beside, p95", value=beside_p95, unit="s"),
        BenchFigure(name="ratio of the two", value=beside_p95 / alone_p95, unit="×", most=1.5),
    ]


def good_per_second(results: Sequence[CustomerResult], seconds: float) -> float:
    """Return the rate of good answers."""
    return sum(result.is_good for result in results) / seconds


def other_endings(results: Sequence[CustomerResult]) -> int:
    """Return the number of results that are neither a complete answer nor a refusal."""
    return sum(result.status != 503 and not result.is_complete for result in results)


def first_texts(results: Sequence[CustomerResult]) -> list[float]:
    """Return the seconds to the first text of each result that has one."""
    return [result.first_text_after for result in results if result.first_text_after is not None]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is at least as large as `share` of all values; NaN without values."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else math.nan


def growth(resident: Sequence[float]) -> list[BenchFigure]:
    """Compare memory in the last quarter with the second quarter; during the first, all code is used once."""
    quarter = max(1, len(resident) // 4)
    before, after = mean(resident[quarter : 2 * quarter] or resident), mean(resident[-quarter:])
    return [
        BenchFigure(name="memory of chatbot", value=after / 2**20, unit="MiB"),
        BenchFigure(
            name="its growth from the second to the last quarter", value=100 * (after / before - 1), unit="%", most=5
        ),
    ]


@asynccontextmanager
async def sampled_memory(pid: int, *, every: float = 2.0) -> AsyncGenerator[list[float]]:
    """Yield a list to which a process's resident bytes are appended at intervals of `every` seconds."""
    resident: list[float] = []

    async def sample() -> None:
        while True:
            # Not `resident_bytes`: walking the pages of 1 GiB stops the process for 0.1 s.
            statm = await anyio.Path(f"/proc/{pid}/statm").read_text()
            resident.append(int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE"))
            await anyio.sleep(every)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sample)
        yield resident
        tasks.cancel_scope.cancel()


async def queue_wait(http: aiohttp.ClientSession) -> float:
    """Return the total seconds that answers have waited for a slot so far."""
    async with http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("chatbot_queue_wait_seconds_sum"))


if __name__ == "__main__":
    environment = dict(os.environ)  # noqa: TID251  the edge of the command line; passed to the processes it starts
    sys.exit(run_measurement("load", "scripted", partial(load, LoadPlan()), environment))
