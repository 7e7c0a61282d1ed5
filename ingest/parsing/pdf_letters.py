"""The letters of a PDF page: their positions, boxes, superscripts and hidden text."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pypdfium2
import pypdfium2.raw as pdfium_c

from ingest.parsing.parsed import LeftOut
from ingest.parsing.pdf_layout import Box, Upright
from ingest.parsing.superscripts import as_superscript

_SMALLEST = 1.5  # points: the minimum of the longer side of a legible letter's box
_DEEPEST = 15  # nested forms
_MOST_DRAWN = 100_000  # letters checked per page
_GLYPH_SIZE = 12.0  # points; any size would do
_SUPERSCRIPT_CHARACTERS: Final = frozenset("0123456789()[]")
# Relative to the height of the preceding letter; word processors use 0.58 to 0.65, raised by a third.
_TALLEST: Final = 0.8
_LOWEST: Final = 0.25
_TextObject = Any  # untyped in ctypes
_Font = Any  # also untyped


@dataclass(frozen=True, slots=True)
class PlacedLetter:
    """A letter: its index in the page's text, and its upright box, as tall as its line; `hidden` says how it is hidden.

    Letters include digits and other characters.
    """

    index: int
    character: str
    box: Box
    hidden: LeftOut | None


def remove_replacements(page: pypdfium2.PdfPage) -> None:
    """Remove the replacement text (`ActualText`) of a page's letters, which a viewer never shows."""
    for drawn in _text_objects(page):
        marks = [pdfium_c.FPDFPageObj_GetMark(drawn, at) for at in range(pdfium_c.FPDFPageObj_CountMarks(drawn))]
        for mark in marks:
            if pdfium_c.FPDFPageObjMark_GetParamValueType(mark, b"ActualText") != pdfium_c.FPDF_OBJECT_UNKNOWN:
                pdfium_c.FPDFPageObj_RemoveMark(drawn, mark)


def hide_text(page: pypdfium2.PdfPage) -> None:
    """Make a page render without its text."""
    for drawn in _text_objects(page):
        pdfium_c.FPDFPageObj_SetIsActive(drawn, 0)


def has_unembedded_fonts(page: pypdfium2.PdfPage) -> bool:
    """Return whether the page uses fonts that are not embedded, so that a rendering may lack letters."""
    return any(_is_unembedded(pdfium_c.FPDFTextObj_GetFont(drawn)) for drawn in _text_objects(page))


def has_undrawable_letters(page: pypdfium2.PdfPage) -> bool:
    """Return whether some letters cannot be drawn: their font is not embedded and no installed font has them."""
    text = page.get_textpage()
    for index in range(min(text.count_chars(), _MOST_DRAWN)):
        drawn = pdfium_c.FPDFText_GetTextObject(text, index)
        letter = pdfium_c.FPDFText_GetUnicode(text, index)
        is_visible = drawn and chr(letter).isprintable() and letter > ord(" ")
        font = pdfium_c.FPDFTextObj_GetFont(drawn) if is_visible else None
        if font and _is_unembedded(font) and not pdfium_c.FPDFFont_GetGlyphPath(font, letter, _GLYPH_SIZE):
            return True
    return False


def placed_letters(page: pypdfium2.PdfPage, text: pypdfium2.PdfTextPage, upright: Upright) -> Iterator[PlacedLetter]:
    """Yield the non-blank letters of a page."""
    # The visible area; `get_bbox` is rotated with the page, and letter positions are not.
    media, crop = page.get_mediabox(), page.get_cropbox()
    left, bottom = map(max, media[:2], crop[:2])
    right, top = map(min, media[2:], crop[2:])
    has_invisible = any(map(_is_invisible, _text_objects(page)))  # rare; checking each letter takes two calls
    for index in range(text.count_chars()):
        letter = chr(pdfium_c.FPDFText_GetUnicode(text, index))
        if letter <= " " or letter.isspace():
            continue
        x0, y0, x1, y1 = text.get_charbox(index, loose=True)
        hidden = None
        if has_invisible and _is_invisible(pdfium_c.FPDFText_GetTextObject(text, index)):
            hidden = LeftOut.INVISIBLE
        elif x1 < left or x0 > right or y1 < bottom or y0 > top:
            hidden = LeftOut.OFF_PAGE
        elif max(x1 - x0, y1 - y0) < _SMALLEST:
            hidden = LeftOut.TINY
        yield PlacedLetter(index, letter, upright.box(x0, y0, x1, y1), hidden)


def hidden_words(letters: Sequence[PlacedLetter]) -> Counter[LeftOut]:
    """Count a page's hidden words, that is, runs of adjacent hidden letters."""
    words: Counter[LeftOut] = Counter()
    last_hidden = -1
    for letter in letters:
        if letter.hidden and letter.index != last_hidden + 1:
            words[letter.hidden] += 1
        last_hidden = letter.index if letter.hidden else -1
    return words


def _text_objects(page: pypdfium2.PdfPage) -> Iterator[_TextObject]:
    yield from page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_TEXT], max_depth=_DEEPEST)


def _is_unembedded(font: _Font) -> bool:
    return bool(pdfium_c.FPDFFont_GetIsEmbedded(font) == 0)


def _is_invisible(drawn: _TextObject) -> bool:
    # The handle is null for a hyphen that pdfium inserts into a broken word.
    return bool(drawn and pdfium_c.FPDFTextObj_GetTextRenderMode(drawn) == pdfium_c.FPDF_TEXTRENDERMODE_INVISIBLE)


def with_superscripts(letters: Iterable[PlacedLetter]) -> Iterator[PlacedLetter]:
    """Yield a page's letters in order; raised digits and brackets after a letter become superscript characters."""
    base: PlacedLetter | None = None
    last_index = -1
    for letter in letters:
        is_adjacent = letter.index == last_index + 1
        last_index = letter.index
        may_be_superscript = is_adjacent and letter.character in _SUPERSCRIPT_CHARACTERS
        if may_be_superscript and base is not None and base.character.isalnum() and _is_above(base.box, letter.box):
            yield replace(letter, character=as_superscript(letter.character))
        else:
            base = letter
            yield letter


def _is_above(base: Box, box: Box) -> bool:
    height = base.top - base.bottom
    return box.top - box.bottom <= _TALLEST * height and _LOWEST * height <= box.bottom - base.bottom < height
