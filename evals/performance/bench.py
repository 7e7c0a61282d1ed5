"""`make bench`: the API's overhead over vLLM with the real product on this machine; exits with code 1 over a bound.

Compares the first token through the API (including retrieval and checks) with that of vLLM for the same prompt ids.
Each call has its own `cache_salt` to prevent prefix cache hits; the API uses the tenant as salt, so each call comes
from a new tenant with a copy of the documents.
"""

import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from uuid import uuid4

import aiohttp
import anyio
import msgspec
from rich.console import Console
from rich.table import Table

from chatbot.api import LocalSigner
from chatbot.chat import Message
from chatbot.models import StreamDecoder
from chatbot.prompt import PromptBuilder, load_templates
from chatbot.retrieval import Retrieval
from chatbot.settings import Settings as ChatSettings
from chatbot.tokens import TokenCounter
from evals.product import (
    ProductNotStarted,
    ProductSpec,
    RunningModel,
    RunningProduct,
    interrupt_on_sigterm,
    resident_bytes,
    run_model,
    run_product,
    started_part,
)
from evals.quality import LONGEST_ANSWER, Customer, loaded_corpus
from evals.questions import HANBIT, TENANT, Sample, read_dataset
from evals.sample_bank import sample_banks
from ingest.settings import Settings
from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.index import Index
from telemetry.groups import leaves
from telemetry.logs import configure_logs

QUESTION = "한빛 정기예금을 중간에 해지하면 이자는 어떻게 되나요?"
ANSWER_TOKENS = 16
WRITES = {"TURN__ANSWER": "written", "TURN__ANSWERABILITY__THRESHOLD": "0"}
"""The model writes every answer without probes, whatever the search finds."""
MODEL_READY_SECONDS = 60
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """The number of measured calls, of warm-up calls before them, and of passages that each tenant gets."""

    calls: int = 20
    warm_up: int = 2
    passages: int = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchFigure:
    """One line of the report; without `most` or `least` it is informational."""

    name: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None

    @property
    def bound(self) -> str:
        """The bound in words; "" without one."""
        at_most = [f"≤ {self.most:g} {self.unit}"] if self.most is not None else []
        at_least = [f"≥ {self.least:g} {self.unit}"] if self.least is not None else []
        return ", ".join(at_least + at_most)

    @property
    def holds(self) -> bool:
        """Whether the value is within its bounds."""
        too_much = self.most is not None and self.value > self.most
        too_little = self.least is not None and self.value < self.least
        return not (too_much or too_little)


Measurement = Callable[[ProductSpec, Settings, Console], Awaitable[list[BenchFigure]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSetup:
    """The tenants that have the documents and have not asked yet, and the prompt messages that all of them share."""

    tenants: Iterator[str]
    messages: tuple[Message, ...]


async def bench(plan: BenchPlan, spec: ProductSpec, settings: Settings, console: Console) -> list[BenchFigure]:
    """Run all measurements on one running product."""
    setup = await prepare(spec, settings, plan, console)
    async with started_part(run_model(spec)) as model:
        console.print("measuring answers that the model writes", highlight=False)
        async with started_part(run_product(spec, model, **WRITES)) as product:
            await until_model_ready(product)
            return [*await first_tokens(product, model, setup, plan), *memory(product.pids)]


async def until_model_ready(product: RunningProduct) -> None:
    """Wait until the product can call its model.

    On a busy machine, the product may start without a model that missed the start-up deadline, and probe it later.

    Raises:
        ProductNotStarted: the product cannot call its model within a minute.
    """
    try:
        with anyio.fail_after(MODEL_READY_SECONDS):
            async with session(product.url) as http:
                while await models_state(http) != "ok":  # noqa: ASYNC110  another process
                    await anyio.sleep(0.1)
    except TimeoutError as exc:
        raise ProductNotStarted("the product could not call its model within a minute: is the machine busy?") from exc


async def models_state(http: aiohttp.ClientSession) -> str:
    async with http.get("/readyz") as response:
        return str((await response.json())["models"])


async def prepare(spec: ProductSpec, settings: Settings, plan: BenchPlan, console: Console) -> BenchSetup:
    """Load the sample documents, and copy the passages nearest to the question to every tenant that will ask."""
    names = [f"bench-{n:03}" for n in range(plan.warm_up + plan.calls + 1)]
    async with loaded_corpus(read_dataset(HANBIT), settings, spec.data, console) as (services, _):
        await copy_passages(services.index, names, [QUESTION], plan.passages)
        messages = await prompt_messages(services.index, names[0])
    return BenchSetup(tenants=iter(names), messages=messages)


async def copy_passages(index: Index, tenants: Sequence[str], questions: Sequence[str], limit: int) -> None:
    """Copy the sample bank's best `limit` passages for each question to other tenants, embedding them only once."""
    hits = [hit for question in questions for hit in await index.search(question, access=access(TENANT), limit=limit)]
    passages = list({hit.passage.point_id: hit.passage for hit in hits}.values())
    vectors = await index.embed(passages)
    for tenant in tenants:
        await index.upsert([replace(passage, tenant=tenant) for passage in passages], vectors)


async def prompt_messages(index: Index, tenant: str) -> tuple[Message, ...]:
    """Return the messages of the prompt that the product builds for any of these tenants."""
    result = await Retrieval(index, sample_banks()).search(QUESTION, earlier=(), access=access(tenant))
    passage_tokens = ChatSettings.model_fields["passage_tokens"].default
    builder = PromptBuilder(load_templates(), TokenCounter(), passage_tokens=passage_tokens)
    passages = [hit.passage for hit in result.hits]
    bank = sample_banks().first.names.ko
    prompt = builder.build(QUESTION, bank=bank, history=(), passages=passages, language="ko")
    return tuple(prompt.answer.messages)


def access(tenant: str) -> Access:
    """Return the current access of any customer of a tenant."""
    return Access(tenant=tenant, groups=frozenset({EVERY_CUSTOMER}), as_of=time.time())


async def first_tokens(
    product: RunningProduct, model: RunningModel, setup: BenchSetup, plan: BenchPlan
) -> list[BenchFigure]:
    """Ask through the API and vLLM directly in alternating order; return both medians and their ratio."""
    through_api: list[float] = []
    direct: list[float] = []
    async with session(product.url) as http, session(model.url) as vllm:
        name = await served_name(vllm)
        prompt_tokens = None
        for n in range(plan.warm_up + plan.calls):
            is_api_first = n % 2 == 1
            if is_api_first:
                api_seconds = await first_token(http, product.signer, setup, prompt_tokens)
            direct_seconds, prompt_tokens = await first_token_alone(vllm, name, setup.messages)
            if not is_api_first:
                api_seconds = await first_token(http, product.signer, setup, prompt_tokens)
            if n >= plan.warm_up:
                through_api.append(api_seconds)
                direct.append(direct_seconds)
    ratio = median(through_api) / median(direct)
    return [
        BenchFigure(name=f"prompt, median of {plan.calls} calls", value=prompt_tokens or 0, unit="tokens"),
        BenchFigure(name="first token, vLLM alone", value=median(direct), unit="s"),
        BenchFigure(name="first token through the API", value=median(through_api), unit="s"),
        BenchFigure(name="ratio of the two", value=ratio, unit="×", most=1.15),
    ]


async def first_token(
    http: aiohttp.ClientSession, signer: LocalSigner, setup: BenchSetup, prompt_tokens: int | None
) -> float:
    """Return the seconds until the first token for a customer of the next tenant.

    Raises:
        ProductNotStarted: the answer failed, or its prompt does not have `prompt_tokens` tokens (None: any number).
    """
    tenant = next(setup.tenants)
    customer = Customer(http, signer, tenant=tenant, max_answer_tokens=ANSWER_TOKENS)
    answer = await customer.ask(Sample(id=tenant, text=QUESTION))
    is_comparable = prompt_tokens in {None, answer.prompt_tokens}
    if answer.first_token_seconds is None or not is_comparable:
        raise ProductNotStarted(
            f"the API ended in {answer.finish_reason} with a prompt of {answer.prompt_tokens} tokens, "
            f"not {prompt_tokens}: the two sides would not be comparable"
        )
    return answer.first_token_seconds


async def first_token_alone(vllm: aiohttp.ClientSession, name: str, messages: Sequence[Message]) -> tuple[float, int]:
    """Return the seconds until vLLM's first text for a prompt under a new salt, and the prompt's tokens."""
    request = {
        "model": name,
        "messages": messages,
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0.0,
        "seed": 0,
        "stream": True,
        "return_token_ids": True,
        "cache_salt": uuid4().hex,
    }
    decoder = StreamDecoder()
    first = 0.0
    began = time.perf_counter()
    async with vllm.post(
        "/v1/chat/completions", data=msgspec.json.encode(request), headers={"content-type": "application/json"}
    ) as response:
        response.raise_for_status()
        async for data in response.content.iter_any():
            if not first and any(piece.text for piece in list(decoder.feed(data))):
                first = time.perf_counter() - began
    return first, len(decoder.prompt_ids)


def session(url: str) -> aiohttp.ClientSession:
    """Return an HTTP session with one of the started servers."""
    return aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=LONGEST_ANSWER))


class _ServedModel(msgspec.Struct):
    id: str


class _ServedModels(msgspec.Struct):
    data: list[_ServedModel]


async def served_name(vllm: aiohttp.ClientSession) -> str:
    """Return the name under which vLLM serves its model."""
    async with vllm.get("/v1/models") as response:
        return msgspec.json.decode(await response.read(), type=_ServedModels).data[0].id


def memory(pids: Mapping[str, int]) -> list[BenchFigure]:
    """Return the resident memory of each process by name, and the total."""
    gibibytes = {name: resident_bytes(pid) / GIB for name, pid in pids.items()}
    figures = [
        BenchFigure(name=f"memory of {name}", value=value, unit="GiB", most=1.5 if name == "chatbot" else None)
        for name, value in gibibytes.items()
    ]
    return [*figures, BenchFigure(name="memory of everything", value=sum(gibibytes.values()), unit="GiB", most=8.0)]


def print_figures(figures: Sequence[BenchFigure], console: Console) -> bool:
    """Print the table; return whether all bounds hold."""
    table = Table("", "measured", "bound", "")
    for figure in figures:
        value = f"{figure.value:.3g}" if figure.value < 1000 else f"{figure.value:.0f}"
        verdict = "holds" if figure.holds else "MISSED"
        table.add_row(figure.name, f"{value} {figure.unit}", figure.bound, verdict if figure.bound else "")
    console.print(table)
    return all(figure.holds for figure in figures)


def run_measurement(name: str, profile: str, measure: Measurement, environment: Mapping[str, str]) -> int:
    """Run a measurement in a temporary folder, print the figures, and return the exit status."""
    interrupt_on_sigterm()
    configure_logs(level="WARNING", log_format="console")
    settings = Settings()
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        weights = settings.weights_dir.expanduser().resolve()
        spec = ProductSpec(profile=profile, data=Path(folder), weights=weights, environment=environment)
        figures: list[BenchFigure] = []
        try:
            figures = anyio.run(measure, spec, settings, Console(stderr=True), backend_options={"use_uvloop": True})
        except* ProductNotStarted as group:
            Console(stderr=True).print(f"{name}: {next(leaves(group))}", highlight=False, soft_wrap=True)
    if not figures:
        return 2
    return 0 if print_figures(figures, Console(width=None if sys.stdout.isatty() else 100)) else 1


if __name__ == "__main__":
    environment = dict(os.environ)  # noqa: TID251  the edge of the command line; passed to the processes it starts
    sys.exit(run_measurement("bench", "cpu-small", partial(bench, BenchPlan()), environment))
