"""Takes the citation markers that a model writes out of a stream: [1], [1, 2], 【3】, (문서 1), [문장 2], (source: 1).

The model's word is no citation; the product attaches its own. A marker goes with the blanks before it, so that no
double blank stays, and what may still grow into a marker is kept back, so that chunking changes nothing.
"""

import re
from typing import Final

_NAMES: Final = (
    "문서", "문장", "출처", "참고", "참조", "자료", "근거", "인용", "구절", "source", "sources", "document",
    "documents", "doc", "docs", "passage", "passages", "sentence", "ref", "refs", "reference", "references",
    "citation", "cite", "see",
)  # fmt: skip
_NAME: Final = "|".join(sorted(_NAMES, key=len, reverse=True))
_LIST: Final = rf"\^?\d{{1,2}}(?:\s?(?:[,、·;~-]|and|및)\s?(?:(?:{_NAME})\s?)?\d{{1,2}})*"
_MARKER: Final = re.compile(
    rf"[ \t]*(?:[\[［【](?:(?:{_NAME})\s?[:#]?\s?)?{_LIST}[\]］】]"
    rf"|[(（](?:{_NAME})\s?[:#]?\s?(?:{_LIST}|[\[【]{_LIST}[\]】])[)）])",
    re.IGNORECASE,
)
_OPENING: Final = re.compile(r"[\[［【(（]")
# What stands behind an opening bracket while it can still become a marker.
_INSIDE: Final = re.compile(
    r"(?P<name>[A-Za-z가-힣]*)\s?[:#]?\s?[\[【]?(?:[\d\s,、·;~\-^]|(?<![A-Za-z가-힣])[A-Za-z가-힣]{1,10})*[\]】]?"
)
_LONGEST: Final = 48


class Markers:
    """Strip markers from a stream; `feed` returns what is certainly text, `close` the rest."""

    def __init__(self) -> None:
        self._held = ""
        self._line_start = True
        self._skip_blanks = False

    def feed(self, text: str) -> str:
        self._held += text
        return self._take(_certain(self._held))

    def close(self) -> str:
        return self._take(len(self._held))

    def _take(self, upto: int) -> str:
        ready, self._held = self._held[:upto], self._held[upto:]
        shown: list[str] = []
        at = 0
        for found in _MARKER.finditer(ready):
            shown.append(self._show(ready[at : found.start()]))
            # A line that began with a marker does not begin with the blank behind it.
            self._skip_blanks = self._line_start
            at = found.end()
        shown.append(self._show(ready[at:]))
        return "".join(shown)

    def _show(self, text: str) -> str:
        if self._skip_blanks:
            text = text.lstrip(" \t")
        if text:
            self._skip_blanks, self._line_start = False, text.endswith("\n")
        return text


def _certain(text: str) -> int:
    """Return how many characters cannot belong to a marker whose end is not seen yet."""
    for opening in _OPENING.finditer(text, max(0, len(text) - _LONGEST)):
        if _may_grow(text[opening.start() :]):
            return len(text[: opening.start()].rstrip(" \t"))
    return len(text.rstrip(" \t"))


def _may_grow(text: str) -> bool:
    inside = _INSIDE.fullmatch(text, 1)
    if inside is None:
        return False
    name = inside["name"].lower()
    if not any(known.startswith(name) for known in _NAMES):
        return False
    return bool(name) or text[0] not in "(（" or len(text) == 1
