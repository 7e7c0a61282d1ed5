"""Hangul in one spelling: a syllable may come as one character, or (NFD, as macOS writes names) as two or three jamo.

Pure.
"""

import re
import unicodedata
from typing import Final

# Composed run by run: NFC of a whole text is quadratic in a run of combining marks, and jamo are none.
_JAMO: Final = re.compile(r"[가-힣]?[\u1100-\u11ff]+")


def composed(text: str) -> str:
    """Return the text with each Hangul syllable as one character; all else is unchanged."""
    return _JAMO.sub(lambda jamo: unicodedata.normalize("NFC", jamo.group()), text)
