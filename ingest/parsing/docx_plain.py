"""Rewrite Word constructs that mammoth drops or puts in the wrong column. Pure.

mammoth ignores unknown elements around runs (fields, text direction), so they are unwrapped. A formula becomes one
line, a carriage return a line break, an alignment tab a tab. Symbol codes are upper-cased. A row that skips its first
columns gets an empty cell for them.
"""

import re
from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element, SubElement

from ingest.parsing.archive import local_name

_W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_BOX: Final = f"{_W}txbxContent"
_CHARACTER_CODE: Final = re.compile(r"(?!D[89A-F]|0)[0-9A-F]{4}|0[1-9A-F][0-9A-F]{2}")  # from 0100, no surrogate
_M: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_STRICT_M: Final = "{http://purl.oclc.org/ooxml/officeDocument/math}"
_KNOWN_TO_MAMMOTH: Final = frozenset(f"{_W}{name}" for name in ("p", "r", "hyperlink", "sdtContent", "del", "moveFrom"))
"""Elements that mammoth reads or deliberately omits."""
_RENAMED: Final = {f"{_W}cr": f"{_W}br", f"{_W}ptab": f"{_W}tab"}
_AROUND: Final = {
    "num": ("(", ")"), "den": ("/(", ")"), "sup": ("^(", ")"), "sub": ("_(", ")"), "rad": ("√(", ")"), "d": ("(", ")"),
    "fName": ("", " "), "mr": ("", " "), "eqArr": ("", " "),
}  # fmt: skip
"""Characters around the parts of a formula that is written in one line: a fraction a over b becomes (a)/(b)."""


def normalise_for_mammoth(root: Element) -> None:
    """Rewrite a part with elements that mammoth supports."""
    _replace_text_boxes(root)
    for element in reversed(list(root.iter())):  # innermost first
        children = list(element)
        if element.tag in _RENAMED:
            element.tag = _RENAMED[element.tag]
        elif element.tag == f"{_W}sym":
            _normalise_symbol(element)
        if any(map(_is_wrapper, children)):
            element[:] = [inner for child in children for inner in _unwrapped(child)]
    for row in root.iter(f"{_W}tr"):
        _fill_skipped_columns(row)


def _replace_text_boxes(root: Element) -> None:
    """Rewrite text boxes for mammoth, which reads the fallback for older programs instead of the visible box."""
    for parent in list(root.iter()):
        for index, child in enumerate(parent):
            drawing = child if local_name(child) == "drawing" else None
            if local_name(child) == "AlternateContent":
                drawing = child.find("{*}Choice")
            boxes = [] if drawing is None else list(drawing.iter(_BOX))
            nested = {inner for box in boxes for inner in box.iter(_BOX) if inner is not box}
            if boxes:
                parent[index] = Element(f"{_W}pict")
                parent[index][:] = [box for box in boxes if box not in nested]


def _normalise_symbol(symbol: Element) -> None:
    """Upper-case a symbol's code for mammoth; outside the private use area, write its character as text."""
    code = symbol.get(f"{_W}char", "").upper()
    symbol.set(f"{_W}char", code)
    if _CHARACTER_CODE.fullmatch(code) and not 0xE000 <= int(code, 16) <= 0xF8FF:
        symbol.tag = f"{_W}t"
        symbol.text = chr(int(code, 16))


def _is_wrapper(element: Element) -> bool:
    """Return whether an element is a formula, or only a wrapper around runs."""
    if element.tag in {f"{_M}oMath", f"{_STRICT_M}oMath"}:
        return True
    is_known = element.tag in _KNOWN_TO_MAMMOTH or not str(element.tag).startswith((_W, _M, _STRICT_M))
    return not is_known and element.find(f"{_W}r") is not None


def _unwrapped(element: Element) -> list[Element]:
    if not _is_wrapper(element):
        return [element]
    return list(_formula_runs(element)) if local_name(element) == "oMath" else list(element)


def _formula_runs(part: Element) -> Iterator[Element]:
    """Yield a part of a formula as runs that keep their own formatting."""
    if local_name(part) == "r":
        yield _new_run("".join(text.text or "" for text in part if local_name(text) == "t"), part.find(f"{_W}rPr"))
        return
    before, after = _signs_around(part)
    inner = [run for child in part for run in _formula_runs(child)]
    if inner:
        yield from [_new_run(before), *inner, _new_run(after)]


def _signs_around(part: Element) -> tuple[str, str]:
    """Return the characters before and after a part of a formula; a sum or integral has its own sign (default ∫)."""
    if local_name(part) != "nary":
        return _AROUND.get(local_name(part), ("", ""))
    operator = part.find("{*}naryPr/{*}chr")
    sign = "∫" if operator is None else next(iter(operator.attrib.values()), "")
    return sign, ""


def _new_run(text: str, properties: Element | None = None) -> Element:
    run = Element(f"{_W}r")
    if properties is not None:
        run.append(properties)
    SubElement(run, f"{_W}t").text = text
    return run


def _fill_skipped_columns(row: Element) -> None:
    """Insert an empty cell for the columns that a row skips at its start."""
    skipped = row.find(f"{_W}trPr/{_W}gridBefore")
    count = "" if skipped is None else skipped.get(f"{_W}val", "")
    first_cell = next((i for i, child in enumerate(row) if child.tag in {f"{_W}tc", f"{_W}sdt"}), None)
    if count.isdecimal() and int(count) > 0 and first_cell is not None:
        cell = Element(f"{_W}tc")
        SubElement(SubElement(cell, f"{_W}tcPr"), f"{_W}gridSpan").set(f"{_W}val", count)
        SubElement(cell, f"{_W}p")
        row.insert(first_cell, cell)
