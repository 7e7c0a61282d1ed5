"""A cross-encoder sorts what was found; late, busy or broken it changes nothing."""

import sys
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import anyio
import pytest

from chatbot.retrieval.reranking import LocalReranker, Reranker, RerankerMissing, RerankerSettings, open_reranker
from chatbot.retrieval.search import Retrieval, RetrievalSettings
from evals.sample_bank import sample_banks
from knowledge.embedding import EmbedderSettings, open_embedder
from knowledge.index import Index, IndexSettings, indexed_text, open_index
from knowledge.passage import Hit
from knowledge.terms import Terms
from tests.constants import with_constants
from tests.knowledge.conftest import BANK, CUSTOMER, numbered
from tests.knowledge.conftest import weights as weights  # noqa: PLC0414  a fixture of that folder, used here too

pytestmark = pytest.mark.anyio

QUESTION = "정기예금을 중간에 해지하면 이자는 얼마인가요?"
TEXTS = [f"제{n}조 중도해지 이율은 연 {n}.0%입니다. " + "가나다 " * n for n in range(1, 9)]
CHARACTERS = "".join((QUESTION, BANK.title, *TEXTS))
HITS = [Hit(passage=passage, score=1 / (n + 1), dense=0.9, terms=0.5) for n, passage in enumerate(numbered(*TEXTS))]


@pytest.fixture(scope="module")
def cross_encoders() -> ModuleType:
    """`tests.chatbot.retrieval.cross_encoders`, imported no sooner: each process that collects a test imports this."""
    return import_module("tests.chatbot.retrieval.cross_encoders")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cross_encoders: ModuleType) -> Path:
    folder: Path = cross_encoders.write_cross_encoder(tmp_path_factory.mktemp("cross-encoder"), CHARACTERS)
    return folder


@pytest.fixture
async def reranker(folder: Path) -> AsyncGenerator[Reranker]:
    async with open_reranker(RerankerSettings(folder=folder, timeout=30)) as opened:
        assert opened is not None
        yield opened


@pytest.fixture
async def passages(weights: Path, tmp_path: Path) -> AsyncGenerator[Index]:
    async with (
        open_embedder(EmbedderSettings(folder=weights)) as embedder,
        open_index(IndexSettings(path=tmp_path / "qdrant"), embedder, Terms()) as index,
    ):
        yield index


@pytest.fixture(scope="module")
def best_first(folder: Path, cross_encoders: ModuleType) -> list[int]:
    """The order of the hits in sentence-transformers' own ranking."""
    places = cross_encoders.ranked(folder, QUESTION, [indexed_text(hit.passage) for hit in HITS])
    return [HITS[place].passage.n for place in places]


async def test_the_best_answer_comes_first(reranker: Reranker, best_first: list[int]) -> None:
    ordered = [hit.passage.n for hit in await reranker.order(QUESTION, HITS)]
    assert ordered == best_first
    assert ordered != [hit.passage.n for hit in HITS]


async def test_a_search_chooses_from_more_candidates_than_it_returns(
    reranker: Reranker, best_first: list[int], passages: Index
) -> None:
    await passages.upsert([replace(passage, visible_from=100.0) for passage in numbered(*TEXTS)])
    settings = RetrievalSettings(passages=3)
    plain = await Retrieval(passages, settings, sample_banks()).search(QUESTION, earlier=[], access=CUSTOMER)
    reranked = await Retrieval(passages, settings, sample_banks(), reranker=reranker).search(
        QUESTION, earlier=[], access=CUSTOMER
    )
    assert [hit.passage.n for hit in reranked.hits] == best_first[:3]
    assert [hit.passage.n for hit in plain.hits] != [hit.passage.n for hit in reranked.hits]


async def test_a_late_cross_encoder_keeps_the_order_and_so_does_a_busy_one(
    folder: Path, cross_encoders: ModuleType
) -> None:
    model = cross_encoders.BlockedCrossEncoder(folder)
    with ThreadPoolExecutor(max_workers=1) as thread:
        reranker = LocalReranker(model, thread, with_constants(RerankerSettings(timeout=0.05), waiting=1))
        try:
            with anyio.fail_after(10):
                assert await reranker.order(QUESTION, HITS) == HITS
                assert await reranker.order(QUESTION, HITS) == HITS
        finally:
            model.released.set()
    assert model.predictions == 1, "the second question was not scored"


async def test_without_a_folder_there_is_none() -> None:
    async with open_reranker(RerankerSettings()) as reranker:
        assert reranker is None


@pytest.mark.parametrize("labels", [None, 3], ids=["empty folder", "a classifier of three labels"])
async def test_a_folder_without_a_cross_encoder_is_one_sentence(
    tmp_path: Path, cross_encoders: ModuleType, labels: int | None
) -> None:
    if labels is not None:
        cross_encoders.write_cross_encoder(tmp_path, CHARACTERS, labels=labels)
    with pytest.raises(RerankerMissing, match=r"RERANKER__FOLDER.*" + str(tmp_path)):
        async with open_reranker(RerankerSettings(folder=tmp_path)):
            pass


async def test_a_folder_that_is_not_there_is_named_before_seconds_of_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = ModuleType("sentence_transformers")  # from which nothing can be imported
    installed.__spec__ = ModuleSpec(installed.__name__, None)
    monkeypatch.setitem(sys.modules, installed.__name__, installed)
    with pytest.raises(RerankerMissing, match=rf"no cross-encoder in {tmp_path / 'none'}: there is no such folder"):
        async with open_reranker(RerankerSettings(folder=tmp_path / "none")):
            pass


async def test_an_image_without_sentence_transformers_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(RerankerMissing, match="sentence-transformers is not installed here"):
        async with open_reranker(RerankerSettings(folder=folder)):
            pass
