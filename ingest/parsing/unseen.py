"""What a reader of a page would not see of it: text that its file hides must not become an answer. Pure.

Whoever approves a document looks at its pages; text that they cannot see there would be approved unread.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from bs4 import BeautifulSoup, Tag
from soupsieve import SelectorSyntaxError

_GONE: Final = re.compile(
    r"(?:^|[;\s{])(?:display:none|visibility:(?:hidden|collapse)|content-visibility:hidden|opacity:0?(?:\.0{1,9})?(?:;|$|!|%)"
    r"|font-size:(?:[01]?(?:\.\d{1,9})?(?:px|pt|%)|0?(?:\.0\d{0,8})?(?:em|rem)|0(?:\.0{1,9})?(?:;|$|!))"
    r"|(?:left|top|right|bottom|text-indent|margin-left):-\d{3,6}|clip:rect\([01]|clip-path:inset\((?:50|100)%"
    r"|transform:scale\(0\)|color:transparent|color:rgba\([^)]{1,20},0\))",
    re.IGNORECASE,
)
_WHITE: Final = re.compile(
    r"(?:^|[;\s{])color:(?:white|#fff|#ffffff|#fefefe|rgb\(255,255,255\))(?:;|$|!)", re.IGNORECASE
)
_GROUND: Final = re.compile(r"background", re.IGNORECASE)
_BRACES: Final = re.compile(r"([{}])")
_COMMENTS: Final = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_SPACES: Final = re.compile(r"\s++")
MOST_SELECTORS: Final = 500
_W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_SMALLEST_HALF_POINTS: Final = 4
_MOST_BASES: Final = 12  # styles that one style is based on, in a row
_GROUNDED: Final = frozenset(f"{_W}{name}" for name in ("pPr", "tcPr", "tblPr"))


def remove_unseen(soup: BeautifulSoup) -> None:
    """Remove what a web page hides by an attribute, a style, or a rule of its own style sheets."""
    selected = {id(tag) for selector in _hiding_selectors(soup) for tag in _select(soup, selector)}
    for tag in soup.find_all(re.compile("")):
        if not tag.decomposed and (id(tag) in selected or _is_hidden(tag)):
            tag.decompose()


def _is_hidden(tag: Tag) -> bool:
    style = _plain(str(tag.get("style", "")))
    if tag.has_attr("hidden") or _GONE.search(style):
        return True
    is_white = _WHITE.search(style) or (tag.name == "font" and _WHITE.search(f"color:{tag.get('color', '')}"))
    return bool(is_white) and not any(_has_ground(one) for one in (tag, *tag.parents))


def _has_ground(tag: Tag) -> bool:
    return tag.has_attr("bgcolor") or tag.has_attr("class") or _GROUND.search(str(tag.get("style", ""))) is not None


def _hiding_selectors(soup: BeautifulSoup) -> Iterator[str]:
    found = 0
    for sheet in soup.find_all("style"):
        for selectors, body in _rules(_COMMENTS.sub("", sheet.get_text())):
            if _GONE.search(_plain(body)):
                for selector in selectors.split(","):
                    found += 1
                    if found <= MOST_SELECTORS:
                        yield selector.strip()


def _rules(sheet: str) -> Iterator[tuple[str, str]]:
    """Yield the selectors and the body of each plain rule: one for print or for a small screen hides nothing."""
    depth, selectors = 0, ""
    for part in _BRACES.split(sheet):
        if part == "{":
            depth += 1
        elif part == "}":
            depth = max(0, depth - 1)
        elif depth == 0:
            selectors = part.rpartition(";")[2].strip()
        elif depth == 1 and not selectors.startswith("@"):
            yield selectors, part


def _select(soup: BeautifulSoup, selector: str) -> list[Tag]:
    try:
        return list(soup.select(selector))
    except (SelectorSyntaxError, NotImplementedError, ValueError):  # not ours to understand
        return []


def _plain(style: str) -> str:
    """Return a style with one spelling: no blanks beside its marks, no comments."""
    return _SPACES.sub("", _COMMENTS.sub("", style))


Properties = Mapping[str, Element]
"""What a style or a run says of its letters, by the name of each property."""


def without_unseen_runs(part: bytes, styles: Mapping[str, Properties]) -> bytes:
    """Return a part of a Word file without the text of hidden, white or tiny runs; unchanged where there is none.

    A run has the properties of its paragraph's style, of its own style, and its own, of which the last counts.
    """
    root = ElementTree.fromstring(part)  # noqa: S314  `archive` has refused every part that declares an entity
    parents = {child: parent for parent in root.iter() for child in parent}
    changed = False
    for run in root.iter(f"{_W}r"):
        around = list(_around(run, parents))
        own = _properties(run.find(f"{_W}rPr"))
        paragraph = next((one for one in around if one.tag == f"{_W}p"), None)
        inherited = styles.get(_style_of(paragraph, "pPr", "pStyle"), {})
        merged = {**inherited, **styles.get(_style_of(run, "rPr", "rStyle"), {}), **own}
        if _is_unseen(merged, on_ground=any(map(_is_shaded, around))):
            for child in list(run):
                run.remove(child)
                changed = True
    return ElementTree.tostring(root, "utf-8") if changed else part


def letter_styles(part: bytes) -> dict[str, Properties]:
    """Return what each style of a Word file says of letters, with what it takes from the style it is based on."""
    root = ElementTree.fromstring(part)  # noqa: S314  as above
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


def _is_shaded(element: Element) -> bool:
    """Tell whether a paragraph, cell or table has a ground of its own; a table's style may give it one."""
    properties = next((child for child in element if child.tag in _GROUNDED), None)
    return properties is not None and any(child.tag in {f"{_W}shd", f"{_W}tblStyle"} for child in properties)


def _properties(element: Element | None) -> Properties:
    return {child.tag.removeprefix(_W): child for child in element} if element is not None else {}


def _style_of(element: Element | None, properties: str, name: str) -> str:
    return "" if element is None else _value(element.find(f"{_W}{properties}/{_W}{name}"))


def _is_unseen(properties: Properties, *, on_ground: bool) -> bool:
    size, color = _value(properties.get("sz")), _value(properties.get("color"))
    is_tiny = size.isdecimal() and int(size) < _SMALLEST_HALF_POINTS
    has_ground = on_ground or "shd" in properties or "highlight" in properties
    is_white = color.upper() in {"FFFFFF", "FEFEFE"} and not has_ground
    return is_tiny or is_white or _is_on(properties.get("vanish"))


def _value(element: Element | None) -> str:
    return "" if element is None else str(element.get(f"{_W}val", ""))


def _is_on(element: Element | None) -> bool:
    return element is not None and element.get(f"{_W}val", "1") not in {"0", "false", "off"}
