"""The text of a sheet's text boxes and shapes, as far as it is seen: units and notes often stand there. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final
from xml.etree.ElementTree import Element

from ingest.parsing.archive import Office
from ingest.parsing.colours import blends
from ingest.parsing.drawing_fills import Palette, share_of
from ingest.parsing.drawing_layers import Box, Layer, near
from ingest.parsing.drawing_text import EMU, Style, points_in, words_of
from ingest.parsing.elements import local
from ingest.parsing.raised import raised
from ingest.parsing.xlsx_covered import Edges, layers_of, palette_of

_WHITE: Final = (255, 255, 255)
_SMALLEST_POINTS: Final = 2
_LEAST_DRAWN: Final = 0.05
_SHARE: Final = 0.9


def text_boxes(office: Office, sheet: str, columns: Edges, rows: Edges) -> list[tuple[float, str]]:
    """Return the texts of a sheet's part from the top, each with where its box begins, in EMU."""
    palette = palette_of(office)
    layers = layers_of(office, sheet, palette, columns, rows)
    found = []
    for at, layer in enumerate(layers):
        if local(layer.element) == "sp" and not _is_out_of_sight(layer, layers[at + 1 :]):
            text = "\n\n".join(filter(None, _paragraphs(layer, palette)))
            found += [(layer.bounds, text)] if text else []
    # A shape may stand there twice, the second time for programs that do not know its kind.
    return sorted(((bounds[1], text) for bounds, text in dict.fromkeys(found)), key=lambda box: box[0])


def _is_out_of_sight(layer: Layer, later: Sequence[Layer]) -> bool:
    """Tell whether a shape has no room, as one over hidden rows, or lies under what is drawn later."""
    if min(layer.place.size) < _SMALLEST_POINTS * EMU:
        return True
    points = points_in(Box(0, 0, *layer.place.size), layer.place)
    covers = near(points, (cover for cover in later if cover.fill.is_opaque))
    return sum(any(cover.holds(point) for cover in covers) for point in points) >= _SHARE * len(points)


def _paragraphs(layer: Layer, palette: Palette) -> Iterator[str]:
    shape = layer.element
    style = Style(
        [*shape.iterfind("{*}txBody/{*}bodyPr")],
        [*shape.iterfind("{*}txBody/{*}lstStyle")],
        shape.find("{*}style/{*}fontRef"),
    )
    ground = layer.fill.rgb if layer.fill.is_there else _WHITE
    for paragraph in shape.iterfind("{*}txBody/{*}p"):
        level = int(share_of(paragraph.find("{*}pPr"), "lvl", unit=1))
        text = ""
        for run in paragraph:
            if local(run) in {"r", "fld"} and not _is_unseen(run, level, style, palette, ground):
                text += _written(run, text)
            elif local(run) == "br":
                text += " "
        yield " ".join(text.split())


def _written(run: Element, before: str) -> str:
    own = run.find("{*}rPr")
    baseline = "" if own is None else own.get("baseline", "")
    is_raised = baseline.strip("0%") and not baseline.startswith("-")
    return raised(words_of(run), before) if is_raised else words_of(run)


def _is_unseen(run: Element, level: int, style: Style, palette: Palette, ground: Sequence[float] | None) -> bool:
    """Tell whether letters are struck out, tiny, or of the colour of what they stand on, or of none."""
    if any(own.get("strike", "noStrike") != "noStrike" for own in run.iterfind("{*}rPr")):
        return True
    colour = style.colour(run, level, palette)
    return style.size(run, level) < _SMALLEST_POINTS or colour.opacity <= _LEAST_DRAWN or blends(colour.rgb, ground)
