"""Fixtures: the real embedder and terms, loaded once per session, and an embedded index per test."""

import os
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.embedding import Embedder, EmbedderSettings, open_embedder
from knowledge.index import Index, IndexSettings, open_index
from knowledge.passage import Passage
from knowledge.terms import Terms

BANK = Passage(
    tenant="hanbit",
    document_id="deposit",
    version=1,
    n=0,
    title="정기예금",
    section="",
    page=None,
    text="정기예금의 중도해지 이율은 연 1.0%입니다.",
    language="ko",
    product=None,
    readers=(EVERY_CUSTOMER,),
    effective_from=None,
    visible_from=100.0,
)
CUSTOMER = Access(tenant="hanbit", groups=frozenset({EVERY_CUSTOMER}), as_of=200.0)


def numbered(*texts: str, document_id: str = "deposit") -> list[Passage]:
    """Return the passages of one version with these texts."""
    return [replace(BANK, n=n, text=text, document_id=document_id) for n, text in enumerate(texts)]


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder into which `make test` downloads the embedding model with `llm-server fetch e5-small`."""
    root = os.environ.get("WEIGHTS_DIR") or "~/.cache/bank-chatbot/weights"  # noqa: TID251  the test runner's own edge
    return Path(root).expanduser() / "e5-small"


@pytest.fixture(scope="module")  # a session-scoped async fixture would keep its event loop open during every later test
async def embedder(weights: Path) -> AsyncGenerator[Embedder]:
    async with open_embedder(EmbedderSettings(folder=weights)) as embedder:
        yield embedder


@pytest.fixture(scope="session")
def terms() -> Terms:
    return Terms()


@pytest.fixture
async def index(tmp_path: Path, embedder: Embedder, terms: Terms) -> AsyncGenerator[Index]:
    async with open_index(IndexSettings(path=tmp_path / "qdrant"), embedder, terms) as index:
        yield index
