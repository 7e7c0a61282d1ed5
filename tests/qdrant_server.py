"""A fake Qdrant server with just enough of the API to open an index and to answer its searches."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
from aiohttp import web
from aiohttp.test_utils import TestServer as HttpServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A received request; `connection` is the client's port."""

    method: str
    path: str
    headers: dict[str, str]
    connection: int
    body: Any


class FakeServer:
    """A fake server whose replies tests control; `dimensions` are the embedder's."""

    counted: anyio.Event | None = None
    """If present, facet requests wait for it."""

    def __init__(self, *, dimensions: int = 384, prefix: str = "", port: int | None = None) -> None:
        self.dimensions = dimensions
        self.version = "1.20.0"
        self.repeats = False  # whether searches and writes fail with an error that quotes the request
        self.answer: Callable[[], web.Response] | None = None  # of every search; if None, it waits for `release`
        self.failures: list[web.Response] = []  # replies of the next requests, one each, in place of the usual ones
        self.inactive = 0  # payload index requests that a new collection rejects until its replica is active
        self.held: dict[str, dict[str, Any]] = {}  # the payloads of written points, by id
        self.foreign = 0  # another tenant's points
        self.created: dict[str, Any] = {}  # the body of the request that created the collection
        self.names: set[str] = {"kb-1"}
        self.alias: str | None = "kb-1"
        self.indexed: list[str] = []
        self.others: list[str] = []
        self.requests: list[Request] = []
        self.release = anyio.Event()
        app = web.Application(middlewares=[self.record])
        app.add_routes(
            [
                web.get("/", self.root),
                web.get("/aliases", self.aliases),
                web.post("/collections/aliases", self.change_aliases),
                web.get("/collections", self.collections),
                web.get("/collections/kb-1", self.collection),
                web.put("/collections/kb-1", self.create),
                web.delete("/collections/kb-1", self.drop),
                web.get("/collections/kb-1/exists", self.exists),
                web.put("/collections/kb-1/index", self.index_field),
                web.put("/collections/kb-1/points", self.upsert),
                web.post("/collections/kb-1/points/delete", self.delete),
                web.post("/collections/kb-1/points/payload", self.set_payload),
                web.post("/collections/kb-1/points/scroll", self.scroll),
                web.post("/collections/kb-1/facet", self.facet),
                web.post("/collections/kb-1/points/query/batch", self.query),
                web.post("/collections/kb-1/points/count", self.count),
                web.post("/collections/kb-1/points", self.read),
                web.route("*", "/{rest:.*}", self.other),
            ]
        )
        if prefix:
            below, app = app, web.Application()
            app.add_subapp(prefix, below)
        self.server = HttpServer(app, port=port)

    def received(self, path: str) -> list[Request]:
        """Return the requests whose path ends with `path`."""
        return [request for request in self.requests if request.path.endswith(path)]

    @web.middleware
    async def record(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        body = await request.json() if request.can_read_body else None
        headers = {name.lower(): value for name, value in request.headers.items()}
        port = transport.get_extra_info("peername")[1]
        self.requests.append(
            Request(method=request.method, path=request.path, headers=headers, connection=port, body=body)
        )
        if self.failures:
            return self.failures.pop(0)
        if self.repeats and request.method != "GET" and not request.path.endswith("/count"):
            sent = await request.text()
            return web.Response(status=500, text=f"cannot take {sent.partition('payload')[2] or sent}")
        return await handler(request)

    async def root(self, _: web.Request) -> web.Response:
        return web.json_response({"title": "qdrant - vector search engine", "version": self.version, "commit": "x"})

    async def aliases(self, _: web.Request) -> web.Response:
        present = [{"alias_name": "kb", "collection_name": self.alias}] if self.alias else []
        return ok({"aliases": present})

    async def change_aliases(self, request: web.Request) -> web.Response:
        self.alias = (await request.json())["actions"][-1]["create_alias"]["collection_name"]
        return ok(result=True)

    async def collections(self, _: web.Request) -> web.Response:
        return ok({"collections": [{"name": name} for name in sorted(self.names)]})

    async def create(self, request: web.Request) -> web.Response:
        if "kb-1" in self.names:
            return refused(409, "Wrong input: Collection `kb-1` already exists!")
        self.names.add("kb-1")
        self.created = await request.json()
        return ok(result=True)

    async def drop(self, _: web.Request) -> web.Response:
        self.names, self.alias = set(), None
        return ok(result=True)

    async def exists(self, _: web.Request) -> web.Response:
        return ok({"exists": "kb-1" in self.names})

    async def other(self, request: web.Request) -> web.Response:
        self.others.append(f"{request.method} {request.path}")
        return web.Response(status=403)

    async def collection(self, _: web.Request) -> web.Response:
        dense = {"size": self.dimensions, "distance": "Cosine"}
        params = {"vectors": {"dense": dense}, "sparse_vectors": {"terms": {}}}
        optimizer = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0}
        config = {
            "params": params,
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
            "optimizer_config": optimizer | {"flush_interval_sec": 5},
            "metadata": {"embedder": "e5-small"},
        }
        info = {"status": "green", "optimizer_status": "ok", "segments_count": 1, "payload_schema": {}}
        return ok(info | {"config": config})

    async def count(self, request: web.Request) -> web.Response:
        return ok({"count": len(self.passing(await request.json()))})

    async def scroll(self, request: web.Request) -> web.Response:
        asked = await request.json()
        points = [{"id": point, "payload": self.held[point]} for point in self.passing(asked)[: asked["limit"]]]
        return ok({"points": points, "next_page_offset": None})

    async def facet(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if self.counted is not None:
            await self.counted.wait()
        values = Counter(self.held[point][asked["key"]] for point in self.passing(asked))
        if "filter" not in asked and self.foreign:
            values["other"] = self.foreign
        return ok({"hits": [{"value": value, "count": n} for value, n in values.most_common(asked["limit"])]})

    async def upsert(self, request: web.Request) -> web.Response:
        self.held |= {point["id"]: point["payload"] for point in (await request.json())["points"]}
        return ok({"operation_id": 1, "status": "completed"})

    async def set_payload(self, request: web.Request) -> web.Response:
        asked = await request.json()
        for point in self.passing(asked):
            self.held[point] |= asked["payload"]
        return ok({"operation_id": 1, "status": "completed"})

    async def delete(self, request: web.Request) -> web.Response:
        for point in self.passing(await request.json()):
            del self.held[point]
        return ok({"operation_id": 1, "status": "completed"})

    def passing(self, asked: dict[str, Any]) -> list[str]:
        """Return the ids of the points that pass a request's filter."""
        only = asked.get("filter") or {}
        must = only.get("must") or ()
        return sorted(point for point, payload in self.held.items() if all(holds(c, payload) for c in must))

    async def index_field(self, request: web.Request) -> web.Response:
        assert request.query["wait"] == "true"
        if self.inactive:
            self.inactive -= 1
            return refused(500, "Service internal error: The replica set has no active replica")
        self.indexed.append((await request.json())["field_name"])
        return ok({"operation_id": 1, "status": "completed"})

    async def query(self, _: web.Request) -> web.Response:
        if self.answer is not None:
            return self.answer()
        await self.release.wait()
        return web.Response(status=500)

    async def read(self, request: web.Request) -> web.Response:
        body = await request.json()
        vectors = {"vector": {"dense": [1.0] + [0.0] * (self.dimensions - 1)}} if body.get("with_vector") else {}
        found = [name for name in body["ids"] if name in self.held]
        return ok([{"id": name, "payload": self.held[name], **vectors} for name in found])


def holds(condition: dict[str, Any], payload: dict[str, Any]) -> bool:
    """Return whether a payload satisfies a condition: a value, one of several in a list, or a number's upper bound."""
    value = payload.get(condition["key"])
    if "lte" in (bounds := condition.get("range") or {}):
        return value is not None and value <= bounds["lte"]
    match = condition["match"]
    if "any" in match:
        return any(wanted in (value or ()) for wanted in match["any"])
    return bool(value == match["value"])


def ok(result: object) -> web.Response:
    return web.json_response({"result": result, "status": "ok", "time": 0.0})


def refused(status: int, error: str) -> web.Response:
    """Return an error reply in Qdrant's format."""
    return web.json_response({"status": {"error": error}, "time": 0.0}, status=status)
