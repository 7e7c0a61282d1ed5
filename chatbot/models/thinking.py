"""Separate a model's thinking from its answer if the server leaves the tags in the text. No I/O."""

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
_ALL = [tag for pair in TAGS for tag in pair]
_ANY = re.compile("|".join(map(re.escape, _ALL)))
_PARTS = tuple({tag[:n] for tag in _ALL for n in range(1, len(tag))})
_MAY_BEGIN = re.compile("[" + re.escape("".join({tag[0] for tag in _ALL})) + "]")


class ThinkingFilter:
    """Extracts the answer's text from a model's output; `inside` while a thinking block is open.

    Text that may become a tag is `held` back. `begins_inside`: the prompt has already opened the block.
    """

    def __init__(self, *, begins_inside: bool = False) -> None:
        self.inside = begins_inside
        self._strips = begins_inside  # whitespace around the thinking is not part of the answer
        self.held = ""

    def end_block(self) -> None:
        """Treat the following text as the answer, because the server separates the thinking itself."""
        self.inside, self._strips = False, True

    def feed(self, text: str) -> str:
        """Return the part of the next text that belongs to the answer."""
        if not (self.inside or self.held or self._strips or _MAY_BEGIN.search(text)):
            return text
        text = self.held + text
        cut = max((len(part) for part in _PARTS if text.endswith(part)), default=0)
        text, self.held = text[: len(text) - cut], text[len(text) - cut :]
        answer, at = "", 0
        for tag in _ANY.finditer(text):
            answer += self._outside(text[at : tag.start()])
            self.inside, self._strips, at = tag[0] in _OPENING, True, tag.end()
        return answer + self._outside(text[at:])

    def close(self) -> str:
        """Return the held-back text that belongs to the answer, at the end of the output."""
        held, self.held = self.held, ""
        return self._outside(held)

    def _outside(self, text: str) -> str:
        if self.inside:
            return ""
        text = text.lstrip() if self._strips else text
        self._strips = self._strips and not text
        return text


def opens_thinking(rendered: Sequence[str | None]) -> bool:
    """Return whether a rendered prompt (the texts of its tokens) ends inside a thinking block."""
    end = "".join(text or "" for text in rendered[-24:]).rstrip("Ċ\n \u2581Ġ")
    return end.endswith(_OPENING)
