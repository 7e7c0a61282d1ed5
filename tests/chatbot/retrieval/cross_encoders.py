"""Cross-encoders with random weights, by torch, whose import takes seconds."""

from pathlib import Path
from threading import Event
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast


def write_cross_encoder(folder: Path, text: str, *, labels: int = 1) -> Path:
    """Write a random cross-encoder of one layer over the characters of a text."""
    characters = sorted(set(text))
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


def ranked(folder: Path, question: str, texts: list[str]) -> list[int]:
    """Return the places of the texts in sentence-transformers' own ranking."""
    return [int(entry["corpus_id"]) for entry in CrossEncoder(str(folder)).rank(question, texts)]


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
