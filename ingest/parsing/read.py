"""A file's bytes to `Parsed`; the format is detected from content, never from the name. Runs in the sandbox."""

import re
from pathlib import Path
from xml.parsers.expat import ExpatError
from zipfile import BadZipFile

from openpyxl.utils.exceptions import InvalidFileException
from pptx.exc import PythonPptxError

from ingest.parsing.archive import unpack
from ingest.parsing.delimited import delimiter_of, parse_delimited
from ingest.parsing.docx import parse_docx
from ingest.parsing.html import parse_html
from ingest.parsing.hwp import MAGIC, parse_hwpx, parse_ole
from ingest.parsing.image import image_format, lines_of_image
from ingest.parsing.mail import is_mail, parse_mail
from ingest.parsing.parsed import MOST_CHARACTERS, Format, OnPage, Parsed, Reason, Unreadable
from ingest.parsing.pdf import ReadPage, assemble, is_pdf, parse_pdf
from ingest.parsing.pptx import parse_pptx
from ingest.parsing.text import decode, is_unmapped, parse_markdown, parse_text
from ingest.parsing.xlsx import parse_xlsx

# An element of a web page's body or head at the start of a text, after comments.
_HTML_FRAGMENT = re.compile(
    r"\A(?:<!--(?:(?!-->).)*+-->\s*+)*+"
    r"<(!doctype\s+html|html|head|meta|title|link|base|style|form|body|article|section|main|div|table|h[1-6]|p|ul|ol)\b",
    re.IGNORECASE | re.DOTALL,
)
# The first tag of a whole web page, after an XML declaration and comments.
_HTML_PAGE = re.compile(
    r"\A(?:<\?xml[^>]*+>\s*+)?(?:<!--(?:(?!-->).)*+-->\s*+)*+<(?:!doctype\s{1,8}html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)
_PARSER_ERRORS = (
    BadZipFile, InvalidFileException, PythonPptxError, ExpatError, SyntaxError, LookupError, ValueError, TypeError,
    AttributeError, OSError, ArithmeticError, NotImplementedError,
)  # fmt: skip
"""Exceptions that the libraries raise for an office file with inconsistent parts."""
_TAGS = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")


def ignore_page() -> None:
    """Do nothing at the start of a page, so that all pages share one time limit."""


def read_document(path: Path, on_page: OnPage = ignore_page) -> Parsed:
    """Parse a file, or raise Unreadable; call `on_page` before each page that gets its own time limit."""
    with path.open("rb") as file:
        head = file.read(65536)
    parsed = _parse(path, head, on_page)
    if parsed.characters > MOST_CHARACTERS:
        raise Unreadable(Reason.TOO_LARGE, f"more than {MOST_CHARACTERS // 1_000_000} million characters")
    letters = sum(c.isalnum() for page in parsed.pages for c in page.markdown)
    unmapped = sum(is_unmapped(c) for page in parsed.pages for c in page.markdown)
    if unmapped * 2 > letters:
        raise Unreadable(Reason.UNREADABLE_TEXT, "the text is stored as symbols that no font maps to letters")
    if letters < 2:
        raise Unreadable(Reason.EMPTY_TEXT, "no text could be read from it")
    return parsed


def _parse(path: Path, head: bytes, on_page: OnPage) -> Parsed:
    if is_pdf(head):
        return parse_pdf(path, on_page)
    if kind := image_format(head):
        return assemble(kind, [ReadPage([*lines]) for lines in lines_of_image(path, on_page)], "")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _parse_office(path, on_page)
    if head.startswith(MAGIC):
        return parse_ole(path)
    if is_mail(head):
        return parse_mail(path.read_bytes())
    return _parse_text(decode(path.read_bytes()))


def _parse_office(path: Path, on_page: OnPage) -> Parsed:
    office = unpack(path)
    try:
        if office.format is Format.XLSX:
            return parse_xlsx(office, on_page)
        if office.format is Format.PPTX:
            return parse_pptx(office, on_page)
        if office.format is Format.DOCX:
            return parse_docx(office)
        return parse_hwpx(office)
    except _PARSER_ERRORS as exc:
        where = f" ({exc})" if isinstance(exc, (ExpatError, SyntaxError)) else ""  # their line and column
        raise Unreadable(Reason.MALFORMED, f"the document inside the archive is damaged{where}") from exc


def _parse_text(text: str) -> Parsed:
    start = text.lstrip()[:65536]
    if not start:
        raise Unreadable(Reason.EMPTY_TEXT, "the file is empty")
    if start.startswith(("{\\rtf", "%!PS", "\x1b%-12345X")):
        raise Unreadable(Reason.UNKNOWN_TYPE, "RTF and PostScript files are not supported")
    if is_html(start):
        return parse_html(text)
    if start.startswith("<?xml"):
        raise Unreadable(Reason.UNKNOWN_TYPE, "XML that is not a web page is not supported")
    delimiter = delimiter_of(text)
    if delimiter is not None:
        return parse_delimited(text, delimiter)
    as_text = parse_text(text)
    return parse_markdown(text) if as_text.format is Format.MARKDOWN else as_text


def is_html(start: str) -> bool:
    """Return whether text is a web page, or a fragment of one with at least four tags; Markdown may have fewer."""
    if _HTML_PAGE.match(start):
        return True
    return start.startswith("<") and _HTML_FRAGMENT.match(start) is not None and len(_TAGS.findall(start)) >= 4
