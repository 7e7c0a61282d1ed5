"""Separates a model's thinking from its answer where the server leaves its tags in the text; no I/O.

What might grow to be a tag is held back. Text inside of a block is never text here, only a number of tokens. Blocks may
nest; an opening that repeats the template's own, before anything else, opens no second block.
"""

import re
from collections.abc import Sequence

TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>", "<channel|>"),
    ("<|think|>", "<|content|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<mm:think>", "</mm:think>"),
    ("<ifm|think>", "</ifm|think>"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),  # gpt-oss
    ("<|channel|>commentary", "<|channel|>final<|message|>"),
)
"""The tags by which reasoning models open and close their thinking."""
_CHANNEL = "<|channel|>"
_OPENING = frozenset(opening for opening, _ in TAGS)
_ALL = sorted({tag for pair in TAGS for tag in pair}, key=len, reverse=True)
_ANY = re.compile("|".join(map(re.escape, _ALL)))
_PARTS = frozenset(tag[:n] for tag in _ALL for n in range(1, len(tag)))
_LONGEST_PART = max(map(len, _PARTS))
_MAY_BEGIN = re.compile("[" + re.escape("".join({tag[0] for tag in _ALL})) + "]")


class ThinkingFilter:
    """Returns of each piece of a model's output the text that is the answer's; `begins_inside`: the prompt opens it."""

    def __init__(self, *, begins_inside: bool = False) -> None:
        self._depth = int(begins_inside)
        self._may_repeat = begins_inside
        self._held = ""
        self._strips = begins_inside  # white space around the thinking is not part of the answer

    @property
    def inside(self) -> bool:
        """Whether a block of thinking is open."""
        return self._depth > 0

    def end_block(self) -> None:
        """The server separates the thinking itself: the text that it sends is the answer's."""
        self._depth, self._may_repeat, self._strips = 0, False, True

    def feed(self, text: str) -> str:
        """Return the answer's part of the next text."""
        if not (self._depth or self._held or self._strips) and _MAY_BEGIN.search(text) is None:
            return text
        text, self._held = self._held + text, ""
        lengths = range(min(_LONGEST_PART, len(text)), 0, -1)
        kept = next((len(text) - n for n in lengths if text[-n:] in _PARTS), len(text))
        text, self._held = text[:kept], text[kept:]
        answer, at = "", 0
        for tag in _ANY.finditer(text):
            answer += self._stripped(self._outside(text[at : tag.start()]))
            at = tag.end()
            self._step(tag[0])
        return answer + self._stripped(self._outside(text[at:]))

    def close(self) -> str:
        """Return the held-back text that is part of the answer, now that nothing follows."""
        held, self._held = self._held, ""
        return "" if self._depth else self._stripped(held)

    def _step(self, tag: str) -> None:
        self._strips = True
        if tag not in _OPENING:
            self._depth = 0 if tag.startswith(_CHANNEL) else max(0, self._depth - 1)
        elif tag.startswith(_CHANNEL):
            self._depth = 1
        elif not self._may_repeat:
            self._depth += 1
        self._may_repeat = False

    def _outside(self, text: str) -> str:
        if not self._depth:
            return text
        self._may_repeat = self._may_repeat and not text.strip()
        return ""

    def _stripped(self, text: str) -> str:
        text = text.lstrip() if self._strips else text
        self._strips = self._strips and (self._depth > 0 or not text)
        return text


def opens_thinking(rendered: Sequence[str | None]) -> bool:
    """Return whether a rendered prompt, given by the texts of its last tokens, ends inside of a block of thinking."""
    end = "".join(text or "" for text in rendered[-24:]).rstrip("Ċ\n \u2581Ġ")
    return end.endswith(tuple(_OPENING))
