"""What a reader of a Word file would not see of it: text that its file hides must not become an answer. Pure.

Whoever approves a document looks at its pages; text that they cannot see there would be approved unread.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.etree.ElementTree import Element, SubElement

from ingest.parsing.colours import blends, rgb_of
from ingest.parsing.drawing_fills import Palette
from ingest.parsing.elements import ancestors, local, parents_of

_W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_STRICT: Final = "{http://purl.oclc.org/ooxml/wordprocessingml/main}"
_SMALLEST_HALF_POINTS: Final = 4
_NARROWEST_PERCENT: Final = 10
_USUAL_HALF_POINTS: Final = 20
_MOST_CONDENSED: Final = 4.0  # twips a half point of size: digits, of half their size, lie upon each other
_FARTHEST_TWIPS: Final = 7200  # five inches: no margin is so wide
_WIDEST_TWIPS: Final = 31_680  # no page is wider or higher
_LOWEST_TWIPS: Final = 40  # of a line or a row
_TWIPS_A_HUNDREDTH: Final = 1.0  # of a letter: it is 5 to 11 points wide
_OFF: Final = frozenset({"0", "false", "off"})
_MEASURE: Final = re.compile(r"(-?\d{1,9}(?:\.\d{1,9})?)(pt|)")
_TWIPS: Final = 20.0  # a point
_W14: Final = "{http://schemas.microsoft.com/office/word/2010/wordml}"
_THEME: Final = {
    **dict.fromkeys(("background1", "light1", "bg1"), "lt1"), **dict.fromkeys(("text1", "dark1", "tx1"), "dk1"),
    **dict.fromkeys(("background2", "light2", "bg2"), "lt2"), **dict.fromkeys(("text2", "dark2", "tx2"), "dk2"),
    "hyperlink": "hlink", "followedHyperlink": "folHlink", **{f"accent{n}": f"accent{n}" for n in range(1, 7)},
}  # fmt: skip
_USUAL: Final = {"lt1": (255, 255, 255), "dk1": (0, 0, 0)}
_HIGHLIGHTS: Final = {"white": "FFFFFF", "black": "000000"}
_MOST_BASES: Final = 12  # styles that one style is based on, in a row
_GROUNDED: Final = frozenset(f"{_W}{name}" for name in ("pPr", "tcPr", "tblPr"))


Properties = Mapping[str, Element]
"""What a style, a paragraph or a run says of its letters and its lines, by the name of each property."""


@dataclass(frozen=True, slots=True)
class Styles:
    """What the styles of a Word file say, with what each takes from the style it is based on."""

    named: Mapping[str, Properties] = field(default_factory=dict)
    defaults: Properties = field(default_factory=dict)
    usual: str = ""
    """The style of a paragraph that names none."""

    @classmethod
    def of(cls, root: Element) -> "Styles":
        """Return what a part of styles says."""
        found = {str(style.get(f"{_W}styleId")): style for style in root.iter(f"{_W}style")}
        usual = (
            name
            for name, style in found.items()
            if style.get(f"{_W}type") == "paragraph" and style.get(f"{_W}default", "0") not in _OFF
        )
        said = {
            **_said(root.find(f"{_W}docDefaults/{_W}pPrDefault")),
            **_said(root.find(f"{_W}docDefaults/{_W}rPrDefault")),
        }
        return cls({name: _with_base(style, found) for name, style in found.items()}, said, next(usual, ""))

    def around(self, paragraph: Element | None, table: Element | None) -> Properties:
        """Return what a paragraph, and the table in which it may stand, say by their styles."""
        name = _style_of(paragraph, "pPr", "pStyle")
        own = self.named.get(name if name in self.named else self.usual, {})
        return {**self.defaults, **self.named.get(_style_of(table, "tblPr", "tblStyle"), {}), **own}


def as_transitional(root: Element) -> Element:
    """Return a part with the names of Word's own files for those of the strict standard, which say the same."""
    for element in root.iter():
        if isinstance(element.tag, str) and element.tag.startswith(_STRICT):
            element.tag = element.tag.replace(_STRICT, _W)
            element.attrib = {name.replace(_STRICT, _W): value for name, value in element.attrib.items()}
    return root


def remove_unseen_runs(root: Element, styles: Styles, palette: Palette) -> None:
    """Take the text of hidden, white, tiny or struck runs from a part of a Word file.

    A run has the properties of its paragraph's style, of its own style, and its own, of which the last counts.
    """
    parents = parents_of(root)
    sizes = [_number(page, side) for page in root.iter(f"{_W}pgSz") for side in "wh"]
    for run in root.iter(f"{_W}r"):
        around = list(ancestors(run, parents))
        paragraph, row, table = (next((o for o in around if o.tag == f"{_W}{tag}"), None) for tag in ("p", "tr", "tbl"))
        merged = {
            **styles.around(paragraph, table),
            **_properties(None if paragraph is None else paragraph.find(f"{_W}pPr")),
            **styles.named.get(_style_of(run, "rPr", "rStyle"), {}),
            **_properties(run.find(f"{_W}rPr")),
        }
        _raise(run, merged.get("vertAlign"))
        ground = _ground([merged.get("shd")], around, palette)
        if (
            _is_unseen(merged, ground, palette)
            or _is_off(merged, max(sizes, default=_WIDEST_TWIPS))
            or _is_flat(merged, row)
            or any(_is_on(merged.get(line)) for line in ("strike", "dstrike"))
        ):
            for child in list(run):
                run.remove(child)


def _raise(run: Element, said: Element | None) -> None:
    """Let a run say itself that it is raised, as its style says."""
    if _value(said) != "superscript":
        return
    own = run.find(f"{_W}rPr")
    if own is None:
        run.insert(0, own := Element(f"{_W}rPr"))
    if own.find(f"{_W}vertAlign") is None:
        SubElement(own, f"{_W}vertAlign").set(f"{_W}val", "superscript")


def _said(element: Element | None) -> Properties:
    """Return what the properties in a style say, of letters and of lines."""
    parts = () if element is None else (element.find(f"{_W}pPr"), element.find(f"{_W}rPr"))
    return {name: said for part in parts for name, said in _properties(part).items()}


def _with_base(style: Element, styles: Mapping[str, Element]) -> Properties:
    merged: dict[str, Element] = {}
    next_style: Element | None = style
    for _ in range(_MOST_BASES):  # a circle of styles has an end too
        if next_style is None:
            break
        merged = {**_said(next_style), **merged}
        next_style = styles.get(_value(next_style.find(f"{_W}basedOn")))
    return merged


def _ground(own: list[Element | None], around: list[Element], palette: Palette) -> str:
    """Return the colour of the nearest ground, white without one; a table's style may give any."""
    for element in around:
        properties = next((child for child in element if child.tag in _GROUNDED), None)
        if properties is not None:
            own.append(properties.find(f"{_W}shd"))
            if properties.find(f"{_W}tblStyle") is not None:
                own.append(Element("", {f"{_W}fill": "unknown"}))
    fills = (_fill_of(shading, palette) for shading in own if shading is not None)
    return next((fill for fill in fills if fill not in ("", "auto")), "FFFFFF")


def _fill_of(shading: Element, palette: Palette) -> str:
    is_solid = shading.get(f"{_W}val") == "solid"
    return (
        _colour(shading, "color", "themeColor", palette) if is_solid else _colour(shading, "fill", "themeFill", palette)
    )


def _colour(element: Element | None, name: str, theme: str, palette: Palette) -> str:
    """Return a colour in hexadecimal digits: that of the theme counts before the one that is written out."""
    if element is None:
        return ""
    named = _THEME.get(element.get(f"{_W}{theme}", ""))
    rgb = None if named is None else palette.named(named).rgb or _USUAL.get(named)
    if rgb is None:
        return str(element.get(f"{_W}{name}", ""))
    prefix = theme.removesuffix("Color")
    shade, tint = (int(element.get(f"{_W}{prefix}{change}", "FF"), 16) / 255 for change in ("Shade", "Tint"))
    return bytes(round(255 - (255 - min(max(one * shade, 0), 255)) * tint) for one in rgb).hex()


def _is_off(properties: Properties, page: float) -> bool:
    """Tell whether a paragraph begins beside pages of a size."""
    indent, frame = properties.get("ind"), properties.get("framePr")
    lefts = [_number(indent, "left"), _number(indent, "start"), _number(indent, "leftChars") * _TWIPS_A_HUNDREDTH]
    first = min(_number(indent, "firstLine"), -_number(indent, "hanging"))
    places = [*lefts, first + max(lefts), _number(frame, "x"), _number(frame, "y")]
    return min(places) < -_FARTHEST_TWIPS or max(places) > page


def _is_flat(properties: Properties, row: Element | None) -> bool:
    """Tell whether a line, or the row of a table that it stands in, is as good as no height, or not shown."""
    says = None if row is None else row.find(f"{_W}trPr")
    height = None if says is None else says.find(f"{_W}trHeight")
    if says is not None and _is_on(says.find(f"{_W}hidden")):
        return True
    exact = ((properties.get("spacing"), "lineRule", "line"), (height, "hRule", "val"))
    return any(
        one is not None and one.get(f"{_W}{rule}") == "exact" and 0 < _number(one, name) < _LOWEST_TWIPS
        for one, rule, name in exact
    )


def _number(element: Element | None, name: str, point: float = _TWIPS) -> float:
    """Return a measure of an element in its usual unit, of which `point` are a point; 0 where it says none."""
    said = _MEASURE.fullmatch("" if element is None else element.get(f"{_W}{name}", ""))
    return 0 if said is None else float(said.group(1)) * (point if said.group(2) else 1)


def _properties(element: Element | None) -> Properties:
    said = {} if element is None else {child.tag.removeprefix(_W): child for child in element}
    # Of letters "spacing" says how far apart they are, of lines how high.
    if element is not None and element.tag == f"{_W}rPr" and "spacing" in said:
        said["apart"] = said.pop("spacing")
    return said


def _style_of(element: Element | None, properties: str, name: str) -> str:
    return "" if element is None else _value(element.find(f"{_W}{properties}/{_W}{name}"))


def _is_unseen(properties: Properties, ground: str, palette: Palette) -> bool:
    size, width = _number(properties.get("sz"), "val", point=2), _value(properties.get("w")).removesuffix("%")
    is_tiny = 0 < size < _SMALLEST_HALF_POINTS
    is_narrow = width.isdecimal() and int(width) < _NARROWEST_PERCENT
    marker = _value(properties.get("highlight"))
    behind = _HIGHLIGHTS.get(marker, "unknown") if marker not in ("", "none") else ground
    is_heaped = -_number(properties.get("apart"), "val") > _MOST_CONDENSED * (size or _USUAL_HALF_POINTS)
    if is_tiny or is_narrow or is_heaped or _is_on(properties.get("vanish")):
        return True
    drawn = properties.get(f"{_W14}textFill")
    if drawn is None:
        written = _colour(properties.get("color"), "val", "themeColor", palette)
    elif any(local(one) == "noFill" for one in drawn):
        return True
    else:
        written = _drawn_colour(drawn, palette)
    return blends(rgb_of(written), rgb_of(behind))


def _drawn_colour(fill: Element, palette: Palette) -> str:
    """Return the one colour with which newer programs draw letters."""
    colours = [one for one in fill.iterfind(f"{_W14}solidFill/*") if local(one).endswith("Clr")]
    for one in colours:
        name = one.get(f"{_W14}val", "")
        if local(one) == "srgbClr":
            return name
        rgb = palette.named(name).rgb or _USUAL.get(_THEME.get(name, name)) or ()
        return "" if len(one) else bytes(map(round, rgb)).hex()
    return ""


def _value(element: Element | None) -> str:
    return "" if element is None else str(element.get(f"{_W}val", ""))


def _is_on(element: Element | None) -> bool:
    return element is not None and element.get(f"{_W}val", "1") not in _OFF
