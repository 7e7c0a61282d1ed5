"""What a reader of a page would not see of it: text that its file hides must not become an answer. Pure.

Whoever approves a document looks at its pages; text that they cannot see there would be approved unread.
"""

import re
from collections.abc import Iterator
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


def without_unseen_runs(part: bytes, hidden_styles: frozenset[str]) -> bytes:
    """Return a part of a Word file without the text of hidden, white or tiny runs; unchanged where there is none."""
    root = ElementTree.fromstring(part)  # noqa: S314  `archive` has refused every part that declares an entity
    changed = False
    for run in root.iter(f"{_W}r"):
        if _is_unseen(run.find(f"{_W}rPr"), hidden_styles):
            for child in list(run):
                run.remove(child)
                changed = True
    return ElementTree.tostring(root, "utf-8") if changed else part


def hidden_styles(part: bytes) -> frozenset[str]:
    """Return the ids of a Word file's styles whose text is hidden."""
    root = ElementTree.fromstring(part)  # noqa: S314  as above
    return frozenset(
        str(style.get(f"{_W}styleId"))
        for style in root.iter(f"{_W}style")
        if _is_unseen(style.find(f"{_W}rPr"), frozenset())
    )


def _is_unseen(properties: Element | None, hidden_styles: frozenset[str]) -> bool:
    if properties is None:
        return False
    style, size, color = (_value(properties, name) for name in ("rStyle", "sz", "color"))
    is_tiny = size.isdecimal() and int(size) < _SMALLEST_HALF_POINTS
    on_ground = any(properties.find(f"{_W}{name}") is not None for name in ("shd", "highlight"))
    is_white = color.upper() in {"FFFFFF", "FEFEFE"} and not on_ground
    return style in hidden_styles or is_tiny or is_white or _is_on(properties, "vanish")


def _value(properties: Element, name: str) -> str:
    found = properties.find(f"{_W}{name}")
    return "" if found is None else str(found.get(f"{_W}val", ""))


def _is_on(properties: Element, name: str) -> bool:
    found = properties.find(f"{_W}{name}")
    return found is not None and found.get(f"{_W}val", "1") not in {"0", "false", "off"}
