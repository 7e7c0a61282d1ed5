"""Where the paragraphs of a text lie in their shape, near enough to tell whether something covers them. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final
from unicodedata import east_asian_width
from xml.etree.ElementTree import Element

from ingest.parsing.drawing_fills import Colour, Palette, share_of
from ingest.parsing.drawing_layers import Box, Place, Point
from ingest.parsing.elements import local

EMU: Final = 12_700  # a point of a letter's size
LINE: Final = 1.2  # the height of a line, in letters
_USUAL_POINTS: Final = 18.0
_WIDEST, _HIGHEST = 91_440, 45_720  # the usual margins of a text in its shape
_ACROSS, _DOWN = 12, 3  # points of a paragraph that are looked at


@dataclass(frozen=True, slots=True)
class Style:
    """What is said of a text's letters by the elements that say it, from the nearest.

    `levels` have properties for each level, `font` is what the style of a shape says, and `defaults` are the levels of
    the presentation; `is_known` where these are all that give the letters a colour.
    """

    bodies: Sequence[Element]
    levels: Sequence[Element]
    font: Element | None = None
    defaults: Sequence[Element] = ()
    is_known: bool = True

    def paragraph(self, level: int) -> Iterator[Element]:
        """Yield what is said of the paragraphs of a level."""
        for styles in (*self.levels, *self.defaults):
            yield from styles.iterfind(f"{{*}}lvl{level + 1}pPr")

    def size(self, run: Element, level: int) -> float:
        """Return the size of a run's letters, in points, made smaller where their shape has no room for them."""
        said = (*_own(run), *_letters(self.levels, level), *_letters(self.defaults, level))
        scales = (share_of(one, "fontScale", 1) for body in self.bodies for one in body.iterfind("{*}normAutofit"))
        return _number(said, "sz", _USUAL_POINTS * 100) / 100 * next(scales, 1)

    def colour(self, run: Element, level: int, palette: Palette) -> Colour:
        """Return the colour of a run's letters, and how much of it is drawn; a link has that of the theme's links."""
        if any(local(one) == "hlinkClick" for properties in _own(run) for one in properties):
            return palette.named("hlink")
        for properties in (*_own(run), *_letters(self.levels, level)):
            fill = _fill_of(properties)
            if fill is not None:
                return Colour((0, 0, 0), 0) if local(fill) == "noFill" else palette.colour(fill)
        if self.font is not None and len(self.font):
            return palette.colour(self.font)
        fills = (_fill_of(properties) for properties in _letters(self.defaults, level))
        fill = next((one for one in fills if one is not None), None)
        if fill is not None:
            return palette.colour(fill)
        return palette.named("tx1") if self.is_known else Colour(None)


@dataclass(frozen=True, slots=True)
class Line:
    """A paragraph, and the rectangle of its shape (from the upper left corner) in which it stands."""

    paragraph: Element
    level: int
    box: Box


def points_in(box: Box, place: Place) -> list[Point]:
    """Return points of a page that stand for a rectangle of a shape."""
    width, height = place.size
    return [
        place.at(
            (box.left + box.width * (column + 0.5) / _ACROSS) / width,
            (box.top + box.height * (row + 0.5) / _DOWN) / height,
        )
        for row in range(_DOWN)
        for column in range(_ACROSS)
    ]


def lines_of(body: Element, style: Style, size: Point) -> list[Line]:
    """Return the paragraphs of a text and where each stands in a shape of a size."""
    paragraphs = [one for one in body if local(one) == "p"]
    levels = [int(share_of(one.find("{*}pPr"), "lvl", unit=1)) for one in paragraphs]
    if _first(style.bodies, "vert") not in ("", "horz") or _first(style.bodies, "numCol") not in ("", "1"):
        return [Line(p, level, Box(0, 0, *size)) for p, level in zip(paragraphs, levels, strict=True)]
    left, top, right, bottom = (
        _number(style.bodies, f"{side}Ins", usual)
        for side, usual in zip("ltrb", (_WIDEST, _HIGHEST, _WIDEST, _HIGHEST), strict=True)
    )
    room = None if _first(style.bodies, "wrap") == "none" else max(size[0] - left - right, EMU)
    extents = [_extent(one, style, level, room) for one, level in zip(paragraphs, levels, strict=True)]
    rest = size[1] - top - bottom - sum(height for _, height in extents)
    at = top + rest * {"ctr": 0.5, "b": 1.0}.get(_first(style.bodies, "anchor"), 0)
    found: list[Line] = []
    for one, level, (width, height) in zip(paragraphs, levels, extents, strict=True):
        own = one.find("{*}pPr")
        says = [*([] if own is None else [own]), *style.paragraph(level)]
        spare = (size[0] if room is None else room) - width
        indent = _number(says, "marL", 0) if room is not None and spare > 0 else 0
        aside = {"ctr": spare / 2, "r": spare}.get(_first(says, "algn"), min(indent, max(spare, 0)))
        found.append(Line(one, level, Box(left + aside, at, width, height)))
        at += height
    return found


def runs_of(paragraph: Element) -> list[Element]:
    return [one for one in paragraph if local(one) in {"r", "fld"}]


def words_of(run: Element) -> str:
    text = run.find("{*}t")
    return "" if text is None else text.text or ""


def width_in_letters(text: str) -> float:
    """Return about how wide a text is: a letter of Hangul is as wide as high, others are half of that."""
    return sum(1.0 if east_asian_width(c) in "WF" else 0.5 for c in text)


def _extent(paragraph: Element, style: Style, level: int, room: float | None) -> Point:
    """Return the width and the height of a paragraph."""
    runs = runs_of(paragraph)
    size = max((style.size(run, level) for run in runs), default=_USUAL_POINTS) * EMU
    wide = sum(width_in_letters(words_of(run)) for run in runs) * size
    breaks = sum(local(one) == "br" for one in paragraph)
    lines = 1 + breaks if room is None else max(ceil(wide / room), 1) + breaks
    return (wide if room is None else min(wide, room)) or size, lines * size * LINE


def _own(run: Element) -> Iterator[Element]:
    yield from run.iterfind("{*}rPr")


def _letters(styles: Iterable[Element], level: int) -> Iterator[Element]:
    for one in styles:
        yield from one.iterfind(f"{{*}}lvl{level + 1}pPr/{{*}}defRPr")


def _fill_of(letters: Element) -> Element | None:
    named = {"noFill", "solidFill", "gradFill", "blipFill", "pattFill"}
    return next((one for one in letters if local(one) in named), None)


def _first(elements: Iterable[Element], name: str) -> str:
    element = _saying(elements, name)
    return "" if element is None else element.get(name, "")


def _number(elements: Iterable[Element], name: str, default: float) -> float:
    return share_of(_saying(elements, name), name, default, unit=1)


def _saying(elements: Iterable[Element], name: str) -> Element | None:
    return next((one for one in elements if one.get(name)), None)
