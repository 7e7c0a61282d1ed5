"""Rewrite Word constructs that mammoth drops or puts in the wrong column. Pure.

mammoth ignores unknown elements around runs (fields, text direction), so they are unwrapped. A formula becomes one
line, a carriage return a line break, an alignment tab a tab. Symbol codes are upper-cased. A row that starts at a later
column gets an empty cell for the skipped ones.
"""

import re
from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element, SubElement

from ingest.parsing.archive import local

_W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_BOX: Final = f"{_W}txbxContent"
_LETTER: Final = re.compile(r"(?!D[89A-F]|0)[0-9A-F]{4}|0[1-9A-F][0-9A-F]{2}")
_M: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_STRICT_M: Final = "{http://purl.oclc.org/ooxml/officeDocument/math}"
_HOLDERS: Final = frozenset(f"{_W}{name}" for name in ("p", "r", "hyperlink", "sdtContent", "del", "moveFrom"))
"""Elements that mammoth reads or deliberately omits."""
_RENAMED: Final = {f"{_W}cr": f"{_W}br", f"{_W}ptab": f"{_W}tab"}
_AROUND: Final = {
    "num": ("(", ")"), "den": ("/(", ")"), "sup": ("^(", ")"), "sub": ("_(", ")"), "rad": ("√(", ")"), "d": ("(", ")"),
    "fName": ("", " "), "mr": ("", " "), "eqArr": ("", " "),
}  # fmt: skip
"""Signs written around the parts of a formula, which the file sets above, below or smaller."""


def normalise_for_mammoth(root: Element) -> None:
    """Rewrite a part with elements that mammoth supports."""
    _take_text_boxes(root)
    for element in reversed(list(root.iter())):  # innermost first
        children = list(element)
        if element.tag in _RENAMED:
            element.tag = _RENAMED[element.tag]
        elif element.tag == f"{_W}sym":
            _normalise_symbol(element)
        if any(map(_is_loose, children)):
            element[:] = [inner for child in children for inner in _loosened(child)]
    for row in root.iter(f"{_W}tr"):
        _fill(row)


def _take_text_boxes(root: Element) -> None:
    """Rewrite text boxes for mammoth, which reads the fallback for older programs instead of the visible box."""
    for parent in list(root.iter()):
        for at, child in enumerate(parent):
            shown_child = child.find("{*}Choice") if local(child) == "AlternateContent" else child
            if shown_child is None or (shown_child is child and local(child) != "drawing"):
                continue
            boxes = list(shown_child.iter(_BOX))
            inner = {nested for box in boxes for nested in box.iter(_BOX) if nested is not box}
            if boxes:
                parent[at] = Element(f"{_W}pict")
                parent[at][:] = [box for box in boxes if box not in inner]


def _normalise_symbol(symbol: Element) -> None:
    """Upper-case a symbol's code for mammoth; outside the private use area, write its character as text."""
    code = symbol.get(f"{_W}char", "").upper()
    symbol.set(f"{_W}char", code)
    if _LETTER.fullmatch(code) and not 0xE000 <= int(code, 16) <= 0xF8FF:
        symbol.tag, symbol.text = f"{_W}t", chr(int(code, 16))


def _is_loose(element: Element) -> bool:
    """Return whether an element is a formula, or only a wrapper around runs."""
    if element.tag in {f"{_M}oMath", f"{_STRICT_M}oMath"}:
        return True
    is_known = element.tag in _HOLDERS or not str(element.tag).startswith((_W, _M, _STRICT_M))
    return not is_known and element.find(f"{_W}r") is not None


def _loosened(element: Element) -> list[Element]:
    if not _is_loose(element):
        return [element]
    return list(_line(element)) if local(element) == "oMath" else list(element)


def _line(part: Element) -> Iterator[Element]:
    """Yield a part of a formula as runs that keep their own formatting."""
    if local(part) == "r":
        yield _run("".join(text.text or "" for text in part if local(text) == "t"), part.find(f"{_W}rPr"))
        return
    before, after = _signs(part)
    inner = [run for child in part for run in _line(child)]
    yield from [_run(before), *inner, _run(after)] if inner else []


def _signs(part: Element) -> tuple[str, str]:
    if local(part) != "nary":
        return _AROUND.get(local(part), ("", ""))
    sign = part.find("{*}naryPr/{*}chr")
    return "∫" if sign is None else next(iter(sign.attrib.values()), ""), ""


def _run(text: str, properties: Element | None = None) -> Element:
    run = Element(f"{_W}r")
    if properties is not None:
        run.append(properties)
    SubElement(run, f"{_W}t").text = text
    return run


def _fill(row: Element) -> None:
    """Insert an empty cell for the columns that a row skips at its start."""
    before = row.find(f"{_W}trPr/{_W}gridBefore")
    count = "" if before is None else before.get(f"{_W}val", "")
    first = next((at for at, child in enumerate(row) if child.tag in {f"{_W}tc", f"{_W}sdt"}), None)
    if count.isdecimal() and int(count) > 0 and first is not None:
        cell = Element(f"{_W}tc")
        SubElement(SubElement(cell, f"{_W}tcPr"), f"{_W}gridSpan").set(f"{_W}val", count)
        SubElement(cell, f"{_W}p")
        row.insert(first, cell)
