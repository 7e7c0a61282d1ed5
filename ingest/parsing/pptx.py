"""PPTX to Markdown: one page per slide, under its title; text from top to bottom, tables, and chart data."""

from collections import Counter
from collections.abc import Iterable, Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from openpyxl.styles.numbers import is_date_format
from openpyxl.utils.datetime import from_excel
from pptx import Presentation
from pptx.chart.chart import Chart
from pptx.chart.plot import _BasePlot
from pptx.chart.series import _BaseCategorySeries, _BaseSeries
from pptx.shapes.base import BaseShape
from pptx.shapes.graphfrm import GraphicFrame
from pptx.shapes.group import GroupShape
from pptx.slide import Slide
from pptx.table import Table
from pptx.text.text import TextFrame

from ingest.parsing.archive import Office, has_text
from ingest.parsing.cells import display_text
from ingest.parsing.parsed import Format, LeftOut, OnPage, Page, Parsed, Reason, Unreadable
from ingest.parsing.superscripts import run_text
from ingest.parsing.tables import Merged, header_rows, to_markdown

MOST_NESTED = 20  # nested groups


def parse_pptx(office: Office, on_page: OnPage) -> Parsed:
    """Return a presentation's visible slides."""
    pages: list[Page] = []
    left_out: Counter[LeftOut] = Counter()
    for number, slide in enumerate(Presentation(office.repack()).slides, start=1):
        on_page()
        if slide.element.get("show", "").strip() in {"0", "false"}:
            left_out[LeftOut.SLIDE] += 1
        else:
            left_out[LeftOut.NOTES] += _has_notes(slide)
            left_out[LeftOut.COMMENT] += _comment_count(slide)
            left_out[LeftOut.ELEMENT] += _remove_hidden(slide)
            _mark_runs(slide)
            pages.append(Page(number=number, markdown="\n\n".join(_slide_blocks(slide))))
    titled_slide = next((page.markdown for page in pages if page.markdown.startswith("# ")), "")
    title = office.title or titled_slide.partition("\n")[0].removeprefix("# ") or None
    return Parsed(format=Format.PPTX, title=title, pages=tuple(pages), left_out=+left_out)


def _has_notes(slide: Slide) -> bool:
    notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    return notes is not None and bool(notes.text.strip())


def _comment_count(slide: Slide) -> int:
    parts = [link.target_part for link in slide.part.rels.values() if link.reltype.endswith("/comments")]
    return sum(1 for part in parts for _ in ElementTree.fromstring(part.blob).iterfind(".//{*}cm"))  # noqa: S314  `archive` has refused entities


def _remove_hidden(slide: Slide) -> int:
    """Remove shapes marked as hidden; return the number that contain text."""
    count = 0
    tree = slide.shapes.element
    for properties in list(tree.iter("{*}cNvPr")):
        shape = properties.getparent().getparent()
        is_hidden = properties.get("hidden", "0") not in {"0", "false"}
        if is_hidden and shape.getparent() is not None and shape is not tree:
            count += has_text(shape)
            shape.getparent().remove(shape)
    return count


def _mark_runs(slide: Slide) -> None:
    """Mark superscript and struck text on a slide."""
    for run in slide.shapes.element.iter("{*}r", "{*}fld"):
        text = run.find("{*}t")
        before = run.getprevious()
        if text is not None:
            text.text = run_text(run, "" if before is None else before.findtext("{*}t", ""))


def _slide_blocks(slide: Slide) -> Iterator[str]:
    title = slide.shapes.title
    if title is not None and title.text_frame.text.strip():
        yield f"# {' '.join(title.text_frame.text.split())}"
    for shape in _shapes(slide.shapes):
        if title is None or shape.shape_id != title.shape_id:
            yield from filter(None, _shape_blocks(shape))


def _shapes(shapes: Iterable[BaseShape], depth: int = 0) -> Iterator[BaseShape]:
    """Yield shapes from top to bottom and left to right; a group's shapes stay together."""
    if depth > MOST_NESTED:
        raise Unreadable(Reason.HOSTILE, "its shapes are nested deeper than in any presentation")
    for shape in sorted(shapes, key=lambda shape: (shape.top or 0, shape.left or 0)):
        if isinstance(shape, GroupShape):
            yield from _shapes(shape.shapes, depth + 1)
        else:
            yield shape


def _shape_blocks(shape: BaseShape) -> Iterator[str]:
    if isinstance(shape, GraphicFrame) and shape.has_table:
        yield _table(shape.table)
    elif isinstance(shape, GraphicFrame) and shape.has_chart:
        yield _chart(shape.chart)
    elif shape.has_text_frame:
        yield _frame_text(shape.text_frame, is_list=shape.is_placeholder)  # type: ignore[attr-defined]  # has_text_frame


def _frame_text(frame: TextFrame, *, is_list: bool) -> str:
    lines = [(p.level, " ".join(p.text.split())) for p in frame.paragraphs]
    lines = [(level, text) for level, text in lines if text]
    if is_list and len(lines) > 1:
        return "\n".join(f"{'  ' * level}- {text}" for level, text in lines)
    return "\n\n".join(text for _, text in lines)


def _table(table: Table) -> str:
    grid = [[cell.text for cell in row.cells] for row in table.rows]
    merged: list[Merged] = []
    for top, row in enumerate(table.rows):
        for left, cell in enumerate(row.cells):
            if not cell.is_merge_origin:
                continue
            merged.append(Merged(top, left, cell.span_height, cell.span_width))
            for line in grid[top : top + cell.span_height]:
                right = min(left + cell.span_width, len(line))
                line[left:right] = [cell.text] * (right - left)
    return to_markdown(grid, header_rows=header_rows(grid, merged), drop_repeated=bool(merged))


def _chart(chart: Chart) -> str:
    """Return a chart's data as a table under its title."""
    parts = [chart.chart_title.text_frame.text] if chart.has_title and chart.chart_title.has_text_frame else []
    for plot in chart.plots:
        if any(series._element.find("{*}xVal") is not None for series in plot.series):  # noqa: SLF001  as below
            parts += [_points(series) for series in plot.series]
            continue
        labels = _labels(plot)
        columns = [_values(series) for series in plot.series]
        height = max([*map(len, columns), *(index + 1 for index in labels)], default=0)
        rows = [
            [labels.get(i, ""), *(column[i] if i < len(column) else "" for column in columns)] for i in range(height)
        ]
        parts.append(to_markdown([["", *(series.name for series in plot.series)], *rows]))
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _values(series: _BaseCategorySeries) -> list[str]:
    """Return the values of a series as its chart shows them."""
    number_format = _number_format(series._element)  # noqa: SLF001  not exposed by python-pptx
    return [display_text(value, number_format) for value in series.values]


def _labels(plot: _BasePlot) -> dict[int, str]:
    """Return a plot's category labels by index; some values may have none."""
    levels = plot.categories.levels
    paths = zip(levels[0] if levels else plot.categories, plot.categories.flattened_labels, strict=True)
    labels = {label.idx: " / ".join(filter(None, path)) for label, path in paths}
    number_format = plot._element.findtext("{*}ser/{*}cat//{*}formatCode", "")  # noqa: SLF001  as above
    return {i: _axis_label(label, number_format) for i, label in labels.items()} if number_format else labels


def _axis_label(text: str, number_format: str) -> str:
    """Format a numeric label as the chart shows it, but a date as in ISO 8601; return other text unchanged."""
    try:
        number = float(text)
        return display_text(from_excel(number) if is_date_format(number_format) else number, number_format)
    except (ValueError, OverflowError):
        return text


def _points(series: _BaseSeries) -> str:
    """Return the points of an XY or bubble series as a table."""
    element = series._element  # noqa: SLF001  as above
    x_values, y_values, sizes = (_numbers(element, name) for name in ("xVal", "yVal", "bubbleSize"))
    number_format = _number_format(element)
    rows = [[x_values.get(i, ""), _axis_label(y, number_format)] for i, y in sorted(y_values.items())]
    if sizes:
        rows = [[*row, sizes.get(i, "")] for row, i in zip(rows, sorted(y_values), strict=True)]
    return to_markdown([["", series.name], *rows])


def _numbers(series: Element, name: str) -> dict[int, str]:
    """Return the stored numbers of one kind by index."""
    points = series.iterfind(f"{{*}}{name}//{{*}}pt")
    return {int(point.get("idx", "0")): point.findtext("{*}v", "") for point in points}


def _number_format(series: Element) -> str:
    """Return the number format of a series' values."""
    codes = [*series.iterfind("{*}val//{*}formatCode"), *series.iterfind("{*}yVal//{*}formatCode")]
    return next((code.text for code in codes if code.text), "General")
