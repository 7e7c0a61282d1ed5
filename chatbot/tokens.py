"""Counting tokens without the server, and special tokens in text that is not the template's (no I/O but one file).

A count is exact where the model's `tokenizer.json` is at hand: by tiktoken where it can, which is nine times as fast as
the `tokenizers` library, else by that. Otherwise it is an estimate: a ratio per script, measured at the start by the
model's own counts of sample texts, times a margin (docs/decisions/0033-one-client.md).
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiktoken
import tokenizers

from chatbot.chat import Message

MARGIN = 1.1
"""How much an estimate exceeds the measured ratio; texts of one script differ by a few percent."""
_HANGUL = re.compile(r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]+")
_LATIN = re.compile(r"[A-Za-z]+")
SAMPLES = (
    "정기예금을 중도해지하면 기본이율의 일부만 적용되며 만기 전에 찾은 이자는 다시 계산됩니다. "
    "예금자보호 한도와 우대 조건은 상품 설명서에서 확인할 수 있습니다.",
    "Early withdrawal of a term deposit reduces the interest that you are paid. The conditions and the limit of "
    "deposit protection are stated in the product description.",
    "1,000,000원 (0.5%) | 2024-03-15 | 3.10% / 12개월; 1599-0000 [1] <a> 2,500,000 ~ 5.25% #12 50:50",
)
"""A text of mostly one script each."""


@dataclass(slots=True)
class TokenCounter:
    """Counts the tokens of texts; `ratios` are tokens per character of each script."""

    ratios: Sequence[float] = (1.0, 0.3, 0.9)
    template_tokens: int = 8
    """Of one message, for its role and its end."""
    exact: Callable[[str], int] | None = None

    def count(self, text: str) -> int:
        """Return how many tokens `text` is inside a message, rather too many than too few."""
        if self.exact is not None:
            return self.exact(text)
        return math.ceil(MARGIN * sum(n * ratio for n, ratio in zip(_letters(text), self.ratios, strict=True)))

    def count_chat(self, messages: Sequence[Message]) -> int:
        """Return how many tokens the messages are with what a chat template puts around them."""
        return sum(self.count(message.content) + self.template_tokens for message in messages) + self.template_tokens

    def calibrate(self, counts: Sequence[int]) -> None:
        """Set the ratios by the model's own counts of `SAMPLES`, each script's by the sample that is mostly of it.

        The last count is that of a chat of two messages of one token.
        """
        *counts, template = counts
        self.template_tokens = max(1, -(-(template - 2) // 3))
        ratios = list(self.ratios)
        for _ in range(4):  # each sample has some of the other scripts
            for script, (sample, count) in enumerate(zip(SAMPLES, counts, strict=True)):
                letters = _letters(sample)
                others = sum(letters[n] * ratios[n] for n in range(len(ratios)) if n != script)
                ratios[script] = max(0.05, (count - others) / letters[script])
        self.ratios = ratios


def _letters(text: str) -> Sequence[int]:
    """Count Hangul, Latin letters, and everything else but spaces: tokenizers join these with the word that follows."""
    hangul, latin = (len("".join(script.findall(text))) for script in (_HANGUL, _LATIN))
    return hangul, latin, len(text) - text.count(" ") - hangul - latin


class UnknownTokenizer(Exception):
    """The file is not a tokenizer; the message says why."""


def read_tokenizer(path: Path) -> tuple[Callable[[str], int], Sequence[str]]:
    """Return what counts a text's tokens, and the added tokens, of a `tokenizer.json` or its folder (blocking).

    Raises:
        UnknownTokenizer: it cannot be read.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as exc:  # the library raises nothing narrower
        raise UnknownTokenizer(f"{file} is not a tokenizer that can be read ({exc}): set the served model's") from exc
    tokenizer.no_truncation()
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    counter = tiktoken_counter(json.loads(tokenizer.to_str()))
    return counter or (lambda text: len(tokenizer.encode(text, add_special_tokens=False))), added


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def tiktoken_counter(tokenizer: Mapping[str, Any]) -> Callable[[str], int] | None:
    """Return a counter for a parsed `tokenizer.json` (Qwen, GPT-2); None where tiktoken would split text otherwise."""
    pattern, ranks = _pattern(tokenizer), _ranks(tokenizer["model"])
    normalizer = tokenizer.get("normalizer")
    if pattern is None or ranks is None or normalizer not in (None, {"type": "NFC"}):
        return None
    encoding = tiktoken.Encoding("model", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    if normalizer is None:
        return lambda text: len(encoding.encode_ordinary(text))
    return lambda text: len(encoding.encode_ordinary(unicodedata.normalize("NFC", text)))


def _pattern(tokenizer: Mapping[str, Any]) -> str | None:
    """Return the expression that splits text as the pre-tokenizer does."""
    splitter = tokenizer.get("pre_tokenizer") or {}
    match splitter.get("pretokenizers", [splitter]):
        case [
            {"type": "Split", "behavior": "Isolated", "invert": False, "pattern": {"Regex": str(pattern)}},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            return pattern
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return _GPT2
    return None


def _ranks(model: Mapping[str, Any]) -> dict[bytes, int] | None:
    """Return the bytes of each token in the order of the merges, which is all that a count needs."""
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        return None
    # GPT-2's table: each byte as a printable letter.
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in printable]
    bytes_of = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(hidden)}
    ranks = {bytes([byte]): byte for byte in range(256)}
    for merge in model["merges"]:
        token = "".join(merge) if isinstance(merge, list) else merge.replace(" ", "", 1)
        if not bytes_of.keys() >= set(token):
            return None
        ranks.setdefault(bytes(map(bytes_of.__getitem__, token)), len(ranks))
    return ranks


FAMILY_MARKERS: Sequence[str] = re.findall(
    r"\S+",
    "<|im_start|> <|im_end|> <|im_sep|> <|endoftext|> <|endofprompt|> <|fim_prefix|> <|begin_of_text|> <|eom_id|> "
    "<|start_header_id|> <|end_header_id|> <|eot_id|> <|python_tag|> <start_of_turn> <end_of_turn> <bos> <eos> <pad> "
    "<unk> <s> </s> [INST] [/INST] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] "
    "<<SYS>> <</SYS>> <｜User｜> <｜Assistant｜> <｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <|system|> <|user|> "
    "<|assistant|> <|end|> [|system|] [|user|] [|assistant|] [|endofturn|] <|start|> <|channel|> <|message|> "
    "<|return|> <|call|> <|constrain|> <|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <|USER_TOKEN|> <|SYSTEM_TOKEN|> "
    "<|CHATBOT_TOKEN|> <think> </think> [THINK] [/THINK] <tool_call> </tool_call> <|vision_start|> <|image_pad|>",
)
"""Markers of the model families, neutralised where neither a tokenizer's file nor the server names its own."""
_SIMILAR_SIGNS = str.maketrans("<>|[]{}/_▁｜", "‹›¦()()∕‗‗¦")
_WIDE = 0xFEE0
"""The distance from an ASCII sign to its full-width form, which some normalizers turn back."""


class SpecialTokens:
    """Keeps the special tokens of a model out of messages: `markers` are their texts."""

    def __init__(self, markers: Iterable[str] = ()) -> None:
        self.markers = sorted({marker for marker in (*FAMILY_MARKERS, *markers) if marker.strip()}, key=len)
        rests: dict[str, list[str]] = {}
        for marker in reversed(self.markers):  # the longest first
            rests.setdefault(_either_width(marker[0]), []).append("".join(map(_either_width, marker[1:])))
        # One set of first signs: the expression is tried at these alone, which makes it ten times as fast.
        markers = "|".join(f"(?<={first})(?:{'|'.join(rest)})" for first, rest in rests.items())
        self._pattern = re.compile(f"[{''.join(first[1:-1] for first in rests)}](?:{markers})")

    def neutralise(self, text: str) -> str:
        """Return the text with similar signs, or a space, in each special token, so that it stays text."""
        # Lone surrogates cannot be sent.
        text = text.encode("utf-8", "replace").decode()
        while (harmless := self._pattern.sub(_harmless, text)) != text:
            text = harmless
        return text


def _either_width(sign: str) -> str:
    wide = chr(ord(sign) + _WIDE) if "!" <= sign <= "~" else ""
    return f"[{re.escape(sign)}{wide}]"


def _harmless(match: re.Match[str]) -> str:
    marker = "".join(chr(ord(sign) - _WIDE) if "！" <= sign <= "～" else sign for sign in match[0])
    harmless = marker.translate(_SIMILAR_SIGNS)
    return harmless if harmless != marker else " ".join(marker) if len(marker) > 1 else "·"


FAMILY_TOKENS = SpecialTokens()
"""Those of a model whose own are not known."""
