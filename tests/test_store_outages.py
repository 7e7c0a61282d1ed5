"""Both services in one process while a store is away: Redis, SQL, the index, the model.

What customers and staff wrote is in no log and in no span: each store is taken away while an answer is said, and stays
away while every address of both APIs is asked. With an empty index neither service is ready.
"""

import io
import json
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from opentelemetry.sdk.trace import TracerProvider

from ingest.lost_passages import compare_index
from ingest.maintenance import rebuild
from ingest.parsing import ParserSettings, open_readers
from ingest.services import Services
from knowledge.embedding import EmbedderSettings, open_embedder
from knowledge.index import IndexSettings
from knowledge.terms import Terms
from llm_server.scripted import Behaviour, scripted_server
from tests.conftest import DURABLE, redis_server
from tests.every_route import TEXT, leaked
from tests.log_and_spans import Recorded, listening_to, written_log
from tests.ocsf import valid_event
from tests.one_process import Bank, Stores, open_bank
from tests.patience import patient
from tests.postgres import SHARED, Postgres, served
from tests.qdrant_server import FakeServer, ok
from tests.tiny_embedder import tiny_weights

pytestmark = [pytest.mark.anyio, pytest.mark.services]


@pytest.fixture(scope="module")
async def parts(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[dict[str, Any]]:
    """The parts of both services that take long to load."""
    weights = tiny_weights(tmp_path_factory.getbasetemp())
    async with (
        open_embedder(EmbedderSettings(folder=weights / "e5-small")) as embedder,
        open_readers(ParserSettings()) as readers,
    ):
        yield {"weights": weights, "embedder": embedder, "terms": Terms(), "readers": readers}


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    with written_log() as written:
        yield written


@pytest.fixture
async def stores(tmp_path: Path, parts: dict[str, Any]) -> AsyncGenerator[Stores]:
    """Stores as `make run` has them: a Redis, SQLite and the index in a folder, and a model that repeats questions."""
    data = tmp_path / "data"
    with redis_server(tmp_path / "redis", *DURABLE) as redis:
        async with scripted_server(Behaviour(obeys=True)) as model:
            yield Stores(
                redis=redis,
                model=model,
                database_url=f"sqlite+aiosqlite:///{data / 'bank.db'}",
                index=IndexSettings(path=data / "qdrant"),
                **parts,
            )


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Makes a store unavailable while its block runs; the log must have `event` then."""

    away: Callable[[Bank], AbstractAsyncContextManager[None]]
    event: str
    answering: bool = False
    """Whether it begins while an answer runs."""


@asynccontextmanager
async def redis_is_killed(bank: Bank) -> AsyncGenerator[None]:
    bank.stores.redis.stop()
    yield
    bank.stores.redis.restart()


@asynccontextmanager
async def sqlite_is_locked(bank: Bank) -> AsyncGenerator[None]:
    with closing(sqlite3.connect(bank.stores.database_url.partition("///")[2], isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@asynccontextmanager
async def the_folder_of_the_index_is_lost(bank: Bank) -> AsyncGenerator[None]:
    folder = bank.stores.index.path
    assert folder is not None
    elsewhere = folder.rename(folder.with_name("elsewhere"))
    yield
    elsewhere.rename(folder)


def the_model(**fails: object) -> Fault:
    """Return a fault of the scripted model, which repeats the prompt where it says that it failed."""

    @asynccontextmanager
    async def away(bank: Bank) -> AsyncGenerator[None]:
        bank.stores.model.tell(**fails)
        yield
        bank.stores.model.reset()

    return Fault(away=away, event="model_call_failed")


# The model fails so seldom, but in the end, that it goes on to be asked.
FAULTS = {
    "Redis is killed": Fault(away=redis_is_killed, event="redis_unavailable", answering=True),
    "SQLite is locked": Fault(away=sqlite_is_locked, event="audit_write_failed", answering=True),
    "the index is lost": Fault(away=the_folder_of_the_index_is_lost, event="index_unavailable", answering=True),
    "the model talks nonsense": the_model(garble_after=2, times=4),
    "the model fails": the_model(fail_status=500, times=2),
    "the model breaks off": the_model(drop_after=5, times=4),
}


@pytest.mark.timeout(300)  # every address of both services, in each of six faults
async def test_no_customer_text_is_logged_while_a_store_is_away(
    tmp_path: Path, stores: Stores, lines: io.StringIO
) -> None:
    problems: list[str] = []
    with listening_to(lines) as recorded:
        async with open_bank(tmp_path, stores, recorded.provider) as bank:
            await bank.approve(await bank.hand_in("first"))
            await bank.until_answered()
            for name, fault in FAULTS.items():
                given = await used(bank, name)
                await bank.approve(given)
                problems += await problems_during(name, fault, given, bank, recorded)

    assert problems + leaked(recorded.all()) == []
    spans = {span.name for span in recorded.exporter.get_finished_spans()}
    assert {"retrieve", "probe", "model.generate"} <= spans, "the spans within a request are among them"
    security = [line for line in recorded.lines.getvalue().splitlines() if '"security_event"' in line]
    codes = {valid_event(json.dumps(json.loads(line)["ocsf"]))["metadata"]["event_code"] for line in security}
    assert {"key_made", "answers_stopped", "document_uploaded", "version_approved"} <= codes


async def test_no_customer_text_is_logged_while_a_store_server_fails(
    tmp_path: Path, stores: Stores, lines: io.StringIO
) -> None:
    problems: list[str] = []
    with listening_to(lines) as recorded, served() as postgres:
        async with qdrant_of(stores) as qdrant:
            servers = replace(stores, index=settings_of(qdrant), database_url=postgres.url(SHARED))
            faults = {
                "Qdrant fails": Fault(away=partial(qdrant_fails, qdrant), event="job_attempt_failed"),
                "PostgreSQL is killed": Fault(away=partial(postgres_is_killed, postgres), event="audit_write_failed"),
            }
            async with open_bank(tmp_path, servers, recorded.provider) as bank:
                for name, fault in faults.items():
                    problems += await problems_during(name, fault, await used(bank, name), bank, recorded)

    assert problems + leaked(recorded.all()) == []


@asynccontextmanager
async def qdrant_of(stores: Stores) -> AsyncGenerator[FakeServer]:
    qdrant = FakeServer(dimensions=stores.embedder.dimensions)
    qdrant.answer = partial(ok, [{"points": []}] * 3)
    await qdrant.server.start_server()
    try:
        yield qdrant
    finally:
        await qdrant.server.close()


def settings_of(qdrant: FakeServer) -> IndexSettings:
    return IndexSettings.model_validate({"url": str(qdrant.server.make_url("/"))})


@asynccontextmanager
async def qdrant_fails(qdrant: FakeServer, _bank: Bank) -> AsyncGenerator[None]:
    qdrant.repeats = True
    yield
    qdrant.repeats = False


@asynccontextmanager
async def postgres_is_killed(postgres: Postgres, _bank: Bank) -> AsyncGenerator[None]:
    postgres.kill()
    yield


async def problems_during(name: str, fault: Fault, given: dict[str, Any], bank: Bank, recorded: Recorded) -> list[str]:
    """Take a store away and ask every address; return what is wrong with records and replies of that time.

    It is asserted when the bank is closed: a bank that an exception ends leaves its connections to the next test.
    """
    before = len(recorded.lines.getvalue())
    replies = await asked_during(fault, bank, given)
    logged = recorded.lines.getvalue()[before:]
    problems = [f"{name}: {line}" for line in leaked(logged)]
    problems += [f"{name}: {address} {reply.text}" for address, reply in replies.items() if reply.status_code == 500]
    return problems if fault.event in logged else [f"{name}: nobody noticed", *problems]


async def asked_during(fault: Fault, bank: Bank, given: dict[str, Any]) -> dict[str, httpx2.Response]:
    """Return the replies of every address while the fault lasts."""
    async with anyio.create_task_group() as tasks:
        if fault.answering:
            bank.stores.model.tell(token_seconds=0.001)
            tasks.start_soon(bank.ask, "as it begins")
            with anyio.fail_after(patient(5)):
                await bank.stores.model.until(lambda stats: stats.running > 0)
        async with fault.away(bank):
            replies = await bank.ask_everything(given)
    return replies


async def used(bank: Bank, name: str) -> dict[str, Any]:
    """Wait until both services are ready, ask and upload; return what requests need to reach both results."""
    bank.stores.model.reset()
    with anyio.fail_after(patient(10)):
        for api in (bank.chat, bank.staff):
            while (await api.http.get("/readyz")).status_code != 200:
                await anyio.sleep(0.02)
    job, answer = await bank.hand_in(name), await bank.ask(name)
    ids = {key: job[key] for key in ("job_id", "document_id", "version")}
    ids |= {key: answer[key] for key in ("answer_id", "conversation_id")}
    texts = dict.fromkeys(("message", "content", "reason"), f"{TEXT} {name}")
    return ids | texts | dict.fromkeys(LEFT_OUT)


LEFT_OUT = (
    *("before", "after", "cursor", "state", "readers"),
    *("max_tokens", "max_completion_tokens", "max_answer_tokens"),
)
"""What is refused unless it fits, or ends an answer at once."""


async def lose_passages(bank: Bank) -> None:
    """Take every passage out of the index, as a server does that begins with an empty volume."""
    services: Services = bank.staff.app.state.services
    for version in await services.catalogue.indexed_versions():
        key = version.key
        await services.index.delete(tenant=key.tenant, document_id=key.document_id, version=key.version)
    await compare_index(services)  # a worker does so each minute


@pytest.mark.parametrize("engine", ["embedded", "server"])
async def test_neither_service_is_ready_while_the_index_lost_all_passages(
    tmp_path: Path, stores: Stores, engine: str
) -> None:
    async with qdrant_of(stores) as qdrant:
        index = stores.index if engine == "embedded" else settings_of(qdrant)
        async with open_bank(tmp_path, replace(stores, index=index), TracerProvider()) as bank:
            await until_index_is(bank, 200, "ok")
            await bank.approve(await bank.hand_in("first"))
            await until_index_is(bank, 200, "ok")
            with anyio.fail_after(patient(10)):
                staff = bank.staff.app.state.services
                while not (await staff.catalogue.index_state()).visible_passages:
                    await compare_index(staff)
                    await anyio.sleep(0.05)
            await lose_passages(bank)
            await until_index_is(bank, 503, "empty")
            await rebuild(bank.staff.app.state.services, lambda *_report: None)
            await until_index_is(bank, 200, "ok")


async def until_index_is(bank: Bank, status: int, state: str) -> None:
    for api in (bank.chat, bank.staff):
        with anyio.fail_after(patient(5)):
            while True:
                reply = await api.http.get("/readyz")
                if (reply.status_code, reply.json()["index"]) == (status, state):
                    break
                await anyio.sleep(0.05)
