"""Count tokens without the server, and neutralise special tokens in untrusted text (no I/O but one file).

With the model's `tokenizer.json` a count is exact: by tiktoken where it supports the tokenizer, which is nine times as
fast as the `tokenizers` library, else by that library. Otherwise it is an estimate: a ratio per script times a margin.
The ratios are measured at the start from the server's counts of sample texts (docs/decisions/0033-one-client.md).
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
"""The factor on estimates; the ratios of texts in one script differ by a few percent."""
_HANGUL = re.compile(r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]+")
_LATIN = re.compile(r"[A-Za-z]+")
SAMPLES = (
    "정기예금을 중도해지하면 기본이율의 일부만 적용되며 만기 전에 찾은 이자는 다시 계산됩니다 "
    "예금자보호 한도와 우대 조건은 상품 설명서에서 확인할 수 있습니다",
    "Early withdrawal of a term deposit reduces the interest that you are paid The conditions and the limit of "
    "deposit protection are stated in the product description",
    "1,000,000 (0.5%) | 2024-03-15 | 3.10% / 12; 1599-0000 [1] 2,500,000 ~ 5.25% #12 50:50",
)
"""One text for each script."""


@dataclass(slots=True)
class TokenCounter:
    """Counts the tokens of texts; `ratios` are tokens per character of each script."""

    ratios: Sequence[float] = (1.0, 0.3, 0.9)
    template_tokens: int = 8
    """The template's tokens around one message, for its role and its end."""
    exact: Callable[[str], int] | None = None

    def count(self, text: str) -> int:
        """Return the token count of `text` inside a message; an estimate is too high rather than too low."""
        if self.exact is not None:
            return self.exact(text)
        letters = zip(_letters_by_script(text), self.ratios, strict=True)
        return math.ceil(MARGIN * sum(number * ratio for number, ratio in letters))

    def count_chat(self, messages: Sequence[Message]) -> int:
        """Return the token count of the messages, including the chat template's tokens."""
        return sum(self.count(message.content) + self.template_tokens for message in messages) + self.template_tokens

    def calibrate(self, counts: Sequence[int]) -> None:
        """Set each script's ratio from the server's token count of its text in `SAMPLES`.

        The last of `counts` is that of a chat with two messages of one token each.
        """
        *counts, chat_tokens = counts
        # `count_chat` adds the template's tokens three times to such a chat, and these are rounded up.
        self.template_tokens = max(1, math.ceil((chat_tokens - 2) / 3))
        letters = [_letters_by_script(sample)[script] for script, sample in enumerate(SAMPLES)]
        self.ratios = [max(0.05, count / number) for count, number in zip(counts, letters, strict=True)]


def _letters_by_script(text: str) -> Sequence[int]:
    """Count Hangul, Latin and other characters except spaces, which tokenizers join with the following word."""
    hangul, latin = (len("".join(script.findall(text))) for script in (_HANGUL, _LATIN))
    others = len(text) - text.count(" ") - hangul - latin
    return hangul, latin, others


class UnknownTokenizer(Exception):
    """The file is not a valid tokenizer; the message says why."""


def read_tokenizer(path: Path) -> tuple[Callable[[str], int], Sequence[str]]:
    """Return the token counter and the added tokens of a `tokenizer.json` or its folder (blocking).

    Raises:
        UnknownTokenizer: the file cannot be read.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as exc:  # the library raises only Exception
        raise UnknownTokenizer(f"{file} is not a readable tokenizer ({exc}): set the served model's") from exc
    tokenizer.no_truncation()
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    counter = tiktoken_counter(json.loads(tokenizer.to_str()))
    if counter is None:
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False)), added
    return counter, added


def tiktoken_counter(tokenizer: Mapping[str, Any]) -> Callable[[str], int] | None:
    """Return a counter for a parsed `tokenizer.json` (Qwen, Llama 3), or None if tiktoken splits text differently."""
    match tokenizer:
        case {
            "normalizer": None | {"type": "NFC"} as normalizer,
            "pre_tokenizer": {
                "pretokenizers": [
                    {"type": "Split", "behavior": "Isolated", "invert": False, "pattern": {"Regex": str(pattern)}},
                    {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
                ]
            },
            "model": {"type": "BPE", "byte_fallback": False, "merges": merges},
        } if (ranks := _ranks(merges)) is not None:
            encoding = tiktoken.Encoding("model", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        case _:
            return None
    if normalizer is None:
        return lambda text: len(encoding.encode_ordinary(text))
    return lambda text: len(encoding.encode_ordinary(unicodedata.normalize("NFC", text)))


def _ranks(merges: Sequence[str | Sequence[str]]) -> dict[bytes, int] | None:
    """Return the rank of each token's bytes in merge order, or None if a token has a letter outside GPT-2's table."""
    # GPT-2's table writes each byte as a printable letter.
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in printable]
    byte_of_letter = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(hidden)}
    ranks = {bytes([byte]): byte for byte in range(256)}
    for merge in merges:
        token = merge.replace(" ", "", 1) if isinstance(merge, str) else "".join(merge)
        if not byte_of_letter.keys() >= set(token):
            return None
        ranks.setdefault(bytes(byte_of_letter[letter] for letter in token), len(ranks))
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
"""Special tokens of known model families; they are neutralised for every model."""
_SIMILAR_CHARACTERS = str.maketrans("<>|[]{}/_▁｜", "‹›¦()()∕‗‗¦")
_WIDE = 0xFEE0
"""The distance from an ASCII character to its full-width form, which some normalizers convert back."""


class SpecialTokens:
    """Neutralises a model's special tokens in messages; `markers` are the tokens' texts."""

    def __init__(self, markers: Iterable[str] = ()) -> None:
        self.markers = sorted({marker for marker in (*FAMILY_MARKERS, *markers) if marker.strip()}, key=len)
        rests_by_first: dict[str, list[str]] = {}  # by the pattern of a marker's first character
        for marker in reversed(self.markers):  # the longest first
            rest = "".join(map(_either_width, marker[1:]))
            rests_by_first.setdefault(_either_width(marker[0]), []).append(rest)
        # Starting with one set of first characters makes the expression ten times as fast.
        first_characters = "".join(first[1:-1] for first in rests_by_first)
        markers = "|".join(f"(?<={first})(?:{'|'.join(rests)})" for first, rests in rests_by_first.items())
        self._pattern = re.compile(f"[{first_characters}](?:{markers})")

    def neutralise(self, text: str) -> str:
        """Replace characters of each special token by similar ones, or insert spaces, so that it is read as text."""
        # Lone surrogates cannot be encoded in UTF-8.
        text = text.encode("utf-8", "replace").decode()
        while (neutral := self._pattern.sub(_neutral_form, text)) != text:
            text = neutral
        return text


def _either_width(character: str) -> str:
    """Return the pattern of a character in ASCII or full width."""
    wide = chr(ord(character) + _WIDE) if "!" <= character <= "~" else ""
    return f"[{re.escape(character)}{wide}]"


def _neutral_form(match: re.Match[str]) -> str:
    marker = "".join(chr(ord(c) - _WIDE) if "！" <= c <= "～" else c for c in match[0])
    similar = marker.translate(_SIMILAR_CHARACTERS)
    if similar != marker:
        return similar
    return " ".join(marker) if len(marker) > 1 else "·"


FAMILY_TOKENS = SpecialTokens()
"""For models whose special tokens are unknown."""
