"""A tiny embedding model and real services over it: embedded Qdrant, a database and a blob folder of the test's own."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from ingest.delivery import DeliverySettings
from ingest.services import Services
from ingest.settings import Settings
from ingest.wiring import open_services
from tests.ingest.staff import Staff, open_staff


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder whose e5-small is a random BERT of one layer over bytes: fast, and the same code path."""
    folder = tmp_path_factory.mktemp("weights")
    _write_model(folder / "e5-small", folder / "bert")
    return folder


def _write_model(folder: Path, bert: Path) -> None:
    tokenizer = _byte_tokenizer()
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # publishes no types
        tokenizer_object=tokenizer, pad_token="<pad>", cls_token="<s>", sep_token="</s>", unk_token="<unk>"
    )
    size = tokenizer.get_vocab_size()
    config = BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=512,
    )  # fmt: skip
    BertModel(config).save_pretrained(bert)
    wrapped.save_pretrained(bert)
    transformer = Transformer(str(bert), max_seq_length=512)
    SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu").save(str(folder))


def _byte_tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ends = [("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer(weights: Path) -> Tokenizer:
    return Tokenizer.from_file(str(weights / "e5-small" / "tokenizer.json"))


@pytest.fixture
def settings(weights: Path, tmp_path: Path, redis_url: str, database_url: str) -> Settings:
    return Settings(
        weights_dir=weights,
        data_dir=tmp_path / "data",
        database_url=SecretStr(database_url),
        redis_url=SecretStr(redis_url),
        delivery=DeliverySettings(queue=f"ingest-{uuid4().hex}"),
    )


class Clock:
    """The bank's clock, set by the test."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


NOON = 1_780_023_600.0
"""2026-05-29 12:00 in Seoul."""


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture
async def services(settings: Settings, clock: Clock) -> AsyncGenerator[Services]:
    """Services whose jobs nobody works off but the test."""
    async with open_services(settings, works_jobs=False) as opened:
        yield replace(opened, now=clock)


@pytest.fixture
async def staff(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Staff]:
    async with open_staff(services, tmp_path_factory.mktemp("keys")) as opened:
        yield opened
