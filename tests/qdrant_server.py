"""What stands in for a Qdrant server: it speaks just enough of its API to boot an index."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from aiohttp import web
from aiohttp.test_utils import TestServer as HttpServer


class FakeServer:
    """Answers every search as it is told; `dimensions` are the embedder's."""

    def __init__(self, *, dimensions: int = 384) -> None:
        self.dimensions = dimensions
        self.version = "1.20.0"
        self.repeats = False
        """Whether it fails at searches and writes, and repeats what it was sent: of points what is stored with them."""
        self.answer: web.Response | None = None
        self.aliased = True
        self.held: dict[str, dict[str, Any]] = {}
        """The payload of each point that was written."""
        self.copies = 1
        """Of its one shard."""
        self.created: dict[str, Any] = {}
        """What the collection was asked for that is not there at first (`made`)."""
        self.made = True
        self.indexed: list[str] = []
        self.others: list[str] = []
        self.release = anyio.Event()
        self.server = HttpServer(self.application())

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self.repeat])
        app.router.add_get("/", self.root)
        app.router.add_get("/aliases", self.aliases)
        app.router.add_get("/collections", self.collections)
        app.router.add_get("/collections/kb-1", self.collection)
        app.router.add_put("/collections/kb-1", self.create)
        app.router.add_get("/collections/kb-1/cluster", self.cluster)
        app.router.add_get("/collections/kb-1/exists", self.exists)
        app.router.add_put("/collections/kb-1/index", self.index_field)
        app.router.add_post("/collections/kb-1/points/query/batch", self.query)
        app.router.add_put("/collections/kb-1/points", self.upsert)
        app.router.add_post("/collections/kb-1/points", self.retrieve)
        app.router.add_post("/collections/kb-1/points/count", self.count)
        app.router.add_post("/collections/kb-1/points/delete", self.delete)
        app.router.add_post("/collections/kb-1/points/payload", self.set_payload)
        app.router.add_post("/collections/kb-1/points/scroll", self.scroll)
        app.router.add_post("/collections/kb-1/facet", self.facet)
        app.router.add_route("*", "/{rest:.*}", self.other)
        return app

    @web.middleware
    async def repeat(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self.repeats and request.method != "GET" and not request.path.endswith("/count"):
            sent = await request.text()
            return web.Response(status=500, text=f"cannot take {sent.partition('payload')[2] or sent}")
        return await handler(request)

    async def root(self, _: web.Request) -> web.Response:
        return web.json_response({"title": "qdrant - vector search engine", "version": self.version, "commit": "x"})

    async def aliases(self, _: web.Request) -> web.Response:
        present = [{"alias_name": "kb", "collection_name": "kb-1"}] if self.aliased else []
        return ok({"aliases": present})

    async def collections(self, _: web.Request) -> web.Response:
        return ok({"collections": [{"name": "kb-1"}] if self.aliased else []})

    async def create(self, request: web.Request) -> web.Response:
        self.created = await request.json()
        self.made = True
        return ok(result=True)

    async def cluster(self, _: web.Request) -> web.Response:
        here = {"shard_id": 0, "points_count": 0, "state": "Active"}
        elsewhere = [{"shard_id": 0, "peer_id": n, "state": "Active"} for n in range(2, self.copies + 1)]
        shards = {"local_shards": [here], "remote_shards": elsewhere, "shard_transfers": []}
        return ok({"peer_id": 1, "shard_count": 1, **shards})

    async def exists(self, _: web.Request) -> web.Response:
        return ok({"exists": self.made})

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
        values = Counter(self.held[point][asked["key"]] for point in self.passing(asked))
        return ok({"hits": [{"value": value, "count": n} for value, n in values.most_common(asked["limit"])]})

    async def retrieve(self, request: web.Request) -> web.Response:
        ids = (await request.json())["ids"]
        return ok([{"id": point, "payload": self.held[point]} for point in ids if point in self.held])

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
        """Return the ids of the points that pass the filter of a request."""
        only = asked.get("filter") or {}
        must = only.get("must") or ()
        return sorted(point for point, payload in self.held.items() if all(holds(c, payload) for c in must))

    async def index_field(self, request: web.Request) -> web.Response:
        assert request.query["wait"] == "true"
        self.indexed.append((await request.json())["field_name"])
        return ok({"operation_id": 1, "status": "completed"})

    async def query(self, _: web.Request) -> web.Response:
        if self.answer is not None:
            return self.answer
        await self.release.wait()
        return web.Response(status=500)


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
