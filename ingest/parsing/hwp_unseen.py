"""What a reader of an HWP 5 document would not see of it: white and tiny letters, which become blanks.

A stream is a row of records with a level each. What letters look like is said in `DocInfo`; a section's paragraphs say
from which letter on which look holds (Hancom, "Hwp Document File Formats 5.0", revision 1.3).
"""

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import olefile

from ingest.parsing.colours import blends
from ingest.parsing.parsed import Reason, Unreadable

_COMPRESSED: Final = 1
_BORDER_FILL, _CHAR_SHAPE, _PARA_SHAPE = 0x14, 0x15, 0x19
_PARA_HEADER, _PARA_TEXT, _PARA_CHAR_SHAPE = 0x42, 0x43, 0x44
_CTRL_HEADER, _LIST_HEADER, _PAGE_BORDER_FILL = 0x47, 0x48, 0x4B
_LONG: Final = 0xFFF  # a size that stands in four bytes of its own
_TABLE, _SHAPE = b" lbt", b" osg"
_NONE: Final = 0xFFFFFFFF  # of a colour
_UNKNOWN: Final = -1  # a ground that is a picture or a gradient, or a shape's
_WHITE: Final = 0xFFFFFF
_SMALLEST: Final = 200  # hundredths of a point
_SMALLEST_PERCENT: Final = 10
_ALONE: Final = frozenset({0, 10, 13, *range(24, 32)})  # controls of one character; others take eight
_OF_A_CONTROL: Final = 8
_BLANK: Final = b" \0"
_STRUCK: Final = 0b111 << 18  # of what is said of letters: the line that crosses them


@dataclass(frozen=True, slots=True)
class _Record:
    kind: int
    level: int
    start: int
    data: bytes

    def number(self, form: str, at: int) -> int:
        """Return a number of the record; 0 where it is shorter."""
        size = struct.calcsize(form)
        return int(struct.unpack_from(form, self.data, at)[0]) if at + size <= len(self.data) else 0


def without_unseen(data: bytes, container: olefile.OleFileIO) -> bytes:
    """Return a document with blanks in place of the letters that nobody sees on its pages.

    Raises:
        Unreadable: it is packed so tightly that it cannot be written in its place.
    """
    (flags,) = struct.unpack_from("<I", container.openstream("FileHeader").read(), 36)
    is_packed = bool(flags & _COMPRESSED)
    looks = _Looks(list(_records(_unpacked(container.openstream("DocInfo").read(), is_packed=is_packed))))
    sections = [name for name in container.listdir() if name[0] == "BodyText"]
    changed = {}
    for name in sections:
        stored = container.openstream(name).read()
        section = _unpacked(stored, is_packed=is_packed)
        seen = _seen(section, looks)
        if seen != section:
            changed["/".join(name)] = _packed(seen, len(stored)) if is_packed else seen
    if not changed:
        return data
    copy = BytesIO(data)
    with olefile.OleFileIO(copy, write_mode=True) as written:
        for stream, content in changed.items():
            written.write_stream(stream, content)
    return copy.getvalue()


def _unpacked(stored: bytes, *, is_packed: bool) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored) if is_packed else stored
    except zlib.error as exc:
        raise Unreadable(Reason.MALFORMED, "the document is damaged") from exc


def _packed(section: bytes, room: int) -> bytes:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(section) + packer.flush()
    if len(packed) > room:
        raise Unreadable(Reason.HOSTILE, "the document has letters that nobody sees")
    return packed.ljust(room, b"\0")


def _records(stream: bytes) -> Iterator[_Record]:
    at = 0
    while at + 4 <= len(stream):
        (head,) = struct.unpack_from("<I", stream, at)
        at += 4
        size = head >> 20
        if size == _LONG and at + 4 <= len(stream):
            (size,) = struct.unpack_from("<I", stream, at)
            at += 4
        yield _Record(head & 0x3FF, head >> 10 & 0x3FF, at, stream[at : at + size])
        at += size


class _Looks:
    """What a document says of letters and of grounds, by their numbers."""

    def __init__(self, info: Sequence[_Record]) -> None:
        self._letters = [one for one in info if one.kind == _CHAR_SHAPE]
        self._paragraphs = [one for one in info if one.kind == _PARA_SHAPE]
        self._fills = [one for one in info if one.kind == _BORDER_FILL]

    def fill(self, number: int) -> int:
        """Return the colour of a ground, counted from 1."""
        if not 0 < number <= len(self._fills):
            return _NONE
        kind = self._fills[number - 1].number("<I", 32)
        return self._fills[number - 1].number("<I", 36) if kind == 1 else _UNKNOWN if kind else _NONE

    def paragraph(self, number: int) -> int:
        """Return the colour of a paragraph's ground."""
        return self.fill(self._paragraphs[number].number("<H", 32)) if number < len(self._paragraphs) else _NONE

    def is_unseen(self, number: int, grounds: Sequence[int]) -> bool:
        """Tell whether letters are struck out or tiny, or have the colour of the nearest ground."""
        if number >= len(self._letters):
            return False
        look = self._letters[number]
        if (
            look.number("<I", 46) & _STRUCK
            or look.number("<i", 42) < _SMALLEST
            or min(*look.data[14:21], *look.data[28:35]) < _SMALLEST_PERCENT
        ):
            return True
        ground = next((one for one in (look.number("<I", 60), *grounds) if one != _NONE), _WHITE)
        return ground != _UNKNOWN and blends(look.number("<I", 52).to_bytes(4), ground.to_bytes(4))


def _seen(section: bytes, looks: _Looks) -> bytes:
    """Return a section's records with blanks for the letters that nobody sees."""
    records = list(_records(section))
    pages = (looks.fill(one.number("<H", 12)) for one in records if one.kind == _PAGE_BORDER_FILL)
    grounds = _Grounds(looks, next((fill for fill in pages if fill != _NONE), _WHITE))
    seen = bytearray(section)
    text: _Record | None = None
    for record in records:
        grounds.take(record)
        if record.kind == _PARA_HEADER:
            text = None
        elif record.kind == _PARA_TEXT:
            text = record
        elif record.kind == _PARA_CHAR_SHAPE and text is not None:
            starts = [struct.unpack_from("<II", record.data, at) for at in range(0, len(record.data) - 7, 8)]
            around = grounds.around()
            unseen = [looks.is_unseen(number, around) for _, number in starts]
            for at in _letters(text) if any(unseen) else ():
                if unseen[max(bisect_right(starts, (at, _NONE)) - 1, 0)]:
                    seen[text.start + 2 * at : text.start + 2 * at + 2] = _BLANK
    return bytes(seen)


class _Grounds:
    """The grounds of the paragraph that is being read: its own, those of the lists it stands in, the page's."""

    def __init__(self, looks: _Looks, page: int) -> None:
        self._looks, self._page, self._own = looks, page, _NONE
        self._controls: dict[int, bytes] = {}  # level → name
        self._lists: dict[int, int] = {}  # level → colour

    def take(self, record: _Record) -> None:
        """Go on to a record."""
        level = record.level
        if record.kind == _CTRL_HEADER:
            self._controls = {at: name for at, name in self._controls.items() if at < level} | {level: record.data[:4]}
        elif record.kind == _LIST_HEADER:
            control = self._controls.get(max((at for at in self._controls if at < level), default=-1), b"")
            cell = self._looks.fill(record.number("<H", 32))
            fill = cell if control == _TABLE else _UNKNOWN if control == _SHAPE else _NONE
            self._lists = {at: one for at, one in self._lists.items() if at < level} | {level: fill}
        elif record.kind == _PARA_HEADER:
            self._lists = {at: fill for at, fill in self._lists.items() if at <= level}
            self._own = self._looks.paragraph(record.number("<H", 8))

    def around(self) -> list[int]:
        """Return the grounds from the nearest on."""
        return [self._own, *(self._lists[level] for level in sorted(self._lists, reverse=True)), self._page]


def _letters(text: _Record) -> Iterator[int]:
    """Yield the places of a paragraph's letters: a control between them takes one place or eight."""
    at, count = 0, len(text.data) // 2
    while at < count:
        (code,) = struct.unpack_from("<H", text.data, 2 * at)
        if code >= ord(" "):
            yield at
        at += 1 if code >= ord(" ") or code in _ALONE else _OF_A_CONTROL
