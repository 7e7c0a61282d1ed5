"""A byte-level BPE tokenizer made in code: what the scripted model speaks, in the shape of Qwen's files.

All 256 bytes, every Hangul syllable, pairs of small letters and the four words of the answerability probe are tokens,
so that prompts cost about what they cost with a real model and rarer characters still arrive byte by byte.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from string import ascii_lowercase

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Qwen2's own split; `Tokenizer` readers that understand this one understand the served models' too.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def write_tokenizer(folder: Path, *, max_length: int = 32_768) -> Path:
    """Write `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "chat_template": CHAT_TEMPLATE,
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
                "model_max_length": max_length,
                "clean_up_tokenization_spaces": False,
            },
            indent=2,
        ),
        encoding="utf-8",
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return folder


def tokenizer_json() -> str:
    """Return the tokenizer in the `tokenizers` library's format; ids grow in the order of merges, as BPE ranks do."""
    letters = byte_letters()
    vocabulary = {letters[byte]: n for n, byte in enumerate(sorted(range(256), key=lambda b: ord(letters[b])))}
    merges = [("".join(letters[b] for b in left), "".join(letters[b] for b in right)) for left, right in _merges()]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    specials = [
        {
            "id": len(vocabulary) + n,
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for n, content in enumerate(SPECIALS)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": vocabulary,
        "merges": merges,
    }
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": specials,
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "post_processor": byte_level,
            "decoder": byte_level,
            "model": model,
        },
        ensure_ascii=False,
    )


def byte_letters() -> dict[int, str]:
    """Return the printable letter that byte-level BPE writes for each byte (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


def _merges() -> Iterator[tuple[bytes, bytes]]:
    syllables = [chr(code).encode() for code in range(0xAC00, 0xD7A4)]
    for head in sorted({syllable[:2] for syllable in syllables}):
        yield head[:1], head[1:]
    for syllable in syllables:
        yield syllable[:2], syllable[2:]
    for first in ascii_lowercase:
        for second in ascii_lowercase:
            yield first.encode(), second.encode()
    yield from ((b" ", letter.encode()) for letter in ascii_lowercase)
    yield from ((b"Y", b"es"), (b"N", b"o"), ("아".encode(), "니".encode()), ("아니".encode(), "오".encode()))
