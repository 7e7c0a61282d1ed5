"""DOCX to Markdown by way of HTML (mammoth): headings, lists and tables survive; a DOCX has no pages until printed.

mammoth and markdownify instead of markitdown, because markitdown brings onnxruntime along for the same two calls.
"""

import re
import zipfile
from io import BytesIO
from pathlib import Path
from xml.etree.ElementTree import ParseError
from xml.parsers.expat import ExpatError

import mammoth
from bs4 import BeautifulSoup

from ingest.parsing.html import to_text
from ingest.parsing.markdown import first_heading
from ingest.parsing.parsed import Format, Page, Parsed, Reason, Unreadable

MOST_UNPACKED = 200 * 1024 * 1024
MOST_PARTS = 5000
MOST_RATIO = 200  # XML packs about 10 to 1; a bomb packs 1000 to 1

_STYLES = "\n".join(
    ["p[style-name='Title'] => h1:fresh", "p[style-name='제목'] => h1:fresh", "p[style-name='Subtitle'] => p:fresh"]
    + [f"p[style-name='제목 {level}'] => h{level}:fresh" for level in range(1, 7)]
)
_DTD = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
_TITLE = re.compile(rb"<dc:title>([^<]{1,500})</dc:title>")


def parse_docx(path: Path) -> Parsed:
    """Return a Word document's text.

    Raises:
        Unreadable: malformed, encrypted, hostile or too large once unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = _checked_parts(archive)
        safe = _packed_again(parts)
        # External pictures would be fetched by mammoth; without any pictures there is nothing to fetch.
        html = mammoth.convert_to_html(
            safe, style_map=_STYLES, convert_image=mammoth.images.img_element(_no_image)
        ).value
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zipfile.LargeZipFile) as exc:
        raise Unreadable(Reason.MALFORMED, "the archive is damaged") from exc
    except (ExpatError, ParseError, KeyError, ValueError, AttributeError, OSError) as exc:
        raise Unreadable(Reason.MALFORMED, "the document inside the archive is damaged") from exc
    markdown = to_text(BeautifulSoup(html, "lxml"))
    return Parsed(
        format=Format.DOCX,
        title=_title(parts.get("docProps/core.xml", b"")) or first_heading(markdown),
        pages=(Page(number=None, markdown=markdown),),
    )


def _no_image(_image: object) -> dict[str, str]:
    return {}


def _checked_parts(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """Return the XML parts, after their declared and their actual sizes were checked."""
    entries = archive.infolist()
    declared = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_PARTS or declared > MOST_UNPACKED:
        raise Unreadable(Reason.TOO_LARGE, "the archive unpacks to more than 200 MiB or 5,000 parts")
    if any(entry.flag_bits & 1 for entry in entries):
        raise Unreadable(Reason.ENCRYPTED, "the archive is protected by a password")
    if any(entry.filename.lower().endswith("vbaproject.bin") for entry in entries):
        raise Unreadable(Reason.HOSTILE, "the document carries macros: save it as .docx without them")
    parts: dict[str, bytes] = {}
    for entry in entries:
        if not entry.filename.lower().endswith((".xml", ".rels")):
            continue
        parts[entry.filename] = _read(archive, entry)
    return parts


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.file_size > 1024 * 1024 and entry.file_size > MOST_RATIO * max(entry.compress_size, 1):
        raise Unreadable(Reason.HOSTILE, "the archive is packed far more tightly than a document ever is")
    try:
        with archive.open(entry) as part:
            data = part.read(entry.file_size + 1)
    except (zipfile.BadZipFile, EOFError, ValueError) as exc:
        raise Unreadable(Reason.MALFORMED, "a part of the archive is damaged") from exc
    if len(data) > entry.file_size:
        raise Unreadable(Reason.HOSTILE, "the archive holds more than it declares")
    if _DTD.search(data) or _DTD.search(data.replace(b"\x00", b"")):  # the second for UTF-16
        raise Unreadable(Reason.HOSTILE, "the document declares entities, which a Word document never does")
    return data


def _packed_again(parts: dict[str, bytes]) -> BytesIO:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    packed.seek(0)
    return packed


def _title(core: bytes) -> str | None:
    found = _TITLE.search(core)
    text = BeautifulSoup(found.group(1), "lxml").get_text().strip() if found else ""
    # "Word Document" and "제목 없음" are what editors write when nobody gave a title.
    return None if not text or text.lower() in {"word document", "제목 없음", "untitled"} else text
