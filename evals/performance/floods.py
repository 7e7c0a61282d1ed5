"""`python -m evals.performance.floods`: a customer's first token while somebody without a token floods; exit 1 over a
bound.

The real API process on real Redis, over the scripted model. In every round the customer asks alone, then under each
flood: heads that never end, bodies that trickle, idle connections, tokens with key ids that nobody publishes. A flood
runs in a process of its own at a lower priority, since the machine is one: what is measured is what the API does with
what reaches it. Compared are the 95th percentiles over all rounds.
"""

import os
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import cast

import anyio
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm
from rich.console import Console

from chatbot.api import AUDIENCE, ISSUER, key_pair
from evals.performance.bench import QUESTION, BenchFigure, copy_passages, run_measurement, session
from evals.performance.flooding import FLOODS
from evals.performance.load import NO_LIMITS, Crowd, first_texts, quantile, sampled_memory
from evals.product import (
    ProductNotStarted,
    ProductSpec,
    run_process,
    run_product,
    run_scripted_model,
    scripted_settings,
    started_part,
)
from evals.quality import loaded_corpus
from evals.questions import HANBIT, read_dataset
from ingest.settings import Settings
from llm_server.scripted import Behaviour

TENANT = "floods"
# A fast model: what the flood adds is not hidden behind the wait for it.
MODEL = Behaviour(slots=16, sentences=1, first_token_seconds=0.1, token_seconds=0.005)
SETTINGS = {"TURN__ANSWERABILITY__THRESHOLD": "0"}
MOST_TIMES = 1.5
MOST_GROWTH = 10  # per cent of the resident memory
STANDING, LEAST_HELD = ("trickled bodies", "idle connections"), 0.8
"""Floods whose connections stand for a while, and the share of them that must: else nothing was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloodPlan:
    """How often the customer asks: questions in a part of a round; and the seconds for which a flood runs before."""

    rounds: int = 4
    questions: int = 10
    lead: float = 3.0


async def floods(plan: FloodPlan, spec: ProductSpec, settings: Settings, console: Console) -> list[BenchFigure]:
    """Measure every flood in every round on one running product."""
    async with loaded_corpus(read_dataset(HANBIT), settings, spec.data, console) as (services, _):
        await copy_passages(services.index, [TENANT], [QUESTION], 12)
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(started_part(run_scripted_model(spec, MODEL)))
        provider = await stack.enter_async_context(published_key(spec.data))
        scripted = await anyio.to_thread.run_sync(scripted_settings, spec)
        product = await stack.enter_async_context(
            started_part(run_product(spec, model, AUTH__JWKS_URL=provider.url, **scripted, **NO_LIMITS, **SETTINGS))
        )
        crowd = Crowd(await stack.enter_async_context(session(product.url)), product.signer)
        resident = await stack.enter_async_context(sampled_memory(product.pids["chatbot"], every=0.5))
        await first_tokens(crowd, plan.questions)  # everything is used once
        quiet = median(resident[-5:])
        seconds: dict[str, list[float]] = defaultdict(list)
        held: dict[str, list[int]] = defaultdict(list)
        fetches: dict[str, int] = defaultdict(int)
        port = int(product.url.rsplit(":", 1)[1])
        for number in range(plan.rounds):
            console.print(f"round {number + 1} of {plan.rounds}", highlight=False)
            seconds["alone"] += await first_tokens(crowd, plan.questions)
            for name in FLOODS:
                before = provider.fetches
                async with started_part(flood(name, port, spec)):
                    await anyio.sleep(plan.lead)
                    held[name].append(open_connections(port))
                    seconds[name] += await first_tokens(crowd, plan.questions)
                fetches[name] += provider.fetches - before
    return figures(seconds, held, quiet=quiet, resident=resident, fetches=fetches["unknown keys"])


def figures(
    seconds: Mapping[str, Sequence[float]],
    held: Mapping[str, Sequence[int]],
    *,
    quiet: float,
    resident: Sequence[float],
    fetches: int,
) -> list[BenchFigure]:
    """Return the 95th percentile alone, its multiples under each flood, the growth of memory, and the keys' fetches."""
    alone = quantile(seconds["alone"], 0.95)
    lines = [BenchFigure(name="first token alone, p95", value=alone * 1000, unit="ms")]
    for name in FLOODS:
        under = quantile(seconds[name], 0.95)
        lines.append(BenchFigure(name=f"{name}: p95", value=under / alone, unit="times", most=MOST_TIMES))
        least = FLOODS[name][0] * LEAST_HELD if name in STANDING else None
        lines.append(BenchFigure(name=f"{name}: connections", value=min(held[name]), unit="", least=least))
        lines.append(
            BenchFigure(name=f"{name}: median", value=median(seconds[name]) / median(seconds["alone"]), unit="times")
        )
    growth = 100 * (max(resident) / quiet - 1)
    lines.append(BenchFigure(name="memory of chatbot", value=quiet / 2**20, unit="MiB"))
    lines.append(BenchFigure(name="its most growth", value=growth, unit="%", most=MOST_GROWTH))
    lines.append(
        BenchFigure(name="key sets fetched for unknown keys", value=fetches, unit="", most=len(seconds["alone"]))
    )
    return lines


def open_connections(port: int) -> int:
    """Return how many connections a port of this machine has (established, seen from the server)."""
    lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    return sum(fields[1].endswith(f":{port:04X}") and fields[3] == "01" for fields in map(str.split, lines))


async def first_tokens(crowd: Crowd, questions: int) -> list[float]:
    """Let customers ask one after the other; return the seconds to their first texts."""
    results = [await crowd.ask(TENANT) for _ in range(questions)]
    if not all(result.whole for result in results):
        raise RuntimeError(f"not answered: {[result.status for result in results if not result.whole]}")
    return first_texts(results)


@dataclass(slots=True)
class Provider:
    """An identity provider's key set, and how often it was fetched."""

    url: str = ""
    fetches: int = 0


@asynccontextmanager
async def published_key(data: Path) -> AsyncGenerator[Provider]:
    """Publish the product's key while the block runs."""
    _, public = key_pair(data)
    key = cast("EllipticCurvePublicKey", load_pem_public_key(public.read_bytes()))
    published = {"keys": [{**ECAlgorithm.to_jwk(key, as_dict=True), "alg": "ES256"}]}
    provider = Provider()

    async def keys(_: web.Request) -> web.Response:
        provider.fetches += 1
        return web.json_response(published)

    app = web.Application()
    app.router.add_get("/keys", keys)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
        yield provider
    finally:
        await runner.cleanup()


@contextmanager
def flood(name: str, port: int, spec: ProductSpec) -> Iterator[None]:
    """Flood a port from another process while the block runs."""
    command = [sys.executable, str(Path(__file__).with_name("flooding.py")), name, str(port), ISSUER, AUDIENCE]
    with run_process(command, log=spec.data / "logs" / "flood.err", environment=spec.environment) as process:
        if not (process.stdout and process.stdout.readline()):
            raise ProductNotStarted(f"the flood of {name} did not start")
        yield


if __name__ == "__main__":
    environment = dict(os.environ)  # noqa: TID251  the command line's own edge: what the parts are started with
    sys.exit(run_measurement("floods", "scripted", partial(floods, FloodPlan()), environment))
