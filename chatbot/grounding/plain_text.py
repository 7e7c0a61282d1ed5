"""A text as its numbers are read: composed letters, plain blanks, hyphens and digits, no footnote marks. No I/O.

PDF, Word and web pages write one number in many ways: with no-break blanks and hyphens, in full width, decomposed
(NFD), with a footnote's mark behind its digits (5,000¹⁾원) or a soft hyphen in it. Offsets lead back to the text.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_FULL_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5E)}  # not ～, which is a range
_WIDE_SIGNS: Final = {"￦": "₩", "￥": "¥", "￡": "£", "‐": "-", "‑": "-", "−": "-", "﹣": "-"}
_ONE_FOR_ONE: Final = str.maketrans({**{chr(code): chr(plain) for code, plain in _FULL_WIDTH.items()}, **_WIDE_SIGNS})
_RAISED: Final = "⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾"
# Of Korean and accented letters a base and what joins it; behind a Latin letter a raised figure is its exponent (m²).
_PIECE: Final = re.compile(
    r"(?P<blanks>[^\S\n\r\t\f\v]{2,}|[^\S\n\r\t\f\v ])"
    rf"|(?P<nothing>(?<![A-Za-z])[{_RAISED}]+(?:[,·][{_RAISED}]+)*|[\u00ad\u200b-\u200f\u2060\ufeff])"
    r"|(?P<cluster>[^\s\u0300-\u036f\u1160-\u11ff][\u0300-\u036f\u1160-\u11ff]+)"
)


@dataclass(frozen=True, slots=True)
class PlainText:
    """A plain text; `spans` are the offsets of what each character stands for as it was written, where they differ."""

    text: str
    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, written: str) -> "PlainText":
        text = written.translate(_ONE_FOR_ONE)
        if _PIECE.search(text) is None:
            return cls(text)
        pieces = list(_pieces(text))
        return cls("".join(plain for plain, _ in pieces), tuple(span for plain, span in pieces for _ in plain))

    def written(self, start: int, end: int) -> tuple[int, int]:
        """Return the offsets as written of the characters [start, end), at least one."""
        return (self.spans[start][0], self.spans[end - 1][1]) if self.spans else (start, end)


def _pieces(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield plain pieces, of one character where nothing changes, with the offsets of what each stands for."""
    at = 0
    for match in _PIECE.finditer(text):
        yield from ((text[same], (same, same + 1)) for same in range(at, match.start()))
        match match.lastgroup:
            case "blanks":
                yield " ", match.span()
            case "cluster":
                yield unicodedata.normalize("NFC", match.group()), match.span()
        at = match.end()
    yield from ((text[same], (same, same + 1)) for same in range(at, len(text)))
