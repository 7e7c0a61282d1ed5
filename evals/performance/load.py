"""`python -m evals.performance.load`: the real API process on real Redis under more than it can serve; exit 1 over a
bound.

The scripted server stands in for the model, at a fixed capacity that the API has to find out.  Peak is what customers
get who ask again as soon as they have an answer, always a few more than there are slots.  Then new customers come at
three times that rate whether or not others are served; a good answer is a whole one with its first text in time.
"""

import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean

import aiohttp
import anyio
import msgspec
from rich.console import Console

from chatbot.api import LocalSigner
from chatbot.events import Done, FinishReason, Queued, Token
from evals.performance.bench import QUESTION, BenchFigure, give, measured, session, started
from evals.product import Model, Product, ProductNotStarted, Wanted, child, product
from evals.quality import frames, loaded
from evals.questions import HANBIT, read_dataset
from ingest.settings import Settings
from knowledge.identity import Principal
from llm_server.scripted import Behaviour

QUIET, LOUD = "load-quiet", "load-loud"
MODEL_SLOTS = 16
# One stream of a small model on a CPU or of a large one on a busy GPU: 20 tokens a second, half a second to read.
MODEL = Behaviour(slots=MODEL_SLOTS, sentences=1, first_token_seconds=0.5, token_seconds=0.05)
PLENTY = {
    f"LEDGER__LIMITS__{scope}__{dimension}": str(10**9)
    for scope in ("TENANT", "USER", "MODEL")
    for dimension in ("TOKENS_PER_MINUTE", "REQUESTS_PER_MINUTE", "CONCURRENT", "TOKENS_PER_DAY")
}
SETTINGS = {
    "ADMISSION__SLOTS": "32",
    "ADMISSION__FIRST_TOKEN_TARGET": "5",
    "TURN__ANSWERABILITY__THRESHOLD": "0",  # one probe each, as for most questions, whatever it says
}
IN_TIME = 15.0
"""Seconds to the first text of a good answer: the target for waiting, and twice as much to be answered and checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long each part takes, in seconds, and how much is asked for, in what can be served."""

    warm_up: float = 15.0
    peak: float = 60.0
    overload: float = 120.0
    times: float = 3.0
    burst: float = 6.0
    burst_times: float = 4.0
    fairness: float = 80.0
    quiet_share: float = 0.15
    loud_times: float = 10.0


@dataclass(slots=True, kw_only=True)
class Heard:
    """What one customer got, in seconds since the question was sent."""

    sent_at: float
    status: int = 0
    headers: float = math.inf
    retry_after: float | None = None
    estimate: float | None = None
    first_text: float | None = None
    finished: float = math.inf
    whole: bool = False

    @property
    def good(self) -> bool:
        return self.whole and self.first_text is not None and self.first_text <= IN_TIME


@dataclass(slots=True)
class Crowd:
    """Customers of one API, each with a name of their own."""

    http: aiohttp.ClientSession
    signer: LocalSigner
    chance: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311  arrivals, no secret
    heard: list[Heard] = field(default_factory=list)
    _count: int = 0

    async def ask(self, tenant: str) -> Heard:
        """Ask as a new customer and hear it to the end."""
        self._count += 1
        who = Principal(tenant=tenant, sub=f"load-{self._count}", roles=frozenset({"customer"}), groups=frozenset())
        headers = {"authorization": f"Bearer {self.signer.token(who)[0]}"}
        heard = Heard(sent_at=time.perf_counter())
        self.heard.append(heard)
        async with self.http.post("/v1/chat", json={"message": QUESTION}, headers=headers) as response:
            heard.status, heard.headers = response.status, time.perf_counter() - heard.sent_at
            if response.status != 200:
                heard.retry_after = (
                    float(response.headers["retry-after"]) if "retry-after" in response.headers else None
                )
                return heard
            async with aclosing(frames(response)) as events:
                async for event in events:
                    since = time.perf_counter() - heard.sent_at
                    match event:
                        case Queued() if heard.estimate is None:
                            heard.estimate = event.estimated_wait_ms / 1000
                        case Token() if heard.first_text is None:
                            heard.first_text = since
                        case Done():
                            heard.finished, heard.whole = since, event.finish_reason is FinishReason.STOP
        return heard

    async def come(self, tenant: str, *, rate: float, seconds: float) -> list[Heard]:
        """Let customers come at random, so many a second, whether or not others are served; return what they got."""
        got: list[Heard] = []

        async def one() -> None:
            got.append(await self.ask(tenant))

        async with anyio.create_task_group() as tasks:
            until = at = time.perf_counter()
            until += seconds
            while (at := at + self.chance.expovariate(rate)) < until:
                await anyio.sleep(max(0.0, at - time.perf_counter()))
                tasks.start_soon(one)
        return got

    async def stay(self, tenant: str, *, customers: int, seconds: float) -> list[Heard]:
        """Let so many customers ask, each again as soon as there is an answer; return what they got in that time."""
        got: list[Heard] = []
        until = time.perf_counter() + seconds

        async def again_and_again() -> None:
            while time.perf_counter() < until:
                heard = await self.ask(tenant)
                if heard.status != 200:
                    await anyio.sleep(heard.retry_after or 1)
                elif time.perf_counter() <= until:
                    got.append(heard)

        async with anyio.create_task_group() as tasks:
            for _ in range(customers):
                tasks.start_soon(again_and_again)
        return got


async def load(plan: Plan, wanted: Wanted, settings: Settings, console: Console) -> list[BenchFigure]:
    """Measure everything on one running product."""
    async with loaded(read_dataset(HANBIT), settings, wanted.data, console) as (services, _):
        await give(services.index, [QUIET, LOUD], [QUESTION], 12)
    async with started(scripted(wanted)) as served:
        there = {"LLM_TOKENIZER": str(tokenizer(wanted)), "LLM_PROFILE": "scripted"}
        async with (
            started(product(wanted, served, **there, **PLENTY, **SETTINGS)) as running,
            session(running.url) as http,
        ):
            crowd = Crowd(http, running.signer)
            console.print("warming up", highlight=False)
            await crowd.stay(LOUD, customers=MODEL_SLOTS + 2, seconds=plan.warm_up)
            console.print("measuring the peak", highlight=False)
            peak = good_a_second(await crowd.stay(LOUD, customers=MODEL_SLOTS + 2, seconds=plan.peak), plan.peak)
            findings = [BenchFigure(name="peak", value=peak, unit="good answers/s")]
            findings += await overload(crowd, running, plan, peak, console)
            findings += await burst(crowd, plan, peak, console)
            findings += await fairness(crowd, plan, peak, console)
    return findings


async def overload(crowd: Crowd, running: Product, plan: Plan, peak: float, console: Console) -> list[BenchFigure]:
    """Let customers come at three times the peak."""
    console.print(f"{plan.times:g} times the peak for {plan.overload:g} s", highlight=False)
    waited = await queue_wait(crowd.http)
    async with watched_memory(running.pids["chatbot"]) as resident:
        got = await crowd.come(LOUD, rate=plan.times * peak, seconds=plan.overload)
    waited = await queue_wait(crowd.http) - waited
    began = min(heard.sent_at for heard in got)
    in_phase = [heard for heard in got if heard.sent_at + heard.finished - began <= plan.overload]
    refused = [heard for heard in got if heard.status == 503]
    told = sum(heard.estimate or 0.0 for heard in got)
    goodput = good_a_second(in_phase, plan.overload)
    return [
        BenchFigure(name="asked under overload", value=len(got) / plan.overload, unit="questions/s"),
        BenchFigure(name="goodput under overload", value=goodput, unit="good answers/s"),
        BenchFigure(name="goodput lost, of the peak", value=100 * (1 - goodput / peak), unit="%", most=10),
        BenchFigure(name="refused", value=len(refused), unit=f"of {len(got)}"),
        BenchFigure(
            name="refused without Retry-After", value=sum(h.retry_after is None for h in refused), unit="", most=0
        ),
        BenchFigure(name="other endings than whole or refused", value=sum(others(got).values()), unit="", most=0),
        BenchFigure(name="refusal, median", value=1e3 * quantile([h.headers for h in refused], 0.5), unit="ms"),
        BenchFigure(name="refusal, p99", value=1e3 * quantile([h.headers for h in refused], 0.99), unit="ms", most=50),
        BenchFigure(name="first text, p95", value=quantile(first_texts(got), 0.95), unit="s", most=IN_TIME),
        BenchFigure(name="waits as told, of those that were", value=100 * told / max(waited, 1e-9), unit="%"),
        *growth(resident),
    ]


async def burst(crowd: Crowd, plan: Plan, peak: float, console: Console) -> list[BenchFigure]:
    """Let too many come for a few seconds, and those sent away come back when they were told to."""
    console.print(
        f"{plan.burst_times:g} times the peak for {plan.burst:g} s; those sent away come back", highlight=False
    )
    got = await crowd.come(LOUD, rate=plan.burst_times * peak, seconds=plan.burst)
    back: list[Heard] = []

    async def come_back(heard: Heard) -> None:
        await anyio.sleep(max(0.0, heard.sent_at + heard.headers + (heard.retry_after or 0) - time.perf_counter()))
        back.append(await crowd.ask(LOUD))

    async with anyio.create_task_group() as tasks:
        for heard in got:
            if heard.status == 503:
                tasks.start_soon(come_back, heard)
    again = sum(heard.status != 200 for heard in back)
    share = 100 * again / max(1, len(back))
    return [BenchFigure(name=f"refused again, of {len(back)} who came back when told", value=share, unit="%", most=10)]


async def fairness(crowd: Crowd, plan: Plan, peak: float, console: Console) -> list[BenchFigure]:
    """Compare the first text of a small tenant alone with that beside one that asks ten times as often."""
    rate = plan.quiet_share * peak
    console.print(f"a tenant alone for {plan.fairness:g} s", highlight=False)
    alone = await crowd.come(QUIET, rate=rate, seconds=plan.fairness)
    console.print(f"beside one with {plan.loud_times:g} times its demand", highlight=False)
    beside: list[Heard] = []
    loud: list[Heard] = []
    async with anyio.create_task_group() as tasks:

        async def come(tenant: str, rate: float, got: list[Heard]) -> None:
            got += await crowd.come(tenant, rate=rate, seconds=plan.fairness)

        tasks.start_soon(come, LOUD, plan.loud_times * rate, loud)
        tasks.start_soon(come, QUIET, rate, beside)
    before, after = (quantile(first_texts(got), 0.95) for got in (alone, beside))
    return [
        BenchFigure(name="both tenants ask, of the peak", value=(1 + plan.loud_times) * rate / peak, unit="×"),
        BenchFigure(name="the loud one refused", value=sum(h.status == 503 for h in loud), unit=f"of {len(loud)}"),
        BenchFigure(
            name="the quiet one refused", value=sum(h.status != 200 for h in beside), unit=f"of {len(beside)}", most=0
        ),
        BenchFigure(name="the loud one's first text, p95", value=quantile(first_texts(loud), 0.95), unit="s"),
        BenchFigure(name="the quiet one's first text alone, p95", value=before, unit="s"),
        BenchFigure(name="the quiet one's first text beside, p95", value=after, unit="s"),
        BenchFigure(name="ratio of the two", value=after / before, unit="×", most=1.5),
    ]


def good_a_second(got: Sequence[Heard], seconds: float) -> float:
    return sum(heard.good for heard in got) / seconds


def others(got: Sequence[Heard]) -> Counter[int]:
    """Return how many ended otherwise than with a whole answer or a refusal, by status."""
    return Counter(heard.status for heard in got if heard.status != 503 and not heard.whole)


def first_texts(got: Sequence[Heard]) -> list[float]:
    return [heard.first_text for heard in got if heard.first_text is not None]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that so many of them do not exceed; not a number where there are none."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else math.nan


def growth(resident: Sequence[float]) -> list[BenchFigure]:
    """Compare the memory of the last quarter with that of the second, when everything has been used once."""
    quarter = max(1, len(resident) // 4)
    before, after = mean(resident[quarter : 2 * quarter] or resident), mean(resident[-quarter:])
    return [
        BenchFigure(name="memory of chatbot", value=after / 2**20, unit="MiB"),
        BenchFigure(
            name="its growth from the second to the last quarter", value=100 * (after / before - 1), unit="%", most=5
        ),
    ]


@asynccontextmanager
async def watched_memory(pid: int, *, every: float = 2.0) -> AsyncGenerator[list[float]]:
    """Yield a list that fills with what a process has resident."""
    resident: list[float] = []

    async def watch() -> None:
        while True:
            # Not `resident_bytes`: to walk a gigabyte of pages stops the process that has them for a tenth of a second.
            statm = await anyio.Path(f"/proc/{pid}/statm").read_text()
            resident.append(int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE"))
            await anyio.sleep(every)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        yield resident
        tasks.cancel_scope.cancel()


async def queue_wait(http: aiohttp.ClientSession) -> float:
    """Return the seconds that all answers together have waited for a slot until now."""
    async with http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("chatbot_queue_wait_seconds_sum"))


def tokenizer(wanted: Wanted) -> Path:
    """Return where the scripted model's tokenizer lies."""
    return wanted.data / "tokenizer"


@contextmanager
def scripted(wanted: Wanted, behaviour: Behaviour = MODEL) -> Iterator[Model]:
    """Run the scripted model while the block runs.

    Raises:
        ProductNotStarted: see its log.
    """
    script, log = wanted.data / "model.json", wanted.data / "logs" / "scripted.err"
    told = {name: value for name, value in msgspec.structs.asdict(behaviour).items() if value != math.inf}
    script.write_bytes(msgspec.json.encode(told))
    command = [sys.executable, "-m", "llm_server.scripted", "--script", str(script)]
    command += ["--tokenizer-folder", str(tokenizer(wanted))]
    with child(command, log=log, environment=wanted.environment) as process:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("ready "):
            raise ProductNotStarted(f"the scripted model did not start: see {log}")
        yield Model(url=line.split()[1], pid=process.pid)


if __name__ == "__main__":
    given = dict(os.environ)  # noqa: TID251  the command line's own edge: what the parts are started with
    sys.exit(measured("load", "scripted", partial(load, Plan()), given))
