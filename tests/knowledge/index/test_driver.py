"""What becomes of an index that is down, slow, wrong or gone: always IndexUnavailable, and in time."""

import gc
import inspect
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from threading import get_ident

import anyio
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from qdrant_client import AsyncQdrantClient
from qdrant_client.common import client_exceptions
from qdrant_client.http import exceptions

from knowledge.embedding import Embedder
from knowledge.index.driver import DRIVER_ERRORS, EmbeddedDriver, IndexUnavailable, open_driver
from knowledge.index.index import Index, IndexSettings, open_index
from knowledge.terms import Terms
from tests.knowledge.conftest import CUSTOMER, numbered

pytestmark = pytest.mark.anyio


def declared() -> Iterator[type[Exception]]:
    for module in (client_exceptions, exceptions):
        for _, found in inspect.getmembers(module, inspect.isclass):
            if issubclass(found, Exception) and found.__module__ == module.__name__:
                yield found


def test_every_exception_that_the_driver_declares_is_translated() -> None:
    kinds = list(declared())
    assert len(kinds) >= 5
    assert [kind for kind in kinds if not issubclass(kind, DRIVER_ERRORS)] == []
    assert issubclass(TimeoutError, DRIVER_ERRORS)


class Server:
    """Speaks just enough of Qdrant's API to boot an index, then answers every search as it is told."""

    def __init__(self) -> None:
        self.answer: web.Response | None = None
        self.indexed: list[str] = []
        self.release = anyio.Event()
        app = web.Application()
        app.router.add_get("/aliases", self.aliases)
        app.router.add_get("/collections/kb-1", self.collection)
        app.router.add_put("/collections/kb-1/index", self.index_field)
        app.router.add_post("/collections/kb/points/query/batch", self.query)
        self.server = TestServer(app)

    async def aliases(self, _: web.Request) -> web.Response:
        return ok({"aliases": [{"alias_name": "kb", "collection_name": "kb-1"}]})

    async def collection(self, _: web.Request) -> web.Response:
        params = {"vectors": {"dense": {"size": 384, "distance": "Cosine"}}, "sparse_vectors": {"terms": {}}}
        optimizer = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0}
        config = {
            "params": params,
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
            "optimizer_config": optimizer | {"flush_interval_sec": 5},
            "metadata": {"embedder": "e5-small"},
        }
        info = {"status": "green", "optimizer_status": "ok", "segments_count": 1, "payload_schema": {}}
        return ok(info | {"config": config})

    async def index_field(self, request: web.Request) -> web.Response:
        assert request.query["wait"] == "true"
        self.indexed.append((await request.json())["field_name"])
        return ok({"operation_id": 1, "status": "completed"})

    async def query(self, _: web.Request) -> web.Response:
        if self.answer is not None:
            return self.answer
        await self.release.wait()
        return web.Response(status=500)


def ok(result: object) -> web.Response:
    return web.json_response({"result": result, "status": "ok", "time": 0.0})


@pytest.fixture
async def server() -> AsyncGenerator[Server]:
    server = Server()
    await server.server.start_server()
    try:
        yield server
    finally:
        server.release.set()
        await server.server.close()


def at(server: Server) -> IndexSettings:
    return IndexSettings.model_validate({"url": str(server.server.make_url("/")), "read_timeout": 0.3})


async def test_a_server_gets_its_payload_indexes_at_boot(server: Server, embedder: Embedder, terms: Terms) -> None:
    async with open_index(at(server), embedder, terms) as index:
        assert index.collection == "kb-1"
    filtered = {"tenant", "readers", "document_id", "version", "visible_from", "visible_until"}
    assert set(server.indexed) == filtered


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
    server: Server, embedder: Embedder, terms: Terms, answer: object
) -> None:
    async with open_index(at(server), embedder, terms) as index:
        server.answer = answer()  # type: ignore[operator]  # one of the lambdas above
        with anyio.fail_after(5), pytest.raises(IndexUnavailable):
            await index.search("수수료", access=CUSTOMER, limit=3)


async def test_a_server_that_is_not_there_stops_the_boot_and_then_fails_every_call(
    server: Server, embedder: Embedder, terms: Terms
) -> None:
    settings = at(server)
    async with open_index(settings, embedder, terms) as index:
        await server.server.close()
        with pytest.raises(IndexUnavailable):
            await index.search("수수료", access=CUSTOMER, limit=3)
        with pytest.raises(IndexUnavailable):
            await index.ping()
    with pytest.raises(IndexUnavailable):
        async with open_index(settings, embedder, terms):
            pass


async def test_a_folder_that_is_lost_makes_searches_and_writes_unavailable(index: Index, tmp_path: Path) -> None:
    await index.upsert(numbered("수수료 안내"))
    (tmp_path / "qdrant").rename(tmp_path / "elsewhere")
    for call in (
        index.ping,
        lambda: index.search("수수료", access=CUSTOMER, limit=3),
        lambda: index.upsert(numbered("수수료 안내")),
    ):
        with pytest.raises(IndexUnavailable):
            await call()
    (tmp_path / "elsewhere").rename(tmp_path / "qdrant")
    await index.ping()


# Refused, the client leaves its lock file to the garbage collector, which is called here to say so in this test.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
async def test_only_one_process_opens_a_folder(index: Index, tmp_path: Path) -> None:
    await index.ping()
    with pytest.raises(IndexUnavailable, match=r"cannot be opened.*already accessed"):
        async with open_driver(tmp_path / "qdrant", api_key=None, timeout=1):
            pass
    gc.collect()


async def test_a_damaged_folder_stops_the_boot_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text("{")
    with pytest.raises(IndexUnavailable, match=f"{tmp_path} cannot be opened"):
        async with open_driver(tmp_path, api_key=None, timeout=1):
            pass


async def test_all_calls_of_an_embedded_index_run_in_one_other_thread(tmp_path: Path) -> None:
    driver = EmbeddedDriver(tmp_path)
    await driver.start()
    threads: set[int] = set()

    async def where(_: AsyncQdrantClient) -> None:
        threads.add(get_ident())

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(driver.run, where)
    await driver.aclose()
    assert len(threads) == 1
    assert get_ident() not in threads


async def test_an_embedded_client_that_waits_is_a_bug_and_says_so(tmp_path: Path) -> None:
    driver = EmbeddedDriver(tmp_path)
    await driver.start()

    async def wait(_: AsyncQdrantClient) -> None:
        await anyio.lowlevel.checkpoint()

    with pytest.raises(RuntimeError):
        await driver.run(wait)
    await driver.aclose()
