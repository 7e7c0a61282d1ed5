"""HWP 5 and HWPX, documents of the Korean word processor Hangul, to Markdown by unhwp; merged cells are filled in.

An HWP 5 file is an OLE container of deflated streams: each is inflated once with a limit before unhwp reads the file.
A distribution copy (배포용) encrypts its text for Hancom's own viewer; its plain text is a placeholder sentence.
"""

import re
import struct
import zlib
from dataclasses import replace
from xml.etree import ElementTree

import olefile
import unhwp
from bs4 import BeautifulSoup

from ingest.parsing.archive import MOST_UNPACKED, Office
from ingest.parsing.elements import local
from ingest.parsing.html import to_text
from ingest.parsing.hwp_unseen import without_unseen
from ingest.parsing.hwpx_unseen import Looks
from ingest.parsing.markdown import first_heading
from ingest.parsing.parsed import Format, Page, Parsed, Reason, Unreadable
from ingest.parsing.raised import raised

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


def parse_hwp(data: bytes, container: olefile.OleFileIO) -> Parsed:
    """Return an HWP 5 document.

    Raises:
        Unreadable: protected, encrypted, hostile or malformed.
    """
    _check_flags(container)
    _check_streams(container)
    return _parsed(Format.HWP, without_unseen(data, container), None)


def parse_hwpx(office: Office) -> Parsed:
    """Return an HWPX document.

    Raises:
        Unreadable: protected, encrypted or malformed.
    """
    try:
        seen = _seen(office)
    except (ElementTree.ParseError, ValueError) as exc:
        raise Unreadable(Reason.MALFORMED, "the document inside the archive is damaged") from exc
    return _parsed(Format.HWPX, seen.packed_again().getvalue(), office.title)


def _seen(office: Office) -> Office:
    """Return the document without what nobody sees on its pages."""
    # `archive` has refused every part that declares an entity.
    named = {name: part for name, part in office.parts.items() if name.lower().startswith("contents/")}
    roots = {name: ElementTree.fromstring(part) for name, part in named.items()}  # noqa: S314  as said above
    looks = Looks.of([root for root in roots.values() if local(root) == "head"])
    parts = dict(office.parts)
    for name, root in roots.items():
        if local(root) == "sec":
            looks.remove_unseen(root)
            parts[name] = ElementTree.tostring(root, "utf-8")
    return replace(office, parts=parts)


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
    left = MOST_UNPACKED
    for name in container.listdir():
        left -= _inflated(container.openstream(name).read(), left)
        if left < 0:
            raise Unreadable(Reason.HOSTILE, "the document unpacks to more than 200 MiB")


def _inflated(data: bytes, most: int) -> int:
    """Return the size of an inflated stream in bytes, counted until it exceeds `most`."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    try:
        while data and not inflater.eof and total <= most:
            total += len(inflater.decompress(data, 1024 * 1024))
            data = inflater.unconsumed_tail
    except zlib.error:
        return max(total, len(data))  # stored as it is
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
    return Parsed(
        format=kind,
        title=title or first_heading(markdown),
        pages=(Page(number=None, markdown=markdown),),
    )


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
    """Return letters without the marks of their boldness where these would tear a figure apart."""
    inner, text = bold[1], bold.string
    borders = text[bold.start() - 1 : bold.start()] + inner[0], inner[-1] + text[bold.end() : bold.end() + 1]
    return inner if any(map(_IN_FIGURE.fullmatch, borders)) else bold[0]
