"""Raised text, as footnote marks and powers are, in characters that no figure before it can take for its own. Pure."""

from typing import Final

_PLAIN: Final = "0123456789()[]+-="
_RAISED: Final = str.maketrans(_PLAIN, "⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾⁽⁾⁺⁻⁼")
_ORDINALS: Final = frozenset({"st", "nd", "rd", "th"})
"""Endings that word processors raise on their own: 1st is no footnote."""


def raised(text: str) -> str:
    """Return raised text as it stands directly behind what it belongs to: `¹⁾` for 1), `[a]` for a, `st` as it is."""
    inner = text.strip()
    if inner.lower() in _ORDINALS or not inner:
        return text
    if any(letter.isalpha() or (letter.isdecimal() and letter not in _PLAIN) for letter in inner):
        return f"[{inner.strip('[]')}]"
    return inner.translate(_RAISED)
