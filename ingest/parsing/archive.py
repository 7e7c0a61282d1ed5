"""Identify and unpack Office files (ZIP archives of XML parts), with size and content checks.

Declared sizes are checked before anything is unpacked. Only XML parts are unpacked, never beyond their declared size (a
part with more data fails its checksum).
"""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from io import BytesIO
from pathlib import Path
from posixpath import join, normpath
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ingest.parsing.parsed import Format, Reason, Unreadable

MOST_UNPACKED = 200 * 1024 * 1024
MOST_PARTS = 5000
MOST_RATIO = 200  # XML compresses about 10:1, a zip bomb 1000:1

# Default titles written by office programs.
_EDITORS_TITLES = {"word document", "powerpoint presentation", "powerpoint 프레젠테이션", "제목 없음", "untitled"}
_TITLE = re.compile(rb"<dc:title>([^<]{1,500})</dc:title>")
_DTD = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
_XML = (".xml", ".rels", ".hpf", ".rdf")
_MACROS = ("vbaproject.bin", "vbadata.xml")
_KINDS = ((Format.DOCX, "word/"), (Format.XLSX, "xl/"), (Format.PPTX, "ppt/"), (Format.HWPX, "contents/"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """An office file's format, its XML parts by name, and the names of its other parts, which are not unpacked."""

    format: Format
    parts: Mapping[str, bytes]
    other_names: tuple[str, ...]

    @property
    def title(self) -> str | None:
        """The title in the file's properties, or None if it is empty or an editor's default."""
        match = _TITLE.search(self.parts.get("docProps/core.xml", b""))
        text = unescape(match.group(1).decode("utf-8", "replace")).strip() if match else ""
        return None if not text or text.lower() in _EDITORS_TITLES else text

    def links(self, name: str, kind: str = "") -> dict[str, str]:
        """Return a part's internal relationships as {id: part name}; only those whose type ends with `kind`."""
        folder, _, file = name.rpartition("/")
        links = self.root(join(folder, "_rels", f"{file}.rels"))
        return {
            link.get("Id", ""): normpath(join("/", folder, link.get("Target", ""))).lstrip("/")
            for link in links
            if link.get("TargetMode") != "External" and link.get("Type", "").endswith(kind)
        }

    def root(self, name: str) -> Element:
        """Return a part's root element; an empty element if the part is missing."""
        return ElementTree.fromstring(self.parts.get(name, b"<none/>"))  # noqa: S314  `unpack` refuses entities

    def repack(self) -> BytesIO:
        """Return the archive with every non-XML part emptied, so that each link still has a target."""
        packed = BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
            for name, data in self.parts.items():
                archive.writestr(name, data)
            for name in self.other_names:
                archive.writestr(name, b"application/hwp+zip" if name == "mimetype" else b"")
        packed.seek(0)
        return packed


def local_name(element: Element) -> str:
    """Return an element's name without its namespace; "" for a comment."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def has_text(element: Element) -> bool:
    """Return whether an element contains text, including deleted text."""
    return any((inner.text or "").strip() for inner in element.iter() if local_name(inner) in {"t", "delText"})


def unpack(path: Path) -> Office:
    """Read an office file's parts; raise Unreadable if it is damaged, encrypted, hostile or too large."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check_declared(entries)
            kind = _kind([entry.filename.lower() for entry in entries])
            parts = {e.filename: _read_part(archive, e) for e in entries if e.filename.lower().endswith(_XML)}
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, ValueError, OSError) as exc:
        raise Unreadable(Reason.MALFORMED, "the archive is damaged") from exc
    if b"macroEnabled" in parts.get("[Content_Types].xml", b""):
        raise Unreadable(Reason.HOSTILE, "the file is of a kind that may carry macros: save it without them")
    if b"encryption-data" in parts.get("META-INF/manifest.xml", b""):
        raise Unreadable(Reason.ENCRYPTED, "the document is protected by a password")
    other_names = tuple(entry.filename for entry in entries if entry.filename not in parts)
    return Office(format=kind, parts=parts, other_names=other_names)


def _check_declared(entries: list[zipfile.ZipInfo]) -> None:
    """Check an archive's entries without unpacking them: their declared sizes, encryption flags and names."""
    declared_bytes = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_PARTS or declared_bytes > MOST_UNPACKED:
        raise Unreadable(Reason.TOO_LARGE, "the archive unpacks to more than 200 MiB or 5,000 parts")
    if any(entry.flag_bits & 1 for entry in entries):
        raise Unreadable(Reason.ENCRYPTED, "the archive is protected by a password")
    names = [entry.filename.lower() for entry in entries]
    if len(set(names)) < len(names):
        raise Unreadable(
            Reason.HOSTILE, "the archive holds two parts of one name: it is unknown which of them is shown"
        )
    if any(name.endswith(_MACROS) or name.startswith("xl/macrosheets/") for name in names):
        raise Unreadable(Reason.HOSTILE, "the document carries macros: save it without them")


def _kind(names: list[str]) -> Format:
    """Return the format that an archive's part names suggest; raise Unreadable for other archives."""
    kind = next((kind for kind, folder in _KINDS if any(name.startswith(folder) for name in names)), None)
    has_office_part = "[content_types].xml" in names or "contents/content.hpf" in names or "mimetype" in names
    if kind is None or not has_office_part:
        raise Unreadable(Reason.UNKNOWN_TYPE, "archives are not supported: upload the files inside one by one")
    return kind


def _read_part(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Unpack a part; raise Unreadable if it is damaged, compressed too far, or declares entities."""
    if entry.file_size > 1024 * 1024 and entry.file_size > MOST_RATIO * max(entry.compress_size, 1):
        raise Unreadable(Reason.HOSTILE, "the archive is compressed far more than any document")
    try:
        with archive.open(entry) as part:
            data = part.read()
    except (zipfile.BadZipFile, EOFError, ValueError) as exc:
        raise Unreadable(Reason.MALFORMED, "a part of the archive is damaged, or holds more than it declares") from exc
    if _DTD.search(data) or _DTD.search(data.replace(b"\x00", b"")):  # also matches UTF-16
        raise Unreadable(Reason.HOSTILE, "the document declares entities, which office documents never do")
    return data
