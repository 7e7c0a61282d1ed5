"""A Qdrant server: the conformance suite where QDRANT_TEST_URL names one, and what becomes of one that is slow, wrong
or gone: always IndexUnavailable, and in time."""

import inspect
import os
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
from aiohttp import web
from pydantic import ValidationError
from qdrant_client.common import client_exceptions
from qdrant_client.http import exceptions
from structlog.testing import capture_logs

from knowledge.embedding import Embedder
from knowledge.index import (
    IndexFormatUnknown,
    IndexRefused,
    IndexSettings,
    IndexUnavailable,
    ServerSettings,
    open_index,
)
from knowledge.index.engine import Engine
from knowledge.index.server import CLIENT_ERRORS, open_server
from knowledge.terms import Terms
from tests.certificates import certificates
from tests.knowledge.conftest import CUSTOMER, numbered
from tests.knowledge.index.conformance import EngineConformance, OpenAgain
from tests.knowledge.index.points import VECTORS
from tests.qdrant_server import FakeServer, ok

pytestmark = pytest.mark.anyio
TIMEOUTS = {"read_timeout": 10.0, "write_timeout": 30.0}


def opened(settings: ServerSettings) -> Any:
    url = os.environ["QDRANT_TEST_URL"]  # noqa: TID251  the test runner's own edge
    return open_server(url, settings, api_key=os.environ.get("QDRANT_TEST_API_KEY"), **TIMEOUTS)  # noqa: TID251


@pytest.mark.qdrant
@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")
@pytest.mark.parametrize(
    "kept", [{}, {"quantize": "int8"}, {"graph_by_tenant": True, "shards": 2, "payload_on_disk": False}], ids=str
)
class TestServer(EngineConformance):
    @pytest.fixture
    def alias(self) -> str:
        return f"test{uuid4().hex[:12]}"

    @pytest.fixture
    async def engine(self, alias: str, kept: dict[str, Any]) -> AsyncGenerator[Engine]:
        async with opened(ServerSettings.model_validate(kept)) as engine:
            yield engine
            for name in await engine.collections():
                if name.startswith(alias):
                    await engine.drop(name)

    @pytest.fixture
    def again(self) -> OpenAgain:
        return lambda: opened(ServerSettings())

    async def test_two_processes_that_boot_at_once_make_one_collection(self, engine: Engine, alias: str) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(engine.create, f"{alias}-1", VECTORS)
        assert await engine.vectors_of(f"{alias}-1") == VECTORS


def declared() -> Iterator[type[Exception]]:
    for module in (client_exceptions, exceptions):
        for _, found in inspect.getmembers(module, inspect.isclass):
            if issubclass(found, Exception) and found.__module__ == module.__name__:
                yield found


def test_every_exception_that_the_client_declares_is_translated() -> None:
    kinds = list(declared())
    assert len(kinds) >= 5
    assert [kind for kind in kinds if not issubclass(kind, CLIENT_ERRORS)] == []
    assert issubclass(TimeoutError, CLIENT_ERRORS)


@pytest.fixture
async def server() -> AsyncGenerator[FakeServer]:
    server = FakeServer()
    await server.server.start_server()
    try:
        yield server
    finally:
        server.release.set()
        await server.server.close()


def at(server: FakeServer) -> IndexSettings:
    return IndexSettings.model_validate({"url": str(server.server.make_url("/")), "read_timeout": 0.5})


async def test_a_server_gets_its_payload_indexes_at_boot(server: FakeServer, embedder: Embedder, terms: Terms) -> None:
    async with open_index(at(server), embedder, terms) as index:
        assert index.collection == "kb-1"
    filtered = {"tenant", "readers", "document_id", "version", "visible_from", "visible_until", "language"}
    assert set(server.indexed) == filtered


@pytest.mark.parametrize(("replicas", "acknowledged"), [(1, 1), (2, 1), (3, 2), (4, 3)])
async def test_a_collection_is_made_so_that_it_takes_writes_without_one_of_its_copies(
    server: FakeServer, embedder: Embedder, terms: Terms, replicas: int, acknowledged: int
) -> None:
    server.made, server.copies = False, replicas
    settings = at(server).model_copy(update={"server": ServerSettings(replicas=replicas)})
    with capture_logs() as logs:
        async with open_index(settings, embedder, terms):
            pass
    assert (server.created["replication_factor"], server.created["write_consistency_factor"]) == (
        replicas,
        acknowledged,
    )
    assert [line["event"] for line in logs] == []


@pytest.mark.parametrize("made", [True, False])
async def test_fewer_copies_than_are_configured_are_logged_at_the_start(
    server: FakeServer, embedder: Embedder, terms: Terms, *, made: bool
) -> None:
    server.made, server.copies = made, 1
    settings = at(server).model_copy(update={"server": ServerSettings(replicas=3)})
    with capture_logs() as logs:
        async with open_index(settings, embedder, terms):
            pass
    (line,) = logs
    assert (line["event"], line["collection"], line["copies"], line["configured"]) == ("copies_missing", "kb-1", 1, 3)
    assert "ingest reindex" in line["advice"]


@pytest.mark.parametrize("version", ["1.15.5", "1.18.9", "1.22.0", "2.0.0", "", "unknown"])
async def test_a_server_of_another_version_is_refused_at_boot_in_one_sentence(
    server: FakeServer, embedder: Embedder, terms: Terms, version: str
) -> None:
    server.version = version
    with pytest.raises(IndexFormatUnknown, match=rf"is of version {version}: run one of 1\.19 to 1\.21$"):
        async with open_index(at(server), embedder, terms):
            pass
    assert server.indexed == server.others == []


@pytest.mark.parametrize("version", ["1.19.0", "1.20.3", "1.21.0-dev"])
async def test_a_server_one_minor_version_away_is_taken(
    server: FakeServer, embedder: Embedder, terms: Terms, version: str
) -> None:
    server.version = version
    async with open_index(at(server), embedder, terms) as index:
        assert index.collection == "kb-1"


async def test_who_only_reads_makes_nothing_and_waits_for_the_collection(
    server: FakeServer, embedder: Embedder, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.aliased = False
    server.answer = ok([{"points": []}] * 3)
    async with open_index(at(server), embedder, terms, read_only=True) as index:
        assert index.collection == ""
        for _ in range(2):
            with pytest.raises(IndexUnavailable, match="kb has no collection yet"):
                await index.search("수수료", access=CUSTOMER, limit=3)
        with pytest.raises(IndexUnavailable, match="no collection yet"):
            await index.ping()
        server.aliased = True
        monkeypatch.setattr("knowledge.index.index._LOOK_EVERY", 0.0)
        assert await index.search("수수료", access=CUSTOMER, limit=3) == []
        await index.ping()
    assert server.indexed == server.others == []


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=500),
        lambda: web.Response(status=404, text="{}"),
        lambda: web.Response(status=429, headers={"retry-after": "3"}),
        lambda: web.Response(text="not JSON"),
        lambda: web.json_response({"result": [{"points": 7}]}),
        lambda: None,
    ],
    ids=["500", "404", "429", "no JSON", "other JSON", "silence"],
)
async def test_a_server_that_fails_makes_a_search_unavailable_within_its_time(
    server: FakeServer, embedder: Embedder, terms: Terms, answer: Callable[[], web.Response | None]
) -> None:
    async with open_index(at(server), embedder, terms) as index:
        server.answer = answer()
        with anyio.fail_after(5), pytest.raises(IndexUnavailable):
            await index.search("수수료", access=CUSTOMER, limit=3)


async def test_a_key_that_may_not_write_is_named(server: FakeServer, embedder: Embedder, terms: Terms) -> None:
    async with open_index(at(server), embedder, terms) as index:
        with pytest.raises(IndexUnavailable, match=r"answered 403 Forbidden: QDRANT_API_KEY may not do this"):
            await index._engine.drop("kb-1")


async def test_a_write_before_there_is_a_collection_is_refused(
    server: FakeServer, embedder: Embedder, terms: Terms
) -> None:
    server.aliased = False
    async with open_index(at(server), embedder, terms, read_only=True) as index:
        with pytest.raises(IndexUnavailable, match="has no collection to write to"):
            await index.upsert(numbered("수수료"))


async def test_a_server_that_is_not_there_stops_the_boot_and_then_fails_every_call(
    server: FakeServer, embedder: Embedder, terms: Terms
) -> None:
    settings = at(server)
    async with open_index(settings, embedder, terms) as index:
        await server.server.close()
        with pytest.raises(IndexUnavailable):
            await index.search("수수료", access=CUSTOMER, limit=3)
        with pytest.raises(IndexUnavailable):
            await index.upsert(numbered("수수료"))
        with pytest.raises(IndexUnavailable):
            await index.ping()
    with pytest.raises(IndexUnavailable):
        async with open_index(settings, embedder, terms):
            pass


@asynccontextmanager
async def served_with_tls(folder: Path) -> AsyncGenerator[str]:
    """Serve the fake over TLS that wants a client's certificate; yield its address."""
    server = FakeServer()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    await server.server.start_server(ssl=context)
    try:
        yield str(server.server.make_url("/"))
    finally:
        server.release.set()
        await server.server.close()


async def test_a_server_is_reached_by_tls_with_the_banks_authority_and_a_client_certificate(
    tmp_path: Path, embedder: Embedder, terms: Terms
) -> None:
    certificates(tmp_path)
    files = {"ca_file": tmp_path / "ca.pem", "cert_file": tmp_path / "client.pem", "key_file": tmp_path / "client.key"}
    async with served_with_tls(tmp_path) as url:
        trusted = IndexSettings.model_validate({"url": url, "server": files})
        async with open_index(trusted, embedder, terms) as index:
            assert index.collection == "kb-1"
        for server in ({}, {"ca_file": files["ca_file"]}, {"verify": False}):
            with pytest.raises(IndexUnavailable):
                async with open_index(IndexSettings.model_validate({"url": url, "server": server}), embedder, terms):
                    pass
        unverified = {**files, "verify": False}
        del unverified["ca_file"]
        async with open_index(IndexSettings.model_validate({"url": url, "server": unverified}), embedder, terms):
            pass
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(IndexRefused, match="TLS files"):
        async with open_index(trusted, embedder, terms):
            pass


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"key_file": "/etc/passwd"}, "needs the cert_file"),
        ({"ca_file": "/nowhere"}, "/nowhere is not a file"),
        ({"quantize": "int4"}, "int8"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        ServerSettings.model_validate(settings)
