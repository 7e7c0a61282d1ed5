"""Decode bytes (byte order marks, UTF-8, UTF-16, Korean code pages, Windows-1252), and parse text and Markdown."""

import re

import yaml

from ingest.parsing.parsed import Format, Parsed, Reason, Unreadable, one_page

_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_META_CHARSET = re.compile(
    rb"<meta[^>]{0,200}?charset\s{0,8}=\s{0,8}[\"']?\s{0,8}([a-zA-Z0-9_.:-]{2,40})", re.IGNORECASE
)
_PICTURE = re.compile(r"!\[([^\[\]]{0,500})\]\(")
_MARKDOWN = re.compile(r"^(#{1,6} \S|\|?[ :]*+(?:-{2,}+|(?<=:)-|-(?=:))(?=[ :-]*+\|)[ :|-]*+$|(```|~~~))", re.MULTILINE)

_FRONT_MATTER = re.compile(r"\A---\n(.{0,20000}?)\n(?:---|\.\.\.)\n", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_FIRST_HEADING = re.compile(r"^ {0,3}#{1,2}[ \t]++(\S.*)$", re.MULTILINE)


def decode(data: bytes) -> str:
    """Decode bytes in any encoding common in Korean and English offices; raise Unreadable if none fits."""
    for encoding in _candidates(data):
        try:
            text = data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
        if _is_text(text):
            return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    raise Unreadable(Reason.UNKNOWN_TYPE, "the bytes are neither a supported format nor text in a known encoding")


def _candidates(data: bytes) -> list[str]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return [encoding]
    head = data[:4096]
    if b"\x00" in head:  # UTF-16 without a byte order mark: in Latin text every other byte is zero
        return ["utf-16-le", "utf-16-be"] if head[1::2].count(0) >= head[0::2].count(0) else ["utf-16-be", "utf-16-le"]
    declared = _META_CHARSET.search(head)
    named = [declared.group(1).decode("ascii")] if declared else []
    korean = ["euc-kr", "cp949"] if _mostly_hangul(data) else []
    # UTF-8 precedes the declared encoding, because text with Hangul is never valid UTF-8 by accident.
    return ["utf-8", *named, *korean, "cp1252"]


def _mostly_hangul(data: bytes) -> bool:
    # Box-drawing characters and ㎡ exist in every code page.
    foreign = [c for c in data.decode("cp949", errors="replace") if ord(c) > 127 and (c.isalpha() or c == "\ufffd")]
    return sum("가" <= c <= "힣" for c in foreign) * 2 > len(foreign)


def _is_text(text: str) -> bool:
    sample = text[:65536]
    return len(_CONTROL.findall(sample)) * 100 <= len(sample)


def parse_text(text: str) -> Parsed:
    """Return plain text as one page; its format is Markdown if it contains Markdown syntax."""
    is_markdown = _MARKDOWN.search(text) is not None
    plain = without_pictures(_CONTROL.sub("", text).replace("\f", "\n\n"))
    return one_page(Format.MARKDOWN if is_markdown else Format.TEXT, plain.strip(), None)


def begins_markdown(text: str) -> bool:
    """Return whether text starts with a line unique to Markdown: a heading, a table's rule, a fence."""
    return _MARKDOWN.match(text) is not None


def without_pictures(text: str) -> str:
    """Replace each Markdown picture with its description, without its address.

    A client that renders the answer as Markdown would fetch the picture, which reveals who asked.
    """
    return "\n".join(_line_without_pictures(line) for line in text.split("\n")) if "](" in text else text


def _line_without_pictures(line: str) -> str:
    pieces: list[str] = []
    at, last_close = 0, line.rfind(")")
    for picture in _PICTURE.finditer(line):
        if picture.end() > last_close:
            break
        if picture.start() >= at:
            pieces += [line[at : picture.start()], picture.group(1)]
            at = line.index(")", picture.end()) + 1
    return "".join([*pieces, line[at:]])


def parse_markdown(text: str) -> Parsed:
    """Return Markdown without its front matter; the title is the front matter's, or else the first heading."""
    front_matter = _FRONT_MATTER.match(text)
    title = _front_title(front_matter.group(1)) if front_matter else None
    body = without_pictures(_COMMENT.sub("", text[front_matter.end() :] if front_matter else text))
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
