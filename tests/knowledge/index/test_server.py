"""A Qdrant server: the conformance suite where QDRANT_TEST_URL names one, and what becomes of one that is slow, wrong
or gone: always IndexUnavailable, and in time."""

import os
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from structlog.testing import capture_logs

from knowledge.embedding import Embedder
from knowledge.index import (
    Index,
    IndexRefused,
    IndexSettings,
    IndexUnavailable,
    ServerSettings,
    open_index,
)
from knowledge.index.engine import Engine
from knowledge.index.filters import Filter
from knowledge.index.server import open_server
from knowledge.terms import Terms
from tests.certificates import certificates
from tests.e2e.relay import wired
from tests.knowledge.conftest import CUSTOMER, numbered
from tests.knowledge.index.conformance import EngineConformance, OpenAgain
from tests.knowledge.index.points import VECTORS
from tests.patience import patient
from tests.qdrant_server import FakeServer, ok, refused

pytestmark = pytest.mark.anyio
TIMEOUTS = {"read_timeout": 10.0, "write_timeout": 30.0}
FILTERED = {"tenant", "readers", "document_id", "version", "visible_from", "visible_until", "language"}


def opened(settings: ServerSettings) -> Any:
    url = os.environ["QDRANT_TEST_URL"]  # noqa: TID251  the test runner's own edge
    return open_server(url, settings, api_key=os.environ.get("QDRANT_TEST_API_KEY"), **TIMEOUTS)  # noqa: TID251


@pytest.mark.qdrant
@pytest.mark.parametrize("options", [{}, {"shards": 2}], ids=str)
class TestServer(EngineConformance):
    @pytest.fixture
    def alias(self) -> str:
        return f"test{uuid4().hex[:12]}"

    @pytest.fixture
    def shards(self, options: dict[str, Any]) -> int:
        return int(options.get("shards", 1))

    @pytest.fixture
    async def engine(self, alias: str, options: dict[str, Any]) -> AsyncGenerator[Engine]:
        async with opened(ServerSettings.model_validate(options)) as engine:
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


@pytest.fixture
async def server() -> AsyncGenerator[FakeServer]:
    server = FakeServer()
    await server.server.start_server()
    try:
        yield server
    finally:
        server.release.set()
        await server.server.close()


OpenIndex = Callable[..., AbstractAsyncContextManager[Index]]


@pytest.fixture
def open_at(embedder: Embedder, terms: Terms) -> OpenIndex:
    """Opens the index of some settings."""
    return partial(open_index, embedder=embedder, terms=terms)


def at(server: FakeServer) -> IndexSettings:
    return IndexSettings.model_validate({"url": str(server.server.make_url("/")), "read_timeout": 0.5})


@pytest.mark.parametrize(("replicas", "acknowledged"), [(1, 1), (2, 1), (3, 2)])
async def test_a_collection_accepts_writes_without_one_of_its_replicas(
    server: FakeServer, open_at: OpenIndex, replicas: int, acknowledged: int
) -> None:
    server.names = set()
    settings = at(server).model_copy(update={"server": ServerSettings(replicas=replicas)})
    async with open_at(settings):
        pass
    created = server.created
    assert (created["replication_factor"], created["write_consistency_factor"]) == (replicas, acknowledged)


@pytest.mark.parametrize("version", ["1.18.9", "1.22.0", "unknown"])
async def test_an_unsupported_server_version_ends_the_start(
    server: FakeServer, open_at: OpenIndex, version: str
) -> None:
    server.version = version
    with pytest.raises(IndexRefused, match=rf"is of version {version}: run one of 1\.19 to 1\.21$"):
        async with open_at(at(server)):
            pass
    assert server.indexed == server.others == []
    server.version = "1.21.0-dev"
    async with open_at(at(server)) as index:
        assert index.collection == "kb-1"


async def test_a_read_only_index_waits_for_the_collection(
    server: FakeServer, open_at: OpenIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.names, server.alias = set(), None
    server.answer = partial(ok, [{"points": []}] * 3)
    async with open_at(at(server), read_only=True) as index:
        assert index.collection == ""
        for _ in range(2):
            with pytest.raises(IndexUnavailable, match="kb has no collection yet"):
                await index.search("수수료", access=CUSTOMER, limit=3)
        with pytest.raises(IndexUnavailable, match="no collection yet"):
            await index.ping()
        server.names, server.alias = {"kb-1"}, "kb-1"
        monkeypatch.setattr("knowledge.index.index._CHECK_EVERY", 0.0)
        assert await index.search("수수료", access=CUSTOMER, limit=3) == []
        await index.ping()
    assert server.indexed == server.others == []


async def test_counts_of_a_large_tenant_may_take_longer_than_a_search(server: FakeServer, open_at: OpenIndex) -> None:
    server.counted = server.release
    counted = list[dict[str, int]]()
    async with open_at(at(server)) as index:

        async def count() -> None:
            counted.append(await index.counts("hanbit", limit=10))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            with anyio.fail_after(patient(5)):
                while not any(request.path.endswith("/facet") for request in server.requests):
                    await anyio.sleep(0.01)
            with pytest.raises(IndexUnavailable, match="within"):
                await index.search("수수료", access=CUSTOMER, limit=1)
            server.release.set()
    assert counted == [{}]


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=500),
        lambda: web.Response(status=404, text="{}"),
        lambda: web.Response(status=429, headers={"retry-after": "3"}),
        lambda: web.Response(text="not JSON"),
        lambda: web.json_response({"result": [{"points": 7}]}),
        None,
    ],
    ids=["500", "404", "429", "no JSON", "other JSON", "silence"],
)
async def test_a_server_that_fails_makes_a_search_unavailable_within_its_time(
    server: FakeServer, open_at: OpenIndex, answer: Callable[[], web.Response] | None
) -> None:
    async with open_at(at(server)) as index:
        server.answer = answer
        with anyio.fail_after(5), pytest.raises(IndexUnavailable):
            await index.search("수수료", access=CUSTOMER, limit=3)


async def test_a_wrong_key_and_a_full_disk_are_named_by_host_and_port(server: FakeServer, open_at: OpenIndex) -> None:
    named = f"the Qdrant server at 127.0.0.1:{server.server.port}"
    server.failures = [refused(401, "Invalid API key or JWT")]
    with pytest.raises(IndexUnavailable, match=f"^{named} answered 401 .*: QDRANT_API_KEY is not a key of this server"):
        async with open_at(at(server)):
            pass
    async with open_at(at(server)) as index:
        full = "Service internal error: No space left on device: WAL buffer size exceeds available disk space"
        server.failures = [refused(500, full)]
        with pytest.raises(IndexUnavailable, match=f"^{named} answered 500 .*: its disk is full"):
            await index._engine.delete("kb-1", Filter(must=()))
        server.failures = [refused(403, "Global manage access is required")]
        with pytest.raises(IndexUnavailable, match=r"answered 403 Forbidden: QDRANT_API_KEY may not do this"):
            await index._engine.drop("kb-1")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:1", r"127\.0\.0\.1:1 cannot be reached: Connection refused"),
        ("http://localhost:1/below", r"localhost:1 cannot be reached: Connection refused"),
        ("http://nowhere.invalid", r"nowhere\.invalid:6333 cannot be reached: Name or service not known"),
    ],
)
async def test_an_unreachable_server_is_named_with_port_and_cause(open_at: OpenIndex, url: str, sentence: str) -> None:
    with pytest.raises(IndexUnavailable, match=f"^the Qdrant server at {sentence}$"):
        async with open_at(IndexSettings.model_validate({"url": url})):
            pass


async def test_http_at_a_tls_port_and_https_at_an_http_port_are_named(
    tmp_path: Path, server: FakeServer, open_at: OpenIndex
) -> None:
    certificates(tmp_path)
    async with served_with_tls(tmp_path) as url:
        plain = IndexSettings.model_validate({"url": url.replace("https:", "http:")})
        with pytest.raises(IndexUnavailable, match="if it speaks TLS, QDRANT_URL needs https://"):
            async with open_at(plain):
                pass
    encrypted = IndexSettings.model_validate({"url": str(at(server).url).replace("http:", "https:")})
    with pytest.raises(IndexUnavailable, match=r"over TLS: (WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE)"):
        async with open_at(encrypted):
            pass


@pytest.mark.parametrize(
    ("given", "port"),
    [
        ("http://host", 6333),
        ("https://host/prefix", 6333),
        ("http://[::1]", 6333),
        ("https://host:443", 443),
        ("http://host:80/prefix/", 80),
        ("https://[::1]:443", 443),
        ("http://host:7000", 7000),
    ],
)
def test_the_default_port_of_a_url_is_6333(given: str, port: int) -> None:
    url = IndexSettings.model_validate({"url": given}).url
    assert url is not None
    parts = urlsplit(str(url))  # what the client and the check of TLS go to
    assert (parts.port or {"http": 80, "https": 443}[parts.scheme]) == port
    assert parts.path == (urlsplit(given).path or "/")


async def test_the_path_of_the_url_comes_before_every_call(open_at: OpenIndex) -> None:
    server = FakeServer(prefix="/vectors")
    await server.server.start_server()
    try:
        url = f"{server.server.make_url('/vectors')}"
        async with open_at(IndexSettings.model_validate({"url": url})) as index:
            assert index.collection == "kb-1"
        with pytest.raises(IndexUnavailable, match=r"^127\.0\.0\.1:\d+ is not a Qdrant server: check QDRANT_URL$"):
            async with open_at(at(server)):
                pass
    finally:
        server.release.set()
        await server.server.close()


async def test_a_key_sent_in_plain_text_is_logged_once(recwarn: pytest.WarningsRecorder) -> None:
    with capture_logs() as logs:
        for url, key in (("http://qdrant:6333", "k"), ("http://qdrant:6333", ""), ("http://localhost:6333", "k")):
            async with open_server(url, ServerSettings(), api_key=key, **TIMEOUTS):
                pass
    assert [(entry["event"], entry["host"]) for entry in logs] == [("qdrant_encryption_skipped", "qdrant")]
    assert len(recwarn) == 0


def scored(*names: str) -> dict[str, Any]:
    return {"points": [{"id": name, "version": 0, "score": 1.0 - n / 10} for n, name in enumerate(names)]}


@pytest.mark.parametrize("foreign", [0, 1])
async def test_beside_another_tenant_terms_weigh_by_their_own_tenant(
    server: FakeServer, open_at: OpenIndex, foreign: int
) -> None:
    (passage,) = numbered("수수료")
    server.held, server.foreign = {passage.point_id: msgspec.to_builtins(passage)}, foreign
    server.answer = lambda: ok([scored(passage.point_id), scored(), scored(passage.point_id)])
    async with open_at(at(server)) as index:
        for _ in range(2):
            await index.search("수수료", access=CUSTOMER, limit=3)
    tenant = {"must": [{"key": "tenant", "match": {"value": "hanbit"}}]}
    for searched in server.received("/points/query/batch"):
        corpora = [query.get("params", {}).get("idf") for query in searched.body["searches"]]
        assert corpora == [None, None, {"corpus": tenant} if foreign else None]
    assert [request.body.get("filter") for request in server.received("/facet")] == [None]


async def test_concurrent_searches_count_the_tenants_once(server: FakeServer, open_at: OpenIndex) -> None:
    (passage,) = numbered("수수료")
    server.held = {passage.point_id: msgspec.to_builtins(passage)}
    server.answer = lambda: ok([scored(passage.point_id), scored(), scored(passage.point_id)])
    settings = at(server).model_copy(update={"read_timeout": 30.0})
    async with open_at(settings) as index, anyio.create_task_group() as tasks:
        await index.search("수수료", access=CUSTOMER, limit=3)
        index._tenant_counts = (index.collection, -1e9, index._tenant_counts[2])
        server.counted = anyio.Event()
        for _ in range(20):
            tasks.start_soon(partial(index.search, "수수료", access=CUSTOMER, limit=3))
        with anyio.fail_after(20):
            while len(server.received("/points/query/batch")) < 20:
                await anyio.sleep(0.01)
        assert len(server.received("/facet")) == 2
        server.counted.set()


async def test_a_read_is_retried_once_and_a_write_never(server: FakeServer, open_at: OpenIndex) -> None:
    (passage,) = numbered("수수료")
    server.held = {passage.point_id: msgspec.to_builtins(passage)}
    server.answer = partial(ok, [{"points": []}] * 3)
    async with open_at(at(server)) as index:
        await index.search("수수료", access=CUSTOMER, limit=3)
        server.failures = [web.Response(status=500)]
        await index.search("수수료", access=CUSTOMER, limit=3)
        first, failed, repeated = server.received("/points/query/batch")
        assert first.connection == failed.connection != repeated.connection
        server.failures = [web.Response(status=500), web.Response(status=500), web.Response(status=500)]
        with pytest.raises(IndexUnavailable, match="answered 500"):
            await index.search("수수료", access=CUSTOMER, limit=3)
        assert len(server.failures) == 1
        with pytest.raises(IndexUnavailable, match="answered 500"):
            await index._engine.delete("kb-1", Filter(must=()))
        assert server.failures == server.others == []


async def test_a_search_survives_the_loss_of_its_node(server: FakeServer, open_at: OpenIndex) -> None:
    other = FakeServer()
    await other.server.start_server()
    server.answer = other.answer = partial(ok, [{"points": []}] * 3)
    try:
        async with (
            wired(str(server.server.make_url("/"))) as wire,
            open_at(IndexSettings.model_validate({"url": wire.url})) as index,
        ):
            await index.search("수수료", access=CUSTOMER, limit=3)
            wire.lead_to(str(other.server.make_url("/")))
            await index.search("수수료", access=CUSTOMER, limit=3)
        assert len(other.received("/points/query/batch")) == 1
    finally:
        await other.server.close()


async def test_two_concurrent_first_starts_create_one_collection(server: FakeServer, open_at: OpenIndex) -> None:
    server.names, server.alias = set(), None
    server.inactive = 3

    async def start() -> None:
        async with open_at(at(server)) as index:
            names.append(index.collection)

    names: list[str] = []
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(start)
    assert names == ["kb-1", "kb-1"]
    assert server.alias == "kb-1"
    assert set(server.indexed) == FILTERED


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_start_waits_for_the_server(open_at: OpenIndex, *, read_only: bool) -> None:
    server = FakeServer(port=unused_port())
    if not read_only:
        server.names, server.alias = set(), None
    server.answer = partial(ok, [{"points": []}] * 3)
    settings = IndexSettings.model_validate({"url": f"http://127.0.0.1:{server.server.port}"})
    with capture_logs() as logs:
        async with open_at(settings, read_only=read_only, retry_start=True) as index:
            with pytest.raises(IndexUnavailable, match="Connection refused"):
                await index.ping()
            await server.server.start_server()
            try:
                assert await index.search("수수료", access=CUSTOMER, limit=3) == []
                await index.ping()
                assert (index.collection, server.alias) == ("kb-1", "kb-1")
                assert set(server.indexed) == (set() if read_only else FILTERED)
            finally:
                await server.server.close()
    assert [entry["event"] for entry in logs] == ["index_start_failed"]


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


async def test_tls_uses_the_authority_and_client_certificate_of_the_settings(
    tmp_path: Path, open_at: OpenIndex
) -> None:
    certificates(tmp_path)
    files = {"ca_file": tmp_path / "ca.pem", "cert_file": tmp_path / "client.pem", "key_file": tmp_path / "client.key"}
    async with served_with_tls(tmp_path) as url:
        trusted = IndexSettings.model_validate({"url": url, "server": files})
        async with open_at(trusted) as index:
            assert index.collection == "kb-1"
        for server in ({}, {"ca_file": files["ca_file"]}):
            with pytest.raises(IndexUnavailable):
                async with open_at(IndexSettings.model_validate({"url": url, "server": server})):
                    pass
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(IndexRefused, match="TLS files"):
        async with open_at(trusted):
            pass
