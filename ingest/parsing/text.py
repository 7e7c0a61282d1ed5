"""Decode bytes (byte order marks, UTF-8, UTF-16, Korean code pages, Windows-1252), and parse text and Markdown."""

import re

import yaml

from ingest.parsing.parsed import Format, Parsed, Reason, Unreadable, one_page

_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # control characters that no text contains
_META_CHARSET = re.compile(
    rb"<meta[^>]{0,200}?charset\s{0,8}=\s{0,8}[\"']?\s{0,8}([a-zA-Z0-9_.:-]{2,40})", re.IGNORECASE
)
_PICTURE = re.compile(r"!\[([^\[\]]{0,500})\]\(")  # up to the address
# A line of Markdown: a heading, the rule below a table's header, or a code fence.
_MARKDOWN = re.compile(r"^(#{1,6} \S|\|?[ :]*+(?:-{2,}+|(?<=:)-|-(?=:))(?=[ :-]*+\|)[ :|-]*+$|(```|~~~))", re.MULTILINE)
_FRONT_MATTER = re.compile(r"\A---\n(.{0,20000}?)\n(?:---|\.\.\.)\n", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_FIRST_HEADING = re.compile(r"^ {0,3}#{1,2}[ \t]++(\S.*)$", re.MULTILINE)


def decode(data: bytes) -> str:
    """Decode bytes in any encoding common in Korean and English offices; raise Unreadable if none fits."""
    for encoding in _candidate_encodings(data):
        try:
            text = data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
        if _is_text(text):
            return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    raise Unreadable(Reason.UNKNOWN_TYPE, "the bytes are neither a supported format nor text in a known encoding")


def is_unmapped(character: str) -> bool:
    """Return whether a character is U+FFFD or for private use, which extracted text has for unmapped glyphs."""
    return character == "\ufffd" or "\ue000" <= character <= "\uf8ff"


def _candidate_encodings(data: bytes) -> list[str]:
    """Return the encodings that the bytes may have, the likeliest first."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return [encoding]
    head = data[:4096]
    if b"\x00" in head:  # UTF-16 without a byte order mark: in Latin text every other byte is zero
        is_little_endian = head[1::2].count(0) >= head[0::2].count(0)
        return ["utf-16-le", "utf-16-be"] if is_little_endian else ["utf-16-be", "utf-16-le"]
    meta_charset = _META_CHARSET.search(head)
    declared = [meta_charset.group(1).decode("ascii")] if meta_charset else []
    korean = ["euc-kr", "cp949"] if _is_mostly_hangul(data) else []
    # UTF-8 precedes the declared encoding, because text with Hangul is never valid UTF-8 by accident.
    return ["utf-8", *declared, *korean, "cp1252"]


def _is_mostly_hangul(data: bytes) -> bool:
    """Return whether most letters outside ASCII are Hangul when the bytes are decoded as Korean."""
    text = data.decode("cp949", errors="replace")
    # Only letters count: box-drawing characters and ㎡ exist in every code page.
    foreign = [c for c in text if ord(c) > 127 and (c.isalpha() or c == "\ufffd")]
    return sum("가" <= c <= "힣" for c in foreign) * 2 > len(foreign)


def _is_text(text: str) -> bool:
    sample = text[:65536]
    return len(_CONTROL.findall(sample)) * 100 <= len(sample)  # at most 1% control characters


def parse_text(text: str) -> Parsed:
    """Return plain text as one page; its format is Markdown if it contains Markdown syntax."""
    is_markdown = _MARKDOWN.search(text) is not None
    page = without_pictures(_CONTROL.sub("", text).replace("\f", "\n\n"))
    return one_page(Format.MARKDOWN if is_markdown else Format.TEXT, page.strip(), None)


def begins_markdown(text: str) -> bool:
    """Return whether text starts with a line unique to Markdown: a heading, a table's rule, a fence."""
    return _MARKDOWN.match(text) is not None


def without_pictures(text: str) -> str:
    """Replace each Markdown picture with its description, without its address.

    A client that renders an answer as Markdown would fetch the picture and so reveal the customer's network address.
    """
    return "\n".join(_line_without_pictures(line) for line in text.split("\n")) if "](" in text else text


def _line_without_pictures(line: str) -> str:
    pieces: list[str] = []
    copied_to = 0
    last_close = line.rfind(")")
    for picture in _PICTURE.finditer(line):
        if picture.end() > last_close:  # the address is not closed: this is text, not a picture
            break
        if picture.start() >= copied_to:
            pieces += [line[copied_to : picture.start()], picture.group(1)]
            copied_to = line.index(")", picture.end()) + 1
    return "".join([*pieces, line[copied_to:]])


def parse_markdown(text: str) -> Parsed:
    """Return Markdown without its front matter; the title is the front matter's, or else the first heading."""
    front_matter = _FRONT_MATTER.match(text)
    title = _front_title(front_matter.group(1)) if front_matter else None
    content = text[front_matter.end() :] if front_matter else text
    body = without_pictures(_COMMENT.sub("", content))
    return one_page(Format.MARKDOWN, body.strip(), title or first_heading(body))


def first_heading(markdown: str) -> str | None:
    """Return the text of the first heading of level 1 or 2."""
    match = _FIRST_HEADING.search(markdown)
    return match.group(1).rstrip().rstrip("#").strip(" \t*_`") if match else None


def _front_title(block: str) -> str | None:
    try:
        fields = yaml.safe_load(block)
    except yaml.YAMLError:  # a horizontal rule that looks like front matter
        return None
    title = fields.get("title") if isinstance(fields, dict) else None
    return str(title) if title else None
