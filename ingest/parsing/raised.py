"""Write superscripts (footnotes, powers) in characters that can't be read as part of the preceding figure. Pure."""

import re
from typing import Final
from xml.etree.ElementTree import Element

_PLAIN: Final = "0123456789()[]+-=０１２３４５６７８９（）［］"
_RAISED: Final = str.maketrans(_PLAIN, "⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾⁽⁾⁺⁻⁼⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾⁽⁾")
_OF_A_MARK: Final = frozenset(f"{_PLAIN},.;~*†‡§※ \t\n\xa0")
_FIGURE: Final = re.compile(r"\d,\d{3}|\.\d")
_NOTE: Final = re.compile(r"[(\[]?(?:주\s?\d[\d,()\[\]\s주]{0,20}|[A-Za-z](?:\s?,\s?[A-Za-z]){0,8}[)\]]?)")
_BEFORE_DECIMALS: Final = re.compile(r"\d\.")


def raised(text: str, before: str = "") -> str:
    """Return a superscript as it should follow its text: `¹⁾` for 1), `[a]` for a, `[주1]` for 주1).

    Other raised text is unchanged: a unit (원, %p), an ending (th), words, a figure, or the decimals of a figure that
    `before` starts.
    """
    inner = text.strip()
    if inner.isdecimal() and _BEFORE_DECIMALS.fullmatch(before[-2:]):
        return text
    if _NOTE.fullmatch(inner):
        return f"[{inner.strip('()[]')}]"
    return inner.translate(_RAISED) if _OF_A_MARK.issuperset(inner) and not _FIGURE.search(inner) else text


def run_text(run: Element, before: str) -> str:
    """Return a drawing run's text with superscripts in superscript characters and struck text between ~~."""
    own, text = run.find("{*}rPr"), run.findtext("{*}t", "")
    if own is None or not text:
        return text
    baseline = own.get("baseline", "0")
    text = raised(text, before) if baseline.strip("0%") and not baseline.startswith("-") else text
    return f"~~{text}~~" if own.get("strike", "noStrike") != "noStrike" else text
