"""Two passages, and an index with them that needs no embedding model."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path

from knowledge.access import EVERY_CUSTOMER
from knowledge.embedding import Embedder
from knowledge.index import Index, IndexSettings, open_index
from knowledge.passage import Passage
from knowledge.terms import Terms

TENANT, NOW = "hanbit", 1_800_000_000.0
DEPOSIT = Passage(
    tenant=TENANT, document_id="deposit", version=2, n=3, title="정기예금", section="금리", page=None,
    text="정기예금의 기본 금리는 연 3.1%입니다. 중도해지 금리는 연 0.5%입니다.", language="ko", product=None,
    readers=(EVERY_CUSTOMER,), effective_from=date(2026, 1, 2), visible_from=NOW - 100,
)  # fmt: skip
FEES = replace(DEPOSIT, document_id="fees", version=1, n=0, title="수수료", text="송금 수수료는 8,000원입니다.")


class NoEmbedder:
    """An embedder for tests that supply vectors and do not search."""

    name = "none"
    dimensions = 2

    async def embed_queries(self, texts: Sequence[str]) -> list[list[float]]:
        raise NotImplementedError(texts)

    async def embed_passages(self, texts: Sequence[str]) -> list[list[float]]:
        raise NotImplementedError(texts)


class FirstAxis(NoEmbedder):
    """An embedder whose questions are all close to DEPOSIT."""

    async def embed_queries(self, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, 0.0] for _ in texts]


_terms = cache(Terms)


@asynccontextmanager
async def indexed_passages(folder: Path, embedder: Embedder | None = None) -> AsyncGenerator[Index]:
    """Open an index in a folder and write both passages."""
    async with open_index(IndexSettings(path=folder), embedder or NoEmbedder(), _terms()) as index:
        await index.upsert([DEPOSIT, FEES], [[1.0, 0.0], [0.0, 1.0]])
        yield index
