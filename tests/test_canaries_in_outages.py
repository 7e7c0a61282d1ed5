"""What customers and staff wrote is in no log and in no span while a store is away: Redis, SQL, the index, the model.

Each is taken away while an answer is said, and stays away while every address of both APIs is asked.
"""

import io
import json
import re
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
from structlog.testing import capture_logs

from ingest.parsing import ParserSettings, Readers, open_readers
from knowledge.embedding import Embedder, EmbedderSettings, open_embedder
from knowledge.index import IndexSettings
from knowledge.terms import Terms
from llm_server.scripted import Behaviour, scripted_server
from tests.conftest import DURABLE, redis_server
from tests.every_route import TEXT, WORD, leaked
from tests.log_and_spans import Told, listening_to, written_log
from tests.ocsf import security_events
from tests.one_process import Bank, Stores, open_bank
from tests.patience import patient
from tests.postgres import SHARED, Postgres, served
from tests.qdrant_server import FakeServer, ok
from tests.tiny_embedder import tiny_weights

pytestmark = [pytest.mark.anyio, pytest.mark.services]


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
def lines() -> Iterator[io.StringIO]:
    with written_log() as written:
        yield written


@pytest.fixture
async def stores(
    tmp_path: Path, weights: Path, embedder: Embedder, terms: Terms, readers: Readers
) -> AsyncGenerator[Stores]:
    """Stores as `make run` has them: a Redis, SQLite and the index in a folder, and a model that repeats questions."""
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


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Takes a store away while its block runs; `told` is an event of the log that says so."""

    away: Callable[[Bank], AbstractAsyncContextManager[None]]
    told: str
    answering: bool = False
    """Whether it begins while an answer is said."""


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

    return Fault(away=away, told="model_call_failed")


# The model fails so seldom, but in the end, that it goes on to be asked.
FAULTS = {
    "Redis is killed": Fault(away=redis_is_killed, told="redis_unavailable", answering=True),
    "SQLite is locked": Fault(away=sqlite_is_locked, told="audit_write_failed", answering=True),
    "the index is lost": Fault(away=the_folder_of_the_index_is_lost, told="index_unavailable", answering=True),
    "the model talks nonsense": the_model(garble_after=2, times=4),
    "the model fails": the_model(fail_status=500, times=2),
    "the model breaks off": the_model(drop_after=5, times=4),
    "the model is dead": the_model(dead=True),
}


@pytest.mark.timeout(300)  # every address of both services, in each of seven faults
async def test_nothing_that_was_written_is_told_while_a_store_is_away(
    tmp_path: Path, stores: Stores, lines: io.StringIO
) -> None:
    problems: list[str] = []
    with listening_to(lines) as told:
        async with open_bank(tmp_path, stores, told.provider) as bank:
            await bank.approve(await bank.hand_in("first"))
            await bank.until_answered()
            for name, fault in FAULTS.items():
                given = await used(bank, name)
                await bank.approve(given)
                problems += await problems_during(name, fault, given, bank, told)

    assert problems + leaked(told.all()) == []
    assert {"retrieve", "probe", "model.generate"} <= spans(told), "the spans within a request are among them"


async def test_nothing_that_was_written_is_told_while_a_server_of_a_store_fails(
    tmp_path: Path, stores: Stores, lines: io.StringIO
) -> None:
    problems: list[str] = []
    qdrant = FakeServer(dimensions=stores.embedder.dimensions)
    qdrant.answer = partial(ok, [{"points": []}] * 3)
    await qdrant.server.start_server()
    try:
        with listening_to(lines) as told, served() as postgres:
            index = IndexSettings.model_validate({"url": str(qdrant.server.make_url("/"))})
            servers = replace(stores, index=index, database_url=postgres.url(SHARED))
            async with open_bank(tmp_path, servers, told.provider) as bank:
                for name, fault in {
                    "Qdrant fails": Fault(away=partial(qdrant_fails, qdrant), told="job_attempt_failed"),
                    "PostgreSQL is killed": Fault(
                        away=partial(postgres_is_killed, postgres), told="audit_write_failed"
                    ),
                }.items():
                    problems += await problems_during(name, fault, await used(bank, name), bank, told)
    finally:
        await qdrant.server.close()

    assert problems + leaked(told.all()) == []


async def test_security_events_hold_ids_and_our_own_words_and_nothing_that_was_written(
    tmp_path: Path, stores: Stores, lines: io.StringIO
) -> None:
    with listening_to(lines) as told, capture_logs() as logs:
        async with open_bank(tmp_path, stores, told.provider) as bank:
            given = await used(bank, "first")
            await bank.approve(given)
            await bank.ask_everything(given)
            for api in (bank.chat, bank.staff):
                refused = await api.http.get(
                    "/v1/me" if api is bank.staff else "/v1/limits", headers={"authorization": f"Bearer {WORD}"}
                )
                assert refused.status_code == 401
            address = f"/v1/admin/limits?scope=user&sub={WORD}"
            reset = await bank.chat.http.delete(address, headers=bank.chat.headers("an-admin", "admin"))
            assert reset.status_code == 200, reset.text
            later = await bank.hand_in("second")
            for original in (tmp_path / "data" / "blobs").rglob("*"):
                if len(original.name) == 64:
                    original.write_bytes(b"another text")
            page = f"/v1/documents/{later['document_id']}/versions/1/pages/1"
            assert (await bank.staff.http.get(page, headers=bank.staff.headers(WORD, "staff"))).status_code >= 400
    events = security_events(logs)
    assert {event["metadata"]["event_code"] for event in events} >= {
        *("sign_in_refused", "key_made", "answers_stopped", "answers_resumed", "limits_reset", "answer_replayed"),
        *("original_changed", "document_uploaded", "version_approved", "version_expired", "document_deleted"),
    }
    assert {event["metadata"]["product"]["feature"]["name"] for event in events} == {"chatbot", "ingest"}
    # Staff are named by their subjects, which are canaries here, and by nothing else.
    assert leaked("\n".join(json.dumps(event | {"actor": None}, ensure_ascii=False) for event in events)) == []
    assert {event["actor"]["user"]["uid"] for event in events if "actor" in event} <= {WORD, f"{WORD}-2", "an-admin"}
    written = str(events)
    assert "eyJ" not in written, "a token"
    assert re.search("bck_[0-9a-f]+_", written) is None, "a service key"


@asynccontextmanager
async def qdrant_fails(qdrant: FakeServer, _bank: Bank) -> AsyncGenerator[None]:
    qdrant.repeats = True
    yield
    qdrant.repeats = False


@asynccontextmanager
async def postgres_is_killed(postgres: Postgres, _bank: Bank) -> AsyncGenerator[None]:
    postgres.kill()
    yield


async def problems_during(name: str, fault: Fault, given: dict[str, Any], bank: Bank, told: Told) -> list[str]:
    """Take a store away and ask every address; return what is wrong with what was told and replied meanwhile.

    It is asserted when the bank is closed: a bank that an exception ends leaves its connections to the next test.
    """
    before = len(told.lines.getvalue())
    replies = await asked_during(fault, bank, given)
    said = told.lines.getvalue()[before:]
    problems = [f"{name}: {line}" for line in leaked(said)]
    problems += [f"{name}: {address} {reply.text}" for address, reply in replies.items() if reply.status_code == 500]
    return problems if fault.told in said else [f"{name}: nobody noticed", *problems]


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
    """Wait until both services are ready, ask a question and upload a document.

    Returns what requests need to reach these, and to go as far as they can.
    """
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


def spans(told: Told) -> set[str]:
    """Return the names of the spans that were exported."""
    return {span.name for span in told.exporter.get_finished_spans()}
