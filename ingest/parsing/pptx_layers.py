"""All that a slide draws, from the lowest layer: its master's and its layout's shapes, and its own. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from pptx.opc.constants import RELATIONSHIP_TYPE
from pptx.opc.package import Part
from pptx.shared import ElementProxy
from pptx.slide import Slide, SlideLayout, SlideMaster

from ingest.parsing.drawing_fills import NO_FILL, Fill, Palette, share_of
from ingest.parsing.drawing_layers import (
    Box,
    Layer,
    Place,
    Point,
    drawn,
    frame_of,
    geometry_of,
    is_hidden,
    place_of,
    properties_of,
    within,
)
from ingest.parsing.drawing_text import Style
from ingest.parsing.elements import local
from ingest.parsing.pictures import transparency

ReadPicture = Callable[[str], bytes]
Way = Callable[[Point], Point]
# The styles of tables that colour nothing: no style, and no style but a grid.
_PLAIN: Final = {"", "{2D5ABB26-0587-4C30-8999-92F81FD0307C}", "{5940675A-B579-460E-94D1-54222C63F5DA}"}
_USUAL: Final = (9_144_000, 6_858_000)
_KINDS: Final = {"ctrTitle": "title", "subTitle": "body", "obj": "body", "": "body"}
_STYLES: Final = {"title": "titleStyle", "dt": "otherStyle", "ftr": "otherStyle", "sldNum": "otherStyle"}


@dataclass(frozen=True)
class SlideLayers:
    """A slide with what it takes from its layout and its master."""

    slide: Slide
    read_picture: ReadPicture
    _pictures: dict[str, bytes | None] = field(default_factory=dict)

    @cached_property
    def size(self) -> Point:
        presentation = self.slide.part.package.presentation_part.presentation
        return float(presentation.slide_width or _USUAL[0]), float(presentation.slide_height or _USUAL[1])

    @cached_property
    def palette(self) -> Palette:
        """The theme's colours under the names that the master, the layout and the slide give them."""
        master, *others = self._sheets
        names: dict[str, str] = {}
        for mapping in master.element.iterfind("{*}clrMap"):
            names |= mapping.attrib
        for sheet in others:
            for mapping in sheet.element.iterfind("{*}clrMapOvr/{*}overrideClrMapping"):
                names |= mapping.attrib
        themes = [link for link in master.part.rels.values() if link.reltype == RELATIONSHIP_TYPE.THEME]
        return Palette.of(_parsed(themes[0].target_part) if themes else None, names)

    @cached_property
    def ground(self) -> Fill:
        """The fill of the slide, else of its layout, else of its master."""
        for sheet in reversed(self._sheets):
            for ground in sheet.element.iterfind("{*}cSld/{*}bg/*"):
                is_styled = local(ground) == "bgRef"
                return self.palette.styled(ground) if is_styled else self.palette.fill(ground, None) or NO_FILL
        return Fill(is_opaque=True, rgb=self.palette.named("bg1").rgb)

    @cached_property
    def beneath(self) -> list[Layer]:
        """What the master and the layout draw, without the places that they keep for a slide's text."""
        shows = [sheet.element.get("showMasterSp", "1") not in {"0", "false"} for sheet in self._sheets]
        return [
            layer
            for at, sheet in enumerate(self._sheets[:-1])
            for shape in (drawn(_tree(sheet)) if all(shows[at + 1 :]) else ())
            if _place_taken(shape) is None
            for layer in self._of_shape(shape, sheet.part, _as_it_is, NO_FILL)
        ]

    @cached_property
    def layers(self) -> list[Layer]:
        """All that is drawn: what lies beneath the slide's shapes, and these."""
        shapes = drawn(_tree(self.slide))
        return self.beneath + [
            layer for shape in shapes for layer in self._of_shape(shape, self.slide.part, _as_it_is, NO_FILL)
        ]

    def style(self, text: Layer) -> Style:
        """Return what gives the letters of a shape or a cell their size and colour."""
        defaults = list(self.slide.part.package.presentation_part.presentation.element.iterfind("{*}defaultTextStyle"))
        shapes = self._kin(text.element)
        bodies = [body for shape in shapes for body in shape.iterfind("{*}txBody/{*}bodyPr")]
        levels = [levels for shape in shapes for levels in shape.iterfind("{*}txBody/{*}lstStyle")]
        if local(text.element) == "tc":
            says = [*bodies, *text.element.iterfind("{*}tcPr")]
            return Style(says, levels, defaults=defaults if text.is_plain else (), is_known=text.is_plain)
        if len(shapes) > 1:
            levels += self._master.element.iterfind(
                f"{{*}}txStyles/{{*}}{_STYLES.get(self._kind(text.element), 'bodyStyle')}"
            )
        return Style(bodies, levels, text.element.find("{*}style/{*}fontRef"), defaults)

    @property
    def _master(self) -> SlideMaster:
        return self.slide.slide_layout.slide_master

    @property
    def _sheets(self) -> tuple[SlideMaster, SlideLayout, Slide]:
        return self._master, self.slide.slide_layout, self.slide

    def _of_shape(self, shape: Element, sheet: Part, way: Way, group: Fill, depth: int = 0) -> Iterator[Layer]:
        if is_hidden(shape):
            return
        frame = next((frame for one in self._kin(shape) if (frame := frame_of(one)) is not None), None)
        if frame is None:  # where it is drawn is not known
            yield Layer(shape, Place((0, 0), (self.size[0], 0), (0, self.size[1])), NO_FILL)
            return
        place, properties = place_of(frame).through(way), properties_of(shape)
        if local(shape) == "grpSp":
            inner, fill = within(frame, place_of(frame)), self.palette.fill(properties, None, group) or NO_FILL
            for child in drawn(shape, depth):
                yield from self._of_shape(child, sheet, lambda at: way(inner(at)), fill, depth + 1)
        elif local(shape) == "graphicFrame":
            yield from self._of_frame(shape, sheet, place)
        else:
            fill = self._fill(shape, group)
            yield Layer(shape, place, fill, geometry_of(properties), self._fields(fill, sheet))

    def _of_frame(self, frame: Element, sheet: Part, place: Place) -> Iterator[Layer]:
        """Yield the cells of a table; else a drawing of many colours: of a chart with a ground it covers all."""
        table, chart = frame.find(".//{*}tbl"), frame.find(".//{*}graphicData/{*}chart")
        covers = frame.find(".//{*}oleObj") is not None
        if table is not None:
            yield from self._cells(table, place)
            return
        relation = "" if chart is None else next((to for name, to in chart.attrib.items() if name.endswith("}id")), "")
        if relation in sheet.rels:
            ground = self.palette.fill(_parsed(sheet.related_part(relation)).find("{*}spPr"), None)
            covers = ground is not None and ground.is_opaque
        yield Layer(frame, place, Fill(is_opaque=covers))

    def _cells(self, table: Element, place: Place) -> Iterator[Layer]:
        style = table.find("{*}tblPr/{*}tableStyleId")
        is_plain = style is None or (style.text or "") in _PLAIN
        under = self.palette.fill(table.find("{*}tblPr"), None) or (NO_FILL if is_plain else Fill(is_opaque=True))
        for cell, box in _cells(table):
            fill = self.palette.fill(cell.find("{*}tcPr"), None) or under
            yield Layer(cell, place.part(box), fill, is_plain=is_plain)

    def _fill(self, shape: Element, group: Fill) -> Fill:
        if local(shape) == "pic":
            return self.palette.fill(shape, None) or NO_FILL
        if local(shape) == "cxnSp":
            return NO_FILL
        if shape.get("useBgFill") in {"1", "true"}:
            return self.ground
        says = (self.palette.fill(properties_of(one), one.find("{*}style"), group) for one in self._kin(shape))
        return next((fill for fill in says if fill is not None), NO_FILL)

    def _fields(self, fill: Fill, sheet: Part) -> bytes | None:
        """Return where a picture lets through what lies behind it."""
        if fill.blip not in sheet.rels or sheet.rels[fill.blip].is_external:
            return None
        name = sheet.related_part(fill.blip).partname.lstrip("/")
        if name not in self._pictures:
            self._pictures[name] = transparency(self.read_picture(name))
        return self._pictures[name]

    def _kin(self, shape: Element) -> list[Element]:
        """Return a shape, and those of the layout and the master whose place it takes."""
        taken = _place_taken(shape)
        if taken is None:
            return [shape]
        number, kind = taken.get("idx", "0"), self._kind(shape)
        same = [one for one, place in _places(self.slide.slide_layout) if place.get("idx", "0") == number]
        return [shape, *same[:1], *[one for one, place in _places(self._master) if _kind_of(place) == kind][:1]]

    def _kind(self, shape: Element) -> str:
        taken = _place_taken(shape)
        if taken is None:
            return ""
        same = (
            place for _, place in _places(self.slide.slide_layout) if place.get("idx", "0") == taken.get("idx", "0")
        )
        return _kind_of(next(same, taken))


def _as_it_is(point: Point) -> Point:
    return point


def _tree(sheet: ElementProxy) -> Element:
    return next(sheet.element.iterfind("{*}cSld/{*}spTree"))


def _parsed(part: Part) -> Element:
    return ElementTree.fromstring(part.blob)  # noqa: S314  `archive` has refused every part that declares an entity


def _place_taken(shape: Element) -> Element | None:
    """Return what says which place of its layout a shape takes."""
    return next((place for head in shape for place in head.iterfind("{*}nvPr/{*}ph")), None)


def _places(sheet: SlideLayout | SlideMaster) -> Iterator[tuple[Element, Element]]:
    for shape in drawn(_tree(sheet)):
        place = _place_taken(shape)
        if place is not None:
            yield shape, place


def _kind_of(place: Element) -> str:
    kind = place.get("type", "")
    return _KINDS.get(kind, kind)


def _cells(table: Element) -> Iterator[tuple[Element, Box]]:
    """Yield the cells of a table with the rectangles that its columns and rows give them."""
    widths = [share_of(one, "w", unit=1) for one in table.iterfind("{*}tblGrid/{*}gridCol")]
    rows = list(table.iterfind("{*}tr"))
    heights = [share_of(row, "h", unit=1) for row in rows]
    for at, row in enumerate(rows):
        for column, cell in enumerate(row.iterfind("{*}tc")):
            across, down = (int(share_of(cell, name, 1, unit=1)) for name in ("gridSpan", "rowSpan"))
            size = sum(widths[column : column + across]), sum(heights[at : at + down])
            if cell.get("hMerge") is None and cell.get("vMerge") is None:
                yield cell, Box(sum(widths[:column]), sum(heights[:at]), max(size[0], 1), max(size[1], 1))
