"""What floats over the pages of a Word file: drawings (`wp:anchor`) and those of older files (VML). Pure."""

import re
from collections.abc import Callable, Mapping
from typing import Final
from xml.etree.ElementTree import Element

from ingest.parsing.drawing_fills import Fill, Palette, share_of
from ingest.parsing.drawing_layers import geometry_of, is_hollow, properties_of
from ingest.parsing.elements import local

IsLace = Callable[[str], bool]
"""Told the relation of a picture, tells whether all that lies behind it is seen through it."""

_THINNEST: Final = 72_000  # 2 mm, lower than a letter
_BEHIND: Final = 1e12
_FLOWS: Final = frozenset({"wrapSquare", "wrapTopAndBottom"})
_LEAST_AROUND: Final = 21_600**2 / 2  # half of a drawing's area
_VML: Final = frozenset({"shape", "rect", "roundrect", "oval", "polyline", "image"})
_LENGTH: Final = re.compile(r"(\d{1,6}(?:\.\d{0,9})?)(pt|in|cm|mm|px)")
_EMU: Final = {"pt": 12_700, "in": 914_400, "cm": 360_000, "mm": 36_000, "px": 9_525}
_OPAQUE: Final = 0.95


def floats(element: Element) -> bool:
    """Tell whether something is drawn over the pages, rather than standing in the text."""
    if local(element) == "anchor":
        return not any(one.get("hidden") in {"1", "true"} for one in element if local(one) == "docPr")
    style = _css(element) if local(element) in _VML or local(element) == "group" else {}
    return style.get("position") == "absolute" and style.get("visibility") != "hidden"


def height_of(element: Element) -> float:
    """Return how high something lies in the pile: less than nothing behind the text."""
    if local(element) != "anchor":
        return share_of(Element("", {"at": _css(element).get("z-index", "0")}), "at", unit=1)
    behind = element.get("behindDoc") in {"1", "true"}
    return share_of(element, "relativeHeight", unit=1) - (_BEHIND if behind else 0)


def is_in_front(element: Element) -> bool:
    """Tell whether text goes on beneath something, rather than around it or before it."""
    if height_of(element) < 0 or any(local(one) in _FLOWS for one in element):
        return False
    if local(element) != "anchor":
        return all(one.get("type", "none") == "none" for one in element if local(one) == "wrap")
    outlines = [one.find("{*}wrapPolygon") for one in element if local(one) in {"wrapTight", "wrapThrough"}]
    return not outlines or any(outline is None or _area(outline) < _LEAST_AROUND for outline in outlines)


def is_opaque(element: Element, palette: Palette, is_lace: IsLace) -> bool:
    """Tell whether something lets nothing through; what another program draws may be so."""
    if local(element) != "anchor":
        sizes = (_LENGTH.fullmatch(_css(element).get(side, "")) for side in ("width", "height"))
        is_thin = any(size is not None and float(size[1]) * _EMU[size[2]] < _THINNEST for size in sizes)
        return not is_thin and any(_is_vml_opaque(one, is_lace) for one in element.iter())
    extents = [share_of(one, side, _THINNEST, unit=1) for one in element.iterfind("{*}extent") for side in ("cx", "cy")]
    is_thin = min(extents, default=_THINNEST) < _THINNEST
    return not is_thin and any(_is_drawing_opaque(one, palette, is_lace) for one in element.iter())


def _is_drawing_opaque(piece: Element, palette: Palette, is_lace: IsLace) -> bool:
    if local(piece) in {"chart", "relIds"}:
        return True
    if local(piece) not in {"pic", "wsp", "sp", "bg"}:
        return False
    properties = properties_of(piece)
    says = piece if local(piece) in {"pic", "bg"} else properties
    fill = palette.fill(says, piece.find("{*}style"), group=Fill(is_opaque=True))
    if fill is None or not fill.is_opaque or is_hollow(geometry_of(properties)):
        return False
    return not (fill.blip and is_lace(fill.blip))


def _is_vml_opaque(piece: Element, is_lace: IsLace) -> bool:
    """Tell it of a piece of an older drawing, which is filled with white where it says nothing."""
    if local(piece) not in _VML or any(local(one) == "textpath" for one in piece):
        return False
    for picture in piece.iterfind("{*}imagedata"):
        return not any(is_lace(to) for name, to in picture.attrib.items() if name.endswith("}id"))
    fills = list(piece.iterfind("{*}fill"))
    is_off = piece.get("filled", "t") in _NO or any(fill.get("on", "t") in _NO for fill in fills)
    return not is_off and all(_opacity(fill.get("opacity", "1")) >= _OPAQUE for fill in fills)


_NO: Final = frozenset({"f", "false", "0"})


def _opacity(value: str) -> float:
    """Return a share: `.5`, `50%`, or of 65,536 as `32768f`."""
    unit = 65_536 if value.endswith("f") else 1
    return share_of(Element("", {"at": value.removesuffix("f")}), "at", 1, unit=unit)


def _area(outline: Element) -> float:
    """Return the area within a polygon, of which a drawing has 21,600 by 21,600."""
    points = [(share_of(one, "x", unit=1), share_of(one, "y", unit=1)) for one in outline]
    pairs = zip(points, [*points[1:], *points[:1]], strict=True)
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)) / 2


def _css(element: Element) -> Mapping[str, str]:
    pairs = (one.partition(":") for one in element.get("style", "").lower().split(";"))
    return {name.strip(): value.strip() for name, _, value in pairs}
