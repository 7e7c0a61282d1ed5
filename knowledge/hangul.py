"""Composes Hangul: a syllable is one character or, in NFD (as in macOS file names), two or three jamo (pure)."""

import re
import unicodedata
from typing import Final

# Compose each run by itself: NFC is quadratic in a run of combining marks, and jamo are not combining marks.
_JAMO: Final = re.compile(r"[가-힣]?[\u1100-\u11ff]+")


def composed(text: str) -> str:
    """Return the text with each Hangul syllable as one character and all other text unchanged."""
    return _JAMO.sub(lambda jamo: unicodedata.normalize("NFC", jamo.group()), text)
