"""Finds the words of a PDF page that a person does not see on it: they must not become an answer.

Unseen are words in render mode 3, transparent, smaller than 1.5 points or off the page; and white ones, unless the
page as it is drawn shows something where they stand (a white heading on a coloured ground). Words are left out whole:
single letters of a word that is seen are kept.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Final

import pypdfium2
import pypdfium2.raw as pdfium_c

_SMALLEST = 1.5  # points, of the longer side of a letter's box
_WHITE = 245  # of 255, in each colour
_TRANSPARENT = 10  # of 255
_LEAST_CONTRAST = 16  # of 255: between the lightest and the darkest dot where a word stands
_DOTS_A_POINT = 2.0
_MOST_DOTS = 4_000_000
_INVISIBLE: Final = pdfium_c.FPDF_TEXTRENDERMODE_INVISIBLE

LetterBox = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class UnseenLetter:
    """A letter that is left out: its place in the page's text, and its box in points of the unturned page."""

    index: int
    letter: str
    box: LetterBox


def unseen_letters(page: pypdfium2.PdfPage, text: pypdfium2.PdfTextPage) -> list[UnseenLetter]:
    """Return the letters of all words of a page that nobody sees."""
    look = _Look(page, text)
    return [letter for word in _words(text) for letter in look.unseen(word)]


def _words(text: pypdfium2.PdfTextPage) -> Iterator[list[int]]:
    count = text.count_chars()
    drawn = ((index, pdfium_c.FPDFText_GetUnicode(text, index)) for index in range(count))
    for is_drawn, letters in groupby(drawn, lambda one: one[1] > 0x20 and not chr(one[1]).isspace()):
        if is_drawn:
            yield [index for index, _ in letters]


class _Look:
    """A look at one page, which is drawn only where a white word must be told from a hidden one."""

    def __init__(self, page: pypdfium2.PdfPage, text: pypdfium2.PdfTextPage) -> None:
        self._page, self._text = page, text
        # Not `get_bbox`, which is of the turned page: letters have their places on the unturned one.
        media, crop = page.get_mediabox(), page.get_cropbox()
        self._sheet = (
            max(media[0], crop[0]), max(media[1], crop[1]), min(media[2], crop[2]), min(media[3], crop[3])
        )  # fmt: skip
        self._objects: dict[int, tuple[bool, bool]] = {}

    def unseen(self, word: list[int]) -> list[UnseenLetter]:
        boxes = [self._text.get_charbox(index, loose=True) for index in word]
        kinds = [self._kind(index, box) for index, box in zip(word, boxes, strict=True)]
        if not all(is_gone or is_white for is_gone, is_white in kinds):
            return []
        if not all(is_gone for is_gone, _ in kinds) and self._shows(boxes):
            return []
        return [
            UnseenLetter(index, chr(pdfium_c.FPDFText_GetUnicode(self._text, index)), box)
            for index, box in zip(word, boxes, strict=True)
        ]

    def _kind(self, index: int, box: LetterBox) -> tuple[bool, bool]:
        """Return whether a letter is certainly unseen, and whether it is white."""
        left, bottom, right, top = box
        x0, y0, x1, y1 = self._sheet
        is_off = right < x0 or left > x1 or top < y0 or bottom > y1
        is_tiny = max(right - left, top - bottom) < _SMALLEST
        is_gone, is_white = self._colour(index)
        return is_off or is_tiny or is_gone, is_white

    def _colour(self, index: int) -> tuple[bool, bool]:
        drawn = pdfium_c.FPDFText_GetTextObject(self._text, index)
        if not drawn:
            return False, False
        key = ctypes.addressof(drawn.contents)
        if key not in self._objects:
            red, green, blue, alpha = (ctypes.c_uint() for _ in range(4))
            known = pdfium_c.FPDFText_GetFillColor(self._text, index, red, green, blue, alpha)
            is_white = bool(known) and min(red.value, green.value, blue.value) >= _WHITE
            is_clear = bool(known) and alpha.value < _TRANSPARENT
            mode = pdfium_c.FPDFTextObj_GetTextRenderMode(drawn)
            self._objects[key] = (mode == _INVISIBLE or is_clear, is_white)
        return self._objects[key]

    def _shows(self, boxes: list[LetterBox]) -> bool:
        """Return whether the drawn page shows anything where a word stands."""
        left, bottom = min(box[0] for box in boxes), min(box[1] for box in boxes)
        right, top = max(box[2] for box in boxes), max(box[3] for box in boxes)
        return self._drawn.contrast(left, bottom, right, top) >= _LEAST_CONTRAST

    @cached_property
    def _drawn(self) -> "_Drawn":
        return _Drawn(self._page)


class _Drawn:
    """A page in shades of grey."""

    def __init__(self, page: pypdfium2.PdfPage) -> None:
        width, height = page.get_size()
        scale = min(_DOTS_A_POINT, (_MOST_DOTS / max(width * height, 1.0)) ** 0.5)
        bitmap = page.render(scale=scale, force_bitmap_format=pdfium_c.FPDFBitmap_Gray)
        self._page, self._width, self._height, self._stride = page, bitmap.width, bitmap.height, bitmap.stride
        self._dots = bytes(bitmap.buffer)
        bitmap.close()

    def contrast(self, left: float, bottom: float, right: float, top: float) -> int:
        """Return the difference between the lightest and the darkest dot of a box; 0 where it is off the page."""
        corners = [self._device(x, y) for x, y in ((left, bottom), (right, top))]
        (x0, x1), (y0, y1) = (sorted(axis) for axis in zip(*corners, strict=True))
        x0, x1 = max(x0, 0), min(x1 + 1, self._width)
        rows = range(max(y0, 0), min(y1 + 1, self._height))
        dots = b"".join(self._dots[y * self._stride + x0 : y * self._stride + x1] for y in rows) if x1 > x0 else b""
        return max(dots) - min(dots) if dots else 0

    def _device(self, x: float, y: float) -> tuple[int, int]:
        across, down = ctypes.c_int(), ctypes.c_int()
        pdfium_c.FPDF_PageToDevice(self._page, 0, 0, self._width, self._height, 0, x, y, across, down)
        return across.value, down.value
