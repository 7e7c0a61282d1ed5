"""Write superscripts (footnotes, powers) in characters that can't be read as part of the preceding number. Pure."""

import re
from typing import Final
from xml.etree.ElementTree import Element

_PLAIN: Final = "0123456789()[]+-=０１２３４５６７８９（）［］"
_SUPERSCRIPTS: Final = str.maketrans(_PLAIN, "⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾⁽⁾⁺⁻⁼⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾⁽⁾")
_MARK_CHARACTERS: Final = frozenset(f"{_PLAIN},.;~*†‡§※ \t\n\xa0")
_FIGURE: Final = re.compile(r"\d,\d{3}|\.\d")  # a number with a thousands comma or with decimals
# The name of a note: 주1), or letters such as a) and A, B.
_NOTE: Final = re.compile(r"[(\[]?(?:주\s?\d[\d,()\[\]\s주]{0,20}|[A-Za-z](?:\s?,\s?[A-Za-z]){0,8}[)\]]?)")
_DECIMAL_POINT: Final = re.compile(r"\d\.")


def as_superscript(text: str, before: str = "") -> str:
    """Return a superscript as it should follow its text: `¹⁾` for 1), `[a]` for a, `[주1]` for 주1).

    A unit of measure (원, %p), an ending (th), words and a number such as 1,000 or .5 are returned unchanged. So are
    digits after a digit and a point in `before`, because they are the decimals of that number.
    """
    inner = text.strip()
    if inner.isdecimal() and _DECIMAL_POINT.fullmatch(before[-2:]):
        return text
    if _NOTE.fullmatch(inner):
        return f"[{inner.strip('()[]')}]"
    is_mark = _MARK_CHARACTERS.issuperset(inner) and not _FIGURE.search(inner)
    return inner.translate(_SUPERSCRIPTS) if is_mark else text


def run_text(run: Element, before: str) -> str:
    """Return a drawing run's text with superscripts in superscript characters and struck text between ~~."""
    properties = run.find("{*}rPr")
    text = run.findtext("{*}t", "")
    if properties is None or not text:
        return text
    baseline = properties.get("baseline", "0")
    is_raised = baseline.strip("0%") != "" and not baseline.startswith("-")
    if is_raised:
        text = as_superscript(text, before)
    return f"~~{text}~~" if properties.get("strike", "noStrike") != "noStrike" else text
