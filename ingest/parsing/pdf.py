"""PDF to Markdown: text by pdfium, ruled tables by pdfplumber, headings by font size, page numbers kept."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pypdfium2
import pypdfium2.raw as pdfium_c

from ingest.parsing.parsed import Format, Page, Parsed, Reason, Unreadable
from ingest.parsing.pdf_layout import Block, Line, Table, arrange, heading_sizes, running_lines, to_page
from ingest.parsing.pdf_tables import PageTables

MOST_PAGES = 2000
RULES_OF_A_TABLE = 4  # fewer drawn paths cannot rule a table, and pdfplumber is fifty times slower than pdfium

_FILE_LIKE = re.compile(r"^(microsoft word|untitled|document\d*$)|\.(docx?|hwpx?|pdf|pptx?|xlsx?|indd)$", re.IGNORECASE)


def parse_pdf(path: Path) -> Parsed:
    """Return a PDF's pages.

    Raises:
        Unreadable: encrypted, malformed, too many pages, or pages that are pictures only.
    """
    document = _open(path)
    try:
        if len(document) > MOST_PAGES:
            raise Unreadable(Reason.TOO_LARGE, f"more than {MOST_PAGES} pages")
        with PageTables(path) as tables:
            pages = [_blocks(document, i, tables) for i in range(len(document))]
        title = document.get_metadata_value("Title").strip("\x00 \t\r\n")
    except pypdfium2.PdfiumError as exc:
        raise Unreadable(Reason.MALFORMED, "a page of the PDF is damaged") from exc
    finally:
        document.close()
    return _parsed(pages, title)


def _open(path: Path) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as exc:
        if exc.err_code in (pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY):
            raise Unreadable(Reason.ENCRYPTED, "the PDF opens only with a password") from exc
        raise Unreadable(Reason.MALFORMED, "the PDF is damaged") from exc


def _parsed(pages: Sequence[Sequence[Block]], title: str) -> Parsed:
    lines = [block for page in pages for block in page if isinstance(block, Line)]
    tables = sum(isinstance(block, Table) for page in pages for block in page)
    letters = sum(c.isalnum() for line in lines for c in line.text)
    # A scan often has a stray stamp or page number as its only text: that is not the document.
    if not tables and letters < 4 * len(pages):
        raise Unreadable(
            Reason.EMPTY_TEXT, "its pages are pictures without text: they need character recognition first"
        )
    running = running_lines(pages)
    sizes = heading_sizes([line for line in lines if line.key not in running])
    biggest = next(
        (line.text for line in lines if sizes and line.size_step == sizes[0] and line.key not in running), None
    )
    return Parsed(
        format=Format.PDF,
        title=title if title and not _FILE_LIKE.search(title) else biggest,
        pages=tuple(
            Page(number=number, markdown=to_page([b for b in page if b.key not in running], sizes))
            for number, page in enumerate(pages, start=1)
        ),
    )


def _blocks(document: pypdfium2.PdfDocument, index: int, tables: PageTables) -> list[Block]:
    page = document[index]
    try:
        text = page.get_textpage()
        lines = _lines(text)
        ruled = page.get_rotation() == 0 and _paths(page) >= RULES_OF_A_TABLE
        found = tables.on_page(index) if ruled and lines else []
        text.close()
    finally:
        page.close()
    return arrange(lines, found)


def _paths(page: pypdfium2.PdfPage) -> int:
    count = 0
    for _ in page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_PATH], max_depth=3):
        count += 1
        if count >= RULES_OF_A_TABLE:
            break
    return count


def _lines(page: pypdfium2.PdfTextPage) -> list[Line]:
    lines: list[Line] = []
    start = 0
    for raw in page.get_text_range().split("\n"):
        # U+FFFE stands where pdfium saw a hyphen that only breaks a word.
        text = raw.rstrip("\r").replace("\ufffe", "").replace("\x00", "").replace("\t", " ")
        if text.strip():
            boxes = _boxes(page, start, raw)
            lines.append(_line(text, boxes))
        start += len(raw) + 1
    return lines


def _boxes(page: pypdfium2.PdfTextPage, start: int, raw: str) -> list[tuple[float, float, float, float]]:
    seen = [start + i for i, c in enumerate(raw) if not c.isspace() and c != "\ufffe"]
    most = page.count_chars()
    # The first few, the middle and the last say how large a line is and where: each look-up is a call into pdfium.
    chosen = dict.fromkeys([*seen[:3], *seen[len(seen) // 2 :][:1], *seen[-1:]])
    return [page.get_charbox(i, loose=True) for i in chosen if i < most]


def _line(text: str, boxes: Sequence[tuple[float, float, float, float]]) -> Line:
    heights = Counter(round((top - bottom) * 2) / 2 for _, bottom, _, top in boxes)
    return Line(
        text=" ".join(text.split()),
        size_step=heights.most_common(1)[0][0] if heights else 0.0,
        left=min((b[0] for b in boxes), default=0.0),
        bottom=min((b[1] for b in boxes), default=0.0),
        right=max((b[2] for b in boxes), default=0.0),
        top=max((b[3] for b in boxes), default=0.0),
        spaced_end=text.endswith(" "),
    )
