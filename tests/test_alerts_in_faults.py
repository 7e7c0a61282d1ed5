"""Every alert on a store, a model or the error budget is raised by what the product itself exports while a fault lasts.

Both services run over real stores. Each fault is caused while customers ask, `/metrics` of both is read before and
during it, and Prometheus' own evaluation of the chart's rules gets these samples, as though the fault went on.
"""

import re
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from chatbot.answerability import AnswerabilitySettings
from chatbot.deferred import DeferredSettings
from chatbot.limits import LedgerSettings
from chatbot.services import TurnSettings
from ingest.lost_passages import compare_index
from ingest.maintenance import rebuild
from ingest.parsing import ParserSettings, Readers, open_readers
from ingest.services import Services
from knowledge.embedding import Embedder, EmbedderSettings, open_embedder
from knowledge.index import IndexSettings
from knowledge.profiles import AnswerMode
from knowledge.terms import Terms
from llm_server.scripted import Behaviour, scripted_server
from tests.charts.promql import selectors_of
from tests.charts.rendering import CHART
from tests.conftest import DURABLE, redis_server
from tests.every_route import TEXT, WORD
from tests.one_process import Bank, Stores, open_bank
from tests.patience import patient
from tests.qdrant_server import FakeServer, ok
from tests.tiny_embedder import tiny_weights

pytestmark = [pytest.mark.anyio, pytest.mark.services]

RULES = CHART / "files/alerts.yaml"
RUNBOOKS = {"store-unavailable", "models-down", "error-budget", "audit"}
"""Of alerts on a store, a model or the error budget."""
BUDGET = {
    *("ChatbotErrorBudgetBurnsFast", "ChatbotErrorBudgetBurnsSlowly", "ChatbotErrorBudgetBurnsSteadily"),
    "ChatbotCanaryFails",
}
Samples = dict[str, float]
"""The value of each series, which is written as Prometheus stores it."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
async def embedder(weights: Path) -> AsyncGenerator[Embedder]:
    async with open_embedder(EmbedderSettings(folder=weights / "e5-small")) as embedder:
        yield embedder


@pytest.fixture(scope="module")
async def readers() -> AsyncGenerator[Readers]:
    async with open_readers(ParserSettings()) as readers:
        yield readers


@pytest.fixture(scope="module")
def terms() -> Terms:
    return Terms()


@pytest.fixture
async def stores(
    tmp_path: Path, weights: Path, embedder: Embedder, terms: Terms, readers: Readers
) -> AsyncGenerator[Stores]:
    data = tmp_path / "data"
    with redis_server(tmp_path / "redis", *DURABLE) as redis:
        async with scripted_server(Behaviour(obeys=True)) as model:
            yield Stores(
                redis=redis,
                model=model,
                database_url=f"sqlite+aiosqlite:///{data / 'bank.db'}",
                index=IndexSettings(path=data / "qdrant"),
                weights=weights,
                embedder=embedder,
                terms=terms,
                readers=readers,
            )


# --- the faults ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def index_lost(bank: Bank) -> AsyncGenerator[None]:
    assert bank.stores.index.path is not None
    elsewhere = bank.stores.index.path.rename(bank.stores.index.path.with_name("elsewhere"))
    yield
    elsewhere.rename(bank.stores.index.path)


@asynccontextmanager
async def model_behaves(bank: Bank, **behaviour: object) -> AsyncGenerator[None]:
    bank.stores.model.tell(**behaviour)
    yield
    bank.stores.model.reset()


@asynccontextmanager
async def sqlite_locked(bank: Bank) -> AsyncGenerator[None]:
    with closing(sqlite3.connect(bank.stores.database_url.partition("///")[2], isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@asynccontextmanager
async def redis_killed(bank: Bank) -> AsyncGenerator[None]:
    bank.stores.redis.stop()
    yield
    bank.stores.redis.restart()


@asynccontextmanager
async def redis_killed_in_an_answer(bank: Bank) -> AsyncGenerator[None]:
    """Kill Redis while an answer is said, whose end it then does not take."""
    bank.stores.model.tell(token_seconds=0.001)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bank.ask, "as it begins")
        with anyio.fail_after(patient(5)):
            await bank.stores.model.until(lambda stats: stats.running > 0)
        async with redis_killed(bank):
            yield


@asynccontextmanager
async def begun_with_it(_bank: Bank) -> AsyncGenerator[None]:
    yield


@asynccontextmanager
async def passages_lost(bank: Bank) -> AsyncGenerator[None]:
    """Take every passage out of the index, as a server does that begins with an empty volume."""
    services: Services = bank.staff.app.state.services
    for version in await services.catalogue.indexed_versions():
        key = version.key
        await services.index.delete(tenant=key.tenant, document_id=key.document_id, version=key.version)
    await compare_index(services)  # a worker does so each minute
    yield


@asynccontextmanager
async def originals_changed(bank: Bank) -> AsyncGenerator[None]:
    job = await bank.hand_in("changed")
    folder = Path(bank.stores.database_url.partition("///")[2]).parent / "blobs"
    await bank.approve(job)
    for original in folder.rglob("*"):
        if len(original.name) == 64:
            original.write_bytes(b"another text")
    page = f"/v1/documents/{job['document_id']}/versions/1/pages/1"
    await bank.staff.http.get(page, headers=bank.staff.headers(WORD, "staff"))
    yield


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is taken away, and the alerts that this raises: these and no others."""

    away: Callable[[Bank], AbstractAsyncContextManager[None]]
    raises: set[str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[tuple[type, str], object] = field(default_factory=dict)
    redis_policy: str = "noeviction"
    hours: int = 3
    """After how many hours of the fault the alerts are looked at."""
    step: int = 1
    """Minutes between two evaluations, and between two times at which the counters grow."""
    questions: int = 5
    seen: Callable[[Samples], bool] = lambda _samples: True
    """Whether what the product exports shows the fault: some of it comes a moment later."""


def positive(name: str, samples: Samples) -> bool:
    return any(value > 0 for series, value in samples.items() if series.startswith(name))


# A replica goes on by itself for a minute, and keeps 10,000 writes that Redis does not take.
UNCHECKED = TurnSettings(answer=AnswerMode.WRITTEN, answerability=AnswerabilitySettings(threshold=0, least_dense=-1))
"""What the model says is shown at once."""
SOON: dict[tuple[type, str], object] = {(LedgerSettings, "share_seconds"): 0.01}
LOSES_SOON: dict[tuple[type, str], object] = {
    **SOON,
    (DeferredSettings, "most"): 0,
    (DeferredSettings, "every"): 0.01,
}
FAULTS = {
    "the index is lost": Fault(away=index_lost, raises={"IndexUnavailable", *BUDGET}),
    "the model is dead": Fault(
        away=partial(model_behaves, dead=True), raises={"ChatbotModelCallsFail", "ChatbotAnswersWithoutModel"}
    ),
    "the model breaks off": Fault(
        away=partial(model_behaves, drop_after=40, answer=f"{TEXT} " * 9),
        raises={"ChatbotModelCallsFail", *BUDGET},
        settings={"turn": UNCHECKED},
        questions=1,  # after some the breaker opens, and the passages are quoted
    ),
    "SQLite is locked": Fault(away=sqlite_locked, raises={"AuditUnavailable", *BUDGET}),
    "Redis is killed": Fault(
        away=redis_killed_in_an_answer,
        raises={"TokenLedgerDegraded", "RedisWritesFail", *BUDGET},
        constants=SOON,
        seen=partial(positive, "chatbot_deferred_writes"),
    ),
    "Redis stays away": Fault(
        away=redis_killed_in_an_answer,
        raises={"TokenLedgerDegraded", "ChatbotWritesLost", *BUDGET},
        constants=LOSES_SOON,
        seen=partial(positive, "chatbot_lost_writes_total"),
    ),
    "Redis evicts": Fault(
        away=begun_with_it,
        raises={"RedisEvictionEnabled"},
        redis_policy="allkeys-lru",
        seen=partial(positive, "chatbot_redis_eviction_enabled"),
    ),
    "the anchors' store is away": Fault(
        away=begun_with_it,
        raises={"AuditNotAnchored"},
        settings={"audit_anchors": "file:///dev/null/anchors"},
        hours=28,
        step=30,
        seen=partial(positive, "chatbot_audit_anchored_timestamp_seconds"),
    ),
    "passages are lost": Fault(
        away=passages_lost, raises={"IndexIncomplete"}, seen=partial(positive, "ingest_missing_passages")
    ),
    "originals are changed": Fault(away=originals_changed, raises={"OriginalChanged"}),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_fault_raises_its_alerts_by_what_the_product_exports(
    tmp_path: Path, stores: Stores, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    for (kind, name), value in fault.constants.items():
        monkeypatch.setattr(kind, name, value)
    with closing(Redis.from_url(stores.redis.url)) as redis:
        redis.config_set("maxmemory-policy", fault.redis_policy)
    async with open_bank(tmp_path, stores, TracerProvider(), more=fault.settings) as bank:
        await bank.approve(await bank.hand_in("first"))
        await bank.until_answered()
        before, during = await exported_around(fault, bank)
    assert alerts_raised(before, during, fault, tmp_path) & watched() == fault.raises


@pytest.mark.parametrize("engine", ["embedded", "server"])
async def test_both_services_leave_service_while_the_index_is_empty_and_sql_says_that_it_is_not(
    tmp_path: Path, stores: Stores, engine: str
) -> None:
    async with (
        index_of(engine, stores) as index,
        open_bank(tmp_path, replace(stores, index=index), TracerProvider()) as bank,
    ):
        await until_index_is(bank, 200, "ok")
        await bank.approve(await bank.hand_in("first"))
        await until_index_is(bank, 200, "ok")
        with anyio.fail_after(patient(10)):
            staff = bank.staff.app.state.services
            while not (await staff.catalogue.index_state()).visible_passages:
                await compare_index(staff)
                await anyio.sleep(0.05)
        async with passages_lost(bank):
            await until_index_is(bank, 503, "empty")
        await rebuild(bank.staff.app.state.services, lambda *_report: None)
        await until_index_is(bank, 200, "ok")


@asynccontextmanager
async def index_of(engine: str, stores: Stores) -> AsyncGenerator[IndexSettings]:
    if engine == "embedded":
        yield stores.index
        return
    qdrant = FakeServer(dimensions=stores.embedder.dimensions)
    await qdrant.server.start_server()
    try:
        yield IndexSettings.model_validate({"url": str(qdrant.server.make_url("/"))})
    finally:
        await qdrant.server.close()


async def until_index_is(bank: Bank, status: int, state: str) -> None:
    for api in (bank.chat, bank.staff):
        with anyio.fail_after(patient(5)):
            while True:
                reply = await api.http.get("/readyz")
                if (reply.status_code, reply.json()["index"]) == (status, state):
                    break
                await anyio.sleep(0.05)


async def test_a_qdrant_server_that_fails_raises_its_alert_by_what_the_product_exports(
    tmp_path: Path, stores: Stores
) -> None:
    qdrant = FakeServer(dimensions=stores.embedder.dimensions)
    qdrant.answer = partial(ok, [{"points": []}] * 3)
    await qdrant.server.start_server()
    try:
        index = IndexSettings.model_validate({"url": str(qdrant.server.make_url("/"))})
        async with open_bank(tmp_path, replace(stores, index=index), TracerProvider()) as bank:
            fault = Fault(away=partial(qdrant_fails, qdrant), raises={"IndexUnavailable", *BUDGET})
            before, during = await exported_around(fault, bank)
    finally:
        await qdrant.server.close()
    assert alerts_raised(before, during, fault, tmp_path) & watched() == fault.raises


@asynccontextmanager
async def qdrant_fails(qdrant: FakeServer, _bank: Bank) -> AsyncGenerator[None]:
    qdrant.repeats = True
    yield
    qdrant.repeats = False


def watched() -> set[str]:
    """Return the alerts on a store, a model or the error budget whose series our own programs export."""
    alerts = {rule["alert"]: rule for group in rule_groups() for rule in group["rules"] if "alert" in rule}
    return {
        name
        for name, rule in alerts.items()
        if Path(rule["annotations"]["runbook_url"]).stem in RUNBOOKS or name == "OriginalChanged"
        if all(s.metric.startswith(("chatbot", "ingest", "namespace")) for s in selectors_of(rule["expr"]))
    }


def test_every_alert_on_a_store_a_model_or_the_budget_is_raised_by_a_fault() -> None:
    assert len(watched()) > 12
    assert watched() == set().union(*(fault.raises for fault in FAULTS.values()))


# --- what is exported, and what Prometheus makes of it ---------------------------------------------------------------


async def exported_around(fault: Fault, bank: Bank) -> tuple[Samples, Samples]:
    """Return what the product exports before a fault, and while it lasts and customers have asked."""
    before = await exported(bank)
    async with fault.away(bank):
        for _ in range(fault.questions):
            headers = bank.chat.headers(WORD, "customer")
            await bank.chat.http.post("/v1/chat", json={"message": TEXT}, headers=headers)
        with anyio.fail_after(patient(15)):
            while not fault.seen(during := await exported(bank)):
                await anyio.sleep(0.05)
    return before, during


async def exported(bank: Bank) -> Samples:
    """Return every series of both services, labelled as the chart's targets; the chat API's also as a canary's."""
    samples: Samples = {}
    for api, jobs in ((bank.chat, ("chatbot", "chatbot-canary")), (bank.staff, ("ingest",))):
        reply = await api.http.get("/metrics")
        text = reply.text if reply.status_code == 200 else ""
        for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
            for job in jobs:
                labels = {"namespace": "bank", "job": job, **sample.labels}
                selector = ",".join(f'{name}="{value}"' for name, value in labels.items())
                samples[f"{sample.name}{{{selector}}}"] = sample.value
    return samples


def alerts_raised(before: Samples, during: Samples, fault: Fault, folder: Path) -> set[str]:
    """Return the alerts that fire when a fault has gone on for its hours as it began."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: scripts/chart_parts installs it")
    groups = rule_groups()
    rules = [rule for group in groups for rule in group["rules"]]
    selected = {selector.metric for rule in rules for selector in selectors_of(rule["expr"])}
    series = [
        {"series": name, "values": f"{before.get(name, 0.0)}x9 {ongoing(name, before.get(name, 0.0), value, fault)}"}
        for name, value in during.items()
        if name.partition("{")[0] in selected
    ]
    firing = {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{fault.hours}h", "exp_samples": []}
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{fault.step}m",
        "group_eval_order": [group["name"] for group in groups],
        "tests": [{"interval": f"{fault.step}m", "input_series": series, "promql_expr_test": [firing]}],
    }
    file = folder / "fault_test.yaml"
    file.write_text(yaml.safe_dump(test), "utf-8")
    ended = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)  # noqa: S603
    output = ended.stdout + ended.stderr
    assert "got:" in output or ended.returncode == 0, output
    return set(re.findall(r'alertname="(\w+)"', output))


def ongoing(name: str, before: float, during: float, fault: Fault) -> str:
    """Return a series that goes on as it did: a counter grows by as much each step, a gauge stays."""
    steps = fault.hours * 60 // fault.step
    is_counter = name.partition("{")[0].endswith(("_total", "_bucket", "_count", "_sum"))
    return f"{before}+{during - before}x{steps}" if is_counter else f"{during}x{steps}"


def rule_groups() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return groups
