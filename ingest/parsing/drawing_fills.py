"""DrawingML, in which Word, Excel and PowerPoint draw: the colours of a theme, fills, and what they cover. Pure."""

from collections.abc import Mapping
from colorsys import hls_to_rgb, rgb_to_hls
from dataclasses import dataclass, field
from math import isfinite
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element

from PIL import ImageColor

from ingest.parsing.colours import Rgb
from ingest.parsing.elements import local

_OPAQUE: Final = 0.95  # black letters under white that lets less through have no contrast
_FILLS: Final = frozenset({"noFill", "solidFill", "gradFill", "pattFill", "blipFill", "grpFill"})
_SHORT: Final = (("ltGray", "lightGray"), ("dk", "dark"), ("lt", "light"), ("med", "medium"))
_NAMES: Final = {"tx1": "dk1", "bg1": "lt1", "tx2": "dk2", "bg2": "lt2"}


class Colour(NamedTuple):
    """A colour, none where it is not known, and how much of it is drawn (0 to 1)."""

    rgb: Rgb | None
    opacity: float = 1.0


class Fill(NamedTuple):
    """How a shape is filled: whether it covers what lies behind it, and its one colour or its picture."""

    is_opaque: bool
    rgb: Rgb | None = None
    is_there: bool = True
    blip: str = ""  # the relation of its picture
    crop: tuple[float, float, float, float] = (0, 0, 0, 0)  # of a picture, from left, top, right and bottom


NO_FILL: Final = Fill(is_opaque=False, is_there=False)


@dataclass(frozen=True, slots=True)
class Palette:
    """A theme: its colours by their names, the names that a master gives them, and its fills by their numbers."""

    colours: Mapping[str, Element] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    fills: Mapping[int, Element] = field(default_factory=dict)

    @classmethod
    def of(cls, theme: Element | None, names: Mapping[str, str]) -> "Palette":
        if theme is None:
            return cls(names=names)
        scheme = {local(one): one for one in theme.iterfind(".//{*}clrScheme/*")}
        shapes = enumerate(theme.iterfind(".//{*}fillStyleLst/*"), start=1)
        grounds = enumerate(theme.iterfind(".//{*}bgFillStyleLst/*"), start=1001)
        return cls(scheme, names, {**dict(shapes), **dict(grounds)})

    def colour(self, parent: Element | None, placeholder: Colour | None = None) -> Colour:
        """Return the colour that an element holds; `placeholder` is that of the shape that a theme's fill is for."""
        element = None if parent is None else next((one for one in parent if local(one).endswith("Clr")), None)
        if element is None:
            return Colour(None)
        name = element.get("val", "")
        if local(element) == "schemeClr" and name == "phClr":
            base = placeholder or Colour(None)
        elif local(element) == "schemeClr":
            base = self.named(name)
        else:
            base = Colour(_own_colour(element))
        return _changed(base, element)

    def named(self, name: str) -> Colour:
        """Return a colour of the theme by the name that a master gives it."""
        return self.colour(self.colours.get(self.names.get(name, _NAMES.get(name, name))))

    def fill(self, properties: Element | None, style: Element | None, group: Fill = NO_FILL) -> Fill | None:
        """Return the fill that a shape's properties, else its style, say; none where they say nothing."""
        own = None if properties is None else next((one for one in properties if local(one) in _FILLS), None)
        if own is not None:
            return group if local(own) == "grpFill" else self._fill(own, None)
        reference = None if style is None else style.find("{*}fillRef")
        return None if reference is None else self.styled(reference)

    def styled(self, reference: Element) -> Fill:
        """Return the fill of the theme that a style refers to."""
        number = share_of(reference, "idx", unit=1)
        if number in (0, 1000):
            return NO_FILL
        found = self.fills.get(int(number))
        return Fill(is_opaque=True) if found is None else self._fill(found, self.colour(reference))

    def _fill(self, fill: Element, placeholder: Colour | None) -> Fill:
        kind = local(fill)
        if kind == "noFill":
            return NO_FILL
        if kind == "solidFill":
            colour = self.colour(fill, placeholder)
            return Fill(colour.opacity >= _OPAQUE, colour.rgb, is_there=colour.opacity > 1 - _OPAQUE)
        if kind == "blipFill":
            return _picture(fill)
        parents = fill.iterfind("{*}gsLst/{*}gs") if kind == "gradFill" else iter(fill)
        colours = [self.colour(parent, placeholder) for parent in parents]
        shades = {colour.rgb for colour in colours}
        return Fill(all(colour.opacity >= _OPAQUE for colour in colours), shades.pop() if len(shades) == 1 else None)


def share_of(element: Element | None, name: str, default: float = 0, unit: float = 100_000) -> float:
    """Return the number of an attribute, in units of so much (`100%` is one), or the default where it has none."""
    value = "" if element is None else element.get(name, "")
    try:
        number = float(value[:-1]) / 100 if value.endswith("%") else float(value) / unit
    except ValueError:
        return default
    return number if isfinite(number) else default


def _picture(fill: Element) -> Fill:
    blip, crop = fill.find("{*}blip"), fill.find("{*}srcRect")
    if blip is None:
        return NO_FILL
    dim = share_of(blip.find("{*}alphaModFix"), "amt", 1)
    relation = next((value for name, value in blip.attrib.items() if name.endswith("}embed")), "")
    left, top, right, bottom = (share_of(crop, side) for side in "ltrb")
    return Fill(dim >= _OPAQUE, is_there=dim > 1 - _OPAQUE, blip=relation, crop=(left, top, right, bottom))


def _own_colour(element: Element) -> Rgb | None:
    kind, value = local(element), element.get("val", "")
    try:
        if kind == "srgbClr":
            red, green, blue = bytes.fromhex(value)
        elif kind == "sysClr":
            red, green, blue = bytes.fromhex(element.get("lastClr") or ("FFFFFF" if value == "window" else "000000"))
        elif kind == "prstClr":
            red, green, blue = ImageColor.getrgb(_spelt(value))[:3]
        elif kind == "scrgbClr":
            red, green, blue = (round(255 * max(share_of(element, side), 0) ** (1 / 2.2)) for side in "rgb")
        else:
            hue = share_of(element, "hue", unit=360 * 60_000)
            red, green, blue = (
                round(255 * x) for x in hls_to_rgb(hue, share_of(element, "lum"), share_of(element, "sat"))
            )
    except ValueError:
        return None
    return float(red), float(green), float(blue)


def _spelt(name: str) -> str:
    long = next((long + name.removeprefix(short) for short, long in _SHORT if name.startswith(short)), name)
    return long.lower()


def _changed(colour: Colour, element: Element) -> Colour:
    rgb, opacity = colour
    for change in element:
        share = share_of(change, "val", 1)
        if local(change) == "alpha":
            opacity = share
        elif local(change) in {"alphaMod", "alphaOff"}:
            opacity = opacity * share if local(change) == "alphaMod" else opacity + share
        elif rgb is not None:
            rgb = _turned(rgb, local(change), share)
    return Colour(rgb, opacity)


def _turned(rgb: Rgb, change: str, share: float) -> Rgb:
    """Return a changed colour: exact for black, white and light, near enough for a contrast where a hue is turned."""
    red, green, blue = rgb
    if change == "tint":
        red, green, blue = (255 - (255 - x) * share for x in rgb)
    elif change == "shade":
        red, green, blue = (x * share for x in rgb)
    elif change == "inv":
        red, green, blue = (255 - x for x in rgb)
    elif change in {"red", "green", "blue"}:
        red, green, blue = (
            255 * share if change == name else x for name, x in zip(("red", "green", "blue"), rgb, strict=True)
        )
    elif change in {"lum", "lumMod", "lumOff"}:
        hue, light, saturation = rgb_to_hls(red / 255, green / 255, blue / 255)
        light = share if change == "lum" else light * share if change == "lumMod" else light + share
        red, green, blue = (255 * x for x in hls_to_rgb(hue, min(max(light, 0), 1), saturation))
    return red, green, blue
