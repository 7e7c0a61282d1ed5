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
    drop_repeats,
    find_running_lines,
    heading_sizes,
    to_page,
    with_headers,
)
from ingest.parsing.pdf_letters import (
    PlacedLetter,
    has_unembedded_fonts,
    hidden_words,
    hide_text,
    placed_letters,
    remove_replacements,
    with_superscripts,
)
from ingest.parsing.pdf_tables import tables_on_page
from ingest.parsing.text import is_unmapped

SAMPLED = 64  # letters sampled to detect a page's rotation
LEAST_LETTERS = 16  # fewer are a stamp or page number rather than the page's text
SCAN_SHARE = 0.2  # of a page that pictures must cover to count as a scan
STAMPED_SHARE = 0.5  # of a page with a few lines of text that pictures must cover to count as a stamped scan
MOST_STAMPED = 200  # letters in those few lines, such as a source, a header or an approval box
STAMPED_SECONDS = 10  # of CPU time, since these pictures may contain no text
MOST_TEXTLESS = 5  # pages per file whose pictures add no text; after them, pictures are treated as backgrounds
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
            may_be_stamped = sum(page.has_textless_pictures for page in pages) < MOST_TEXTLESS
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
    has_textless_pictures: bool = False
    """Whether its pictures were recognised and added no text."""


def assemble(kind: Format, read: Sequence[ReadPage], title: str) -> Parsed:
    """Assemble pages into a document without repeated headers and footers; raise Unreadable if it has no text."""
    pages = [page.blocks for page in read]
    lines = [block for page in pages for block in page if isinstance(block, Line)]
    tables = sum(isinstance(block, Table) for page in pages for block in page)
    letters = sum(c.isalnum() for line in lines for c in line.text)
    # A scan's only text is often a stray stamp or page number, which is not the document.
    if not tables and letters < 4 * len(pages):
        raise Unreadable(Reason.EMPTY_TEXT, "its pages are blank, or pictures in which no text was recognised")
    running_lines = find_running_lines(pages)
    body = [
        block
        for page, page_running_lines in zip(pages, running_lines, strict=True)
        for block in page
        if isinstance(block, Line) and block not in page_running_lines
    ]
    sizes = heading_sizes(body)
    first_heading = next((line.text for line in body if sizes and line.size_step == sizes[0]), None)
    final_pages = drop_repeats(with_headers(pages, running_lines), running_lines)
    return Parsed(
        format=kind,
        title=title if title and not _FILE_NAME.search(title) else first_heading,
        pages=tuple(
            Page(number=number, markdown=to_page(blocks, sizes)) for number, blocks in enumerate(final_pages, start=1)
        ),
        left_out=sum((page.left_out for page in read), Counter[LeftOut]()),
    )


def _flattened_page(document: pypdfium2.PdfDocument, index: int) -> pypdfium2.PdfPage:
    """Return a page with its form fields and annotations flattened into its content."""
    page = document[index]
    if pdfium_c.FPDFPage_Flatten(page, pdfium_c.FLAT_NORMALDISPLAY) != pdfium_c.FLATTEN_SUCCESS:
        return page
    page.close()
    return document[index]  # reload the flattened page


def _page(document: pypdfium2.PdfDocument, index: int, *, may_be_stamped: bool) -> ReadPage:
    """Read a page: its text layer, its recognised characters, or both (see the module's docstring).

    Without `may_be_stamped`, pictures on a page with text are backgrounds and not recognised.
    """
    page = _flattened_page(document, index)
    has_textless_pictures = False
    try:
        remove_replacements(page)
        text = page.get_textpage()
        upright = Upright(turn=_turn(text), sheet=page.get_mediabox())
        plain_letters = list(placed_letters(page, text, upright))
        letters = list(with_superscripts(plain_letters))
        letter_count = sum(letter.character.isalnum() for letter in letters if not letter.hidden)
        tables = tables_on_page(page, upright, letters) if letter_count > 0 else []
        blocks = list(_blocks(text.get_text_range(), plain_letters, letters, tables))
        text.close()
        lines = [block for block in blocks if isinstance(block, Line)]
        readable = _count_readable(lines)
        if not tables and readable < LEAST_LETTERS and _may_draw_text(page, lines):
            # A rendered page lacks letters whose font is not embedded; the text layer has them.
            if readable > 0 and has_unembedded_fonts(page):
                blocks = [*lines, *_text_of_pictures(page)]
            else:
                blocks = [*_recognise_page(page)] or blocks
        elif may_be_stamped and letter_count < MOST_STAMPED and _picture_share(page) >= STAMPED_SHARE:
            added_lines = _text_of_stamped_scan(page)
            has_textless_pictures = _count_readable(added_lines) <= letter_count
            blocks += [] if has_textless_pictures else added_lines
    finally:
        page.close()
    return ReadPage(blocks, hidden_words(letters), has_textless_pictures)


def _recognise_page(page: pypdfium2.PdfPage, seconds: int = CPU_SECONDS) -> list[Line]:
    orientation = detect_orientation(_rendered_picture(page, dpi=ORIENTATION_DPI))
    return recognise(_rendered_picture(page, dpi=DPI, turn=orientation.turn), orientation.languages, seconds=seconds)


def _text_of_pictures(page: pypdfium2.PdfPage, seconds: int = CPU_SECONDS) -> list[Line]:
    """Recognise the characters of a page that is drawn without its text layer, which is read from the file instead."""
    hide_text(page)
    return _recognise_page(page, seconds)


def _text_of_stamped_scan(page: pypdfium2.PdfPage) -> list[Line]:
    """Recognise the pictures of a page with a few lines of text; return no lines if that takes too long."""
    try:
        return _text_of_pictures(page, STAMPED_SECONDS)
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


def _count_readable(lines: Sequence[Line]) -> int:
    """Count the letters and digits of the text layer; 0 if unmapped characters outnumber them."""
    text = "".join(line.text for line in lines)
    letters = sum(c.isalnum() for c in text)
    unmapped = sum(map(is_unmapped, text))
    return letters if letters > unmapped else 0


def _may_draw_text(page: pypdfium2.PdfPage, lines: Sequence[Line]) -> bool:
    """Return whether a page may draw text: as pictures, many paths, or unmapped characters."""
    is_scan = _picture_share(page) >= SCAN_SHARE
    has_characters = sum(len(line.text) for line in lines) >= LEAST_LETTERS
    paths = islice(page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_PATH], max_depth=3), OUTLINES)
    return is_scan or has_characters or sum(1 for _ in paths) == OUTLINES


def _picture_share(page: pypdfium2.PdfPage) -> float:
    """Return the total area of a page's pictures as a share of the page."""
    width, height = page.get_size()
    page_area: float = max(width * height, 1.0)
    picture_area = 0.0
    for image in page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        left, bottom, right, top = image.get_bounds()
        picture_area += max(right - left, 0.0) * max(top - bottom, 0.0)
    return picture_area / page_area


def _rendered_picture(page: pypdfium2.PdfPage, *, dpi: int, turn: int = 0) -> Picture:
    width, height = page.get_size()
    scale = min(dpi / 72, (MOST_PIXELS / max(width * height, 1.0)) ** 0.5)
    # In colour, because in a grey picture tesseract misses letters on a coloured background.
    bitmap = page.render(scale=scale, rotation=turn, rev_byteorder=True, force_bitmap_format=pdfium_c.FPDFBitmap_BGR)
    try:
        rows = memoryview(bitmap.buffer).cast("B")
        lines = [rows[y * bitmap.stride : y * bitmap.stride + 3 * bitmap.width] for y in range(bitmap.height)]
        pixmap = b"".join([b"P6 %d %d 255\n" % (bitmap.width, bitmap.height), *lines])
        return Picture(pixmap=pixmap, dpi=scale * 72, height=bitmap.height)
    finally:
        bitmap.close()


def _blocks(
    text: str,
    plain_letters: Sequence[PlacedLetter],
    letters_with_superscripts: Sequence[PlacedLetter],
    tables: Sequence[Table],
) -> Iterator[Block]:
    """Yield the page's lines and tables in order.

    A table is yielded where its first letter stands; lines leave out its letters. Hidden letters become spaces.
    """
    pairs = zip(plain_letters, letters_with_superscripts, strict=True)
    replacements = {(old.index, old.character): " " if old.hidden else new.character for old, new in pairs}
    boxes = {letter.index: letter.box for letter in plain_letters if not letter.hidden}
    table_of = {index: table for table in tables for index in table.letters}
    yielded_tables: set[int] = set()
    line_start = 0
    for line in text.split("\n"):
        raw = "".join(replacements.get((line_start + i, c), c) for i, c in enumerate(line))
        for table, start, part in _parts(line_start, raw, table_of):
            if table is None:
                yield from _line(boxes, start, part)
            elif id(table) not in yielded_tables:
                yielded_tables.add(id(table))
                yield table
        line_start += len(raw) + 1


def _parts(line_start: int, raw: str, table_of: Mapping[int, Table]) -> Iterator[tuple[Table | None, int, str]]:
    """Yield (table or None, start, text) for each part of a line inside or outside a table."""
    table: Table | None = None
    part_start = 0
    for i, c in enumerate(raw):
        next_table = table if c.isspace() else table_of.get(line_start + i)
        if next_table is not table:
            yield table, line_start + part_start, raw[part_start:i]
            table, part_start = next_table, i
    yield table, line_start + part_start, raw[part_start:]


def _line(boxes: Mapping[int, Box], start: int, raw: str) -> Iterator[Line]:
    """Yield the line with this text, which starts at index `start` of the page's text; nothing if it is blank."""
    # pdfium writes U+FFFE for a hyphen that breaks a word at a line's end.
    text = raw.rstrip("\r").replace("\ufffe", "").replace("\x00", "").replace("\t", " ")
    if not text.strip():
        return
    letter_boxes = [boxes[index] for index in range(start, start + len(raw)) if index in boxes]
    heights = Counter(round((box.top - box.bottom) * 2) / 2 for box in letter_boxes)
    yield Line(
        text=" ".join(text.split()),
        size_step=heights.most_common(1)[0][0] if heights else 0.0,
        left=min((box.left for box in letter_boxes), default=0.0),
        bottom=min((box.bottom for box in letter_boxes), default=0.0),
        right=max((box.right for box in letter_boxes), default=0.0),
        top=max((box.top for box in letter_boxes), default=0.0),
        spaced_end=text.endswith(" "),
    )
