"""Normalise a text for reading numbers: NFC, plain spaces, hyphens and digits, no footnote marks. No I/O.

PDF, Word and web pages write one number in many ways: with no-break spaces and hyphens, in full width, decomposed
(NFD), with a footnote mark after its digits (5,000¹⁾원), or with a soft hyphen.
"""

import re
import unicodedata
from typing import Final

_FULL_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5E)}  # except ～, which marks a range
_WIDE_SIGNS: Final = {"￦": "₩", "￥": "¥", "￡": "£", "‐": "-", "‑": "-", "−": "-", "﹣": "-"}
_ONE_FOR_ONE: Final = str.maketrans({**{chr(code): chr(plain) for code, plain in _FULL_WIDTH.items()}, **_WIDE_SIGNS})
_RAISED: Final = "⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾"
# `cluster`: a base letter with combining marks. A superscript digit after a Latin letter is an exponent (m²): it stays.
_PIECE: Final = re.compile(
    r"(?P<blanks>[^\S\n\r\t\f\v]{2,}|[^\S\n\r\t\f\v ])"
    rf"|(?P<nothing>(?<![A-Za-z])[{_RAISED}]+(?:[,·][{_RAISED}]+)*|[\u00ad\u200b-\u200f\u2060\ufeff])"
    r"|(?P<cluster>[^\s\u0300-\u036f\u1160-\u11ff][\u0300-\u036f\u1160-\u11ff]+)"
)


def plain_text(written: str) -> str:
    """Return the text normalised for reading numbers."""
    return _PIECE.sub(_plain, written.translate(_ONE_FOR_ONE))


def _plain(piece: re.Match[str]) -> str:
    if piece.lastgroup == "blanks":
        return " "
    return unicodedata.normalize("NFC", piece.group()) if piece.lastgroup == "cluster" else ""
