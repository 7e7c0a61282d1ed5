"""Separate a model's thinking from its answer, for servers that leave the thinking in the text (pure)."""

import re
from collections.abc import Sequence

TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),  # gpt-oss
)
"""The opening and closing tags of reasoning models."""
_OPENING = tuple(opening for opening, _ in TAGS)
_ALL_TAGS = [tag for pair in TAGS for tag in pair]
_ANY_TAG = re.compile("|".join(map(re.escape, _ALL_TAGS)))
_TAG_BEGINNINGS = tuple({tag[:n] for tag in _ALL_TAGS for n in range(1, len(tag))})
_TAG_FIRST_CHARACTER = re.compile("[" + re.escape("".join({tag[0] for tag in _ALL_TAGS})) + "]")


class ThinkingFilter:
    """Extracts the answer's text from a model's output; `in_thinking` while a thinking block is open.

    The end of a text that may be the beginning of a tag is held back as `held_text` until the next text.
    """

    def __init__(self, *, begins_in_thinking: bool = False) -> None:
        """`begins_in_thinking`: the prompt has already opened a thinking block."""
        self.in_thinking = begins_in_thinking
        self._strips_whitespace = begins_in_thinking  # around the thinking; it is not part of the answer
        self.held_text = ""

    def end_block(self) -> None:
        """Treat the following text as the answer, because the server separates the thinking itself."""
        self.in_thinking = False
        self._strips_whitespace = True

    def feed(self, text: str) -> str:
        """Return the part of the next text that belongs to the answer."""
        if not (self.in_thinking or self.held_text or self._strips_whitespace or _TAG_FIRST_CHARACTER.search(text)):
            return text
        text = self.held_text + text
        held_length = max((len(part) for part in _TAG_BEGINNINGS if text.endswith(part)), default=0)
        held_start = len(text) - held_length
        self.held_text = text[held_start:]
        answer = ""
        start = 0
        for tag in _ANY_TAG.finditer(text, 0, held_start):
            answer += self._answer_text(text[start : tag.start()])
            self.in_thinking = tag[0] in _OPENING
            self._strips_whitespace = True
            start = tag.end()
        return answer + self._answer_text(text[start:held_start])

    def close(self) -> str:
        """Return the held text if it belongs to the answer; the output has ended."""
        text = self.held_text
        self.held_text = ""
        return self._answer_text(text)

    def _answer_text(self, text: str) -> str:
        """Return the text if no thinking block is open, without whitespace that follows a block."""
        if self.in_thinking:
            return ""
        if self._strips_whitespace:
            text = text.lstrip()
            self._strips_whitespace = text == ""
        return text


def opens_thinking(token_texts: Sequence[str | None]) -> bool:
    """Return whether a rendered prompt with these tokens ends with an opening tag."""
    end = "".join(text or "" for text in token_texts[-24:]).rstrip("Ċ\n \u2581Ġ")  # tokenizers' whitespace
    return end.endswith(_OPENING)
