"""A reranker behind a URL: three servers' shapes, its key and TLS; late or broken, the order stays."""

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from pydantic import ValidationError
from structlog.testing import capture_logs

from chatbot.retrieval.reranking import RerankerRefused, RerankerSettings, open_reranker
from chatbot.retrieval.search import Retrieval
from evals.sample_bank import sample_banks
from knowledge.index import IndexSettings, indexed_text, open_index
from knowledge.passage import Hit
from knowledge.terms import Terms
from tests.certificates import certificates
from tests.constants import settings_with
from tests.embedding_server import listening
from tests.knowledge.conftest import CUSTOMER, numbered
from tests.passages import FirstAxis

pytestmark = pytest.mark.anyio

KEY = "sk-of-the-bank"
QUESTION = "정기예금을 중간에 해지하면 이자는 얼마인가요?"
TEXTS = [f"제{n}조 중도해지 이율은 연 {n}.0%입니다." for n in range(1, 6)]
HITS = [Hit(passage=passage, score=1 / (n + 1), dense=0.9, terms=0.5) for n, passage in enumerate(numbered(*TEXTS))]
BEST_FIRST = [HITS[n] for n in (2, 4, 0, 3, 1)]


@dataclass
class Server:
    """A server that prefers what stands first in BEST_FIRST, in one of the shapes."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    reply: web.Response | None = None
    gate: anyio.Event | None = None

    async def rerank(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return web.json_response({"message": "invalid api token"}, status=401)
        if self.gate is not None:
            await self.gate.wait()
        if self.reply is not None:
            return self.reply
        is_tei = request.path == "/rerank"
        texts = body["texts" if is_tei else "documents"]
        wanted = [indexed_text(hit.passage) for hit in BEST_FIRST]
        scores = {n: -float(wanted.index(text)) if text in wanted else 0.0 for n, text in enumerate(texts)}
        by_score = sorted(scores, key=lambda n: -scores[n])
        if is_tei:
            return web.json_response([{"index": n, "score": scores[n]} for n in by_score])
        results = [{"index": n, "relevance_score": scores[n], "document": {"text": texts[n]}} for n in by_score]
        return web.json_response({"id": "r", "model": body["model"], "results": results, "meta": {}})


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncGenerator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_post("/v1/rerank", server.rerank)
    app.router.add_post("/rerank", server.rerank)
    async with listening(app, tls) as server.url:
        yield server


def settings(server: Server, **more: Any) -> RerankerSettings:
    return settings_with(
        RerankerSettings, **{"url": server.url, "model": "bge-reranker-v2-m3", "api_key": KEY, "timeout": 5, **more}
    )


@pytest.mark.parametrize("api", ["rerank", "tei"])
async def test_an_endpoint_sorts_in_either_shape(api: str) -> None:
    async with serving() as server, open_reranker(settings(server, api=api, extra_body={"truncate": True})) as reranker:
        assert reranker is not None
        assert await reranker.order(QUESTION, HITS) == BEST_FIRST
    body = server.bodies[-1]
    assert (body["query"], body["truncate"]) == (QUESTION, True)
    if api == "rerank":
        assert (body["model"], body["top_n"]) == ("bge-reranker-v2-m3", len(HITS))


async def test_a_search_chooses_from_more_candidates_than_it_returns(tmp_path: Path) -> None:
    async with (
        serving() as server,
        open_reranker(settings(server)) as reranker,
        open_index(IndexSettings(path=tmp_path / "qdrant"), FirstAxis(), Terms()) as index,
    ):
        passages = [replace(passage, visible_from=100.0) for passage in numbered(*TEXTS)]
        await index.upsert(passages, [[1.0, 0.0] for _ in passages])
        retrieval = Retrieval(index, sample_banks(), passages=3, reranker=reranker)
        found = await retrieval.search(QUESTION, earlier=[], access=CUSTOMER)
    assert [hit.passage.n for hit in found.hits] == [hit.passage.n for hit in BEST_FIRST[:3]]


@pytest.mark.parametrize(
    "reply",
    [
        lambda: web.Response(status=503),
        lambda: web.Response(status=400),
        lambda: web.Response(text="no JSON"),
        lambda: web.json_response({"results": [{"index": 0, "relevance_score": 1.0}]}),
        lambda: web.json_response({"results": [{"index": n} for n in range(5)]}),
    ],
    ids=["503", "400", "no JSON", "one score", "no scores"],
)
async def test_a_broken_reply_keeps_the_order_and_is_logged(reply: Any) -> None:
    async with serving() as server, open_reranker(settings(server)) as reranker:
        assert reranker is not None
        server.reply = reply()
        with capture_logs() as logs:
            assert await reranker.order(QUESTION, HITS) == HITS
        assert [entry["event"] for entry in logs] == ["reranking_failed"]


@pytest.mark.faults
async def test_a_late_endpoint_keeps_the_order() -> None:
    async with serving() as server, open_reranker(settings(server, timeout=0.3, at_once=1)) as reranker:
        assert reranker is not None
        server.gate, asked, orders = anyio.Event(), len(server.bodies), list[list[Hit]]()

        async def order() -> None:
            orders.append(await reranker.order(QUESTION, HITS))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(order)
                tasks.start_soon(order)
        assert orders == [HITS, HITS]
        assert len(server.bodies) == asked + 1
        server.gate.set()


async def test_a_refused_key_stops_the_start() -> None:
    async with serving() as server:
        with pytest.raises(RerankerRefused, match=r"refused the key \(401\): set RERANKER__API_KEY"):
            async with open_reranker(settings(server, api_key="other")):
                pass
        away = settings(server)
    with capture_logs() as logs:
        async with open_reranker(away) as reranker:
            assert reranker is not None
            assert await reranker.order(QUESTION, HITS) == HITS
    assert [entry["event"] for entry in logs] == ["reranker_unavailable", "reranking_failed"]


async def test_it_is_reached_by_tls_with_the_banks_authority(tmp_path: Path) -> None:
    certificates(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.pem")
    tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    files = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"}
    known = {name: str(tmp_path / file) for name, file in files.items()}
    async with serving(tls) as server:
        async with open_reranker(settings(server, **known)) as reranker:
            assert reranker is not None
            assert await reranker.order(QUESTION, HITS) == BEST_FIRST
        with pytest.raises(RerankerRefused, match=r"no TLS connection .*: set RERANKER__CA_FILE"):
            async with open_reranker(settings(server)):
                pass


async def test_a_reranker_needs_an_endpoint_and_the_name_of_its_model() -> None:
    async with open_reranker(RerankerSettings()) as reranker:
        assert reranker is None
    with pytest.raises(ValidationError, match="needs the name of its model"):
        RerankerSettings.model_validate({"url": "http://127.0.0.1:1"})
