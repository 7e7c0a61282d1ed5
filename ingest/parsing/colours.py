"""Colours of letters and of their grounds, and which of them nobody can tell apart. Pure."""

import re
from collections.abc import Sequence
from typing import Final

Rgb = tuple[float, float, float]  # of 255
_LEAST_CONTRAST: Final = 16  # of 255 in red, green or blue
_HEXADECIMAL: Final = re.compile(r"#?(?:[0-9A-Fa-f]{2})?([0-9A-Fa-f]{6})")


def rgb_of(digits: str) -> Rgb | None:
    """Return the colour that hexadecimal digits write, an opacity before it passed over; none where they write none."""
    written = _HEXADECIMAL.fullmatch(digits)
    if written is None:
        return None
    red, green, blue = bytes.fromhex(written[1])
    return red, green, blue


def blends(colour: Sequence[float] | None, ground: Sequence[float] | None, opacity: float = 1.0) -> bool:
    """Tell whether letters of a colour cannot be told from their ground; never where either is not known."""
    if colour is None or ground is None:
        return False
    return all(abs(a - b) * opacity < _LEAST_CONTRAST for a, b in zip(colour, ground, strict=True))
