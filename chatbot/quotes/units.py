"""The units of a passage: pieces that their author wrote as one, and that can be quoted by themselves. No I/O.

A unit is a whole short section, or of a longer one a paragraph, a table or a list, with the title or introduction above
it and the notes (of a table also the paragraph) below it. A unit is never cut, and never joined from different places.
"""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Final

from chatbot.quotes.stems import features
from knowledge.passage import Passage

_SHORT_SECTION: Final = 700
"""Characters of a section that is one unit."""
_CLEARLY: Final = 0.35
"""Share of the question's words by which a unit of a long section stands out."""
_LONGEST_INTRODUCTION: Final = 200
"""Characters of a paragraph that belongs to the list or table right below it."""
_LONGEST_REMARK: Final = 300
"""Characters of a paragraph that belongs to the table right above it."""
_HEADINGS: Final = re.compile(r"\A(?:\s*#{1,6}[ \t][^\n]*(?:\n|\Z))+\s*")
_BLOCK: Final = re.compile(r"[^\n].*?(?=\n[ \t]*\n|\Z)", re.DOTALL)
_TABLE: Final = re.compile(r"\s{0,9}\|")
_ITEM: Final = re.compile(r"\s{0,9}(?:[-*•·○●◦▪∙→▶►▷■□◆◇✓✔①-⑳]|\(?\d{1,2}[.)]\s|[가-하][.)]\s)")
_NOTE: Final = re.compile(
    r"\s{0,9}(?:※|\*(?!\*)\S|[¹²³†‡]|(?:단|다만|그러나)[,\s]|\((?:단|다만)|(?:주의|유의|참고|비고|notes?|exceptions?)\s?[:：]"
    r"|(?:however|but|otherwise|except|unless)\b)",
    re.IGNORECASE,
)
_TITLE: Final = re.compile(r"\s{0,9}(?:#{1,6}\s[^\n]*|\*\*[^*\n]*\*\*[:：.]?|[^\n.!?。]{1,60}[:：]?)\s{0,9}")

_UNFINISHED: Final = re.compile(r"[^\W_](?<![다요죠까음함됨임])\Z")
"""The end of a paragraph that a page broke in two."""


def unit_for(question: str, passage: Passage, shown: Collection[str] = ()) -> str:
    """Return what of a passage is quoted to a question: a short one whole, of a longer one a unit that stands out.

    Where no unit holds clearly more of the question's words than the others, the passage is quoted whole. Of one that
    was `shown` before it is the part with most of the question's words, if there are several.
    """
    pieces, body = _pieces(passage.text), _body(passage.text)
    unit, lead = _first(question, pieces)
    if len(pieces) > 1 and lead < _CLEARLY:
        unit = body
    return unit if unit not in shown else _first(question, tuple(_joined(body)))[0]


def _first(question: str, pieces: Sequence[str]) -> tuple[str, float]:
    """Return the piece with the largest share of the question's words, and its lead; ("", 0.0) without pieces."""
    ranked = sorted(zip(_shares(question, pieces), pieces, strict=True), reverse=True)
    shares = [*(share for share, _ in ranked), 0.0, 0.0]
    return ranked[0][1] if ranked else "", shares[0] - shares[1]


def pieces_of(passage: Passage) -> tuple[str, ...]:
    """Return the units of a passage, in order."""
    return _pieces(passage.text)


def nearest_unit(question: str, passage: Passage) -> str:
    """Return the unit of a passage with most of the question's words; "" where none has any."""
    pieces = _pieces(passage.text)
    share, unit = max(zip(_shares(question, pieces), pieces, strict=True), default=(0.0, ""))
    return unit if share else ""


def _shares(question: str, pieces: Sequence[str]) -> list[float]:
    """Return the share of the question's words in each unit; words that fewer units have weigh more."""
    wanted, held = features(question), [features(piece) for piece in pieces]
    weights = {word: math.log(1 + len(pieces) / count) for word in wanted if (count := sum(word in h for h in held))}
    total = math.fsum(weights.values()) or 1.0
    return [math.fsum(weights[word] for word in weights.keys() & of_piece) / total for of_piece in held]


def _body(text: str) -> str:
    """Return a passage without the headings that it begins with."""
    heading = _HEADINGS.match(text)
    return text[heading.end() if heading else 0 :].strip()


@lru_cache(maxsize=1024)
def _pieces(text: str) -> tuple[str, ...]:
    """Return the units of a passage; none of one that consists of headings."""
    body = _body(text)
    return tuple(_joined(body)) if len(body) > _SHORT_SECTION else (body,) if body else ()


def _joined(body: str) -> Iterator[str]:
    """Yield the parts between blank lines, each with the title or introduction above it and the notes below it."""
    start, above = 0, ""
    for block in _BLOCK.finditer(body):
        if above and not _belongs(above, block.group()):
            yield body[start : block.start()].strip()
            start = block.start()
        above = block.group().strip()
    yield body[start:].strip()


def _belongs(above: str, below: str) -> bool:
    """Return whether a part belongs to the previous part."""
    is_item, is_table = _ITEM.match(above) is not None, _TABLE.match(above) is not None
    if _NOTE.match(below) or (is_item and _ITEM.match(below)):
        return True
    if is_table:  # a paragraph below a table says what its cells leave out
        return len(below) <= _LONGEST_REMARK and not (_TITLE.fullmatch(below) or _TABLE.match(below))
    if is_item and not above.startswith("**"):
        return False
    if _TITLE.fullmatch(above) or _UNFINISHED.search(above):
        return True
    return len(above) <= _LONGEST_INTRODUCTION and bool(_TABLE.match(below) or _ITEM.match(below))
