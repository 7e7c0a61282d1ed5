"""Normalise a text for reading numbers: NFC, plain spaces, hyphens and digits, no footnote marks. No I/O.

PDF, Word and web pages write one number in many ways: with no-break spaces and hyphens, in full width, decomposed
(NFD), with a footnote mark after its digits (5,000¹⁾원), or with a soft hyphen.
"""

import re
import unicodedata
from typing import Final

_FULL_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5E)}  # except ～, which marks a range
_SIGN_VARIANTS: Final = {"￦": "₩", "￥": "¥", "￡": "£", "‐": "-", "‑": "-", "−": "-", "﹣": "-"}
_REPLACEMENTS: Final = str.maketrans(
    {**{chr(code): chr(plain) for code, plain in _FULL_WIDTH.items()}, **_SIGN_VARIANTS}
)
_SUPERSCRIPTS: Final = "⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾"
# `removed`: footnote marks and invisible characters, but no exponent (m²). `cluster`: a letter and its combining marks.
_PIECE: Final = re.compile(
    r"(?P<blanks>[^\S\n\r\t\f\v]{2,}|[^\S\n\r\t\f\v ])"
    rf"|(?P<removed>(?<![A-Za-z])[{_SUPERSCRIPTS}]+(?:[,·][{_SUPERSCRIPTS}]+)*|[\u00ad\u200b-\u200f\u2060\ufeff])"
    r"|(?P<cluster>[^\s\u0300-\u036f\u1160-\u11ff][\u0300-\u036f\u1160-\u11ff]+)"
)


def plain_text(written: str) -> str:
    """Return the text normalised for reading numbers."""
    return _PIECE.sub(_replacement, written.translate(_REPLACEMENTS))


def _replacement(piece: re.Match[str]) -> str:
    if piece.lastgroup == "blanks":
        return " "
    if piece.lastgroup == "cluster":
        return unicodedata.normalize("NFC", piece.group())
    return ""
