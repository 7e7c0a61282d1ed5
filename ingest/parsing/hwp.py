"""HWP 5 and HWPX (Hancom's Korean word processor Hangul) to Markdown by unhwp; merged cells are filled in.

An HWP 5 file is an OLE container of deflated streams; each is inflated once, up to a limit, before unhwp reads the
file. A distribution copy (배포용) encrypts its text for Hancom's viewer; its plain text is a placeholder sentence.
"""

import re
import struct
import zlib
from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import olefile
import unhwp
from bs4 import BeautifulSoup

from ingest.parsing.archive import MOST_UNPACKED, Office, has_text, local_name
from ingest.parsing.html import to_text
from ingest.parsing.parsed import Format, LeftOut, Parsed, Reason, Unreadable, one_page
from ingest.parsing.superscripts import as_superscript
from ingest.parsing.text import first_heading

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # the first bytes of an OLE container
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_OUTLOOK_STREAM = re.compile(r"__properties_version1\.0|__substg1\.0_", re.IGNORECASE)
_PASSWORD, _DISTRIBUTION, _DRM = 1 << 1, 1 << 2, 1 << 4  # flags of the file header
_CERTIFIED = 1 << 8  # encrypted with a certificate
_PLACEHOLDER = re.compile(r"배포용 문서입니다\.\s{0,4}문서를 읽으려면")
_TABLE = re.compile(r"<table>.*?(?:</table>|\Z)", re.DOTALL)
_IMAGE = re.compile(r"!\[[^\[\]]*+\]\([^\[)]*+\)")
_BOLD = re.compile(r"\*\*([^*\n]{1,400})\*\*")
_IN_NUMBER = re.compile(r"\d\S|\S\d")  # two characters that may belong to one number
_SUP = re.compile(r"<sup>([^<>]{0,200})</sup>")
_BREAK = re.compile(r"<br\s*/?>")
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*+\n){2,}")
_LAYOUT = unhwp.RenderOptions(table_fallback="html", escape_special_chars=False)
_REFUSALS = {
    unhwp.ErrorKind.ENCRYPTED: (Reason.ENCRYPTED, "the document is protected by a password"),
    unhwp.ErrorKind.DISTRIBUTION_RESTRICTED: (Reason.PROTECTED, "it is a distribution copy: upload the original"),
    unhwp.ErrorKind.UNSUPPORTED_FORMAT: (Reason.UNKNOWN_TYPE, "this version of HWP is not supported: save it as HWPX"),
}


def parse_ole(path: Path) -> Parsed:
    """Parse an HWP 5 document; raise Unreadable for other OLE files."""
    data = path.read_bytes()
    if _ENCRYPTED_PACKAGE in data:
        raise Unreadable(Reason.ENCRYPTED, "the document is protected by a password")
    try:
        with olefile.OleFileIO(BytesIO(data)) as container:
            names = {"/".join(parts) for parts in container.listdir()}
            if "FileHeader" in names and any(name.startswith("BodyText/") for name in names):
                _check_flags(container)
                _check_streams(container)
                return _parse_bytes(Format.HWP, data, None)
    except (OSError, ValueError, IndexError, TypeError, AttributeError) as exc:
        raise Unreadable(Reason.MALFORMED, "the file's container is damaged") from exc
    if any(_OUTLOOK_STREAM.match(name) for name in names):
        raise Unreadable(Reason.UNKNOWN_TYPE, "Outlook's .msg files are not supported: save the message as .eml")
    raise Unreadable(Reason.UNKNOWN_TYPE, "old Office formats (.doc, .xls, .ppt) are not supported: save as .docx")


def parse_hwpx(office: Office) -> Parsed:
    """Parse an HWPX document."""
    visible, left_out = _without_hidden(office)
    return replace(_parse_bytes(Format.HWPX, visible.repack().getvalue(), office.title), left_out=+left_out)


def _without_hidden(office: Office) -> tuple[Office, Counter[LeftOut]]:
    """Return the document without memos, hidden comments and deleted text, and the number of each."""
    parts = dict(office.parts)
    left_out = Counter[LeftOut]()
    for name in (name for name in office.parts if name.lower().startswith("contents/")):
        root = office.root(name)
        if local_name(root) != "sec":
            continue
        left_out[LeftOut.DELETED] += _remove_deleted(root)
        for comment in [element for element in root.iter() if _is_comment(element)]:
            left_out[LeftOut.COMMENT] += has_text(comment)
            comment[:] = []
        parts[name] = ElementTree.tostring(root, "utf-8")
    return replace(office, parts=parts), left_out


def _remove_deleted(root: Element) -> int:
    """Remove the text of tracked deletions that have an end; return the number of those that contain text."""
    ids_with_end = {element.get("Id") for element in root.iter() if local_name(element) == "deleteEnd"}
    open_ids: set[str | None] = set()
    ids_with_text: set[str | None] = set()
    for element in root.iter():
        if local_name(element) == "deleteBegin" and element.get("Id") in ids_with_end:
            open_ids.add(element.get("Id"))
        elif local_name(element) == "deleteEnd":
            open_ids.discard(element.get("Id"))
        if open_ids:
            if f"{element.text or ''}{element.tail or ''}".strip():
                ids_with_text |= open_ids
            element.text = element.tail = None
    return len(ids_with_text)


def _is_comment(element: Element) -> bool:
    is_memo = local_name(element) == "fieldBegin" and element.get("type") == "MEMO"
    return is_memo or local_name(element) == "hiddenComment"


def _check_flags(container: olefile.OleFileIO) -> None:
    header = container.openstream("FileHeader").read(256)
    if len(header) < 40:
        raise Unreadable(Reason.MALFORMED, "the document's header is damaged")
    (flags,) = struct.unpack_from("<I", header, 36)
    if flags & (_PASSWORD | _DRM | _CERTIFIED):
        raise Unreadable(Reason.ENCRYPTED, "the document is protected by a password or a certificate")
    if flags & _DISTRIBUTION:
        raise Unreadable(Reason.PROTECTED, "it is a distribution copy (배포용): upload the original")


def _check_streams(container: olefile.OleFileIO) -> None:
    allowed_bytes = MOST_UNPACKED
    for name in container.listdir():
        allowed_bytes -= _inflated_size(container.openstream(name).read(), allowed_bytes)
        if allowed_bytes < 0:
            raise Unreadable(Reason.HOSTILE, "the document unpacks to more than 200 MiB")


def _inflated_size(data: bytes, most: int) -> int:
    """Return the inflated size of a stream in bytes; stops once it exceeds `most`."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    try:
        while data and not inflater.eof and total <= most:
            total += len(inflater.decompress(data, 1024 * 1024))
            data = inflater.unconsumed_tail
    except zlib.error:
        return max(total, len(data))  # not compressed
    return total


def _parse_bytes(kind: Format, data: bytes, title: str | None) -> Parsed:
    """Parse a document with unhwp; raise Unreadable if it is damaged or a distribution copy."""
    try:
        with unhwp.parse_bytes(data, render_options=_LAYOUT) as result:
            rendered = result.markdown
    except unhwp.UnhwpError as exc:
        reason, detail = _REFUSALS.get(exc.kind, (Reason.MALFORMED, "the document is damaged"))
        raise Unreadable(reason, detail) from exc
    if len(rendered) < 2000 and _PLACEHOLDER.search(rendered):
        raise Unreadable(Reason.PROTECTED, "it is a distribution copy (배포용): upload the original")
    markdown = _tidy(rendered)
    return one_page(kind, markdown, title or first_heading(markdown))


def _tidy(rendered: str) -> str:
    """Rewrite unhwp's Markdown: HTML tables, superscripts and line breaks as Markdown, without images."""
    text = _TABLE.sub(lambda table: f"\n\n{to_text(BeautifulSoup(table.group(), 'lxml'))}\n\n", rendered)
    text = _BOLD.sub(_without_bold_in_number, _IMAGE.sub("", text))
    text = _SUP.sub(lambda sup: as_superscript(sup[1], sup.string[max(0, sup.start() - 2) : sup.start()]), text)
    lines = (
        _BREAK.sub(" " if line.startswith("|") else "\n\n", line).rstrip().replace("\u3000", " ")
        for line in text.split("\n")
    )
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def _without_bold_in_number(bold: re.Match[str]) -> str:
    """Return bold text without its marks if they would split a number, otherwise unchanged."""
    inner, text = bold[1], bold.string
    at_start = text[bold.start() - 1 : bold.start()] + inner[0]
    at_end = inner[-1] + text[bold.end() : bold.end() + 1]
    return inner if _IN_NUMBER.fullmatch(at_start) or _IN_NUMBER.fullmatch(at_end) else bold[0]
