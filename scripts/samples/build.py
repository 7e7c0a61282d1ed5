"""Writes the PDF and DOCX sample documents from their Markdown sources; the same sources always give the same bytes.

    .venv/bin/python scripts/samples/build.py [--out evals/datasets/hanbit/documents]

A source is `src/<ko|en>/<name>.<pdf|docx>.md` and uses a small part of Markdown: `#` headings, paragraphs of one or
more lines, `- ` and `1. ` lists, and pipe tables. Every other line belongs to a paragraph.
"""

import argparse
import html
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path

from docx import Document
from docx.document import Document as DocxDocument
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

SOURCES = Path(__file__).parent / "src"
DOCUMENTS = Path(__file__).parents[2] / "evals" / "datasets" / "hanbit" / "documents"

# Word files hold dates in their properties and in the archive's directory; fixed ones make the bytes reproducible.
DOCUMENT_DATE = datetime(2026, 2, 2, 9, 0, 0)  # noqa: DTZ001 - python-docx takes naive UTC
ARCHIVE_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Fonts:
    """The two typefaces of a language; no font file is embedded."""

    body: str
    heading: str
    standard: bool = True
    """Whether they are among PDF's 14 standard fonts; PDF readers bring the others, which reportlab must register."""


FONTS = {
    "ko": Fonts("HYSMyeongJo-Medium", "HYGothic-Medium", standard=False),
    "en": Fonts("Helvetica", "Helvetica-Bold"),
}


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of level 1 (`#`) or below."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Prose:
    """A paragraph, its lines joined by spaces."""

    text: str


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a list; its mark is `-`, or the number with its full stop."""

    text: str
    mark: str


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; the first row is its head."""

    rows: tuple[tuple[str, ...], ...]


Block = Heading | Prose | Item | Grid


def read_blocks(source: str) -> Iterator[Block]:
    """Yield the blocks of a source in order."""
    for kind, lines in groupby(source.splitlines(), key=_kind):
        if kind == "table":
            yield Grid(tuple(_cells(line) for line in lines if not re.fullmatch(r"\|[\s:|-]+\|", line.strip())))
        elif kind == "prose":
            yield Prose(" ".join(line.strip() for line in lines))
        elif kind != "blank":
            yield from (_heading_or_item(line) for line in lines)


def _kind(line: str) -> str:
    for kind, pattern in (("blank", r"\s*$"), ("heading", r"#+ "), ("table", r"\|"), ("item", r"(-|\d+\.) ")):
        if re.match(pattern, line):
            return kind
    return "prose"


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


def _heading_or_item(line: str) -> Block:
    mark, _, text = line.partition(" ")
    return Heading(len(mark), text.strip()) if mark.startswith("#") else Item(text.strip(), mark)


def write_pdf(blocks: list[Block], fonts: Fonts, path: Path) -> None:
    """Write the blocks as an A4 document whose tables have ruled lines and whose pages are numbered."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    styles = _styles(fonts)
    document = SimpleDocTemplate(
        str(path),
        pagesize=A4,
        margins=20 * mm,
        title=title,
        author="Hanbit Bank",
        invariant=1,  # no clock, no random id
        pageCompression=0,  # zlib builds differ; these files are small
    )
    document.build([flowable for block in blocks for flowable in _flowables(block, styles)])


def _styles(fonts: Fonts) -> dict[str, ParagraphStyle]:
    # Lines break at spaces in Korean too: reportlab's CJK wrapping cuts a word in two, also in the extracted text.
    return {
        "h1": ParagraphStyle("h1", fontName=fonts.heading, fontSize=18, leading=25, spaceAfter=6),
        "h2": ParagraphStyle("h2", fontName=fonts.heading, fontSize=13, leading=19, spaceBefore=8, spaceAfter=3),
        "h3": ParagraphStyle("h3", fontName=fonts.heading, fontSize=11, leading=16, spaceBefore=5, spaceAfter=2),
        "body": ParagraphStyle("body", fontName=fonts.body, fontSize=10, leading=15.5, spaceAfter=5),
        "item": ParagraphStyle("item", fontName=fonts.body, fontSize=10, leading=15.5, leftIndent=14),
        "cell": ParagraphStyle("cell", fontName=fonts.body, fontSize=9, leading=12.5),
        "head": ParagraphStyle("head", fontName=fonts.heading, fontSize=9, leading=12.5),
    }


def _flowables(block: Block, styles: dict[str, ParagraphStyle]) -> list[Flowable]:
    match block:
        case Heading(level, text):
            return [Paragraph(html.escape(text), styles[f"h{min(level, 3)}"])]
        case Prose(text):
            return [Paragraph(html.escape(text), styles["body"])]
        case Item(text, mark):
            return [Paragraph(html.escape(text), styles["item"], bulletText=mark)]
        case Grid(rows):
            return [Spacer(1, 3), _ruled_table(rows, styles), Spacer(1, 7)]


def _ruled_table(rows: tuple[tuple[str, ...], ...], styles: dict[str, ParagraphStyle]) -> Table:
    cells = [
        [Paragraph(html.escape(cell), styles["cell" if n else "head"]) for cell in row] for n, row in enumerate(rows)
    ]
    lines = TableStyle(
        [
            ("GRID", (0, 0), (-1, -1), 0.5, colors.grey),
            ("BACKGROUND", (0, 0), (-1, 0), colors.whitesmoke),
            ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
        ]
    )
    # No row is split over two pages: a parser would see half a condition.
    return Table(cells, colWidths=[160 * mm / len(rows[0])] * len(rows[0]), repeatRows=1, style=lines, splitInRow=0)


def write_docx(blocks: list[Block], language: str, path: Path) -> None:
    """Write the blocks with Word's own heading, list and table styles."""
    document = Document()
    for block in blocks:
        _append(document, block)
    properties = document.core_properties
    properties.title = next(block.text for block in blocks if isinstance(block, Heading))
    properties.author = properties.last_modified_by = "Hanbit Bank"
    properties.language = language
    properties.created = properties.modified = DOCUMENT_DATE
    properties.comments = ""
    archive = io.BytesIO()
    document.save(archive)
    path.write_bytes(_with_fixed_dates(archive.getvalue()))


def _append(document: DocxDocument, block: Block) -> None:
    match block:
        case Heading(level, text):
            document.add_heading(text, level=level)
        case Prose(text):
            document.add_paragraph(text)
        case Item(text, mark):
            document.add_paragraph(text, style="List Bullet" if mark == "-" else "List Number")
        case Grid(rows):
            table = document.add_table(rows=0, cols=len(rows[0]), style="Table Grid")
            for row in rows:
                for cell, text in zip(table.add_row().cells, row, strict=True):
                    cell.text = text


def _with_fixed_dates(archive: bytes) -> bytes:
    """Return the same ZIP archive with `ARCHIVE_DATE` as the date of every member."""
    dated = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(dated, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            member = zipfile.ZipInfo(name, ARCHIVE_DATE)
            member.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(member, old.read(name))
    return dated.getvalue()


def build(sources: Path, out: Path) -> list[Path]:
    """Write the document of every source and return their paths."""
    for fonts in FONTS.values():
        if not fonts.standard:
            pdfmetrics.registerFont(UnicodeCIDFont(fonts.body))
            pdfmetrics.registerFont(UnicodeCIDFont(fonts.heading))
    paths = []
    for source in sorted(sources.glob("*/*.md")):
        language = source.parent.name
        path = out / language / source.stem
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = list(read_blocks(source.read_text(encoding="utf-8")))
        if path.suffix == ".pdf":
            write_pdf(blocks, FONTS[language], path)
        else:
            write_docx(blocks, language, path)
        paths.append(path)
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=DOCUMENTS)
    for document in build(SOURCES, parser.parse_args().out):
        print(document.relative_to(Path.cwd()) if document.is_relative_to(Path.cwd()) else document)
