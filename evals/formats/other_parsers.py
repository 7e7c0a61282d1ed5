"""The text of a file by a parser that the product does not use, or uses in another way, for comparison with ours.

| format | compared with |
|---|---|
| PDF | pypdf; pages without a text layer: pytesseract as its manual has it, on a page turned upright |
| DOCX | python-docx |
| XLSX, PPTX | the text in the XML itself: inline and shared strings and numbers; text runs of slides |
| HWP, HWPX | python-hwpx |
| HTML | lxml's text of the body without scripts and styles |
| EML | the message's plain text part |
| PNG, JPEG, TIFF | pytesseract as its manual has it, on the first picture |
| CSV, Markdown, text | the file itself, decoded by charset-normalizer |
"""

import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from email import message_from_bytes
from pathlib import Path

import docx
import pypdfium2
import pytesseract
from charset_normalizer import from_bytes
from docx.table import Table
from hwpx import HwpxDocument
from lxml import etree, html
from PIL import Image
from pypdf import PageObject, PdfReader
from pypdf.errors import PyPdfError
from pytesseract import Output

from ingest.parsing import Format

OCR_SECONDS = 120
LEAST_LETTERS = 16
"""Of a page with a text layer, as in ingest/parsing/pdf.py."""
_SLIDE = re.compile(r"ppt/slides/slide\d+\.xml$")
_SHEET = re.compile(r"xl/worksheets/sheet\d+\.xml$")
_DIGITS = re.compile(r"\d+")
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"


def other_text(path: Path, kind: Format) -> str:
    """Return the text that another parser finds in a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PARSERS[kind](path)


def _pdf(path: Path) -> str:
    with pypdfium2.PdfDocument(path) as document:
        pages = []
        for index, page in enumerate(PdfReader(path).pages):
            text = _extracted(page)
            has_text = sum(map(str.isalnum, text)) >= LEAST_LETTERS
            pages.append(text if has_text else _recognised(document[index]) or text)
    return "\n".join(_without_repeats(pages))


def _without_repeats(pages: Sequence[str]) -> Iterator[str]:
    """Yield the pages with headers and footers only once: lines that most of at least three pages have."""
    keyed = [[(_DIGITS.sub("0", line.strip()), line) for line in page.split("\n")] for page in pages]
    on_pages = Counter(key for page in keyed for key in {key for key, _ in page})
    running = {key for key, count in on_pages.items() if len(pages) >= 3 and count * 2 > len(pages)}
    seen: set[str] = set()
    for page in keyed:
        yield "\n".join(line for key, line in page if key not in running & seen)
        seen.update(key for key, _ in page)


def _extracted(page: PageObject) -> str:
    try:
        return page.extract_text()
    except PyPdfError:  # a page that pypdf cannot read is not compared
        return ""


def _recognised(page: pypdfium2.PdfPage) -> str:
    if not any(True for _ in page.get_objects(max_depth=2)):
        return ""
    width, height = page.get_size()
    picture = page.render(scale=min(300 / 72, 3000 / max(width, height))).to_pil()
    try:
        turned = int(pytesseract.image_to_osd(picture, output_type=Output.DICT, timeout=OCR_SECONDS)["rotate"])
    except pytesseract.TesseractError:  # too little text to tell
        turned = 0
    upright = picture.rotate(-turned, expand=True)
    return str(pytesseract.image_to_string(upright, lang="kor+eng", timeout=OCR_SECONDS))


def _docx(path: Path) -> str:
    return "\n".join(_blocks(docx.Document(str(path)).iter_inner_content()))


def _blocks(blocks: Iterator[object]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, Table):
            for row in block.rows:
                for cell in row.cells:
                    yield from _blocks(cell.iter_inner_content())
        else:
            yield str(getattr(block, "text", ""))


def _xlsx(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        shared = []
        if "xl/sharedStrings.xml" in archive.namelist():
            strings = etree.fromstring(archive.read("xl/sharedStrings.xml"))
            shared = ["".join(item.itertext("{*}t")) for item in strings]
        values: list[str] = []
        for name in filter(_SHEET.match, archive.namelist()):
            for cell in etree.fromstring(archive.read(name)).iter("{*}c"):
                value = "".join(cell.itertext("{*}v", "{*}t"))
                values.append(shared[int(value)] if cell.get("t") == "s" and value else value)
    return "\n".join(values)


def _pptx(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        slides = [etree.fromstring(archive.read(name)) for name in filter(_SLIDE.match, archive.namelist())]
    return "\n".join(run.text or "" for slide in slides for run in slide.iter(f"{_A}t"))


def _hwp(path: Path) -> str:
    return str(HwpxDocument.open(str(path)).text.plain())


def _html(path: Path) -> str:
    page = html.document_fromstring(path.read_bytes())
    etree.strip_elements(page, "script", "style", "head", etree.Comment, with_tail=False)
    return str(page.text_content())


def _eml(path: Path) -> str:
    message = message_from_bytes(path.read_bytes())
    parts = [part for part in message.walk() if part.get_content_type() == "text/plain" and not part.get_filename()]
    payloads = [(part.get_payload(decode=True), part.get_content_charset() or "utf-8") for part in parts]
    return "\n".join(data.decode(charset, "replace") for data, charset in payloads if isinstance(data, bytes))


def _plain(path: Path) -> str:
    return str(from_bytes(path.read_bytes()).best() or "")


def _picture(path: Path) -> str:
    with Image.open(path) as image:
        text: str = pytesseract.image_to_string(image, lang="kor+eng", timeout=OCR_SECONDS)
        return text


PARSERS: Mapping[Format, Callable[[Path], str]] = {
    Format.PDF: _pdf,
    Format.DOCX: _docx,
    Format.XLSX: _xlsx,
    Format.PPTX: _pptx,
    Format.HWP: _hwp,
    Format.HWPX: _hwp,
    Format.HTML: _html,
    Format.EML: _eml,
    Format.CSV: _plain,
    Format.PNG: _picture,
    Format.JPEG: _picture,
    Format.TIFF: _picture,
    Format.MARKDOWN: _plain,
    Format.TEXT: _plain,
}
