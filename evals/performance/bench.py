"""`make bench`: what our API costs on top of vLLM, on this machine, with the real product; exit 1 over a bound.

The first token through the API (retrieval included, grounding off) is compared with vLLM asked directly with the same
prompt ids. Every call has its own `cache_salt`, so that none profits from another's prefix; through the API the salt
is the tenant's, so every call comes from a tenant of its own that has the documents.
"""

import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import copytree
from statistics import median
from typing import TypeVar
from uuid import uuid4

import aiohttp
import anyio
import msgspec
from rich.console import Console
from rich.table import Table

from chatbot.models import CompletionDecoder, CompletionRequest
from chatbot.prompt import PromptBuilder, load_templates
from chatbot.retrieval import Retrieval, RetrievalSettings
from chatbot.settings import Settings as ChatSettings
from chatbot.tokenizer import Tokenizer
from evals.performance.ledger_cost import MOST_GETS, ledger_cost
from evals.product import Model, Product, ProductNotStarted, Wanted, end_like_ctrl_c, model, product, resident_bytes
from evals.quality import LONGEST_ANSWER, Customer, loaded
from evals.questions import HANBIT, TENANT, Answered, Sample, read_dataset
from ingest.settings import Settings
from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.glossary import load_glossary
from knowledge.index import Index
from telemetry.groups import leaves
from telemetry.logs import configure_logs

QUESTION = "한빛 정기예금을 중간에 해지하면 이자는 어떻게 되나요?"
MODE_QUESTIONS = (
    QUESTION,
    "신용대출 이자를 연체하면 어떻게 되나요?",
    "How do I open an account as a foreign resident?",
    "주택담보대출 중도상환수수료는 언제 면제되나요?",
    "What does it cost to send money abroad?",
    "체크카드를 잃어버리면 어떻게 해야 하나요?",
    "Which documents do I need for a loan?",
)
"""Each asked once of every grounding mode: answers of several lengths, in both languages."""
MODE_TENANTS = tuple(f"modes-{n}" for n in range(3 * len(MODE_QUESTIONS)))
"""One for each answer, so that nothing of its prompt is cached."""
ANSWER_TOKENS = 16
MOST_OVER_OFF = 1.15
ANSWERS_ANYWAY = {"TURN__ANSWERABILITY__THRESHOLD": "0", "TURN__REPAIR_CERTAINTY": "1"}
"""The small profile's model says no to most probes: here it is asked, and answers whatever it said. It chooses among no
quotes, as in `make run`.
"""
GIB = 2**30

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How often to measure."""

    calls: int = 20
    warm_up: int = 2
    ledger_rounds: int = 7
    ledger_calls: int = 300
    log_calls: int = 14
    documents: int = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchFigure:
    """One line of the report; without a bound, at most or at least, it only informs."""

    name: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None

    @property
    def bound(self) -> str:
        """The bound in words, empty where there is none."""
        at_most = [f"≤ {self.most:g} {self.unit}"] if self.most is not None else []
        at_least = [f"≥ {self.least:g} {self.unit}"] if self.least is not None else []
        return ", ".join(at_least + at_most)

    @property
    def holds(self) -> bool:
        too_much = self.most is not None and self.value > self.most
        too_little = self.least is not None and self.value < self.least
        return not (too_much or too_little)


Work = Callable[[Wanted, Settings, Console], Awaitable[list[BenchFigure]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What was prepared: tenants that have the documents, none asked before, and the prompt they all get."""

    tenants: Iterator[str]
    prompt_ids: tuple[int, ...]


async def bench(plan: Plan, wanted: Wanted, settings: Settings, console: Console) -> list[BenchFigure]:
    """Measure everything, one product after the other on the same vLLM."""
    ground = await prepare(wanted, settings, plan, console)
    wide = await widely_read(await beside(wanted, "wide"), settings, plan, console)
    async with started(model(wanted)) as served:
        console.print("measuring with grounding off", highlight=False)
        async with started(product(wanted, served, TURN__GROUNDING="off")) as running:
            findings = [*await first_tokens(running, served, ground, plan), *memory(running)]
            findings += await ledger_trips(running.redis_url, plan)
            console.print("measuring what the answer log costs", highlight=False)
            alone = await beside(wanted, "unlogged")
            unlogged = product(alone, served, module="evals.performance.unlogged", TURN__GROUNDING="off")
            async with started(unlogged) as other:
                findings += await log_costs(running, other, ground, plan)
        console.print("measuring what each grounding mode costs", highlight=False)
        modes: dict[str, Product] = {}
        async with AsyncExitStack() as stack:
            for name in ("off", "numbers", "strict"):
                one = product(await beside(wide, name), served, TURN__GROUNDING=name, **ANSWERS_ANYWAY)
                modes[name] = await stack.enter_async_context(started(one))
            findings += await mode_costs(modes)
    return findings


async def beside(wanted: Wanted, name: str) -> Wanted:
    """Return what another product needs that runs beside, with a copy of the stores."""
    data = wanted.data / name
    await anyio.to_thread.run_sync(partial(copytree, wanted.data, data, ignore=only_stores))
    return replace(wanted, data=data)


async def prepare(wanted: Wanted, settings: Settings, plan: Plan, console: Console) -> Ground:
    """Load the sample documents, and the passages nearest to the question for every tenant that will ask."""
    names = [f"bench-{n:03}" for n in range(plan.warm_up + plan.calls + 1)]
    async with loaded(read_dataset(HANBIT), settings, wanted.data, console) as (services, _):
        await give(services.index, names, [QUESTION], plan.documents)
        ids = await prompt(services.index, names[0], wanted.weights / wanted.profile)
    return Ground(tenants=iter(names), prompt_ids=ids)


async def widely_read(wanted: Wanted, settings: Settings, plan: Plan, console: Console) -> Wanted:
    """Give the passages on every question of the modes to a tenant for each; return the same."""
    async with loaded(read_dataset(HANBIT), settings, wanted.data, console) as (services, _):
        await give(services.index, MODE_TENANTS, MODE_QUESTIONS, plan.documents)
    return wanted


async def give(index: Index, tenants: Sequence[str], questions: Sequence[str], documents: int) -> None:
    """Copy what the sample bank has on the questions to other tenants; embedded once."""
    found = [await index.search(question, access=access(TENANT), limit=documents) for question in questions]
    passages = list({hit.passage.point_id: hit.passage for hits in found for hit in hits}.values())
    vectors = await index.embed(passages)
    for tenant in tenants:
        await index.upsert([replace(passage, tenant=tenant) for passage in passages], vectors)


async def prompt(index: Index, tenant: str, tokenizer: Path) -> tuple[int, ...]:
    """Return the prompt that the product will build for any of the tenants."""
    found = await Retrieval(index, RetrievalSettings(), load_glossary()).search(
        QUESTION, earlier=(), access=access(tenant)
    )
    fields = ChatSettings.model_fields
    builder = PromptBuilder(
        load_templates(),
        Tokenizer.load(tokenizer),
        banks={"ko": fields["bank_name_ko"].default, "en": fields["bank_name_en"].default},
        passage_tokens=fields["passage_tokens"].default,
    )
    built = builder.build(QUESTION, history=(), passages=[hit.passage for hit in found.hits], language="ko")
    return built.answer_ids


def access(tenant: str) -> Access:
    """Return what any customer of a bank may read from now on."""
    return Access(tenant=tenant, groups=frozenset({EVERY_CUSTOMER}), as_of=time.time())


async def first_tokens(running: Product, served: Model, ground: Ground, plan: Plan) -> list[BenchFigure]:
    """Ask through the API and directly in turn, each first every other time; return both medians and their ratio."""
    api: list[float] = []
    direct: list[float] = []
    async with session(running.url) as http, session(served.url) as vllm:
        name = await served_name(vllm)
        for n in range(plan.warm_up + plan.calls):
            through = await first_token(http, running, next(ground.tenants), ground) if n % 2 else None
            alone = await first_token_alone(vllm, name, ground.prompt_ids)
            through = through or await first_token(http, running, next(ground.tenants), ground)
            if n >= plan.warm_up:
                api.append(through)
                direct.append(alone)
    return [
        BenchFigure(name=f"prompt, median of {plan.calls} calls", value=len(ground.prompt_ids), unit="tokens"),
        BenchFigure(name="first token, vLLM alone", value=median(direct), unit="s"),
        BenchFigure(name="first token through the API, grounding off", value=median(api), unit="s"),
        BenchFigure(name="ratio of the two", value=median(api) / median(direct), unit="×", most=1.15),
    ]


async def first_token(http: aiohttp.ClientSession, running: Product, tenant: str, ground: Ground) -> float:
    """Return the seconds until the customer's first token.

    Raises:
        ProductNotStarted: the product answers otherwise than it should here.
    """
    customer = Customer(http, running.signer, tenant=tenant, max_answer_tokens=ANSWER_TOKENS)
    answer = await customer.ask(Sample(id=tenant, text=QUESTION))
    if answer.first_token_seconds is None or answer.prompt_tokens != len(ground.prompt_ids):
        raise ProductNotStarted(
            f"the API ended in {answer.finish_reason} with a prompt of {answer.prompt_tokens} tokens, "
            f"not {len(ground.prompt_ids)}: the two sides would not be comparable"
        )
    return answer.first_token_seconds


async def first_token_alone(vllm: aiohttp.ClientSession, name: str, prompt_ids: Sequence[int]) -> float:
    """Return the seconds until vLLM's first text for the same prompt, under a salt of its own."""
    asking = CompletionRequest(
        model=name,
        prompt=prompt_ids,
        max_tokens=ANSWER_TOKENS,
        temperature=0.0,
        seed=0,
        stream=True,
        return_token_ids=True,
        cache_salt=uuid4().hex,
    )
    decoder = CompletionDecoder()
    first = 0.0
    began = time.perf_counter()
    async with vllm.post(
        "/v1/completions", data=msgspec.json.encode(asking), headers={"content-type": "application/json"}
    ) as said:
        said.raise_for_status()
        async for data in said.content.iter_any():
            if not first and any(choice.text for frame in decoder.feed(data) for choice in frame.choices):
                first = time.perf_counter() - began
    return first


async def mode_costs(modes: Mapping[str, Product]) -> list[BenchFigure]:
    """Ask a product of every mode in turn for whole answers, each as a tenant that none was asked by before.

    A mode's cost is all that it adds: the probe's prefill, the checks, and what it holds back.
    """
    said: dict[str, list[Answered]] = {name: [] for name in modes}
    names, tenants = list(modes), iter(MODE_TENANTS)
    async with AsyncExitStack() as stack:
        sessions = {name: await stack.enter_async_context(session(modes[name].url)) for name in names}
        for n, question in enumerate(MODE_QUESTIONS):
            for name in names[n % len(names) :] + names[: n % len(names)]:
                tenant = next(tenants)
                customer = Customer(sessions[name], modes[name].signer, tenant=tenant)
                said[name].append(await customer.ask(Sample(id=tenant, text=question)))
    return [finding for name in names for finding in mode_cost(name, said[name], said["off"])]


def mode_cost(name: str, answers: Sequence[Answered], off: Sequence[Answered]) -> list[BenchFigure]:
    """Compare one mode's answers with those of no checks, at as many tokens: what was generated more or less is taken
    off, at the speed of the answers without checks.

    Raises:
        ProductNotStarted: the mode refused to answer.
    """
    waits = [answer.first_token_seconds for answer in answers if answer.first_token_seconds is not None]
    if len(waits) < len(answers) or not all(answer.answer_tokens for answer in answers):
        raise ProductNotStarted(f"grounding {name}: it ended in {[answer.finish_reason for answer in answers]}")
    token = median((one.seconds - (one.first_token_seconds or 0.0)) / one.answer_tokens for one in off)
    over = sorted(
        (one.seconds - (one.answer_tokens - other.answer_tokens) * token) / other.seconds
        for one, other in zip(answers, off, strict=True)
    )
    spread = f"median of {len(over)} ({over[0]:.2f} to {over[-1]:.2f})"
    return [
        BenchFigure(name=f"grounding {name}: first token shown", value=median(waits), unit="s"),
        BenchFigure(
            name=f"grounding {name}: tokens of an answer", value=median(a.answer_tokens for a in answers), unit=""
        ),
        BenchFigure(
            name=f"grounding {name}: the last token, over off, {spread}",
            value=median(over),
            unit="×",
            most=MOST_OVER_OFF if name == "strict" else None,
        ),
    ]


SHORT_ANSWER, LONG_ANSWER = 8, 32


def only_stores(_: str, names: Sequence[str]) -> list[str]:
    """Return what is not copied of a data folder: logs, and the Redis of the product that runs on it."""
    return [name for name in names if name in {"logs", "redis", "unlogged", "wide", "off", "numbers", "strict"}]


async def log_costs(logged: Product, unlogged: Product, ground: Ground, plan: Plan) -> list[BenchFigure]:
    """Ask an API with an answer log and one without in turn: processor time of the event loop a chunk, first token.

    What an answer costs beside its chunks is the same in answers of both lengths, so it is taken off.
    """
    tenant = next(ground.tenants)
    busy: dict[tuple[str, int], list[float]] = {}
    waits: dict[str, list[float]] = {}
    async with session(logged.url) as first, session(unlogged.url) as second:
        sides = [("with", logged, first), ("without", unlogged, second)]
        for n in range(plan.log_calls + 1):
            for length in (SHORT_ANSWER, LONG_ANSWER):
                for name, running, http in sides[:: (-1) ** n]:
                    before = loop_seconds(running.pids["chatbot"])
                    customer = Customer(http, running.signer, tenant=tenant, max_answer_tokens=length)
                    answer = await customer.ask(Sample(id=tenant, text=QUESTION))
                    if answer.answer_tokens != length or answer.first_token_seconds is None:
                        raise ProductNotStarted(f"an answer of {length} tokens had {answer.answer_tokens}")
                    if n:  # the first round fills the caches of both
                        busy.setdefault((name, length), []).append(loop_seconds(running.pids["chatbot"]) - before)
                        waits.setdefault(name, []).append(answer.first_token_seconds)
    chunk = {
        name: (median(busy[name, LONG_ANSWER]) - median(busy[name, SHORT_ANSWER])) / (LONG_ANSWER - SHORT_ANSWER)
        for name in waits
    }
    wait = {name: median(values) for name, values in waits.items()}
    return [
        BenchFigure(name="processor time a chunk, without a log", value=chunk["without"] * 1e6, unit="µs"),
        BenchFigure(name="the same with the log, over it", value=chunk["with"] / chunk["without"], unit="×", most=1.25),
        BenchFigure(
            name="first token with the log, over without", value=wait["with"] / wait["without"], unit="×", most=1.25
        ),
    ]


def loop_seconds(pid: int) -> float:
    """Return the processor time of a process's first thread, which runs its event loop."""
    return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[0]) / 1e9


@asynccontextmanager
async def started(part: AbstractContextManager[T]) -> AsyncGenerator[T]:
    """Run a part while the block runs; starting and ending it waits in a thread."""
    there = await anyio.to_thread.run_sync(part.__enter__)
    try:
        yield there
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(part.__exit__, None, None, None)


def session(url: str) -> aiohttp.ClientSession:
    """Return a connection pool to one of our own servers."""
    return aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=LONGEST_ANSWER))


class _Card(msgspec.Struct):
    id: str


class _Cards(msgspec.Struct):
    data: list[_Card]


async def served_name(vllm: aiohttp.ClientSession) -> str:
    """Return the name under which vLLM serves its model."""
    async with vllm.get("/v1/models") as response:
        return msgspec.json.decode(await response.read(), type=_Cards).data[0].id


def memory(running: Product) -> list[BenchFigure]:
    """Return what is resident now, after the calls."""
    each = {name: resident_bytes(pid) / GIB for name, pid in running.pids.items()}
    parts = [BenchFigure(name=f"memory of {name}", value=value, unit="GiB") for name, value in each.items()]
    bounded = [replace(part, most=1.5) if part.name == "memory of chatbot" else part for part in parts]
    return [*bounded, BenchFigure(name="memory of everything", value=sum(each.values()), unit="GiB", most=8.0)]


async def ledger_trips(redis_url: str, plan: Plan) -> list[BenchFigure]:
    """Return what a reservation costs beside a plain GET."""
    cost = await ledger_cost(redis_url, rounds=plan.ledger_rounds, calls=plan.ledger_calls)
    low, high = cost.ratios[0], cost.ratios[-1]
    return [
        BenchFigure(name="plain GET", value=cost.get * 1e3, unit="ms"),
        BenchFigure(name="reservation of the ledger", value=cost.reserve * 1e3, unit="ms"),
        BenchFigure(
            name=f"reservation in plain GETs, median of {plan.ledger_rounds} rounds ({low:.2f} to {high:.2f})",
            value=median(cost.ratios),
            unit="×",
            most=MOST_GETS,
        ),
    ]


def report(findings: Sequence[BenchFigure], console: Console) -> bool:
    """Print the table; return whether every bound holds."""
    table = Table("", "measured", "bound", "")
    for one in findings:
        verdict = "" if not one.bound else "holds" if one.holds else "MISSED"
        table.add_row(
            one.name,
            f"{one.value:.3g} {one.unit}" if one.value < 1000 else f"{one.value:.0f} {one.unit}",
            one.bound,
            verdict,
        )
    console.print(table)
    return all(one.holds for one in findings)


def measured(name: str, profile: str, work: Work, environment: Mapping[str, str]) -> int:
    """Measure in a folder that is gone afterwards, print, and return the exit status."""
    end_like_ctrl_c()
    configure_logs(level="WARNING", log_format="console")
    settings = Settings()
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        wanted = Wanted(
            profile=profile,
            data=Path(folder),
            weights=settings.weights_dir.expanduser().resolve(),
            environment=environment,
        )
        findings: list[BenchFigure] = []
        try:
            findings = anyio.run(work, wanted, settings, Console(stderr=True), backend_options={"use_uvloop": True})
        except* ProductNotStarted as stopped:
            Console(stderr=True).print(f"{name}: {next(leaves(stopped))}", highlight=False, soft_wrap=True)
    if not findings:
        return 2
    return 0 if report(findings, Console(width=None if sys.stdout.isatty() else 100)) else 1


if __name__ == "__main__":
    given = dict(os.environ)  # noqa: TID251  the command line's own edge: what the parts are started with
    sys.exit(measured("bench", "cpu-small", partial(bench, Plan()), given))
