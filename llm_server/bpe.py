"""Writes a byte-level BPE tokenizer as the files that vLLM and transformers load.

The pipeline is Qwen2's: an NFC normalizer, one Split by a regular expression, and ByteLevel with its own
regular expression disabled.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token outside the merges; `special` ones are omitted from decoded answers."""

    id: int
    content: str
    special: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bpe:
    """A byte-level BPE tokenizer and its chat template."""

    vocabulary: Mapping[str, int]
    merges: Sequence[tuple[str, str]]
    added: Sequence[AddedToken]
    chat_template: str
    eos: str
    pad: str
    max_length: int

    def to_json(self) -> str:
        """Return `tokenizer.json`."""
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
        split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        model = {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": self.vocabulary,
            "merges": self.merges,
        }
        return json.dumps(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "added_tokens": [{"id": t.id, "content": t.content, "special": t.special} | plain for t in self.added],
                "normalizer": {"type": "NFC"},
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
                "post_processor": byte_level,
                "decoder": byte_level,
                "model": model,
            },
            ensure_ascii=False,
        )

    def write(self, folder: Path) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` into `folder`."""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": self.chat_template,
            "eos_token": self.eos,
            "pad_token": self.pad,
            "model_max_length": self.max_length,
            "clean_up_tokenization_spaces": False,
        }
        (folder / "tokenizer.json").write_text(self.to_json(), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        (folder / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")
