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
_LIST: Final = rf"\^?\d{{1,2}}(?:\s?(?:[,、·;~-]|and|및)\s?(?:(?:{_NAME})\s?)?\d{{1,2}})*"
_MARKER: Final = re.compile(
    rf"(?<![ \t])[ \t]*+(?:[\[［【](?:(?:{_NAME})\s?[:#]?\s?)?{_LIST}[\]］】]"
    rf"|[(（](?:{_NAME})\s?[:#]?\s?(?:{_LIST}|[\[【]{_LIST}[\]】])[)）])",
    re.IGNORECASE,
)
_OPENING: Final = re.compile(r"[\[［【(（]")
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
            certain = len(held)
        else:
            openings = (o.start() for o in _OPENING.finditer(held, max(0, len(held) - _LONGEST_MARKER)))
            grows_at = next((at for at in openings if _may_grow(held[at:])), len(held))
            certain = len(held[:grows_at].rstrip(" \t"))
        self._held = held[certain:]
        pieces: list[str] = []
        for piece in _MARKER.split(held[:certain]):
            if pieces:  # after a marker that began a line, drop the spaces that follow it
                self._skip_blanks = self._at_line_start
            text = piece.lstrip(" \t") if self._skip_blanks else piece
            if text:
                self._skip_blanks, self._at_line_start = False, text.endswith("\n")
            pieces.append(text)
        return "".join(pieces)

    def close(self) -> str:
        return self.feed("", final=True)


def _may_grow(text: str) -> bool:
    inside = _INSIDE.fullmatch(text, 1)
    if inside is None:
        return False
    name = inside["name"].lower()
    if not any(known.startswith(name) for known in _NAMES):
        return False
    return bool(name) or text[0] not in "(（" or len(text) == 1
