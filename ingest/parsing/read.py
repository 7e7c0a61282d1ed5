"""A file's bytes to `Parsed`: the format is judged by content, never by name. Runs in the limited process."""

import re
import zipfile
from pathlib import Path

from ingest.parsing.docx import parse_docx
from ingest.parsing.html import parse_html
from ingest.parsing.markdown import parse_markdown
from ingest.parsing.parsed import Format, Parsed, Reason, Unreadable
from ingest.parsing.pdf import parse_pdf
from ingest.parsing.text import decode, parse_text

MOST_CHARACTERS = 10_000_000  # ten long novels

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HTML = re.compile(r"<(!doctype\s+html|html|head|body|article|section|main|div|table|h[1-6]|p|ul|ol)\b", re.IGNORECASE)
_TAGS = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_MAIL = re.compile(r"\A(?:[A-Za-z-]{2,40}: .*\n(?:[ \t].*\n)*){2,}", re.MULTILINE)
_MAIL_FIELDS = re.compile(r"^(received|mime-version|message-id|return-path): ", re.IGNORECASE | re.MULTILINE)


def read_document(path: Path) -> Parsed:
    """Return the document in a file.

    Raises:
        Unreadable: with the reason.
    """
    with path.open("rb") as file:
        parsed = _parse(path, file.read(1024))
    if parsed.characters > MOST_CHARACTERS:
        raise Unreadable(Reason.TOO_LARGE, f"more than {MOST_CHARACTERS // 1_000_000} million characters")
    letters = [
        c for page in parsed.pages for c in page.markdown if c.isalnum() or c == "\ufffd" or "\ue000" <= c <= "\uf8ff"
    ]
    strange = sum(not c.isalnum() for c in letters)
    if strange * 3 > len(letters) > 0:
        raise Unreadable(Reason.UNREADABLE_TEXT, "the text is stored as symbols that no font maps to letters")
    if len(letters) < 2:
        raise Unreadable(Reason.EMPTY_TEXT, "no text could be read from it")
    return parsed


def _parse(path: Path, head: bytes) -> Parsed:
    if b"%PDF-" in head:
        return parse_pdf(path)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        _require_docx(path)
        return parse_docx(path)
    if head.startswith(_OLE):
        _refuse_ole(path)
    return _parse_text(decode(path.read_bytes()))


def _parse_text(text: str) -> Parsed:
    start = text.lstrip()[:65536]
    if not start:
        raise Unreadable(Reason.EMPTY_TEXT, "the file is empty")
    if start.startswith(("{\\rtf", "%!PS", "\x1b%-12345X")):
        raise Unreadable(Reason.UNKNOWN_TYPE, "RTF and PostScript files are not supported")
    if _MAIL.match(start) and _MAIL_FIELDS.search(start):
        raise Unreadable(Reason.UNKNOWN_TYPE, "e-mail messages are not supported yet")
    if is_html(start):
        return parse_html(text)
    if start.startswith("<?xml"):
        raise Unreadable(Reason.UNKNOWN_TYPE, "XML that is not a web page is not supported")
    plain = parse_text(text)
    return parse_markdown(text) if plain.format is Format.MARKDOWN else plain


def is_html(start: str) -> bool:
    """Tell whether text is a web page or a fragment of one, rather than Markdown that uses a tag or two."""
    if re.match(
        r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", start, re.IGNORECASE | re.DOTALL
    ):
        return True
    return start.startswith("<") and _HTML.match(start) is not None and len(_TAGS.findall(start)) >= 4


def _require_docx(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {entry.filename.lower() for entry in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OSError) as exc:
        raise Unreadable(Reason.MALFORMED, "the archive is damaged") from exc
    if "word/document.xml" in names or ("[content_types].xml" in names and any(n.startswith("word/") for n in names)):
        return
    kinds = {"xl/": "Excel workbooks", "ppt/": "PowerPoint files", "contents/": "HWPX documents"}
    found = next((kind for start, kind in kinds.items() if any(name.startswith(start) for name in names)), "archives")
    raise Unreadable(Reason.UNKNOWN_TYPE, f"{found} are not supported yet")


def _refuse_ole(path: Path) -> None:
    data = path.read_bytes()
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise Unreadable(Reason.ENCRYPTED, "the document is protected by a password")
    if "HwpSummaryInformation".encode("utf-16-le") in data or b"HWP Document File" in data:
        raise Unreadable(Reason.UNKNOWN_TYPE, "HWP documents are not supported yet")
    raise Unreadable(Reason.UNKNOWN_TYPE, "old Office formats (.doc, .xls, .ppt) are not supported: save as .docx")
