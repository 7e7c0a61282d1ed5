"""The measurement of a switch of embedders: it holds where nothing failed, and tells what failed by its reason."""

import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
from fastapi.responses import JSONResponse
from rich.console import Console

from evals.performance.embedder_switch import SwitchPlan, measure
from evals.questions import Dataset, read_dataset
from ingest.settings import Settings
from knowledge.embedding import Embedder, EmbedderSettings, open_embedder
from tests.embedding_server import EmbeddingServer, embedding_server
from tests.tiny_embedder import tiny_weights

pytestmark = pytest.mark.anyio

PRODUCTS = ("정기예금", "자유적금", "파킹통장")
QUERY = "query: "


@pytest.fixture
def bank(tmp_path: Path) -> Dataset:
    folder = tmp_path / "bank"
    folder.mkdir()
    lines: dict[str, list[dict[str, object]]] = {
        "corpus.jsonl": [
            {"id": f"d{n}", "title": p, "text": f"{p}의 금리는 연 {n}%입니다."} for n, p in enumerate(PRODUCTS)
        ],
        "queries.jsonl": [
            {"id": f"q{n}", "text": f"{p} 금리는?", "answers": [f"연 {n}%"]} for n, p in enumerate(PRODUCTS)
        ],
    }
    for name, entries in lines.items():
        (folder / name).write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), "utf-8")
    relevant = "".join(f"q{n}\td{n}\t1\n" for n, _ in enumerate(PRODUCTS))
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{relevant}", "utf-8")
    return read_dataset(folder)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
async def own(weights: Path) -> AsyncGenerator[Embedder]:
    async with open_embedder(Settings(weights_dir=weights).embedder) as embedder:
        yield embedder


async def test_nothing_fails_in_a_switch_there_and_back(
    tmp_path: Path, bank: Dataset, own: Embedder, weights: Path
) -> None:
    async with embedding_server(own.embed_passages) as server:
        figures = await measure(plan_of(bank), settings_of(server, weights), tmp_path / "data", Console(quiet=True))
    assert figures.holds
    assert figures.ndcg == [1.0, 1.0, 1.0]
    assert len(figures.seconds) == 2
    assert min(searches.count for searches in figures.searches.values()) > 2
    assert set(figures.searches) == {own.name, server.name}


async def test_searches_that_fail_are_told_by_their_reason(
    tmp_path: Path, bank: Dataset, own: Embedder, weights: Path
) -> None:
    async with embedding_server(own.embed_passages) as server:
        embed = server.embed

        async def failing(texts: Sequence[str]) -> list[list[float]]:
            if not failed and texts[0].startswith(QUERY):
                failed.append(texts[0])
                server.replies += [JSONResponse({}, status_code=503)]  # the second attempt
                raise RuntimeError("a server with a fault")
            return await embed(texts)

        failed: list[str] = []
        server.embed = failing
        figures = await measure(plan_of(bank), settings_of(server, weights), tmp_path / "data", Console(quiet=True))
    there = figures.searches[server.name]
    assert not figures.holds
    assert [kind.rpartition(": ")[2] for kind in there.failed] == ["status 503"]
    assert sum(there.failed.values()) == 1 < there.count
    assert not figures.searches[own.name].failed


def plan_of(bank: Dataset) -> SwitchPlan:
    return SwitchPlan(dataset=bank, readers=1, rate=10.0, afterwards=0.8)


def settings_of(server: EmbeddingServer, weights: Path) -> Settings:
    there = {"url": server.url, "model": server.name, "query_prefix": QUERY, "passage_prefix": ""}
    return Settings(weights_dir=weights, embedder=EmbedderSettings.model_validate(there))
