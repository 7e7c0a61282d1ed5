"""Split a passage into units: parts that can be quoted on their own. No I/O.

A short section is one unit. In a longer section, a unit is a paragraph, a table or a list, with the title or
introduction above it and the notes below it; a table also includes the paragraph below. A unit is one contiguous text.
"""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Final

from chatbot.quotes.stems import features
from knowledge.passage import Passage

_SHORT_SECTION: Final = 700
"""The maximum length in characters of a section that is one unit."""
_CLEAR_LEAD: Final = 0.35
"""The lead over all other units, as a share of the question's words, with which a unit is quoted alone."""
_LONGEST_INTRODUCTION: Final = 200
"""The maximum length in characters of a paragraph that belongs to the list or table below it."""
_LONGEST_REMARK: Final = 300
"""The maximum length in characters of a paragraph that belongs to the table above it."""
_HEADINGS: Final = re.compile(r"\A(?:\s*#{1,6}[ \t][^\n]*(?:\n|\Z))+\s*")
_BLOCK: Final = re.compile(r"[^\n].*?(?=\n[ \t]*\n|\Z)", re.DOTALL)
_TABLE: Final = re.compile(r"\s{0,9}\|")
_ITEM: Final = re.compile(r"\s{0,9}(?:[-*•·○●◦▪∙→▶►▷■□◆◇✓✔①-⑳]|\(?\d{1,2}[.)]\s|[가-하][.)]\s)")
# The beginning of a note: ※, an asterisk, a footnote mark, "다만", "주의:", "However".
_NOTE: Final = re.compile(
    r"\s{0,9}(?:※|\*(?!\*)\S|[¹²³†‡]|(?:단|다만|그러나)[,\s]|\((?:단|다만)|(?:주의|유의|참고|비고|notes?|exceptions?)\s?[:：]"
    r"|(?:however|but|otherwise|except|unless)\b)",
    re.IGNORECASE,
)
# A heading, a bold line, or up to 60 characters without a full stop.
_TITLE: Final = re.compile(r"\s{0,9}(?:#{1,6}\s[^\n]*|\*\*[^*\n]*\*\*[:：.]?|[^\n.!?。]{1,60}[:：]?)\s{0,9}")

_UNFINISHED: Final = re.compile(r"[^\W_](?<![다요죠까음함됨임])\Z")
"""Matches the end of a paragraph that continues after a page break."""


def unit_for(question: str, passage: Passage, quoted_before: Collection[str] = ()) -> str:
    """Return the text to quote: the unit with clearly the most of the question's words, or the whole passage.

    If this text is in `quoted_before`, return the part of the passage with the most of the question's words.
    """
    units, body = units_of(passage), _body(passage.text)
    quote, lead = _best_unit(question, units)
    if len(units) > 1 and lead < _CLEAR_LEAD:
        quote = body
    if quote in quoted_before:
        quote, _ = _best_unit(question, tuple(_blocks_with_notes(body)))
    return quote


def _best_unit(question: str, units: Sequence[str]) -> tuple[str, float]:
    """Return the unit with the largest share of the question's words, and its lead; ("", 0.0) without units."""
    ranked = sorted(zip(_shares(question, units), units, strict=True), reverse=True)
    shares = [*(share for share, _ in ranked), 0.0, 0.0]
    return ranked[0][1] if ranked else "", shares[0] - shares[1]


def units_of(passage: Passage) -> tuple[str, ...]:
    """Return the units of a passage in order."""
    return _units(passage.text)


def nearest_unit(question: str, passage: Passage) -> str:
    """Return the unit with the most of the question's words; "" if no unit has any."""
    units = units_of(passage)
    share, unit = max(zip(_shares(question, units), units, strict=True), default=(0.0, ""))
    return unit if share else ""


def _shares(question: str, units: Sequence[str]) -> list[float]:
    """Return the share of the question's words in each unit; rarer words weigh more."""
    words_of_units = [features(unit) for unit in units]
    weights: dict[str, float] = {}
    for word in features(question):
        count = sum(word in words for words in words_of_units)
        if count:
            weights[word] = math.log(1 + len(units) / count)
    total = math.fsum(weights.values()) or 1.0
    return [math.fsum(weights[word] for word in weights.keys() & words) / total for words in words_of_units]


def _body(text: str) -> str:
    """Return a passage without its leading headings."""
    heading = _HEADINGS.match(text)
    return text[heading.end() if heading else 0 :].strip()


@lru_cache(maxsize=1024)
def _units(text: str) -> tuple[str, ...]:
    """Return the units of a passage; empty if it has only headings."""
    body = _body(text)
    if len(body) > _SHORT_SECTION:
        return tuple(_blocks_with_notes(body))
    return (body,) if body else ()


def _blocks_with_notes(body: str) -> Iterator[str]:
    """Yield the blocks between blank lines, each with the title or introduction above it and the notes below it."""
    start, above = 0, ""
    for block in _BLOCK.finditer(body):
        if above and not _belongs(above, block.group()):
            yield body[start : block.start()].strip()
            start = block.start()
        above = block.group().strip()
    yield body[start:].strip()


def _belongs(above: str, below: str) -> bool:
    """Return whether a block belongs to the block above it."""
    is_item, is_table = _ITEM.match(above) is not None, _TABLE.match(above) is not None
    if _NOTE.match(below) or (is_item and _ITEM.match(below)):
        return True
    if is_table:  # a short paragraph below a table explains its cells
        return len(below) <= _LONGEST_REMARK and not (_TITLE.fullmatch(below) or _TABLE.match(below))
    if is_item and not above.startswith("**"):
        return False
    if _TITLE.fullmatch(above) or _UNFINISHED.search(above):
        return True
    return len(above) <= _LONGEST_INTRODUCTION and bool(_TABLE.match(below) or _ITEM.match(below))
