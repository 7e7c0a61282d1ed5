"""A cross-encoder sorts what was found; late, busy or broken it changes nothing."""

import sys
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import pytest
import torch
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from chatbot.retrieval.reranking import LocalReranker, Reranker, RerankerMissing, RerankerSettings, open_reranker
from chatbot.retrieval.search import Retrieval, RetrievalSettings
from evals.sample_bank import sample_banks
from knowledge.embedding import EmbedderSettings, open_embedder
from knowledge.index import Index, IndexSettings, indexed_text, open_index
from knowledge.passage import Hit
from knowledge.terms import Terms
from tests.knowledge.conftest import BANK, CUSTOMER, numbered
from tests.knowledge.conftest import weights as weights  # noqa: PLC0414  a fixture of that folder, used here too

pytestmark = pytest.mark.anyio

QUESTION = "정기예금을 중간에 해지하면 이자는 얼마인가요?"
TEXTS = [f"제{n}조 중도해지 이율은 연 {n}.0%입니다. " + "가나다 " * n for n in range(1, 9)]
HITS = [Hit(passage=passage, score=1 / (n + 1), dense=0.9, terms=0.5) for n, passage in enumerate(numbered(*TEXTS))]


def write_cross_encoder(folder: Path, *, labels: int = 1) -> Path:
    """Write a random cross-encoder of one layer over characters."""
    characters = sorted(set("".join((QUESTION, BANK.title, *TEXTS))))
    vocabulary = {token: n for n, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    ends = [("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=ends
    )
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # publishes no types
        tokenizer_object=tokenizer, pad_token="<pad>", cls_token="<s>", sep_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=512, initializer_range=0.5,
    )  # fmt: skip
    config.num_labels = labels
    with torch.random.fork_rng():
        torch.manual_seed(7)  # weights that change the order: some do not
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("cross-encoder"))


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


def best_first(folder: Path, hits: list[Hit]) -> list[int]:
    """Return the order of sentence-transformers' own ranking."""
    ranked = CrossEncoder(str(folder)).rank(QUESTION, [indexed_text(hit.passage) for hit in hits])
    return [hits[int(entry["corpus_id"])].passage.n for entry in ranked]


async def test_the_best_answer_comes_first(reranker: Reranker, folder: Path) -> None:
    ordered = [hit.passage.n for hit in await reranker.order(QUESTION, HITS)]
    assert ordered == best_first(folder, HITS)
    assert ordered != [hit.passage.n for hit in HITS]


async def test_a_search_chooses_from_more_candidates_than_it_returns(
    reranker: Reranker, folder: Path, passages: Index
) -> None:
    await passages.upsert([replace(passage, visible_from=100.0) for passage in numbered(*TEXTS)])
    settings = RetrievalSettings(passages=3)
    plain = await Retrieval(passages, settings, sample_banks()).search(QUESTION, earlier=[], access=CUSTOMER)
    reranked = await Retrieval(passages, settings, sample_banks(), reranker=reranker).search(
        QUESTION, earlier=[], access=CUSTOMER
    )
    assert [hit.passage.n for hit in reranked.hits] == best_first(folder, HITS)[:3]
    assert [hit.passage.n for hit in plain.hits] != [hit.passage.n for hit in reranked.hits]


class BlockedCrossEncoder(CrossEncoder):
    """A cross-encoder that scores nothing before it may."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), local_files_only=True)
        self.released = Event()
        self.predictions = 0

    def predict(self, *args: Any, **more: Any) -> Any:
        self.predictions += 1
        self.released.wait(30)
        return super().predict(*args, **more)


async def test_a_late_cross_encoder_keeps_the_order_and_so_does_a_busy_one(folder: Path) -> None:
    model = BlockedCrossEncoder(folder)
    with ThreadPoolExecutor(max_workers=1) as thread:
        reranker = LocalReranker(model, thread, RerankerSettings(timeout=0.05, waiting=1))
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
async def test_a_folder_without_a_cross_encoder_is_one_sentence(tmp_path: Path, labels: int | None) -> None:
    if labels is not None:
        write_cross_encoder(tmp_path, labels=labels)
    with pytest.raises(RerankerMissing, match=r"RERANKER__FOLDER.*" + str(tmp_path)):
        async with open_reranker(RerankerSettings(folder=tmp_path)):
            pass


async def test_an_image_without_sentence_transformers_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(RerankerMissing, match="sentence-transformers is not installed here"):
        async with open_reranker(RerankerSettings(folder=folder)):
            pass
