"""Finds the words of a PDF page that a person does not see on it, or sees as others: they must not become an answer.

Unseen are words in render mode 3, transparent, smaller than 1.5 points, squeezed to a line, aslant or off the page, and
words that leave no mark: the page looks the same where they stand when its text is not drawn. So it does where a shape,
a picture or a note covers them, where they have the colour of their ground, where they are clipped away or their layer
is off. Where words stand upon each other, each is drawn in a colour of its own, to tell which of them is seen. What is
drawn at once is left out whole or not at all.
"""

import ctypes
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from math import atan2, hypot, pi
from operator import itemgetter
from statistics import mean
from typing import Any, Final

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium_c
from numpy.typing import NDArray

from ingest.parsing.pdf_shapes import Dots, Shown, drawn_otherwise

_SMALLEST = 1.5  # points, of the longer side of a letter's box
_TRANSPARENT = 10  # of 255
_LEAST_CONTRAST = 16  # of 255 in red, green or blue: between a dot with and without the text
_LEAST_SHARE = 0.2  # of a word's own dots that must differ from their ground
_DOTS_A_POINT = 2.0
_MOST_DOTS = 4_000_000
_NO_SIZE = 0.3  # points
_THINNEST = 0.07  # of the longer side of a letter's place: its shorter one
_MOST_ASLANT = 0.15  # radians from a quarter turn; also of the sine of the angle between a letter's sides
_PARTS_OF_A_DOT = 64
_DEEPEST = 15  # forms within forms
_BAND = 16  # dots: words are compared with those that touch the same band of rows
_SHADES = 240  # values of red and of green in the colours that tell words apart
_SAME_BLUE = 77
_INVISIBLE: Final = pdfium_c.FPDF_TEXTRENDERMODE_INVISIBLE

LetterBox = tuple[float, float, float, float]
_Area = tuple[int, int, int, int]  # left, top, right, bottom in dots; the last two are not in it
_Colour = tuple[int, int, int, int]
_Numbers = NDArray[np.int32]
_TextObject = Any  # ctypes has no name for it


@dataclass(frozen=True, slots=True)
class PageLetter:
    """A letter of a page: its place in the page's text, and its box in points of the unturned page."""

    index: int
    letter: str
    box: LetterBox
    is_seen: bool


@dataclass(frozen=True, slots=True)
class _Letter:
    index: int
    box: LetterBox
    """As tall as its line."""
    drawn: _TextObject


@dataclass(frozen=True, slots=True)
class Sight:
    """What a person sees of a page: which letters, and what some are read as with what they are drawn as."""

    letters: tuple[PageLetter, ...]
    misread: tuple[tuple[str, str], ...] = ()


def remove_replacements(page: pypdfium2.PdfPage) -> None:
    """Take from a page the words that its file has in place of what it draws (`ActualText`): nobody sees them."""
    for drawn in page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_TEXT], max_depth=_DEEPEST):
        marks = [pdfium_c.FPDFPageObj_GetMark(drawn, at) for at in range(pdfium_c.FPDFPageObj_CountMarks(drawn))]
        for mark in marks:
            if pdfium_c.FPDFPageObjMark_GetParamValueType(mark, b"ActualText") != pdfium_c.FPDF_OBJECT_UNKNOWN:
                pdfium_c.FPDFPageObj_RemoveMark(drawn, mark)


def hide_text(page: pypdfium2.PdfPage) -> None:
    """Have a page drawn without its text."""
    for drawn in page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_TEXT], max_depth=_DEEPEST):
        pdfium_c.FPDFPageObj_SetIsActive(drawn, 0)


def look_at(page: pypdfium2.PdfPage, text: pypdfium2.PdfTextPage) -> Sight:
    """Return which letters of a page nobody sees, and which are drawn as others than they are read as."""
    gone = _Gone(page, text)
    words = [[_letter(text, index) for index in word] for word in _words(text)]
    drawn = [piece for word in words if not gone.is_gone(word) for piece in _pieces(word)]
    drawn += [[letter] for letter in _drawn_blanks(text)]
    if not drawn:
        return Sight(tuple(_letters(text, words, frozenset())))
    look = _Look(page, text, drawn)
    marking = [letter for piece in look.marking() for letter in piece]
    misread = drawn_otherwise(look.ink, list(look.shown(marking)))
    return Sight(tuple(_letters(text, words, {letter.index for letter in marking})), tuple(misread))


def _letters(text: pypdfium2.PdfTextPage, words: list[list["_Letter"]], marking: Set[int]) -> Iterator[PageLetter]:
    for letter in chain.from_iterable(words):
        said = chr(pdfium_c.FPDFText_GetUnicode(text, letter.index))
        yield PageLetter(letter.index, said, letter.box, letter.index in marking)


def _words(text: pypdfium2.PdfTextPage) -> Iterator[list[int]]:
    for is_blank, letters in groupby(range(text.count_chars()), partial(_is_blank, text)):
        if not is_blank:
            yield list(letters)


def _drawn_blanks(text: pypdfium2.PdfTextPage) -> Iterator[_Letter]:
    """Yield the blanks that have a picture: a font may say of any letter that it is a blank."""
    for index in range(text.count_chars()):
        if _is_blank(text, index) and not pdfium_c.FPDFText_IsGenerated(text, index):
            left, bottom, right, top = text.get_charbox(index)
            if min(right - left, top - bottom) > _NO_SIZE:
                yield _letter(text, index)


def _is_blank(text: pypdfium2.PdfTextPage, index: int) -> bool:
    said = pdfium_c.FPDFText_GetUnicode(text, index)
    return said <= 0x20 or chr(said).isspace()


def _pieces(word: list[_Letter]) -> Iterator[list[_Letter]]:
    """Yield the parts of a word that are drawn at once: what stands upon others may be read as a part of their word."""
    for _, letters in groupby(word, lambda letter: _key(letter.drawn) if letter.drawn else 0):
        yield list(letters)


def _letter(text: pypdfium2.PdfTextPage, index: int) -> _Letter:
    return _Letter(index, text.get_charbox(index, loose=True), pdfium_c.FPDFText_GetTextObject(text, index))


class _Gone:
    """What is certainly unseen, as its file says."""

    def __init__(self, page: pypdfium2.PdfPage, text: pypdfium2.PdfTextPage) -> None:
        self._text = text
        # Not `get_bbox`, which is of the turned page: letters have their places on the unturned one.
        media, crop = page.get_mediabox(), page.get_cropbox()
        self._sheet = (
            max(media[0], crop[0]), max(media[1], crop[1]), min(media[2], crop[2]), min(media[3], crop[3])
        )  # fmt: skip
        self._objects: dict[int, bool] = {}

    def is_gone(self, word: Sequence[_Letter]) -> bool:
        """Tell whether no letter of a word can be seen."""
        sides = [_sides(letter) for letter in word]
        is_line = mean(shorter for shorter, _ in sides) < _THINNEST * mean(longer for _, longer in sides)
        return is_line or all(map(self._is_letter_gone, word))

    def _is_letter_gone(self, letter: _Letter) -> bool:
        """Tell whether a letter is off the page, too small, aslant, or not drawn."""
        left, bottom, right, top = letter.box
        x0, y0, x1, y1 = self._sheet
        is_off = right < x0 or left > x1 or top < y0 or bottom > y1
        is_small = max(right - left, top - bottom) < _SMALLEST
        return is_off or is_small or self._is_clear(letter) or _quarter_turns(self._text, letter.index) is None

    def _is_clear(self, letter: _Letter) -> bool:
        if not letter.drawn:
            return False
        key = _key(letter.drawn)
        if key not in self._objects:
            mode = pdfium_c.FPDFTextObj_GetTextRenderMode(letter.drawn)
            colour = _fill(letter.drawn)
            self._objects[key] = mode == _INVISIBLE or (colour is not None and colour[3] < _TRANSPARENT)
        return self._objects[key]


class _Look:
    """A look at one page: as it is, without its text, and where words stand upon each other in colours of their own."""

    def __init__(self, page: pypdfium2.PdfPage, text: pypdfium2.PdfTextPage, words: Sequence[list[_Letter]]) -> None:
        self._page, self._text = page, text
        self._objects = {_key(letter.drawn): letter.drawn for word in words for letter in word if letter.drawn}
        width, height = page.get_size()
        self._scale = min(_DOTS_A_POINT, (_MOST_DOTS / max(width * height, 1.0)) ** 0.5)
        as_it_is = self._picture()
        with self._hidden():
            ground = self._picture()
        change = np.maximum(as_it_is, ground) - np.minimum(as_it_is, ground)
        # Not `max(axis=2)`, which takes fifteen times as long for three values a dot.
        self.ink: Dots = np.maximum(np.maximum(change[..., 0], change[..., 1]), change[..., 2])
        """How much the text changes each dot, of 255."""
        self._words = [(word, self._area(word)) for word in words]

    def marking(self) -> Iterator[list[_Letter]]:
        """Yield the words that leave a mark on the page."""
        crowded = _crowded([area for _, area in self._words])
        colours = self._own_colours() if crowded else {}
        coloured = _numbers(self._in_own_colours(colours)) if crowded else None
        known = sorted(colours.values())
        for at, (word, area) in enumerate(self._words):
            if not any(letter.drawn for letter in word):
                is_seen = True  # pdfium made it up, as it does a hyphen
            elif coloured is not None and at in crowded:
                own = {colours[_key(letter.drawn)] for letter in word if letter.drawn}
                is_seen = self._shows_itself(area, coloured, sorted(own), known)
            else:
                is_seen = self._differs(area)
            if is_seen:
                yield word

    def shown(self, letters: Sequence[_Letter]) -> Iterator[Shown]:
        """Yield letters with their places on the picture; what one sign stands for is one."""
        drawn = [(letter, self._text.get_charbox(letter.index)) for letter in letters if letter.drawn]
        for box, alike in groupby(drawn, key=itemgetter(1)):
            first, *more = (letter.index for letter, _ in alike)
            area = self._dots(*box)
            turn = _quarter_turns(self._text, first)
            if turn is not None and min(area[2] - area[0], area[3] - area[1]) > _NO_SIZE:
                said = "".join(chr(pdfium_c.FPDFText_GetUnicode(self._text, index)) for index in (first, *more))
                yield Shown(said, area, (turn - self._page.get_rotation() // 90) % 4)

    def _differs(self, area: _Area) -> bool:
        """Tell whether the page without its text looks otherwise in an area."""
        return bool((_part(self.ink, area) >= _LEAST_CONTRAST).any())

    def _shows_itself(self, area: _Area, coloured: _Numbers, own: Sequence[int], known: Sequence[int]) -> bool:
        """Tell whether enough of the dots that are the word's own look otherwise than their ground."""
        colours = _part(coloured, area)
        is_own = np.isin(colours, own)
        if not is_own.any():  # a transparent group mixes colours, so that nobody's is there
            return not np.isin(colours, known).any() and self._differs(area)
        return bool((_part(self.ink, area)[is_own] >= _LEAST_CONTRAST).mean() >= _LEAST_SHARE)

    def _area(self, word: list[_Letter]) -> _Area:
        tight = ((letter, self._text.get_charbox(letter.index)) for letter in word)
        # A font may not say how large the picture of a letter is.
        boxes = [box if min(box[2] - box[0], box[3] - box[1]) > _NO_SIZE else letter.box for letter, box in tight]
        lefts, bottoms, rights, tops = zip(*boxes, strict=True)
        left, top, right, bottom = self._dots(min(lefts), min(bottoms), max(rights), max(tops))
        return int(left), int(top), int(right) + 1, int(bottom) + 1

    def _dots(self, left: float, bottom: float, right: float, top: float) -> tuple[float, float, float, float]:
        """Return where a box of the unturned page is on the picture: left, top, right, bottom."""
        (x0, y0), (x1, y1) = self._device(left, top), self._device(right, bottom)
        height, width = self.ink.shape
        (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))  # a turned page has other corners
        return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))

    def _device(self, x: float, y: float) -> tuple[float, float]:
        across, down = ctypes.c_int(), ctypes.c_int()
        height, width = self.ink.shape
        size = width * _PARTS_OF_A_DOT, height * _PARTS_OF_A_DOT
        pdfium_c.FPDF_PageToDevice(self._page, 0, 0, *size, 0, x, y, across, down)
        return across.value / _PARTS_OF_A_DOT, down.value / _PARTS_OF_A_DOT

    def _picture(self, flags: int = 0) -> Dots:
        """Draw the page: three bytes a dot, red, green, blue."""
        bitmap = self._page.render(
            scale=self._scale, force_bitmap_format=pdfium_c.FPDFBitmap_BGR, rev_byteorder=True, extra_flags=flags
        )
        try:
            return np.array(bitmap.to_numpy(), np.uint8)
        finally:
            bitmap.close()

    @contextmanager
    def _hidden(self) -> Iterator[None]:
        for drawn in self._objects.values():
            pdfium_c.FPDFPageObj_SetIsActive(drawn, 0)
        try:
            yield
        finally:
            for drawn in self._objects.values():
                pdfium_c.FPDFPageObj_SetIsActive(drawn, 1)

    def _own_colours(self) -> dict[int, int]:
        """Return a colour for each object with text, the same for the same text: bold may be drawn twice."""
        texts: dict[bytes, int] = {}
        colours = {}
        for key, drawn in self._objects.items():
            number = texts.setdefault(self._said(drawn), len(texts) % _SHADES**2)
            colours[key] = (number % _SHADES << 16) + (number // _SHADES << 8) + _SAME_BLUE
        return colours

    def _said(self, drawn: _TextObject) -> bytes:
        length = pdfium_c.FPDFTextObj_GetText(drawn, self._text, None, 0)
        letters = (ctypes.c_ushort * (length // 2))()
        pdfium_c.FPDFTextObj_GetText(drawn, self._text, letters, length)
        return bytes(letters)

    def _in_own_colours(self, colours: Mapping[int, int]) -> Dots:
        before = [(drawn, _fill(drawn), _stroke(drawn)) for drawn in self._objects.values()]
        try:
            for drawn, fill, stroke in before:
                red, green, blue = colours[_key(drawn)].to_bytes(3)
                own = (red, green, blue, 255)
                _set_colours(drawn, own if fill else None, own if stroke else None)
            return self._picture(pdfium_c.FPDF_RENDER_NO_SMOOTHTEXT | pdfium_c.FPDF_RENDER_NO_SMOOTHPATH)
        finally:
            for drawn, fill, stroke in before:
                _set_colours(drawn, fill, stroke)


def _part(dots: NDArray[Any], area: _Area) -> NDArray[Any]:
    left, top, right, bottom = area
    return dots[top:bottom, left:right]


def _numbers(picture: Dots) -> _Numbers:
    red, green, blue = np.moveaxis(picture.astype(np.int32), 2, 0)
    return np.asarray((red << 16) + (green << 8) + blue, np.int32)


def _sides(letter: _Letter) -> list[float]:
    left, bottom, right, top = letter.box
    return sorted((right - left, top - bottom))


def _quarter_turns(text: pypdfium2.PdfTextPage, index: int) -> int | None:
    """Return by how many quarters a letter is turned against the clock; None of one aslant, or pulled to a line."""
    matrix = pdfium_c.FS_MATRIX()
    pdfium_c.FPDFText_GetMatrix(text, index, matrix)
    a, b, c, d = matrix.a, matrix.b, matrix.c, matrix.d
    turns = round(atan2(b, a) / (pi / 2))
    is_aslant = abs(atan2(b, a) - turns * pi / 2) > _MOST_ASLANT
    return None if is_aslant or abs(a * d - b * c) <= _MOST_ASLANT * hypot(a, b) * hypot(c, d) else turns


def _crowded(areas: Sequence[_Area]) -> set[int]:
    """Return the places of the areas that share a dot with another."""
    bands: dict[int, list[int]] = defaultdict(list)
    for at in sorted(range(len(areas)), key=areas.__getitem__):
        for band in range(areas[at][1] // _BAND, areas[at][3] // _BAND + 1):
            bands[band].append(at)
    crowded: set[int] = set()
    for neighbours in bands.values():
        for n, at in enumerate(neighbours):
            for other in neighbours[n + 1 :]:
                if areas[other][0] >= areas[at][2]:
                    break
                if areas[at][1] < areas[other][3] and areas[other][1] < areas[at][3]:
                    crowded |= {at, other}
    return crowded


def _key(drawn: _TextObject) -> int:
    return ctypes.addressof(drawn.contents)


def _fill(drawn: _TextObject) -> _Colour | None:
    return _colour(pdfium_c.FPDFPageObj_GetFillColor, drawn)


def _stroke(drawn: _TextObject) -> _Colour | None:
    return _colour(pdfium_c.FPDFPageObj_GetStrokeColor, drawn)


def _colour(ask: Callable[..., int], drawn: _TextObject) -> _Colour | None:
    red, green, blue, alpha = (ctypes.c_uint() for _ in range(4))
    return (red.value, green.value, blue.value, alpha.value) if ask(drawn, red, green, blue, alpha) else None


def _set_colours(drawn: _TextObject, fill: _Colour | None, stroke: _Colour | None) -> None:
    if fill is not None:
        pdfium_c.FPDFPageObj_SetFillColor(drawn, *fill)
    if stroke is not None:
        pdfium_c.FPDFPageObj_SetStrokeColor(drawn, *stroke)
