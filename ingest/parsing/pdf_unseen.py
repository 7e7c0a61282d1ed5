"""Finds the words of a PDF page that a person does not see on it: they must not become an answer.

Unseen are words in render mode 3, transparent, smaller than 1.5 points or off the page, and words that leave no mark:
the page looks the same where they stand when its text is not drawn. So it does where a shape, a picture or a note
covers them, where they have the colour of their ground, where they are clipped away or their layer is off. Where words
stand upon each other, each is drawn in a colour of its own, to tell which of them is seen. What is drawn at once is
left out whole or not at all.
"""

import ctypes
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import pypdfium2
import pypdfium2.raw as pdfium_c

_SMALLEST = 1.5  # points, of the longer side of a letter's box
_TRANSPARENT = 10  # of 255
_LEAST_CONTRAST = 16  # of 255 in red, green or blue: between a dot with and without the text
_LEAST_SHARE = 0.2  # of a word's own dots that must differ from their ground
_DOTS_A_POINT = 2.0
_MOST_DOTS = 4_000_000
_NO_SIZE = 0.3  # points
_BAND = 16  # dots: words are compared with those that touch the same band of rows
_SHADES = 240  # values of red and of green in the colours that tell words apart
_SAME_BLUE = 77
_INVISIBLE: Final = pdfium_c.FPDF_TEXTRENDERMODE_INVISIBLE

LetterBox = tuple[float, float, float, float]
_Area = tuple[int, int, int, int]  # left, top, right, bottom in dots; the last two are not in it
_Colour = tuple[int, int, int, int]
_TextObject = Any  # ctypes has no name for it


@dataclass(frozen=True, slots=True)
class UnseenLetter:
    """A letter that is left out: its place in the page's text, and its box in points of the unturned page."""

    index: int
    letter: str
    box: LetterBox


@dataclass(frozen=True, slots=True)
class _Letter:
    index: int
    box: LetterBox
    """As tall as its line."""
    drawn: _TextObject


def unseen_letters(page: pypdfium2.PdfPage, text: pypdfium2.PdfTextPage) -> list[UnseenLetter]:
    """Return the letters of all words of a page that nobody sees."""
    gone = _Gone(page, text)
    words = [[_letter(text, index) for index in word] for word in _words(text)]
    drawn = [piece for word in words if not all(map(gone.is_gone, word)) for piece in _pieces(word)]
    marking = {letter.index for piece in _Look(page, text, drawn).marking() for letter in piece} if drawn else set()
    return [
        UnseenLetter(letter.index, chr(pdfium_c.FPDFText_GetUnicode(text, letter.index)), letter.box)
        for word in words
        for letter in word
        if letter.index not in marking
    ]


def _words(text: pypdfium2.PdfTextPage) -> Iterator[list[int]]:
    count = text.count_chars()
    drawn = ((index, pdfium_c.FPDFText_GetUnicode(text, index)) for index in range(count))
    for is_drawn, letters in groupby(drawn, lambda one: one[1] > 0x20 and not chr(one[1]).isspace()):
        if is_drawn:
            yield [index for index, _ in letters]


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

    def is_gone(self, letter: _Letter) -> bool:
        """Tell whether a letter is off the page, too small, or not drawn."""
        left, bottom, right, top = letter.box
        x0, y0, x1, y1 = self._sheet
        is_off = right < x0 or left > x1 or top < y0 or bottom > y1
        return is_off or max(right - left, top - bottom) < _SMALLEST or self._is_clear(letter)

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
        self._as_it_is = self._picture()
        with self._hidden():
            self._ground = self._picture()
        self._words = [(word, self._area(word)) for word in words]

    def marking(self) -> Iterator[list[_Letter]]:
        """Yield the words that leave a mark on the page."""
        crowded = _crowded([area for _, area in self._words])
        colours = self._own_colours() if crowded else {}
        coloured = self._in_own_colours(colours) if crowded else None
        known = frozenset(colours.values())
        for at, (word, area) in enumerate(self._words):
            if not any(letter.drawn for letter in word):
                is_seen = True  # pdfium made it up, as it does a hyphen
            elif coloured is not None and at in crowded:
                own = {colours[_key(letter.drawn)] for letter in word if letter.drawn}
                is_seen = self._shows_itself(area, coloured, own, known)
            else:
                is_seen = self._differs(area)
            if is_seen:
                yield word

    def _differs(self, area: _Area) -> bool:
        """Tell whether the page without its text looks otherwise in an area."""
        return any(
            with_text != without and any(abs(a - b) >= _LEAST_CONTRAST for a, b in zip(with_text, without, strict=True))
            for with_text, without in zip(self._as_it_is.rows(area), self._ground.rows(area), strict=True)
        )

    def _shows_itself(self, area: _Area, coloured: "_Picture", own: set[bytes], known: frozenset[bytes]) -> bool:
        """Tell whether enough of the dots that are the word's own look otherwise than their ground."""
        dots = differing = others = 0
        for row, with_text, without in zip(
            coloured.rows(area), self._as_it_is.rows(area), self._ground.rows(area), strict=True
        ):
            for at in range(0, len(row), 3):
                colour = row[at : at + 3]
                if colour in own:
                    dots += 1
                    differing += any(abs(with_text[at + n] - without[at + n]) >= _LEAST_CONTRAST for n in range(3))
                elif colour in known:
                    others += 1
        # A transparent group mixes colours, so that nobody's is there.
        return differing >= _LEAST_SHARE * dots if dots else not others and self._differs(area)

    def _area(self, word: list[_Letter]) -> _Area:
        tight = ((letter, self._text.get_charbox(letter.index)) for letter in word)
        # A font may not say how large the picture of a letter is.
        boxes = [box if min(box[2] - box[0], box[3] - box[1]) > _NO_SIZE else letter.box for letter, box in tight]
        left, top = self._device(min(box[0] for box in boxes), max(box[3] for box in boxes))
        right, bottom = self._device(max(box[2] for box in boxes), min(box[1] for box in boxes))
        (x0, x1), (y0, y1) = sorted((left, right)), sorted((top, bottom))  # a turned page has other corners
        width, height = self._as_it_is.width, self._as_it_is.height
        return max(x0, 0), max(y0, 0), min(x1 + 1, width), min(y1 + 1, height)

    def _device(self, x: float, y: float) -> tuple[int, int]:
        across, down = ctypes.c_int(), ctypes.c_int()
        size = self._as_it_is.width, self._as_it_is.height
        pdfium_c.FPDF_PageToDevice(self._page, 0, 0, *size, 0, x, y, across, down)
        return across.value, down.value

    def _picture(self, flags: int = 0) -> "_Picture":
        bitmap = self._page.render(
            scale=self._scale, force_bitmap_format=pdfium_c.FPDFBitmap_BGR, rev_byteorder=True, extra_flags=flags
        )
        try:
            return _Picture(bytes(bitmap.buffer), bitmap.width, bitmap.height, bitmap.stride)
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

    def _own_colours(self) -> dict[int, bytes]:
        """Return a colour for each object with text, the same for the same text: bold may be drawn twice."""
        texts: dict[bytes, int] = {}
        colours = {}
        for key, drawn in self._objects.items():
            number = texts.setdefault(self._said(drawn), len(texts) % _SHADES**2)
            colours[key] = bytes((number % _SHADES, number // _SHADES, _SAME_BLUE))
        return colours

    def _said(self, drawn: _TextObject) -> bytes:
        length = pdfium_c.FPDFTextObj_GetText(drawn, self._text, None, 0)
        letters = (ctypes.c_ushort * (length // 2))()
        pdfium_c.FPDFTextObj_GetText(drawn, self._text, letters, length)
        return bytes(letters)

    def _in_own_colours(self, colours: Mapping[int, bytes]) -> "_Picture":
        before = [(drawn, _fill(drawn), _stroke(drawn)) for drawn in self._objects.values()]
        try:
            for drawn, fill, stroke in before:
                own = colours[_key(drawn)]
                _set_colours(drawn, (*own, 255) if fill else None, (*own, 255) if stroke else None)
            return self._picture(pdfium_c.FPDF_RENDER_NO_SMOOTHTEXT | pdfium_c.FPDF_RENDER_NO_SMOOTHPATH)
        finally:
            for drawn, fill, stroke in before:
                _set_colours(drawn, fill, stroke)


@dataclass(frozen=True, slots=True)
class _Picture:
    """A drawn page: three bytes a dot, red, green, blue."""

    dots: bytes
    width: int
    height: int
    stride: int

    def rows(self, area: _Area) -> Iterator[bytes]:
        left, top, right, bottom = area
        for y in range(top, bottom):
            yield self.dots[y * self.stride + 3 * left : y * self.stride + 3 * max(right, left)]


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
