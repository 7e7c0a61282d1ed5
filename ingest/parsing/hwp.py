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

from ingest.parsing.archive import MOST_UNPACKED, Office, has_text, local
from ingest.parsing.html import to_text
from ingest.parsing.parsed import Format, LeftOut, Parsed, Reason, Unreadable, one_page
from ingest.parsing.raised import raised
from ingest.parsing.text import first_heading

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""The first bytes of an OLE container."""
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_MESSAGE = re.compile(r"__properties_version1\.0|__substg1\.0_", re.IGNORECASE)
_PASSWORD, _DISTRIBUTION, _DRM = 1 << 1, 1 << 2, 1 << 4
_CERTIFIED = 1 << 8  # encrypted with a certificate
_PLACEHOLDER = re.compile(r"배포용 문서입니다\.\s{0,4}문서를 읽으려면")
_TABLE = re.compile(r"<table>.*?(?:</table>|\Z)", re.DOTALL)
_IMAGE = re.compile(r"!\[[^\[\]]*+\]\([^\[)]*+\)")
_BOLD = re.compile(r"\*\*([^*\n]{1,400})\*\*")
_IN_FIGURE = re.compile(r"\d\S|\S\d")
_SUP = re.compile(r"<sup>([^<>]{0,200})</sup>")
_BREAK = re.compile(r"<br\s*/?>")
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*+\n){2,}")
_LAYOUT = unhwp.RenderOptions(table_fallback="html", escape_special_chars=False)
_KINDS = {
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
                return _parsed(Format.HWP, data, None)
    except (OSError, ValueError, IndexError, TypeError, AttributeError) as exc:
        raise Unreadable(Reason.MALFORMED, "the file's container is damaged") from exc
    if any(_MESSAGE.match(name) for name in names):
        raise Unreadable(Reason.UNKNOWN_TYPE, "Outlook's .msg files are not supported: save the message as .eml")
    raise Unreadable(Reason.UNKNOWN_TYPE, "old Office formats (.doc, .xls, .ppt) are not supported: save as .docx")


def parse_hwpx(office: Office) -> Parsed:
    """Parse an HWPX document."""
    shown, left_out = _shown(office)
    return replace(_parsed(Format.HWPX, shown.packed_again().getvalue(), office.title), left_out=+left_out)


def _shown(office: Office) -> tuple[Office, Counter[LeftOut]]:
    """Return the document without memos, hidden comments and deleted text, and the number of each."""
    parts, left_out = dict(office.parts), Counter[LeftOut]()
    for name in office.parts:
        if name.lower().startswith("contents/") and local(root := office.root(name)) == "sec":
            left_out[LeftOut.DELETED] += _remove_deleted(root)
            for aside in [one for one in root.iter() if _is_aside(one)]:
                left_out[LeftOut.COMMENT] += has_text(aside)
                aside[:] = []
            parts[name] = ElementTree.tostring(root, "utf-8")
    return replace(office, parts=parts), left_out


def _remove_deleted(root: Element) -> int:
    """Remove the text of tracked deletions; return the number that contain text."""
    ended = {one.get("Id") for one in root.iter() if local(one) == "deleteEnd"}
    open_ones: set[str | None] = set()
    deleted: set[str | None] = set()
    for element in root.iter():
        if local(element) == "deleteBegin" and element.get("Id") in ended:
            open_ones.add(element.get("Id"))
        elif local(element) == "deleteEnd":
            open_ones.discard(element.get("Id"))
        if open_ones:
            deleted |= open_ones if f"{element.text or ''}{element.tail or ''}".strip() else set()
            element.text = element.tail = None
    return len(deleted)


def _is_aside(element: Element) -> bool:
    return local(element) == "hiddenComment" or (local(element) == "fieldBegin" and element.get("type") == "MEMO")


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
    bytes_left = MOST_UNPACKED
    for name in container.listdir():
        bytes_left -= _inflated(container.openstream(name).read(), bytes_left)
        if bytes_left < 0:
            raise Unreadable(Reason.HOSTILE, "the document unpacks to more than 200 MiB")


def _inflated(data: bytes, most: int) -> int:
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


def _parsed(kind: Format, data: bytes, title: str | None) -> Parsed:
    try:
        with unhwp.parse_bytes(data, render_options=_LAYOUT) as result:
            rendered = result.markdown
    except unhwp.UnhwpError as exc:
        reason, detail = _KINDS.get(exc.kind, (Reason.MALFORMED, "the document is damaged"))
        raise Unreadable(reason, detail) from exc
    if _PLACEHOLDER.search(rendered[:2000]) and len(rendered) < 2000:
        raise Unreadable(Reason.PROTECTED, "it is a distribution copy (배포용): upload the original")
    markdown = _tidied(rendered)
    return one_page(kind, markdown, title or first_heading(markdown))


def _tidied(rendered: str) -> str:
    with_tables = _TABLE.sub(lambda match: f"\n\n{to_text(BeautifulSoup(match.group(), 'lxml'))}\n\n", rendered)
    whole = _BOLD.sub(_joined, _IMAGE.sub("", with_tables))
    plain = _SUP.sub(lambda match: raised(match[1], whole[max(0, match.start() - 2) : match.start()]), whole)
    lines = (
        _BREAK.sub(" " if line.startswith("|") else "\n\n", line).rstrip().replace("\u3000", " ")
        for line in plain.split("\n")
    )
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def _joined(bold: re.Match[str]) -> str:
    """Drop bold marks that would split a figure."""
    inner, text = bold[1], bold.string
    borders = text[bold.start() - 1 : bold.start()] + inner[0], inner[-1] + text[bold.end() : bold.end() + 1]
    return inner if any(map(_IN_FIGURE.fullmatch, borders)) else bold[0]
