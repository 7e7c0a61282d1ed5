"""A random BERT of one layer over bytes, as a sentence-transformers folder."""

from pathlib import Path
from typing import Literal

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

Pooling = Literal["mean", "cls", "max", "lasttoken"]


def write_bert(folder: Path, pooling: Pooling) -> None:
    """Write the model, and its parts into a sibling folder `bert`."""
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
