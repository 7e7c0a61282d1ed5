"""Remove a model's own citation markers from a stream: [1], [1, 2], 【3】, (문서 1), [문장 2], (source: 1). No I/O.

The product attaches its own citations. A marker is removed with the spaces before it. Text that may still grow into a
marker is held back, so the size of the feeds does not change the result.
"""

import re
from typing import Final

_NAMES: Final = tuple(
    """문서 문장 출처 참고 참조 자료 근거 인용 구절 source sources document documents doc docs passage passages sentence
    ref refs reference references citation cite see""".split()  # noqa: SIM905  # a word list reads best as prose
)
_NAME: Final = "|".join(sorted(_NAMES, key=len, reverse=True))
# The numbers of a marker: 1 · 1, 2 · 1~3 · ^1 · 1 and source 2
_LIST: Final = rf"\^?\d{{1,2}}(?:\s?(?:[,、·;~-]|and|및)\s?(?:(?:{_NAME})\s?)?\d{{1,2}})*"
_MARKER: Final = re.compile(
    rf"(?<![ \t])[ \t]*+(?:[\[［【](?:(?:{_NAME})\s?[:#]?\s?)?{_LIST}[\]］】]"
    rf"|[(（](?:{_NAME})\s?[:#]?\s?(?:{_LIST}|[\[【]{_LIST}[\]】])[)）])",
    re.IGNORECASE,
)
_OPENING_BRACKET: Final = re.compile(r"[\[［【(（]")
# Matches the text after an opening bracket while it may still become a marker.
_INSIDE: Final = re.compile(
    r"(?P<name>[A-Za-z가-힣]*)\s?[:#]?\s?[\[【]?(?:[\d\s,、·;~\-^]|(?<![A-Za-z가-힣])[A-Za-z가-힣]{1,10})*[\]】]?"
)
_LONGEST_MARKER: Final = 48


class MarkerFilter:
    """Removes markers from a stream; `feed` returns text that cannot become a marker, `close` the rest."""

    def __init__(self) -> None:
        self._held = ""
        self._at_line_start = True
        self._skip_blanks = False

    def feed(self, text: str, *, final: bool = False) -> str:
        held = self._held + text
        if final:
            safe_length = len(held)
        else:
            brackets = _OPENING_BRACKET.finditer(held, max(0, len(held) - _LONGEST_MARKER))
            markers = (bracket.start() for bracket in brackets if _may_become_marker(held[bracket.start() :]))
            # Up to the first bracket that may start a marker.
            safe_length = len(held[: next(markers, len(held))].rstrip(" \t"))
        self._held = held[safe_length:]
        pieces: list[str] = []
        for piece in _MARKER.split(held[:safe_length]):
            if pieces:  # the piece follows a marker: if the marker began a line, drop the spaces after it
                self._skip_blanks = self._at_line_start
            text = piece.lstrip(" \t") if self._skip_blanks else piece
            if text:
                self._skip_blanks = False
                self._at_line_start = text.endswith("\n")
            pieces.append(text)
        return "".join(pieces)

    def close(self) -> str:
        return self.feed("", final=True)


def _may_become_marker(text: str) -> bool:
    """Return whether a text that begins with an opening bracket may still grow into a marker."""
    inside = _INSIDE.fullmatch(text, 1)
    if inside is None:
        return False
    name = inside["name"].lower()
    if not any(known.startswith(name) for known in _NAMES):
        return False
    is_round = text[0] in "(（"  # a marker in round brackets has a name: (1) is not a marker
    return bool(name) or not is_round or len(text) == 1
