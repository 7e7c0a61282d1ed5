"""The scripted model's byte-level BPE tokenizer, generated in code with the layout of Qwen's files.

All 256 bytes, every Hangul syllable, pairs of lowercase letters and the four words of the answerability probe are
tokens, so that prompts have about as many tokens as with a real model, and rarer characters arrive byte by byte.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from string import ascii_lowercase
from typing import Literal

from llm_server.bpe import AddedToken, Bpe

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKERS = ("<think>", "</think>")
"""The markers around a scripted model's thinking: added tokens that, like Qwen3's, appear in decoded answers."""
NO_THINKING = "<think>\n\n</think>\n\n"
"""The prefix of an answer without thinking."""
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


Template = Literal["plain", "switched", "opening"]
"""Chat templates by their handling of thinking: none, like Qwen3's (`enable_thinking: false`), like DeepSeek R1's."""
TEMPLATES: Mapping[Template, str] = {
    "plain": CHAT_TEMPLATE,
    "switched": CHAT_TEMPLATE
    + "{%- if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}",
    "opening": CHAT_TEMPLATE + "{%- if add_generation_prompt %}{{- '<think>\\n' }}{%- endif %}",
}


def write_tokenizer(folder: Path, *, template: Template = "plain", marked: bool = False) -> Path:
    """Write the tokenizer's files into `folder` and return it; if `marked`, the markers of thinking are tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    byte_tokenizer(template=template, marked=marked).write(folder)
    return folder


@cache
def byte_tokenizer(*, template: Template = "plain", marked: bool = False) -> Bpe:
    """Return the tokenizer; ids follow the order of merges, like BPE ranks, and the markers of thinking are last."""
    letters = byte_letters()
    vocabulary = {letter: n for n, letter in enumerate(sorted(letters.values()))}
    merges = [(_in_letters(left), _in_letters(right)) for left, right in _merges()]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    added = [*SPECIALS, *MARKERS] if marked else [*SPECIALS]
    return Bpe(
        vocabulary=vocabulary,
        merges=merges,
        added=[
            AddedToken(len(vocabulary) + n, content, special=content in SPECIALS) for n, content in enumerate(added)
        ],
        chat_template=TEMPLATES[template],
        eos="<|im_end|>",
        pad="<|endoftext|>",
        max_length=32_768,
    )


def _in_letters(content: bytes) -> str:
    letters = byte_letters()
    return "".join(letters[byte] for byte in content)


@cache
def byte_letters() -> dict[int, str]:
    """Return the printable character for each byte in byte-level BPE (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


def _merges() -> Iterator[tuple[bytes, bytes]]:
    """Yield the pairs that form a token: of a syllable's three bytes, then of letters, then of the probe's words."""
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
