"""PDF to Markdown: text and ruled tables by pdfium, headings by font size, page numbers kept.

A page with a text layer is read from it. A page that only draws its text (a scan, outlined letters, a font without a
character map) is rendered and its characters are recognised (`ingest.parsing.ocr`). If pictures cover half of a page
that has only a few lines of text, the text may be stamped on a scan: the pictures are then recognised without these
lines and the result is added.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import pi
from pathlib import Path

import pypdfium2
import pypdfium2.raw as pdfium_c

from ingest.parsing.ocr import CPU_SECONDS, DPI, MOST_PIXELS, ORIENTATION_DPI, Picture, detect_orientation, recognise
from ingest.parsing.parsed import MOST_PAGES, Format, LeftOut, OnPage, Page, Parsed, Reason, Unreadable
from ingest.parsing.pdf_layout import (
    Block,
    Box,
    Line,
    Table,
    Upright,
    heading_sizes,
    running_lines,
    to_page,
    with_headers,
    without_repeats,
)
from ingest.parsing.pdf_letters import (
    PlacedLetter,
    has_unembedded_fonts,
    hidden_words,
    hide_text,
    placed_letters,
    remove_replacements,
    with_raised,
)
from ingest.parsing.pdf_tables import tables_on_page

SAMPLED = 64  # letters sampled to detect a page's rotation
LEAST_LETTERS = 16  # fewer are a stamp or page number rather than the page's text
SCAN_SHARE = 0.2  # of a page that pictures must cover to count as a scan
STAMPED_SHARE = 0.5  # the same for a page with a few lines of text
MOST_STAMPED = 200  # letters on such a page: a source, a header, an approval box
STAMPED_SECONDS = 10  # of CPU time, since these pictures may contain no text
MOST_VAIN = 5  # pages per file whose pictures add no text; further ones are treated as backgrounds
OUTLINES = 30  # drawn paths that suggest outlined letters

_FILE_NAME = re.compile(
    r"\A(microsoft word|untitled|document\d*\Z)|\.(docx?|hwpx?|pdf|pptx?|xlsx?|indd)\Z", re.IGNORECASE
)


def parse_pdf(path: Path, on_page: OnPage) -> Parsed:
    """Parse a PDF; raise Unreadable if it is damaged, encrypted or too long."""
    # Without system fonts pdfium falls back to its own, so letter boxes and pictures are the same on every machine.
    pdfium_c.FPDF_SetSystemFontInfo(None)
    document = open_pdf(path)
    try:
        if len(document) > MOST_PAGES:
            raise Unreadable(Reason.TOO_LARGE, f"more than {MOST_PAGES} pages")
        pages: list[ReadPage] = []
        for i in range(len(document)):
            on_page()
            may_be_stamped = sum(page.is_vain for page in pages) < MOST_VAIN
            pages.append(_page(document, i, may_be_stamped=may_be_stamped))
        title = document.get_metadata_value("Title").strip("\x00 \t\r\n")
    except pypdfium2.PdfiumError as exc:
        raise Unreadable(Reason.MALFORMED, "a page of the PDF is damaged") from exc
    finally:
        document.close()
    return assemble(Format.PDF, pages, title)


def is_pdf(head: bytes) -> bool:
    """Return whether a file's first bytes are those of a PDF."""
    return b"%PDF-" in head[:1024]


def open_pdf(path: Path) -> pypdfium2.PdfDocument:
    """Open a PDF; raise Unreadable if it is encrypted or damaged."""
    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as exc:
        if exc.err_code in (pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY):
            raise Unreadable(Reason.ENCRYPTED, "the PDF opens only with a password") from exc
        raise Unreadable(Reason.MALFORMED, "the PDF is damaged") from exc


@dataclass(frozen=True, slots=True)
class ReadPage:
    """A page's blocks and its left-out counts."""

    blocks: list[Block]
    left_out: Counter[LeftOut] = field(default_factory=Counter)
    is_vain: bool = False
    """Whether its pictures were recognised and added no text."""


def assemble(kind: Format, read: Sequence[ReadPage], title: str) -> Parsed:
    """Assemble pages into a document, removing repeated headers and footers."""
    pages = [page.blocks for page in read]
    lines = [block for page in pages for block in page if isinstance(block, Line)]
    tables = sum(isinstance(block, Table) for page in pages for block in page)
    letters = sum(c.isalnum() for line in lines for c in line.text)
    # A scan's only text is often a stray stamp or page number, which is not the document.
    if not tables and letters < 4 * len(pages):
        raise Unreadable(Reason.EMPTY_TEXT, "its pages are blank, or pictures in which no text was recognised")
    running = running_lines(pages)
    body = [
        block
        for page, own in zip(pages, running, strict=True)
        for block in page
        if isinstance(block, Line) and block not in own
    ]
    sizes = heading_sizes(body)
    biggest = next((line.text for line in body if sizes and line.size_step == sizes[0]), None)
    whole = with_headers(pages, running)
    return Parsed(
        format=kind,
        title=title if title and not _FILE_NAME.search(title) else biggest,
        pages=tuple(
            Page(number=number, markdown=to_page(blocks, sizes))
            for number, blocks in enumerate(without_repeats(whole, running), start=1)
        ),
        left_out=sum((page.left_out for page in read), Counter[LeftOut]()),
    )


def _as_drawn(document: pypdfium2.PdfDocument, index: int) -> pypdfium2.PdfPage:
    """Return a page with its form fields and annotations flattened into its content."""
    page = document[index]
    if pdfium_c.FPDFPage_Flatten(page, pdfium_c.FLAT_NORMALDISPLAY) != pdfium_c.FLATTEN_SUCCESS:
        return page
    page.close()
    return document[index]  # reload the flattened page


def _page(document: pypdfium2.PdfDocument, index: int, *, may_be_stamped: bool) -> ReadPage:
    page, is_vain = _as_drawn(document, index), False
    try:
        remove_replacements(page)
        text = page.get_textpage()
        upright = Upright(turn=_turn(text), sheet=page.get_mediabox())
        as_written = list(placed_letters(page, text, upright))
        letters = list(with_raised(as_written))
        count = sum(letter.letter.isalnum() for letter in letters if not letter.hidden)
        found_tables = tables_on_page(page, upright, letters) if count > 0 else []
        blocks = list(_blocks(text.get_text_range(), as_written, letters, found_tables))
        text.close()
        lines = [block for block in blocks if isinstance(block, Line)]
        if not found_tables and (readable := _readable(lines)) < LEAST_LETTERS and _draws(page, lines):
            # Without its embedded font, the text layer is reliable and the rendered page is not.
            keeps_text = readable > 0 and has_unembedded_fonts(page)
            blocks = [*lines, *_below(page)] if keeps_text else [*_recognised(page)] or blocks
        elif may_be_stamped and count < MOST_STAMPED and _covered(page) >= STAMPED_SHARE:
            below = _below_in_time(page)
            is_vain = _readable(below) <= count
            blocks += [] if is_vain else below
    finally:
        page.close()
    return ReadPage(blocks, hidden_words(letters), is_vain)


def _recognised(page: pypdfium2.PdfPage, seconds: int = CPU_SECONDS) -> list[Line]:
    orientation = detect_orientation(_picture(page, dpi=ORIENTATION_DPI))
    return recognise(_picture(page, dpi=DPI, turn=orientation.turn), orientation.languages, seconds=seconds)


def _below(page: pypdfium2.PdfPage, seconds: int = CPU_SECONDS) -> list[Line]:
    """Recognise the page without its text layer, which is read from the file instead."""
    hide_text(page)
    return _recognised(page, seconds)


def _below_in_time(page: pypdfium2.PdfPage) -> list[Line]:
    try:
        return _below(page, STAMPED_SECONDS)
    except Unreadable as exc:
        if exc.reason is Reason.TOO_SLOW:
            return []
        raise


def _turn(text: pypdfium2.PdfTextPage) -> int:
    """Return the clockwise rotation in degrees that makes most of the page's letters upright."""
    count = text.count_chars()
    sampled = range(0, count, max(count // SAMPLED, 1))
    angles = [pdfium_c.FPDFText_GetCharAngle(text, i) for i in sampled if pdfium_c.FPDFText_IsGenerated(text, i) == 0]
    turns = Counter(round(angle / (pi / 2)) * -90 % 360 for angle in angles if angle >= 0)
    turn, most = turns.most_common(1)[0] if turns else (0, 0)
    return turn if most * 2 > turns.total() else 0


def _readable(lines: Sequence[Line]) -> int:
    """Count the letters and digits of the text layer; 0 if unmapped characters outnumber them."""
    text = "".join(line.text for line in lines)
    letters = sum(c.isalnum() for c in text)
    strange = sum(c == "\ufffd" or "\ue000" <= c <= "\uf8ff" for c in text)
    return letters if letters > strange else 0


def _draws(page: pypdfium2.PdfPage, lines: Sequence[Line]) -> bool:
    """Return whether a page may draw text: as pictures, many paths, or unmapped characters."""
    paths = islice(page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_PATH], max_depth=3), OUTLINES)
    is_scan = _covered(page) >= SCAN_SHARE
    return is_scan or sum(len(line.text) for line in lines) >= LEAST_LETTERS or sum(1 for _ in paths) == OUTLINES


def _covered(page: pypdfium2.PdfPage) -> float:
    """Return the total area of a page's pictures as a share of the page."""
    width, height = page.get_size()
    sheet: float = max(width * height, 1.0)
    covered = 0.0
    for image in page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        left, bottom, right, top = image.get_bounds()
        covered += max(right - left, 0.0) * max(top - bottom, 0.0)
    return covered / sheet


def _picture(page: pypdfium2.PdfPage, *, dpi: int, turn: int = 0) -> Picture:
    width, height = page.get_size()
    scale = min(dpi / 72, (MOST_PIXELS / max(width * height, 1.0)) ** 0.5)
    # In colour: tesseract misses letters on a coloured background in a grey picture.
    bitmap = page.render(scale=scale, rotation=turn, rev_byteorder=True, force_bitmap_format=pdfium_c.FPDFBitmap_BGR)
    try:
        rows = memoryview(bitmap.buffer).cast("B")
        lines = [rows[y * bitmap.stride : y * bitmap.stride + 3 * bitmap.width] for y in range(bitmap.height)]
        pixmap = b"".join([b"P6 %d %d 255\n" % (bitmap.width, bitmap.height), *lines])
        return Picture(pixmap=pixmap, dpi=scale * 72, height=bitmap.height)
    finally:
        bitmap.close()


def _blocks(
    text: str, written: Sequence[PlacedLetter], letters: Sequence[PlacedLetter], tables: Sequence[Table]
) -> Iterator[Block]:
    """Yield the page's lines and tables; a table takes the place of its first letter, and its letters are in no line.

    `letters` is `written` with superscripts replaced by superscript characters; hidden letters become spaces.
    """
    pairs = zip(written, letters, strict=True)
    shown_letters = {(one.index, one.letter): " " if one.hidden else letter.letter for one, letter in pairs}
    boxes = {letter.index: letter.box for letter in letters if not letter.hidden}
    homes = {index: table for table in tables for index in table.letters}
    placed: set[int] = set()
    start = 0
    for line in text.split("\n"):
        raw = "".join(shown_letters.get((start + i, c), c) for i, c in enumerate(line))
        for table, at, part in _parts(start, raw, homes):
            if table is None:
                yield from _line(boxes, at, part)
            elif id(table) not in placed:
                placed.add(id(table))
                yield table
        start += len(raw) + 1


def _parts(start: int, raw: str, homes: Mapping[int, Table]) -> Iterator[tuple[Table | None, int, str]]:
    """Yield (table or None, start, text) for each part of a line inside or outside a table."""
    home, begin = None, 0
    for i, c in enumerate(raw):
        if not c.isspace() and (other := homes.get(start + i)) is not home:
            yield home, start + begin, raw[begin:i]
            home, begin = other, i
    yield home, start + begin, raw[begin:]


def _line(boxes: Mapping[int, Box], start: int, raw: str) -> Iterator[Line]:
    # pdfium writes U+FFFE for a hyphen that breaks a word at a line's end.
    text = raw.rstrip("\r").replace("\ufffe", "").replace("\x00", "").replace("\t", " ")
    if not text.strip():
        return
    found_boxes = [boxes[at] for at in range(start, start + len(raw)) if at in boxes]
    heights = Counter(round((box.top - box.bottom) * 2) / 2 for box in found_boxes)
    yield Line(
        text=" ".join(text.split()),
        size_step=heights.most_common(1)[0][0] if heights else 0.0,
        left=min((box.left for box in found_boxes), default=0.0),
        bottom=min((box.bottom for box in found_boxes), default=0.0),
        right=max((box.right for box in found_boxes), default=0.0),
        top=max((box.top for box in found_boxes), default=0.0),
        spaced_end=text.endswith(" "),
    )
