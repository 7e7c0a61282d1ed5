"""Ruled tables of a PDF page: rules from pdfium, cells by pdfplumber's algorithm, merged cells filled in."""

import ctypes
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium_c
from pdfplumber.table import cells_to_tables, edges_to_intersections, intersections_to_cells, merge_edges

from ingest.parsing.pdf_layout import Box, Table, Upright
from ingest.parsing.pdf_letters import PlacedLetter
from ingest.parsing.tables import to_markdown

MOST_CELLS: Final = 5000
MOST_RULES: Final = 50_000  # per page; more means a drawing
COVERED: Final = 0.8  # share of its frame that a table's cells must cover
_DEEPEST: Final = 15  # nested forms
_SAME_EDGE: Final = 2.0  # points: a rule drawn twice
_SAME_END: Final = 3.0  # points: pdfplumber's tolerance for joining rules
_STRAIGHT: Final = 0.5  # points of slant allowed in a rule
_SHORTEST: Final = 1.0  # point
_WORD_GAP: Final = 0.3  # of a letter's height: maximum gap between letters of a word

Edge = dict[str, Any]
"""A rule as pdfplumber expects it; y grows downwards from 0 at the bottom of the page."""
_Cell = tuple[float, float, float, float]  # left, top, right, bottom
_Point = tuple[float, float]


def tables_on_page(page: pypdfium2.PdfPage, upright: Upright, letters: Sequence[PlacedLetter]) -> list[Table]:
    """Return an upright page's tables of at least two rows and columns, without hidden letters."""
    edges = list(_edges_of(page, upright))
    visible = [letter for letter in letters if not letter.hidden]
    grids = [cells for cells in _ruled_grids(edges) if len(cells) <= MOST_CELLS]
    tables = [_table(cells, visible) for cells in grids]
    return _innermost([table for table in tables if table is not None])


def _edges_of(page: pypdfium2.PdfPage, upright: Upright) -> Iterator[Edge]:
    """Yield the straight horizontal and vertical rules of a page, from any kind of path."""
    for number, (start, end) in enumerate(_segments(page)):
        if number == MOST_RULES:
            return
        x0, x1 = sorted((start[0], end[0]))
        y0, y1 = sorted((start[1], end[1]))
        left, bottom, right, top = upright.box(x0, y0, x1, y1)
        if right - left <= _STRAIGHT and top - bottom >= _SHORTEST:
            yield _edge("v", (left + right) / 2, -top, (left + right) / 2, -bottom)
        elif top - bottom <= _STRAIGHT and right - left >= _SHORTEST:
            yield _edge("h", left, -(top + bottom) / 2, right, -(top + bottom) / 2)


def _edge(orientation: str, x0: float, top: float, x1: float, bottom: float) -> Edge:
    return {
        "orientation": orientation, "x0": x0, "x1": x1, "top": top, "bottom": bottom,
        "width": x1 - x0, "height": bottom - top,
    }  # fmt: skip


def _segments(page: pypdfium2.PdfPage) -> Iterator[tuple[_Point, _Point]]:
    """Yield the straight segments of a page's painted paths, including those in nested form objects."""
    # pdfium has different functions for the objects of a page and of a form.
    unvisited = [(page, pdfium_c.FPDFPage_CountObjects, pdfium_c.FPDFPage_GetObject, pypdfium2.PdfMatrix(), 0)]
    while unvisited:
        container, count_objects, get_object, outer, depth = unvisited.pop()
        for drawn in (get_object(container, number) for number in range(count_objects(container))):
            kind = pdfium_c.FPDFPageObj_GetType(drawn)
            if kind == pdfium_c.FPDF_PAGEOBJ_FORM and depth < _DEEPEST:
                inner = _matrix_of(drawn, outer)
                unvisited.append(
                    (drawn, pdfium_c.FPDFFormObj_CountObjects, pdfium_c.FPDFFormObj_GetObject, inner, depth + 1)
                )
            elif kind == pdfium_c.FPDF_PAGEOBJ_PATH and _is_painted(drawn):
                yield from _straight_parts(drawn, _matrix_of(drawn, outer))


def _is_painted(path: Any) -> bool:
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    return not pdfium_c.FPDFPath_GetDrawMode(path, fill, stroke) or bool(fill.value or stroke.value)


def _straight_parts(path: Any, matrix: pypdfium2.PdfMatrix) -> Iterator[tuple[_Point, _Point]]:
    """Yield the straight segments of a path, including those that close a subpath."""
    start = last = (0.0, 0.0)
    x, y = ctypes.c_float(), ctypes.c_float()
    for number in range(pdfium_c.FPDFPath_CountSegments(path)):
        segment = pdfium_c.FPDFPath_GetPathSegment(path, number)
        pdfium_c.FPDFPathSegment_GetPoint(segment, x, y)
        point = matrix.on_point(x.value, y.value)
        kind = pdfium_c.FPDFPathSegment_GetType(segment)
        if kind == pdfium_c.FPDF_SEGMENT_MOVETO:
            start = point
        elif kind == pdfium_c.FPDF_SEGMENT_LINETO:
            yield last, point
        last = point
        if pdfium_c.FPDFPathSegment_GetClose(segment):
            yield last, start
            last = start


def _matrix_of(drawn: Any, outer: pypdfium2.PdfMatrix) -> pypdfium2.PdfMatrix:
    matrix = pdfium_c.FS_MATRIX(1, 0, 0, 1, 0, 0)
    pdfium_c.FPDFPageObj_GetMatrix(drawn, matrix)
    return pypdfium2.PdfMatrix.from_raw(matrix).multiply(outer)


def _ruled_grids(edges: Sequence[Edge]) -> list[list[_Cell]]:
    """Return the cells of each ruled table; missing side borders are added first."""
    merged = _merged(edges)
    tables = _cells_of(merged)
    sides = [side for cells in tables for side in _open_sides(cells, merged)]
    return _cells_of(_merged([*edges, *sides])) if sides else tables


def _merged(edges: Sequence[Edge]) -> list[Edge]:
    whole = merge_edges(list(edges), *[_SAME_END] * 4)
    return [edge for edge in whole if max(edge["width"], edge["height"]) >= _SAME_END]


def _cells_of(edges: list[Edge]) -> list[list[_Cell]]:
    cells = intersections_to_cells(edges_to_intersections(edges, _SAME_END, _SAME_END))
    return cells_to_tables(cells) if cells else []


def _open_sides(cells: Sequence[_Cell], edges: Sequence[Edge]) -> Iterator[Edge]:
    """Yield the missing side borders of a table, where several horizontal rules end at the same x."""
    left, top, right, bottom = _frame(cells)
    rules = [
        edge for edge in edges
        if edge["orientation"] == "h" and top - _SAME_END <= edge["top"] <= bottom + _SAME_END
        and edge["x0"] < right and edge["x1"] > left
    ]  # fmt: skip
    ends = [(rule["x0"], rule["top"]) for rule in rules if rule["x0"] < left + _SAME_END]
    ends += [(rule["x1"], rule["top"]) for rule in rules if rule["x1"] > right - _SAME_END]
    for x in dict.fromkeys(x for x, _ in ends):
        heights = [y for other_x, y in ends if abs(other_x - x) <= _SAME_END]
        first, last = min(heights), max(heights)
        if first < last and not any(_is_border(edge, x, first, last) for edge in edges):
            yield _edge("v", x, first, x, last)


def _is_border(edge: Mapping[str, Any], x: float, first: float, last: float) -> bool:
    """Return whether an edge is a vertical border at `x` from `first` to `last`."""
    is_at_x = edge["orientation"] == "v" and abs(edge["x0"] - x) <= _SAME_END
    return is_at_x and bool(edge["top"] <= first + _SAME_END and edge["bottom"] >= last - _SAME_END)


def _frame(cells: Sequence[_Cell]) -> _Cell:
    lefts, tops, rights, bottoms = zip(*cells, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _innermost(tables: list[Table]) -> list[Table]:
    """Drop tables that only frame others: flattened into a cell, the inner table would lose its columns."""
    return [outer for outer in tables if not any(_frames(outer, inner) for inner in tables if inner is not outer)]


def _frames(outer: Table, inner: Table) -> bool:
    """Return whether each cell of the inner table is within one cell of the outer table."""
    return all(
        any(frame.holds(cell.left, cell.bottom) and frame.holds(cell.right, cell.top) for frame in outer.cells)
        for cell in inner.cells
    )


def _table(drawn: Sequence[_Cell], letters: Sequence[PlacedLetter]) -> Table | None:
    """Return the table with these cells; None if they are only a frame or mostly blank, or if their border splits text.

    A table has at least two rows and columns, and two cells with text.
    """
    columns = _distinct_edges([cell[0] for cell in drawn])
    rows = _distinct_edges([cell[1] for cell in drawn])
    if len(columns) < 2 or len(rows) < 2:
        return None
    cells = tuple(Box(left=c[0], bottom=-c[3], right=c[2], top=-c[1]) for c in drawn)
    left, top, right, bottom = _frame(drawn)
    if sum(cell.area for cell in cells) < COVERED * (right - left) * (bottom - top):
        return None  # a frame that is open on the right: as plain text, labels still precede their values
    letters_of_cells = _letters_within(cells, letters)
    if sum(map(bool, letters_of_cells)) < 2:
        return None
    table_letters = sorted((letter for cell in letters_of_cells for letter in cell), key=lambda letter: letter.index)
    if _splits_text(table_letters, letters):
        return None
    grid, head_spans = _fill_grid(drawn, [_text(cell) for cell in letters_of_cells], columns, rows)
    depth = _header_rows(head_spans, len(rows))
    markdown = to_markdown(grid, header_rows=depth, drop_repeated=True)
    indices = frozenset(letter.index for letter in table_letters)
    return Table(markdown=markdown, cells=cells, header_rows=depth, letters=indices)


def _letters_within(cells: Sequence[Box], letters: Sequence[PlacedLetter]) -> list[list[PlacedLetter]]:
    """Return the letters of each cell, by their midpoints; a letter is in at most one cell."""
    x = np.array([(letter.box.left + letter.box.right) / 2 for letter in letters])
    y = np.array([(letter.box.bottom + letter.box.top) / 2 for letter in letters])
    unassigned = np.ones(len(letters), bool)
    letters_of_cells = []
    for cell in cells:
        is_in_cell = unassigned & (cell.left <= x) & (x <= cell.right) & (cell.bottom <= y) & (y <= cell.top)
        unassigned &= ~is_in_cell
        letters_of_cells.append([letters[int(index)] for index in np.flatnonzero(is_in_cell)])
    return letters_of_cells


def _text(letters: Sequence[PlacedLetter]) -> str:
    """Join letters, with a space between those that are not adjacent in the page's text."""
    parts = [letter.character for letter in letters[:1]]
    for before, after in pairwise(letters):
        parts.append(after.character if after.index == before.index + 1 else f" {after.character}")
    return "".join(parts)


def _splits_text(table_letters: Sequence[PlacedLetter], letters: Sequence[PlacedLetter]) -> bool:
    """Return whether a table's border splits a word, or several lines of text (their labels are then outside it)."""
    indices = {letter.index for letter in table_letters}
    split_pairs = [
        (a, b)
        for a, b in pairwise(letters)
        if (a.index in indices) != (b.index in indices) and _are_on_one_line(a.box, b.box)
    ]
    if any(map(_are_in_one_word, split_pairs)):
        return True
    if not split_pairs:
        return False
    boxes = [letter.box for pair in split_pairs for letter in pair if letter.index in indices]
    tallest = max(box.top - box.bottom for box in boxes)
    return max(box.bottom for box in boxes) - min(box.bottom for box in boxes) > tallest


def _are_on_one_line(before: Box, after: Box) -> bool:
    height = max(before.top - before.bottom, after.top - after.bottom)
    return min(before.top, after.top) - max(before.bottom, after.bottom) > height / 2


def _are_in_one_word(pair: tuple[PlacedLetter, PlacedLetter]) -> bool:
    before, after = pair
    height = max(before.box.top - before.box.bottom, after.box.top - after.box.bottom)
    return before.index + 1 == after.index and abs(after.box.left - before.box.right) < _WORD_GAP * height


def _fill_grid(
    cells: Sequence[_Cell], texts: Sequence[str], columns: list[float], rows: list[float]
) -> tuple[list[list[str]], list[tuple[int, int]]]:
    """Return the grid with merged cells filled in, and the (rows, columns) span of each cell in the first row."""
    grid = [[""] * len(columns) for _ in rows]
    head_spans: list[tuple[int, int]] = []
    for cell, text in zip(cells, texts, strict=True):
        left, top, right, bottom = cell
        first_row, next_row = _covered_range(rows, top, bottom)
        first_column, next_column = _covered_range(columns, left, right)
        if first_row == 0:
            head_spans.append((next_row - first_row, next_column - first_column))
        for row in range(first_row, next_row):
            grid[row][first_column:next_column] = [text] * (next_column - first_column)
    return grid, head_spans


def _header_rows(spans: list[tuple[int, int]], rows: int) -> int:
    """Return the number of header rows: the height of the tallest first-row cell if any spans columns, or else 1."""
    tallest = max((down for down, _ in spans), default=1)
    spanning = any(across > 1 for _, across in spans)
    return tallest if spanning and tallest <= 3 and tallest < rows else 1


def _distinct_edges(values: list[float]) -> list[float]:
    """Return the distinct edges in order; values up to _SAME_EDGE apart are one edge."""
    edges: list[float] = []
    for value in sorted(values):
        if not edges or value - edges[-1] > _SAME_EDGE:
            edges.append(value)
    return edges


def _covered_range(edges: list[float], start: float, end: float) -> tuple[int, int]:
    """Return the first row or column that a cell covers, and the one after its last."""
    first = bisect_left(edges, start - _SAME_EDGE)
    return first, max(bisect_left(edges, end - _SAME_EDGE), first + 1)
