"""What a reader of a Word file would not see of it: text that its file hides must not become an answer. Pure.

Whoever approves a document looks at its pages; text that they cannot see there would be approved unread.
"""

from collections.abc import Iterator, Mapping
from typing import Final
from xml.etree.ElementTree import Element

_W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_STRICT: Final = "{http://purl.oclc.org/ooxml/wordprocessingml/main}"
_SMALLEST_HALF_POINTS: Final = 4
_NARROWEST_PERCENT: Final = 10
_FARTHEST_TWIPS: Final = 7200  # five inches: no margin is so wide
_LEAST_CONTRAST: Final = 16  # of 255 in red, green or blue
_HIGHLIGHTS: Final = {"white": "FFFFFF", "black": "000000"}
_MOST_BASES: Final = 12  # styles that one style is based on, in a row
_GROUNDED: Final = frozenset(f"{_W}{name}" for name in ("pPr", "tcPr", "tblPr"))


Properties = Mapping[str, Element]
"""What a style or a run says of its letters, by the name of each property."""


def as_transitional(root: Element) -> Element:
    """Return a part with the names of Word's own files for those of the strict standard, which say the same."""
    for element in root.iter():
        if isinstance(element.tag, str) and element.tag.startswith(_STRICT):
            element.tag = element.tag.replace(_STRICT, _W)
            element.attrib = {name.replace(_STRICT, _W): value for name, value in element.attrib.items()}
    return root


def remove_unseen_runs(root: Element, styles: Mapping[str, Properties]) -> None:
    """Take the text of hidden, white or tiny runs from a part of a Word file.

    A run has the properties of its paragraph's style, of its own style, and its own, of which the last counts.
    """
    parents = {child: parent for parent in root.iter() for child in parent}
    for run in root.iter(f"{_W}r"):
        around = list(_around(run, parents))
        own = _properties(run.find(f"{_W}rPr"))
        paragraph = next((one for one in around if one.tag == f"{_W}p"), None)
        inherited = styles.get(_style_of(paragraph, "pPr", "pStyle"), {})
        merged = {**inherited, **styles.get(_style_of(run, "rPr", "rStyle"), {}), **own}
        if _is_unseen(merged, _ground([merged.get("shd")], around)) or _is_off(paragraph):
            for child in list(run):
                run.remove(child)


def letter_styles(root: Element) -> dict[str, Properties]:
    """Return what each style of a Word file says of letters, with what it takes from the style it is based on."""
    found = {str(style.get(f"{_W}styleId")): style for style in root.iter(f"{_W}style")}
    return {name: _with_base(style, found) for name, style in found.items()}


def _with_base(style: Element, styles: Mapping[str, Element]) -> Properties:
    merged: dict[str, Element] = {}
    next_style: Element | None = style
    for _ in range(_MOST_BASES):  # a circle of styles has an end too
        if next_style is None:
            break
        merged = {**_properties(next_style.find(f"{_W}rPr")), **merged}
        next_style = styles.get(_value(next_style.find(f"{_W}basedOn")))
    return merged


def _around(run: Element, parents: Mapping[Element, Element]) -> Iterator[Element]:
    """Yield what a run stands in, from the nearest: its paragraph, its cell, its table."""
    element = parents.get(run)
    while element is not None:
        yield element
        element = parents.get(element)


def _ground(own: list[Element | None], around: list[Element]) -> str:
    """Return the colour of the nearest ground, white without one; a table's style may give any."""
    for element in around:
        properties = next((child for child in element if child.tag in _GROUNDED), None)
        if properties is not None:
            own.append(properties.find(f"{_W}shd"))
            if properties.find(f"{_W}tblStyle") is not None:
                own.append(Element("", {f"{_W}fill": "unknown"}))
    fills = (str(shading.get(f"{_W}fill", "auto")) for shading in own if shading is not None)
    return next((fill for fill in fills if fill != "auto"), "FFFFFF")


def _is_off(paragraph: Element | None) -> bool:
    """Tell whether a paragraph begins left of any page."""
    indent = None if paragraph is None else paragraph.find(f"{_W}pPr/{_W}ind")
    sides = () if indent is None else (indent.get(f"{_W}{side}", "") for side in ("left", "start"))
    return any(side.removeprefix("-").isdecimal() and int(side) < -_FARTHEST_TWIPS for side in sides)


def _properties(element: Element | None) -> Properties:
    return {child.tag.removeprefix(_W): child for child in element} if element is not None else {}


def _style_of(element: Element | None, properties: str, name: str) -> str:
    return "" if element is None else _value(element.find(f"{_W}{properties}/{_W}{name}"))


def _is_unseen(properties: Properties, ground: str) -> bool:
    size, width = _value(properties.get("sz")), _value(properties.get("w")).removesuffix("%")
    is_tiny = size.isdecimal() and int(size) < _SMALLEST_HALF_POINTS
    is_narrow = width.isdecimal() and int(width) < _NARROWEST_PERCENT
    marker = _value(properties.get("highlight"))
    behind = _HIGHLIGHTS.get(marker, "unknown") if marker not in ("", "none") else ground
    return is_tiny or is_narrow or _is_on(properties.get("vanish")) or _blends(_value(properties.get("color")), behind)


def _blends(colour: str, ground: str) -> bool:
    try:
        pairs = zip(bytes.fromhex(colour), bytes.fromhex(ground), strict=True)
    except ValueError:  # "auto", which is never the ground's; or not known
        return False
    return bool(colour) and all(abs(a - b) < _LEAST_CONTRAST for a, b in pairs)


def _value(element: Element | None) -> str:
    return "" if element is None else str(element.get(f"{_W}val", ""))


def _is_on(element: Element | None) -> bool:
    return element is not None and element.get(f"{_W}val", "1") not in {"0", "false", "off"}
