"""What DrawingML draws, as layers from the lowest: where each lies, what its outline holds, what it covers. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import cos, hypot, pi, sin
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element

from ingest.parsing.drawing_fills import Fill, share_of
from ingest.parsing.elements import local
from ingest.parsing.parsed import Reason, Unreadable
from ingest.parsing.pictures import SIDE

MOST_NESTED: Final = 20  # groups within groups
_BOXES: Final = (
    "rect", "round", "snip", "wedgeR", "flowChartProcess", "flowChartAlt", "flowChartInternal", "flowChartPre",
    "actionButton", "bevel", "cube", "can", "foldedCorner", "plaque", "bracketPair", "bracePair",
)  # fmt: skip
_OPEN: Final = frozenset(
    {"halfFrame", "corner", "diagStripe", "blockArc", "noSmoking", "arc", "line", "frame", "donut"}
)
_DRAWN: Final = frozenset({"sp", "pic", "graphicFrame", "grpSp", "cxnSp", "wsp", "wgp"})
_SOLID: Final = 242  # of 255: black letters under white that lets more through are seen
Point = tuple[float, float]
Polygons = Sequence[Sequence[Point]]


class Box(NamedTuple):
    """An upright rectangle."""

    left: float
    top: float
    width: float
    height: float


class Place(NamedTuple):
    """Where a shape lies: its left upper corner, and the ways along its upper and its left edge."""

    corner: Point
    across: Point
    down: Point

    def at(self, u: float, v: float) -> Point:
        """Return the point so much of the shape's width and height from its corner."""
        return (
            self.corner[0] + u * self.across[0] + v * self.down[0],
            self.corner[1] + u * self.across[1] + v * self.down[1],
        )

    def shares(self, point: Point) -> Point | None:
        """Return how much of the width and the height a point is from the corner; none in a shape without an area."""
        area = self.across[0] * self.down[1] - self.across[1] * self.down[0]
        if not area:
            return None
        x, y = point[0] - self.corner[0], point[1] - self.corner[1]
        return (x * self.down[1] - y * self.down[0]) / area, (y * self.across[0] - x * self.across[1]) / area

    @property
    def size(self) -> Point:
        """The lengths of the edges, never nothing."""
        return max(hypot(*self.across), 1e-6), max(hypot(*self.down), 1e-6)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """The least upright rectangle around it: left, top, right, bottom."""
        return bounds_of([self.at(u, v) for u in (0, 1) for v in (0, 1)])

    def part(self, box: Box) -> "Place":
        """Return the place of a rectangle of the shape, in lengths along its edges."""
        width, height = self.size
        across = (self.across[0] * box.width / width, self.across[1] * box.width / width)
        down = (self.down[0] * box.height / height, self.down[1] * box.height / height)
        return Place(self.at(box.left / width, box.top / height), across, down)

    def through(self, way: Callable[[Point], Point]) -> "Place":
        """Return the place when each of its points goes a way."""
        corner, right, below = way(self.corner), way(self.at(1, 0)), way(self.at(0, 1))
        return Place(corner, (right[0] - corner[0], right[1] - corner[1]), (below[0] - corner[0], below[1] - corner[1]))


@dataclass(frozen=True)
class Layer:
    """A shape, a picture or a cell: where it lies and how it is filled.

    `fields` says what its picture lets through; `is_plain` where no style of a table may colour it.
    """

    element: Element
    place: Place
    fill: Fill
    geometry: Element | None = None
    fields: bytes | None = None
    is_plain: bool = True

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """The least upright rectangle around it: left, top, right, bottom."""
        return self.place.bounds

    def holds(self, point: Point, least: int = _SOLID) -> bool:
        """Tell whether the shape is drawn at a point; of a picture, at least so much of it (of 255)."""
        shares = self.place.shares(point)
        if shares is None or not (0 <= shares[0] <= 1 and 0 <= shares[1] <= 1):
            return False
        is_inside = self.geometry is None or self._is_inside(shares, self.geometry)
        return is_inside and (self.fields is None or self._opacity(shares) >= least)

    def _is_inside(self, shares: Point, geometry: Element) -> bool:
        if local(geometry) == "custGeom":
            return any(_is_in_polygons(shares, polygons) for polygons in self._outlines)
        name, changes = geometry.get("prst", "rect"), list(geometry.iterfind(".//{*}gd"))
        if name in {"frame", "donut"}:
            return not _is_in_hole(shares, name, changes, self.place)
        if is_hollow(geometry):
            return False
        return name.startswith(_BOXES) or hypot(shares[0] - 0.5, shares[1] - 0.5) <= 0.5

    @cached_property
    def _outlines(self) -> list[Polygons]:
        paths = () if self.geometry is None else self.geometry.iterfind("{*}pathLst/{*}path")
        return [_polygons(path, self.place) for path in paths if path.get("fill") != "none"]

    def _opacity(self, shares: Point) -> int:
        left, top, right, bottom = self.fill.crop
        u, v = left + shares[0] * (1 - left - right), top + shares[1] * (1 - top - bottom)
        row, column = min(int(v * SIDE), SIDE - 1), min(int(u * SIDE), SIDE - 1)
        return self.fields[row * SIDE + column] if self.fields is not None and row >= 0 and column >= 0 else 0


def place_of(frame: Element, box: Box | None = None) -> Place:
    """Return where a frame (`xfrm`) puts its shape, turned and mirrored; `box` stands for its own rectangle."""
    left, top, width, height = box or box_of(frame)
    turn = share_of(frame, "rot", unit=60_000) * pi / 180
    across, down = (-width if _is_on(frame, "flipH") else width), (-height if _is_on(frame, "flipV") else height)
    right, below = (across * cos(turn), across * sin(turn)), (-down * sin(turn), down * cos(turn))
    middle = (left + width / 2, top + height / 2)
    return Place((middle[0] - (right[0] + below[0]) / 2, middle[1] - (right[1] + below[1]) / 2), right, below)


def box_of(frame: Element, offset: str = "off", extent: str = "ext") -> Box:
    """Return the rectangle that a frame gives; one without a size has that of a dot."""
    off, ext = frame.find("{*}" + offset), frame.find("{*}" + extent)
    width, height = (max(share_of(ext, side, unit=1), 1) for side in ("cx", "cy"))
    return Box(share_of(off, "x", unit=1), share_of(off, "y", unit=1), width, height)


def bounds_of(points: Sequence[Point]) -> tuple[float, float, float, float]:
    """Return the least upright rectangle around points: left, top, right, bottom."""
    across, down = [x for x, _ in points], [y for _, y in points]
    return min(across), min(down), max(across), max(down)


def near(points: Sequence[Point], layers: Iterable[Layer]) -> list[Layer]:
    """Return the layers that may hold one of the points."""
    left, top, right, bottom = bounds_of(points)
    return [
        layer
        for layer in layers
        if layer.bounds[0] <= right and layer.bounds[2] >= left and layer.bounds[1] <= bottom and layer.bounds[3] >= top
    ]


def within(frame: Element, group: Place) -> Callable[[Point], Point]:
    """Return the way from a group's inner points to where they are drawn."""
    inner = box_of(frame, "chOff", "chExt")
    return lambda at: group.at((at[0] - inner.left) / inner.width, (at[1] - inner.top) / inner.height)


def drawn(parent: Element, depth: int = 0) -> Iterator[Element]:
    """Yield what a group or a page draws, from the lowest; of what has alternatives, each.

    Raises:
        Unreadable: nested without end.
    """
    if depth > MOST_NESTED:
        raise Unreadable(Reason.HOSTILE, "its shapes are nested deeper than in any document")
    for child in parent:
        if local(child) in {"AlternateContent", "Choice", "Fallback"}:
            yield from drawn(child, depth + 1)
        elif local(child) in _DRAWN:
            yield child


def properties_of(shape: Element) -> Element | None:
    return next((child for child in shape if local(child) in {"spPr", "grpSpPr"}), None)


def frame_of(shape: Element) -> Element | None:
    """Return what a shape says of its place."""
    parents = (shape, properties_of(shape))
    return next((one for parent in parents if parent is not None for one in parent if local(one) == "xfrm"), None)


def geometry_of(properties: Element | None) -> Element | None:
    named = ("prstGeom", "custGeom")
    return None if properties is None else next((one for one in properties if local(one) in named), None)


def is_hollow(geometry: Element | None) -> bool:
    """Tell whether a shape of this kind leaves most of its rectangle open, as long as nobody has made it thicker."""
    if geometry is None or next(geometry.iterfind(".//{*}gd"), None) is not None:
        return False
    return geometry.get("prst", "") in _OPEN


def is_hidden(shape: Element) -> bool:
    """Tell whether a shape is one that its file does not show."""
    return any(_is_on(one, "hidden") for head in shape for one in head if local(one) in {"cNvPr", "docPr"})


def _is_on(element: Element, name: str) -> bool:
    return element.get(name, "").strip() in {"1", "true"}


def _is_in_hole(shares: Point, name: str, changes: Sequence[Element], place: Place) -> bool:
    """Tell whether a point is not drawn by a frame or a ring, whose thickness is a share of its shorter side."""
    standard = 12_500 if name == "frame" else 25_000
    given = next((change.get("fmla", "").removeprefix("val ") for change in changes), "")
    thickness = (float(given) if given.isdecimal() else standard) / 100_000 * min(place.size)
    across, down = (0.5 - thickness / side for side in place.size)
    x, y = abs(shares[0] - 0.5), abs(shares[1] - 0.5)
    outside = name == "donut" and hypot(x, y) > 0.5
    if across <= 0 or down <= 0:
        return outside
    return outside or (x < across and y < down if name == "frame" else hypot(x / across, y / down) < 1)


def _polygons(path: Element, place: Place) -> Polygons:
    """Return the outlines of a drawn path as polygons; a curve's guiding points stand for it."""
    width, height = (share_of(path, side, unit=1) or size for side, size in zip("wh", place.size, strict=True))
    found: list[list[Point]] = []
    for step in path:
        if local(step) == "moveTo" or not found:
            found.append([])
        points = [(share_of(at, "x", unit=width), share_of(at, "y", unit=height)) for at in step.iterfind("{*}pt")]
        found[-1] += points if local(step) != "arcTo" else _arc(found[-1], step, (width, height))
    return found


def _arc(before: Sequence[Point], step: Element, size: Point) -> list[Point]:
    if not before:
        return []
    begin, sweep = (share_of(step, name, unit=60_000) * pi / 180 for name in ("stAng", "swAng"))
    across, down = share_of(step, "wR", unit=size[0]), share_of(step, "hR", unit=size[1])
    middle = (before[-1][0] - across * cos(begin), before[-1][1] - down * sin(begin))
    turns = (begin + sweep * part / 8 for part in range(1, 9))
    return [(middle[0] + across * cos(turn), middle[1] + down * sin(turn)) for turn in turns]


def _is_in_polygons(point: Point, polygons: Polygons) -> bool:
    """Tell whether a point is inside by the even-odd rule, by which a hole in a shape is one."""
    x, y = point
    edges = (edge for polygon in polygons if polygon for edge in pairwise([*polygon, polygon[0]]))
    crossed = [
        a for a, b in edges if (a[1] > y) != (b[1] > y) and x < a[0] + (y - a[1]) * (b[0] - a[0]) / (b[1] - a[1])
    ]
    return len(crossed) % 2 == 1
