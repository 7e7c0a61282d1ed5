"""Tokenizers of the kinds that real models use, trained here with the library's own trainers."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

KINDS = ("qwen", "smollm2", "gpt2", "llama3", "sentencepiece", "unigram")
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_start|>more", "[TOOL]")
CORPUS = (
    "정기예금을 중도해지하는 경우 기본이율의 50%가 적용됩니다. 예금자보호 한도는 원금과 이자를 합하여 1억원입니다.\n"
    "체크카드 연회비는 없습니다. 대출 금리는 연 3.10%이며 만기는 12개월입니다.\n\n"
    "Early withdrawal costs 1,000,000 won; it's the customer's choice. We'll tell you, they're sure, I'd say.\n"
    "  Indented\ttext\r\nwith  spaces   and -- dashes... (brackets) [lists] {json: 'yes'}\n"
).splitlines(keepends=True)


def trained(style: str) -> Tokenizer:
    """Train a tokenizer: byte-level ones like Qwen2.5's, SmolLM2's, GPT-2's or Llama 3's, a SentencePiece BPE with byte
    fallback, or a Unigram.
    """
    specials = [AddedToken(text, special=True, normalized=False) for text in SPECIALS]
    if style in {"sentencepiece", "unigram"}:
        reference = sentencepiece() if style == "sentencepiece" else unigram()
    else:
        reference = byte_level(style, specials)
    reference.add_special_tokens(specials)
    return reference


def byte_level(style: str, specials: list[AddedToken]) -> Tokenizer:
    reference = Tokenizer(models.BPE(ignore_merges=style == "llama3"))
    part = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=style not in {"qwen", "llama3"})
    before: dict[str, list[pre_tokenizers.PreTokenizer]] = {
        "qwen": [pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")],
        "llama3": [pre_tokenizers.Split(Regex(QWEN_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)), "isolated")],
        "smollm2": [pre_tokenizers.Digits(individual_digits=True)],
        "gpt2": [],
    }
    parts = [*before[style], part]
    reference.pre_tokenizer = pre_tokenizers.Sequence(parts) if len(parts) > 1 else part
    reference.decoder = decoders.ByteLevel()
    if style == "qwen":
        reference.normalizer = normalizers.NFC()
    first = specials if style == "smollm2" else []  # SmolLM2's special tokens have the lowest ids, Qwen's the highest
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=first, initial_alphabet=alphabet, show_progress=False)
    reference.train_from_iterator(CORPUS, trainer)
    if style == "llama3":
        post = [("<|endoftext|>", reference.get_vocab_size())]
        reference.add_special_tokens(specials)
        reference.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=post)
    return reference


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def sentencepiece() -> Tokenizer:
    """Train a tokenizer like Llama 2's: a space before the text, spaces as `▁`, unknown characters as bytes."""
    reference = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    reference.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    ends = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    reference.decoder = decoders.Sequence(ends)
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>", *BYTES], limit_alphabet=60, show_progress=False
    )
    reference.train_from_iterator(CORPUS, trainer)
    return with_bytes(reference)


def unigram() -> Tokenizer:
    reference = Tokenizer(models.Unigram())
    reference.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    trainer = trainers.UnigramTrainer(
        vocab_size=500, special_tokens=["<unk>", *BYTES], unk_token="<unk>", show_progress=False
    )
    reference.train_from_iterator(CORPUS, trainer)
    reference.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", "first", split=False)])
    return with_bytes(reference)


def with_bytes(reference: Tokenizer) -> Tokenizer:
    """Make byte pieces ordinary tokens for unknown characters (byte fallback) instead of added tokens."""
    described = json.loads(reference.to_str())
    described["model"]["byte_fallback"] = True
    described["added_tokens"] = [token for token in described["added_tokens"] if token["content"] == "<unk>"]
    return Tokenizer.from_str(json.dumps(described))


def write(reference: Tokenizer, folder: Path) -> Path:
    reference.save(str(folder / "tokenizer.json"))
    return folder
