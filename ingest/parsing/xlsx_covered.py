"""Which cells of a sheet lie under its pictures, shapes and charts, which are drawn over all cells. Pure."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ingest.parsing.archive import Office
from ingest.parsing.drawing_fills import NO_FILL, Fill, Palette, share_of
from ingest.parsing.drawing_layers import (
    Box,
    Layer,
    Place,
    drawn,
    frame_of,
    geometry_of,
    is_hidden,
    near,
    place_of,
    properties_of,
    within,
)
from ingest.parsing.drawing_text import EMU, LINE, points_in, width_in_letters
from ingest.parsing.elements import local
from ingest.parsing.pictures import transparency

DIGIT: Final = 66_675  # of a column's width, in EMU
_SHARE: Final = 0.9


class Edges:
    """Where columns or rows begin, in EMU; those that are not `sized` have the usual size. Counted from 0."""

    def __init__(self, usual: float, sized: Mapping[int, float]) -> None:
        self._usual = usual
        self._at = sorted(sized)
        self._more = [0.0, *accumulate(sized[at] - usual for at in self._at)]

    def __getitem__(self, at: int) -> float:
        return at * self._usual + self._more[bisect_left(self._at, at)]


@dataclass(frozen=True, slots=True)
class CellText:
    """How a cell shows a text: over which columns and rows (the last are beyond it), how large, and where in them."""

    text: str
    columns: tuple[int, int]
    rows: tuple[int, int]
    points: float
    across: str
    upright: str
    wraps: bool


@dataclass(frozen=True, slots=True)
class Covers:
    """What is drawn over the cells of a sheet, and where these begin."""

    columns: Edges
    rows: Edges
    layers: Sequence[Layer]

    def reach(self, row: int) -> bool:
        """Tell whether something may cover cells that begin in a row, counted from 1."""
        top, bottom = self.rows[row - 1], self.rows[row]
        return any(layer.bounds[1] <= bottom and layer.bounds[3] >= top for layer in self.layers)

    def hide(self, cell: CellText) -> bool:
        """Tell whether the text of a cell lies under what is drawn over it."""
        left, right = (self.columns[at] for at in cell.columns)
        top, bottom = (self.rows[at] for at in cell.rows)
        around = near(((left, top), (right, bottom)), self.layers)
        if not around:
            return False
        wide, high = width_in_letters(cell.text) * cell.points * EMU, cell.points * EMU * LINE
        if cell.wraps and right > left:
            high *= -(-wide // (right - left))
        width, height = max(min(wide, right - left), 1), max(min(high, bottom - top), 1)
        spare = right - left - width
        x = left + {"right": spare, "center": spare / 2}.get(cell.across, 0)
        y = top + (bottom - top - height) * {"top": 0, "center": 0.5}.get(cell.upright, 1)
        points = points_in(Box(x, y, width, height), Place((0, 0), (1, 0), (0, 1)))
        return sum(any(layer.holds(point) for layer in around) for point in points) >= _SHARE * len(points)


def covers_of(office: Office, sheet: str, columns: Edges, rows: Edges) -> Covers:
    """Return what is drawn over the cells of a sheet's part and covers them."""
    layers = layers_of(office, sheet, palette_of(office), columns, rows)
    return Covers(columns, rows, [layer for layer in layers if layer.fill.is_opaque])


def palette_of(office: Office) -> Palette:
    """Return the colours of a workbook's theme."""
    themes = (part for name, part in office.parts.items() if name.startswith("xl/theme/theme"))
    theme = next(themes, None)
    return Palette.of(None if theme is None else ElementTree.fromstring(theme), {})  # noqa: S314  as in `archive`


def layers_of(office: Office, sheet: str, palette: Palette, columns: Edges, rows: Edges) -> list[Layer]:
    """Return all that is drawn over the cells of a sheet's part, from the lowest."""
    layers: list[Layer] = []
    for name in office.links(sheet, "/drawing").values():
        if name in office.parts:
            drawing = _Drawing(office, palette, office.links(name))
            for anchor in ElementTree.fromstring(office.parts[name]):  # noqa: S314  as above
                layers += drawing.layers(anchor, _box(anchor, columns, rows))
    return layers


@dataclass(frozen=True, slots=True)
class _Drawing:
    office: Office
    palette: Palette
    links: Mapping[str, str]

    def layers(self, anchor: Element, box: Box) -> Iterator[Layer]:
        for shape in drawn(anchor):
            frame = frame_of(shape)
            yield from self._layers(shape, place_of(Element("") if frame is None else frame, box))

    def _layers(self, shape: Element, place: Place, depth: int = 0) -> Iterator[Layer]:
        frame, properties = frame_of(shape), properties_of(shape)
        if is_hidden(shape):
            return
        if local(shape) == "grpSp" and frame is not None:
            way = within(frame, place)
            for child in drawn(shape, depth):
                inner = frame_of(child)
                if inner is not None:
                    yield from self._layers(child, place_of(inner).through(way), depth + 1)
        elif local(shape) == "graphicFrame":
            yield Layer(shape, place, self._chart_fill(shape))
        elif local(shape) in {"sp", "pic"}:
            says = shape if local(shape) == "pic" else properties
            # A group's fill is not looked up: its members count as filled.
            fill = self.palette.fill(says, shape.find("{*}style"), group=Fill(is_opaque=True)) or NO_FILL
            fields = transparency(self.office.picture(self.links.get(fill.blip, ""))) if fill.blip else None
            yield Layer(shape, place, fill, geometry_of(properties), fields)

    def _chart_fill(self, frame: Element) -> Fill:
        """Return the ground of a chart, which is white where it says nothing."""
        names = (
            to for chart in frame.iterfind(".//{*}chart") for name, to in chart.attrib.items() if name.endswith("}id")
        )
        part = self.office.parts.get(self.links.get(next(names, ""), ""))
        space = None if part is None else ElementTree.fromstring(part)  # noqa: S314  as above
        fill = None if space is None else self.palette.fill(space.find("{*}spPr"), None)
        return fill or Fill(is_opaque=True)


def _box(anchor: Element, columns: Edges, rows: Edges) -> Box:
    """Return the rectangle that an anchor gives a drawing, by its corners' cells or by its size."""
    begin, end = anchor.find("{*}from"), anchor.find("{*}to")
    at, size = anchor.find("{*}pos"), anchor.find("{*}ext")
    left, top = (
        (share_of(at, "x", unit=1), share_of(at, "y", unit=1)) if begin is None else _corner(begin, columns, rows)
    )
    width, height = share_of(size, "cx", unit=1), share_of(size, "cy", unit=1)
    if end is not None:
        right, bottom = _corner(end, columns, rows)
        width, height = right - left, bottom - top
    return Box(left, top, max(width, 1), max(height, 1))


def _corner(cell: Element, columns: Edges, rows: Edges) -> tuple[float, float]:
    said = {local(one): one.text or "" for one in cell}
    column, x, row, y = (int(said.get(name) or 0) for name in ("col", "colOff", "row", "rowOff"))
    return (
        min(columns[column] + x, columns[column + 1]),
        min(rows[row] + y, rows[row + 1]),
    )
