"""An embedding model with random weights, written in a second, that runs through the real code path; and a real one
under another name."""

from pathlib import Path
from typing import Literal

import anyio
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from knowledge.embedding import Embedder, EmbedderSettings, open_embedder

Pooling = Literal["mean", "cls", "max", "lasttoken"]


class Renamed:
    """The real embedder under another name or size."""

    def __init__(self, real: Embedder, *, name: str, dimensions: int) -> None:
        self.name = name
        self.dimensions = dimensions
        self.embed_queries = real.embed_queries
        self.embed_passages = real.embed_passages


def write_model(folder: Path, *, pooling: Pooling = "mean") -> None:
    """Write a random BERT of one layer over bytes, as a sentence-transformers folder."""
    bert = folder.with_name("bert")
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
    transformer = modules.Transformer(str(bert), max_seq_length=512)
    SentenceTransformer(modules=[transformer, modules.Pooling(32, pooling)], device="cpu").save(str(folder))


def write_weights(folder: Path) -> None:
    """Write the weights, converted for OpenVINO, which takes as long as twenty tests."""
    write_model(folder / "e5-small")

    async def convert() -> None:
        async with open_embedder(EmbedderSettings(folder=folder / "e5-small")):
            pass

    anyio.run(convert)


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
