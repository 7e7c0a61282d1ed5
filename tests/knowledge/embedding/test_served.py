"""An embedder behind `/v1/embeddings`: same ranking as the model in process, key and TLS, limits."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from aiohttp import web

from knowledge.embedding.embedding import Embedder, open_embedder
from knowledge.embedding.errors import EmbeddingUnavailable
from knowledge.embedding.settings import EmbedderSettings
from tests.certificates import certificates
from tests.constants import settings_with
from tests.embedding_server import EmbeddingServer, embedding_server

pytestmark = pytest.mark.anyio

KEY = "sk-of-the-bank"
PASSAGES = [
    "정기예금을 중도해지하면 약정 이율 대신 중도해지 이율이 적용됩니다.",
    "해외송금 수수료는 건당 5,000원이며 전신료는 별도입니다.",
    "체크카드를 잃어버리면 즉시 고객센터에 분실신고를 해 주십시오.",
    "주택담보대출의 한도는 담보 가치와 소득에 따라 정해집니다.",
    "A transfer to another bank costs 500 won at a branch and nothing in the app.",
    "The early repayment fee of a mortgage is 1.2 % within three years.",
    "Lost cards are blocked at once when you call the service centre.",
    "A branch is open from 9 am to 4 pm on working days.",
]
QUESTIONS = [
    "예금을 만기 전에 깨면 이자는 얼마인가요?",
    "How much is an overseas remittance?",
    "I lost my debit card",
    "집을 담보로 얼마까지 빌릴 수 있나요?",
    "영업점은 몇 시까지 하나요?",
]


async def constant(texts: object) -> list[list[float]]:
    assert isinstance(texts, list)
    return [[float(len(text)), 1.0] for text in texts]


@asynccontextmanager
async def served_e5(weights: Path, folder: Path) -> AsyncGenerator[EmbeddingServer]:
    """Serve the real model, which gets its prefixes from the client, behind a key and TLS."""
    certificates(folder)
    plain = EmbedderSettings(folder=weights, query_prefix="", passage_prefix="")
    async with (
        open_embedder(plain) as model,
        embedding_server(model.embed_passages, name="e5-small", key=KEY, certificates=folder) as server,
    ):
        yield server


def settings(server: EmbeddingServer, **more: object) -> EmbedderSettings:
    return settings_with(EmbedderSettings, **{"url": server.url, "model": server.name, "passage_timeout": 5, **more})


def credentials(folder: Path) -> dict[str, str]:
    files = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"}
    return {"api_key": KEY, **{name: str(folder / file) for name, file in files.items()}}


async def rankings(embedder: Embedder) -> list[list[int]]:
    passages = np.array(await embedder.embed_passages(PASSAGES))
    return [np.argsort(-(passages @ np.array(q))).tolist() for q in await embedder.embed_queries(QUESTIONS)]


async def test_an_endpoint_ranks_as_the_same_model_in_process(
    embedder: Embedder, weights: Path, tmp_path: Path
) -> None:
    async with served_e5(weights, tmp_path) as server:
        known = settings(server, tokenizer=weights, **credentials(tmp_path))
        async with open_embedder(known) as served:
            assert (served.name, served.dimensions) == (embedder.name, embedder.dimensions)
            assert await rankings(served) == await rankings(embedder)
            long = "정기예금의 금리와 만기, 중도해지 이율을 안내합니다. " * 200
            for one, other in zip(
                await served.embed_passages([long, "예금"]), await embedder.embed_passages([long, "예금"]), strict=True
            ):
                assert np.dot(one, other) > 0.999
        sent = [text for body in server.bodies for text in body["input"]]
        assert {text.split(" ")[0] for text in sent} == {"query:", "passage:"}
        assert max(map(len, sent)) < len(long), "it is cut to what the model reads"
        assert server.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("without", "change", "sentence"),
    [
        ("api_key", {}, r"refused the key \(401\): set EMBEDDER__API_KEY"),
        ("ca_file", {}, r"no TLS connection \(self-signed certificate in certificate chain\): set EMBEDDER__CA_FILE"),
        ("", {"model": "bge"}, r"\(404\): look at EMBEDDER__URL and EMBEDDER__MODEL"),
    ],
)
async def test_a_wrong_setting_of_the_endpoint_ends_the_start(
    tmp_path: Path, without: str, change: dict[str, object], sentence: str
) -> None:
    certificates(tmp_path)
    async with embedding_server(constant, name="e5-small", key=KEY, certificates=tmp_path) as server:
        known = {name: value for name, value in credentials(tmp_path).items() if name != without}
        with pytest.raises(EmbeddingUnavailable, match=sentence):
            async with open_embedder(settings(server, **{**known, **change})):
                pass
        assert len(server.bodies) <= 1, "a retry would not help"


async def test_vectors_of_another_model_are_refused_by_name() -> None:
    def of(name: str, vector: list[float]) -> web.Response:
        return web.json_response({"data": [{"index": 0, "embedding": vector}], "model": name})

    async with embedding_server(constant) as server:
        server.replies = [of("served", [1.0, 0.0]), of("another", [1.0, 0.0]), of("served-002", [1.0, 0.0])]
        async with open_embedder(settings(server)) as embedder:
            with pytest.raises(EmbeddingUnavailable, match="embeds with another, not with served: set EMBEDDER__MODEL"):
                await embedder.embed_queries(["a"])
            assert await embedder.embed_queries(["a"]) == [[1.0, 0.0]]
            server.replies = [of("served", [1.0, 0.0, 0.0])]
            with pytest.raises(EmbeddingUnavailable, match="vectors of 3 dimensions, not of 2"):
                await embedder.embed_queries(["a"])


async def test_passages_go_in_bounded_batches_and_come_back_in_order() -> None:
    async with embedding_server(constant) as server:
        async with open_embedder(settings(server, requests=2, request_passages=3)) as embedder:
            server.gate = anyio.Event()
            vectors: list[list[float]] = []

            async def embed() -> None:
                vectors.extend(await embedder.embed_passages(["x" * n for n in range(1, 12)]))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(embed)
                while server.running < 2:
                    await anyio.sleep(0.01)
                await anyio.wait_all_tasks_blocked()
                server.gate.set()
        assert server.most_running == 2
        assert sorted(len(body["input"]) for body in server.bodies[1:]) == [2, 3, 3, 3]
        slopes = [round(a / b) for a, b in vectors]
        assert slopes == list(range(1, 12))


@pytest.mark.parametrize("kind", ["queries", "passages"])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_temporary_failure_is_retried(status: int, kind: str) -> None:
    async with embedding_server(constant) as server, open_embedder(settings(server)) as embedder:
        server.replies = [web.Response(status=status)]
        embed = embedder.embed_queries if kind == "queries" else embedder.embed_passages
        assert len(await embed(["a"])) == 1
        assert len(server.bodies) == 3


@pytest.mark.faults
async def test_passages_are_retried_while_the_server_is_busy() -> None:
    async with embedding_server(constant) as server, open_embedder(settings(server, passage_timeout=60)) as embedder:
        server.replies = [web.Response(status=429) for _ in range(6)]
        assert len(await embedder.embed_passages(["a"])) == 1
        assert len(await embedder.embed_queries(["a"])) == 1
        assert len(server.bodies) == 9


@pytest.mark.parametrize(
    "reply",
    [
        web.json_response({"error": "x"}),
        web.json_response({"data": []}),
        web.json_response({"data": [{"index": 0, "embedding": [0.0, 0.0]}]}),
        web.Response(text="not JSON"),
    ],
    ids=["an error", "no vector", "no direction", "no JSON"],
)
async def test_a_wrong_reply_is_unavailable(reply: web.Response) -> None:
    async with embedding_server(constant) as server, open_embedder(settings(server)) as embedder:
        server.replies = [reply]
        with pytest.raises(EmbeddingUnavailable):
            await embedder.embed_queries(["a"])


@pytest.mark.faults
async def test_questions_wait_for_their_deadline_until_the_breaker_opens() -> None:
    async with embedding_server(constant) as server, open_embedder(settings(server, query_timeout=0.2)) as embedder:
        server.gate = anyio.Event()
        for _ in range(4):  # a breaker's minimum number of calls, with the warm-up
            with anyio.fail_after(2), pytest.raises(EmbeddingUnavailable, match="no answer in time"):
                await embedder.embed_queries(["a"])
        requests = len(server.bodies)
        with pytest.raises(EmbeddingUnavailable, match="failed too often"):
            await embedder.embed_queries(["a"])
        assert len(server.bodies) == requests
        server.gate.set()


async def test_questions_beyond_the_queue_are_refused_at_once() -> None:
    async with embedding_server(constant) as server, open_embedder(settings(server, queue=1)) as embedder:
        server.gate = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(embedder.embed_queries, ["a"])
            while server.running == 0:
                await anyio.sleep(0.01)
            with pytest.raises(EmbeddingUnavailable):
                await embedder.embed_queries(["b"])
            server.gate.set()


async def test_extra_body_fields_do_not_replace_our_own() -> None:
    own: dict[str, Any] = {"truncate_prompt_tokens": -1, "model": "another"}
    async with embedding_server(constant) as server, open_embedder(settings(server, extra_body=own)):
        assert (server.bodies[0]["truncate_prompt_tokens"], server.bodies[0]["model"]) == (-1, "served")


async def test_an_absent_endpoint_or_invalid_tokenizer_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 512}')
    async with embedding_server(constant) as server:
        with pytest.raises(EmbeddingUnavailable, match=r"EMBEDDER__TOKENIZER: .*tokenizer\.json cannot be read"):
            async with open_embedder(settings(server, tokenizer=tmp_path)):
                pass
    with pytest.raises(EmbeddingUnavailable, match=r"127\.0\.0\.1"):
        async with open_embedder(settings(server, passage_timeout=0.3)):
            pass
