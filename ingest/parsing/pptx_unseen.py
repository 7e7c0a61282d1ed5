"""What nobody sees on a slide, or is struck out, is no text of it: covered, off it, tiny, of its ground's colour. Pure.

A slide is looked at as it is printed: an animation that would take away what covers a text does not count. Where a
paragraph stands is reckoned from its letters' sizes, and nine tenths of it must be covered. In its colour nothing is
hidden by a ground that is not known: a picture, a gradient, the style of a table.
"""

from collections.abc import Iterator, Sequence
from typing import Final
from xml.etree.ElementTree import Element

from pptx.slide import Slide

from ingest.parsing.colours import blends
from ingest.parsing.drawing_fills import NO_FILL, Colour
from ingest.parsing.drawing_layers import Box, Point, is_hidden, near
from ingest.parsing.drawing_text import lines_of, points_in, runs_of
from ingest.parsing.elements import local
from ingest.parsing.pptx_layers import ReadPicture, SlideLayers

_SHARE: Final = 0.9
_SMALLEST_POINTS: Final = 2
_LEAST_DRAWN: Final = 0.05
_TINGE: Final = 12  # of 255: what a picture changes of the colours behind it


def remove_unseen(slide: Slide, read_picture: ReadPicture) -> None:
    """Take from a slide the shapes, the letters and the charts that nobody sees on it."""
    hidden = [shape for shape in slide.shapes.element.iter() if is_hidden(shape)]
    runs = slide.shapes.element.iter("{*}r")
    struck = [run for run in runs if any(own.get("strike", "noStrike") != "noStrike" for own in run.iterfind("{*}rPr"))]
    for element in [*hidden, *struck, *_unseen(SlideLayers(slide, read_picture))]:
        parent = element.getparent()
        if parent is not None:
            parent.remove(element)


def _unseen(view: SlideLayers) -> Iterator[Element]:
    for at, layer in enumerate(view.layers[len(view.beneath) :], start=len(view.beneath)):
        body = layer.element.find("{*}txBody")
        if local(layer.element) == "graphicFrame":
            if _is_out_of_sight(points_in(Box(0, 0, *layer.place.size), layer.place), view, at):
                yield layer.element
        elif body is not None:
            yield from _unseen_runs(body, view, at)


def _unseen_runs(body: Element, view: SlideLayers, at: int) -> Iterator[Element]:
    layer = view.layers[at]
    style = view.style(layer)
    for line in lines_of(body, style, layer.place.size):
        runs, points = runs_of(line.paragraph), points_in(line.box, layer.place)
        if runs and _is_out_of_sight(points, view, at):
            yield from runs
        else:
            small = [run for run in runs if style.size(run, line.level) < _SMALLEST_POINTS]
            yield from small
            for run in runs:
                if run not in small and _is_blended(run, style.colour(run, line.level, view.palette), points, view, at):
                    yield run


def _is_out_of_sight(points: Sequence[Point], view: SlideLayers, at: int) -> bool:
    """Tell whether points of a layer lie beside the slide or under what is drawn later."""
    covers = near(points, (layer for layer in view.layers[at + 1 :] if layer.fill.is_opaque))
    width, height = view.size

    def is_seen(point: Point) -> bool:
        on_slide = 0 <= point[0] <= width and 0 <= point[1] <= height
        return on_slide and not any(cover.holds(point) for cover in covers)

    return sum(map(is_seen, points)) <= (1 - _SHARE) * len(points)


def _is_blended(run: Element, colour: Colour, points: Sequence[Point], view: SlideLayers, at: int) -> bool:
    """Tell whether a run's letters have the colour of what they stand on, or none."""
    own = run.find("{*}rPr")
    outline, marker = (None, None) if own is None else (own.find("{*}ln"), own.find("{*}highlight"))
    if outline is not None and (view.palette.fill(outline, None) or NO_FILL).is_there:
        return False
    if colour.opacity <= _LEAST_DRAWN:
        return True
    if marker is not None:
        return blends(colour.rgb, view.palette.colour(marker).rgb)
    below = near(points, (layer for layer in reversed(view.layers[: at + 1]) if layer.fill.is_there))
    grounds = (next((layer.fill for layer in below if layer.holds(point, _TINGE)), view.ground) for point in points)
    blended = sum(ground.is_opaque and blends(colour.rgb, ground.rgb) for ground in grounds)
    return blended >= _SHARE * len(points)
