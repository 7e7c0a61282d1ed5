"""Removes from a web page what its reader would not see: it must not become an answer. Pure.

Hidden are elements by an attribute, their style or a rule of the page's own sheets: not displayed, of no size, clear,
moved or clipped away. Text is hidden where the nearest element that says so makes it invisible or tiny, or where its
colour is that of its ground: of the nearest element with a background, else white. A picture is a ground of no known
colour. What a sheet of another file says is not known: there a class may give a ground.

What the page's sheets say of how an element is displayed it says itself afterwards: later steps part words by it.
"""

import re
from collections.abc import Iterator, Mapping
from colorsys import hls_to_rgb
from typing import Final

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString
from soupsieve import SelectorSyntaxError

from ingest.parsing.colours import blends

MOST_SELECTORS: Final = 500
_LEAST_OPACITY = 0.05
_BRACES: Final = re.compile(r"([{}])")
_COMMENTS: Final = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_SPACES: Final = re.compile(r"\s+")
_NEVER_SHOWN: Final = frozenset({"template", "datalist", "noscript", "canvas", "object", "audio", "video", "iframe"})
_NUMBER: Final = re.compile(r"(-?(?:\d{1,7}(?:\.\d{0,9})?|\.\d{1,9}))(px|pt|em|rem|ex|ch|vw|vh|vmin|vmax|in|cm|mm|%)?")
# How many dots one is, about; a share of the window or of the element is so many hundredths of 500.
_DOTS: Final = {"": 1.0, "px": 1.0, "pt": 1.3, "em": 16.0, "rem": 16.0, "ex": 8.0, "ch": 8.0, "in": 96.0, "cm": 38.0}
_DOTS_OF_A_SHARE, _DOTS_OF_A_MILLIMETRE = 5.0, 3.8
_FAR, _VERY_FAR, _NOTHING, _TINY, _CLOSE = 100.0, 450.0, 1.0, 2.0, 6.0  # dots
_SHORTHAND: Final = {"top": (0, 0, 0, 0), "left": (0, 1, 1, 3)}  # which of one, two, three or four lengths a side has
_PLACED: Final = frozenset({"relative", "absolute", "fixed", "sticky"})
_OFF_CENTRE = 20.0  # dots of a share of the window to the right or down: wide ones are centred by half of their width
_RELATIVE: Final = re.compile(r"(\d{1,4}(?:\.\d{0,6})?|\.\d{1,6})(em|%)")
_SIZE_WORDS: Final = frozenset(
    {"initial", "medium", "small", "large", "x-small", "x-large", "xx-small", "xx-large", "xxx-large"}
)
_LETTER = 16.0  # dots
_FONT_SIZE: Final = re.compile(r"[\d.]{1,12}(?:px|pt|em|rem|%)?")
_VISIBILITY: Final = frozenset({"hidden", "collapse", "visible", "initial"})
_SIZES: Final = ("width", "height", "max-width", "max-height")
_CLIPPED: Final = re.compile(
    r"inset\((?:[5-9]\d|1\d\d)%|(?:circle|ellipse)\(0|polygon\((?:0(?:px|%)?[ ,]{0,3}){1,40}\)|rect\([01]"
)
_OF_COLOUR: Final = re.compile(r"(rgba?|hsla?)\(([^)]{1,60})\)")
_NAMES: Final = {
    "white": (255, 255, 255), "snow": (255, 250, 250), "ivory": (255, 255, 240), "ghostwhite": (248, 248, 255),
    "floralwhite": (255, 250, 240), "mintcream": (245, 255, 250), "azure": (240, 255, 255), "seashell": (255, 245, 238),
    "aliceblue": (240, 248, 255), "whitesmoke": (245, 245, 245), "black": (0, 0, 0),
}  # fmt: skip

Colour = tuple[int, int, int]
Style = Mapping[str, str]


def remove_unseen(soup: BeautifulSoup) -> None:
    """Remove what a web page hides."""
    look = _Look(soup)
    for tag in soup.find_all(re.compile("")):
        if tag.decomposed:
            continue
        if look.is_hidden(tag):
            tag.decompose()
        elif display := look.display(tag):
            tag["style"] = f"{tag.get('style', '')};display:{display}"
    for text in soup.find_all(string=True):
        if text.strip() and type(text) is NavigableString and text.parent is not None and look.is_unread(text.parent):
            text.extract()


class _Look:
    """What the styles of a page say of each of its elements."""

    def __init__(self, soup: BeautifulSoup) -> None:
        self._styles: dict[int, Style] = {}
        self._unread: dict[int, bool] = {}
        self._has_other_sheets = bool(soup.select('link[rel~="stylesheet" i]')) or "@import" in str(soup.style or "")
        rules: dict[int, list[tuple[tuple[int, int, int], int, Style]]] = {}
        for number, (selector, style) in enumerate(_sheet_rules(soup)):
            for tag in _select(soup, selector):
                rules.setdefault(id(tag), []).append((_weight(selector), number, style))
        for tag in soup.find_all(re.compile("")):
            matched = sorted(rules.get(id(tag), ()), key=lambda rule: rule[:2])
            self._styles[id(tag)] = _merged(
                [*(style for _, _, style in matched), _declarations(str(tag.get("style", "")))]
            )
        self._values = {
            name: value for style in self._styles.values() for name, value in style.items() if name.startswith("--")
        }

    def is_hidden(self, tag: Tag) -> bool:
        """Tell whether an element shows nothing, whatever is in it."""
        if tag.name in _NEVER_SHOWN or tag.has_attr("hidden") or (tag.name == "dialog" and not tag.has_attr("open")):
            return True
        return _is_gone({name: self._resolved(value) for name, value in self._style(tag).items()})

    def display(self, tag: Tag) -> str:
        """Return how an element is displayed, as far as it is said."""
        return self._resolved(self._style(tag).get("display", ""))

    def is_unread(self, tag: Tag) -> bool:
        """Tell whether the text of an element is invisible, tiny, without a colour or in that of its ground."""
        if id(tag) not in self._unread:
            self._unread[id(tag)] = self._is_invisible(tag) or self._letter(tag) < _TINY or self._blends(tag)
        return self._unread[id(tag)]

    def _is_invisible(self, tag: Tag) -> bool:
        said = (self._resolved(self._style(one).get("visibility", "")) for one in (tag, *tag.parents))
        return next((value for value in said if value in _VISIBILITY), "") in ("hidden", "collapse")

    def _letter(self, tag: Tag) -> float:
        """Return the size of an element's letters in dots: a share is one of the letters around it."""
        share = 1.0
        for one in (tag, *tag.parents):
            value = self._resolved(self._style(one).get("font-size", ""))
            if relative := _RELATIVE.fullmatch(value):
                share *= float(relative[1]) / (100 if relative[2] == "%" else 1)
            elif value in _SIZE_WORDS:
                return share * _LETTER
            elif sizes := _lengths(value):
                return share * min(sizes)
        return share * _LETTER

    def _blends(self, tag: Tag) -> bool:
        chain = [tag, *tag.parents]
        written = next((value for one in chain if (value := self._colour_of(one))), "")
        if written == "transparent":
            return True
        ground = next((value for one in chain if (value := self._ground_of(one))), "")
        if not written:
            return False
        if written == ground:
            return True
        colour, alpha = _colour(written)
        if alpha < _LEAST_OPACITY:
            return True
        if (
            not ground
            and self._has_other_sheets
            and any(one.has_attr("class") for one in chain if isinstance(one, Tag))
        ):
            return False
        behind = _colour(ground)[0] if ground else _NAMES["white"]
        return blends(colour, behind, alpha)

    def _colour_of(self, tag: Tag) -> str:
        own = self._resolved(self._style(tag).get("color", ""))
        if own in ("", "inherit", "currentcolor"):
            own = str(tag.get("color", "") if tag.name == "font" else tag.get("text", "") if tag.name == "body" else "")
        return own.lower().strip()

    def _ground_of(self, tag: Tag) -> str:
        style = self._style(tag)
        picture = style.get("background-image", "")
        own = picture if "(" in picture else style.get("background-color", "") or style.get("background", "")
        own = self._resolved(own)
        if own in ("", "none", "transparent", "inherit", "initial"):
            own = str(tag.get("bgcolor", ""))
        return own.lower().strip()

    def _style(self, tag: Tag) -> Style:
        return self._styles.get(id(tag), {})

    def _resolved(self, value: str) -> str:
        return re.sub(r"var\((--[\w-]{1,60})[^)]{0,60}\)", lambda used: self._values.get(used[1], used[0]), value)


def _is_gone(style: Style) -> bool:
    is_off = style.get("display") == "none" or style.get("mso-hide") == "all"
    is_off = is_off or style.get("content-visibility") == "hidden"
    is_clear = any(_NUMBER.match(value) and _share(value) < _LEAST_OPACITY for value in _opacities(style))
    return is_off or is_clear or _is_shrunk(style) or _is_away(style)


def _is_shrunk(style: Style) -> bool:
    shrunk = re.findall(r"scale[xy3d]{0,2}\((\d{0,3}\.?\d{0,6})", style.get("transform", ""))
    is_cut = any(re.search("hidden|clip", style.get(name, "")) for name in ("overflow", "overflow-x", "overflow-y"))
    return any(float(size) < _LEAST_OPACITY for size in shrunk if size.strip(".")) or (
        is_cut and any(size <= _NOTHING for name in _SIZES for size in _lengths(style.get(name, "")))
    )


def _is_away(style: Style) -> bool:
    """Tell whether an element is moved or clipped away, or its letters drawn on one spot."""
    indents = _lengths(style.get("text-indent", ""))
    back = [size for name in ("right", "bottom") for size in _lengths(style.get(name, ""))]
    transforms = re.findall(r"translate[xy3d]{0,2}\(([^)]{1,60})\)", style.get("transform", ""))
    return (
        min([*indents, *back, *(_moved(style, side) for side in _SHORTHAND)]) <= -_FAR
        or any(size >= _VERY_FAR for size in indents)
        or any(abs(size) >= _VERY_FAR for lengths in transforms for size in _lengths(lengths))
        or any(size <= -_CLOSE for size in _lengths(style.get("letter-spacing", "")))
        or _CLIPPED.search(style.get("clip-path", "") + style.get("clip", "")) is not None
    )


def _moved(style: Style, side: str) -> float:
    """Return how far from a side an element's text begins, in dots: its place, its margin and its padding together."""
    place = min(_lengths(style.get(side, "")), default=0.0)
    if place > 0:
        is_share = style[side].endswith(("%", "vw", "vh"))
        place *= (style.get("position") in _PLACED) * (_OFF_CENTRE / _DOTS_OF_A_SHARE if is_share else 1.0)
    return place + _on_side(style, "margin", side) + max(0.0, _on_side(style, "padding", side))


def _on_side(style: Style, name: str, side: str) -> float:
    """Return the least length that a style says of a margin or a padding on a side; a calculation counts for all."""
    whole = style.get(name, "")
    parts = whole.split() if "(" not in whole else [whole]
    own = parts[_SHORTHAND[side][len(parts) - 1]] if 0 < len(parts) <= 4 else ""
    return min([*_lengths(own), *_lengths(style.get(f"{name}-{side}", ""))], default=0.0)


def _opacities(style: Style) -> Iterator[str]:
    if "opacity" in style:
        yield style["opacity"]
    yield from re.findall(r"opacity\(([^)]{1,20})\)", style.get("filter", ""))


def _share(value: str) -> float:
    number = _NUMBER.match(value)
    return (float(number[1]) / (100 if number[2] == "%" else 1)) if number else 1.0


def _lengths(value: str) -> list[float]:
    """Return the lengths of a value in dots."""
    found = []
    for number, unit in _NUMBER.findall(value):
        a_share = _DOTS_OF_A_MILLIMETRE if unit == "mm" else _DOTS_OF_A_SHARE
        found.append(float(number) * _DOTS.get(unit, a_share))
    return found


def _colour(value: str) -> tuple[Colour | None, float]:
    """Return a colour, none if it is not known, and how much of it is drawn."""
    if value in _NAMES:
        return _NAMES[value], 1.0
    if value.startswith("#") or re.fullmatch(r"[0-9a-f]{6}", value):
        digits = value.removeprefix("#")
        digits = "".join(2 * digit for digit in digits) if len(digits) in (3, 4) else digits
        if re.fullmatch(r"[0-9a-f]{6}(?:[0-9a-f]{2})?", digits):
            red, green, blue, *alpha = bytes.fromhex(digits)
            return (red, green, blue), (alpha[0] / 255 if alpha else 1.0)
    if (call := _OF_COLOUR.search(value)) is None:
        return None, 1.0
    parts = [part for part in re.split(r"[\s,/]+", call[2].strip()) if _NUMBER.match(part)]
    if len(parts) < 3:
        return None, 1.0
    alpha_share = _share(parts[3]) if len(parts) > 3 else 1.0
    if call[1].startswith("hsl"):
        turn = float(_NUMBER.match(parts[0])[1]) / 360  # type: ignore[index]  # filtered above
        mixed = hls_to_rgb(turn % 1, _share(parts[2]), _share(parts[1]))
        return (round(255 * mixed[0]), round(255 * mixed[1]), round(255 * mixed[2])), alpha_share
    red, green, blue = (round(255 * _share(p) if p.endswith("%") else _share(p)) for p in parts[:3])
    return (red, green, blue), alpha_share


def _declarations(style: str) -> Style:
    """Return the value of each property, in small letters; those that are important keep their mark."""
    found: dict[str, str] = {}
    for declaration in _COMMENTS.sub("", style).split(";"):
        name, _, value = declaration.partition(":")
        name, value = name.strip().lower(), _SPACES.sub(" ", value).strip().lower()
        said = {name: value, "font-size": _font_size(value)} if name == "font" else {name: value}
        found |= {one: what for one, what in said.items() if what and ("!" in what or "!" not in found.get(one, ""))}
    return found


def _font_size(font: str) -> str:
    """Return the size of letters that a `font` says, with its mark if it is important; nothing where it says none."""
    value, mark, _ = font.partition("!")
    before, line_height, _ = value.partition("/")
    words = before.split() if line_height else before.split()[:-1]
    sizes = [word for word in words if word in _SIZE_WORDS or _FONT_SIZE.fullmatch(word)]
    return sizes[-1] + mark if sizes else ""


def _merged(styles: list[Style]) -> Style:
    """Return what counts of several styles, the last the strongest."""
    merged: dict[str, str] = {}
    for important in (False, True):
        for style in styles:
            for name, value in style.items():
                if ("!" in value) is important:
                    merged[name] = value.partition("!")[0].strip()
    return merged


def _sheet_rules(soup: BeautifulSoup) -> Iterator[tuple[str, Style]]:
    found = 0
    for sheet in soup.find_all("style"):
        for selectors, body in _rules(_COMMENTS.sub("", sheet.get_text())):
            for selector in selectors.split(","):
                found += 1
                if found <= MOST_SELECTORS:
                    yield selector.strip(), _declarations(body)


def _weight(selector: str) -> tuple[int, int, int]:
    """Return what makes one rule stronger than another (CSS: specificity), about."""
    names = re.findall(r"(?:^|[\s>+~])[a-z]", selector, re.IGNORECASE)
    return selector.count("#"), len(re.findall(r"[.\[:]", selector)), len(names)


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
