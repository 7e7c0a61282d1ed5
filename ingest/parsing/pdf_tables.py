"""Ruled tables of a PDF page by pdfplumber, merged cells filled in, with the boxes of their cells."""

import struct
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any
from unicodedata import normalize

import numpy as np
import pdfplumber
from pdfminer.pdfexceptions import PDFException
from pdfminer.psexceptions import PSException
from pdfplumber.table import Table as DrawnTable
from pdfplumber.table import TableFinder
from pdfplumber.utils.exceptions import PdfminerException

from ingest.parsing.pdf_layout import Box, Table
from ingest.parsing.pdf_letters import PlacedLetter
from ingest.parsing.raised import raised
from ingest.parsing.tables import to_markdown

MOST_CELLS = 5000
COVERED = 0.8  # share of its frame that a table's cells must cover
_SAME_EDGE = 2.0  # points: rules drawn twice


_SAME_END = 3.0  # points: what pdfplumber takes for one place
_BAND = 8  # points
_NEXT = 0.3  # of a letter's height: letters of a word stand closer


class PageTables:
    """The tables of a PDF's pages; opens the file with pdfplumber when the first page is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pdf: pdfplumber.pdf.PDF | None = None

    def __enter__(self) -> "PageTables":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pdf is not None:
            self._pdf.close()

    def on_page(self, index: int, *, turn: int, letters: Sequence[PlacedLetter]) -> list[Table]:
        """Return the tables of at least two rows and two columns of a page, turned clockwise by `turn` degrees.

        Of the page's letters, with their boxes on the turned page, the hidden ones are left out of the cells.

        pdfium reads pages that pdfplumber cannot (bad colour spaces, odd streams): those have no tables.
        """
        try:
            if self._pdf is None:
                self._pdf = pdfplumber.open(self._path)
            page = self._pdf.pages[index]
            return _tables(page if page.rotation == turn else _turned(page, turn), letters)
        except (
            PDFException,
            PdfminerException,
            PSException,
            ValueError,
            TypeError,
            KeyError,
            IndexError,
            struct.error,
        ):
            return []


def _turned(page: pdfplumber.page.Page, turn: int) -> pdfplumber.page.Page:
    """Return a page with another rotation than its entry in the file has."""
    page.page_obj.rotate = turn
    page.page_obj.attrs = {**page.page_obj.attrs, "Rotate": turn}
    return pdfplumber.page.Page(page.pdf, page.page_obj, page.page_number)


def _tables(page: pdfplumber.page.Page, letters: Sequence[PlacedLetter]) -> list[Table]:
    bands: dict[int, list[PlacedLetter]] = defaultdict(list)
    for letter in letters:
        for band in range(int(letter.box.bottom // _BAND), int(letter.box.top // _BAND) + 1):
            bands[band].append(letter)
    try:
        floor = float(page.height) + float(page.mediabox[1])
        shown = page.filter(partial(_is_shown, bands=bands, floor=floor))
        drawn = [table for table in _drawn(shown) if len(table.cells) <= MOST_CELLS]
        tables = [_table(table, floor, letters) for table in drawn]
    finally:
        page.close()
    return _innermost([table for table in tables if table is not None])


def _is_shown(drawn: dict[str, Any], *, bands: Mapping[int, Sequence[PlacedLetter]], floor: float) -> bool:
    """Return whether pdfplumber's object is not a hidden letter: one is known by its place and by what it is.

    A raised letter becomes one in pdfplumber's object too, of which the cells are made.
    """
    if drawn["object_type"] != "char":
        return True
    x, y = (drawn["x0"] + drawn["x1"]) / 2, floor - (drawn["top"] + drawn["bottom"]) / 2
    text = normalize("NFKC", drawn["text"])
    there = [letter for letter in bands.get(int(y // _BAND), ()) if letter.box.holds(x, y)]
    same = [letter for letter in there if normalize("NFKC", letter.letter) in text]
    if same and all(letter.letter == raised(text) for letter in same):
        drawn["text"] = same[0].letter
    return not any(letter.is_hidden for letter in same)


def _drawn(page: pdfplumber.page.Page) -> Sequence[DrawnTable]:
    """Return the ruled tables of a page, of which those without borders at their sides are closed there."""
    finder = page.debug_tablefinder()
    sides = [side for table in finder.tables for side in _open_sides(table, finder)]
    return page.find_tables({"explicit_vertical_lines": sides}) if sides else finder.tables


def _open_sides(table: DrawnTable, finder: TableFinder) -> Iterator[dict[str, Any]]:
    """Yield borders where rules of a table end together, at its cells or beyond them, and none is drawn."""
    left, top, right, bottom = table.bbox
    across = [
        edge for edge in finder.edges
        if edge["orientation"] == "h" and top - _SAME_END <= edge["top"] <= bottom + _SAME_END
        and edge["x0"] < right and edge["x1"] > left
    ]  # fmt: skip
    ends = [(edge["x0"], edge["top"]) for edge in across if edge["x0"] < left + _SAME_END]
    ends += [(edge["x1"], edge["top"]) for edge in across if edge["x1"] > right - _SAME_END]
    for x in dict.fromkeys(x for x, _ in ends):
        heights = [y for other, y in ends if abs(other - x) <= _SAME_END]
        first, last = min(heights), max(heights)
        if first < last and not any(_reaches(edge, x, first, last) for edge in finder.edges):
            yield {
                "object_type": "line_edge", "orientation": "v", "x0": x, "x1": x,
                "top": first, "bottom": last, "width": 0, "height": last - first,
            }  # fmt: skip


def _reaches(edge: Mapping[str, Any], x: float, first: float, last: float) -> bool:
    """Return whether an upright rule is a border at `x` from one height to another."""
    is_there = edge["orientation"] == "v" and abs(edge["x0"] - x) <= _SAME_END
    return is_there and bool(edge["top"] <= first + _SAME_END and edge["bottom"] >= last - _SAME_END)


def _innermost(tables: list[Table]) -> list[Table]:
    """Leave out tables that only frame others: flattened into a cell, the inner table would lose its columns."""
    return [outer for outer in tables if not any(_frames(outer, inner) for inner in tables if inner is not outer)]


def _frames(outer: Table, inner: Table) -> bool:
    return all(
        any(frame.holds(cell.left, cell.bottom) and frame.holds(cell.right, cell.top) for frame in outer.cells)
        for cell in inner.cells
    )


def _table(drawn: DrawnTable, floor: float, letters: Sequence[PlacedLetter]) -> Table | None:
    columns = _edges([cell[0] for cell in drawn.cells])
    rows = _edges([cell[1] for cell in drawn.cells])
    if len(columns) < 2 or len(rows) < 2:
        return None
    cells = tuple(Box(left=c[0], bottom=floor - c[3], right=c[2], top=floor - c[1]) for c in drawn.cells)
    left, top, right, bottom = drawn.bbox
    if sum(cell.area for cell in cells) < COVERED * (right - left) * (bottom - top):
        return None  # a frame whose right half is open: as text, its labels still precede their values
    grid, head_spans = _filled(drawn, columns, rows)
    if sum(bool(text) for line in grid for text in line) < 2:
        return None
    within = _within(cells, letters)
    if _lacks(chain.from_iterable(grid), within) or _breaks_lines(within, letters):
        return None
    depth = _header_rows(head_spans, len(rows))
    markdown = to_markdown(grid, header_rows=depth, filled=True)
    return Table(markdown=markdown, cells=cells, header_rows=depth, letters=frozenset(one.index for one in within))


def _within(cells: Sequence[Box], letters: Sequence[PlacedLetter]) -> list[PlacedLetter]:
    """Return the letters, but hidden ones, whose middles lie in cells."""
    seen = [letter for letter in letters if not letter.is_hidden]
    x = np.array([(one.box.left + one.box.right) / 2 for one in seen])
    y = np.array([(one.box.bottom + one.box.top) / 2 for one in seen])
    inside = np.zeros(len(seen), bool)
    for cell in cells:
        inside |= (cell.left <= x) & (x <= cell.right) & (cell.bottom <= y) & (y <= cell.top)
    return [seen[at] for at in np.flatnonzero(inside)]


def _lacks(texts: Iterable[str], letters: Iterable[PlacedLetter]) -> bool:
    """Return whether texts lack a letter or digit."""
    wanted = Counter(_letters_of(letter.letter for letter in letters))
    return not wanted <= Counter(_letters_of(texts))


def _letters_of(texts: Iterable[str]) -> Iterator[str]:
    return (c for c in normalize("NFKC", "".join(texts)) if c.isalnum())


def _breaks_lines(within: Sequence[PlacedLetter], letters: Sequence[PlacedLetter]) -> bool:
    """Return whether a table's border cuts a word, or lines of two rows: what labels these stands outside of it."""
    held = {letter.index for letter in within}
    seen = [letter for letter in letters if not letter.is_hidden]
    cuts = [(a, b) for a, b in pairwise(seen) if (a.index in held) != (b.index in held) and _on_one_line(a.box, b.box)]
    cut = [one.box for pair in cuts for one in pair if one.index in held]
    spread = max((box.bottom for box in cut), default=0) - min((box.bottom for box in cut), default=0)
    return any(map(_adjoin, cuts)) or spread > max((box.top - box.bottom for box in cut), default=0)


def _on_one_line(before: Box, after: Box) -> bool:
    height = max(before.top - before.bottom, after.top - after.bottom)
    return min(before.top, after.top) - max(before.bottom, after.bottom) > height / 2


def _adjoin(pair: tuple[PlacedLetter, PlacedLetter]) -> bool:
    before, after = pair
    height = max(before.box.top - before.box.bottom, after.box.top - after.box.bottom)
    return before.index + 1 == after.index and abs(after.box.left - before.box.right) < _NEXT * height


def _filled(
    drawn: DrawnTable, columns: list[float], rows: list[float]
) -> tuple[list[list[str]], list[tuple[int, int]]]:
    """Return the grid with merged cells filled in, and (rows, columns) that each cell of the first row spans."""
    grid = [[""] * len(columns) for _ in rows]
    head_spans: list[tuple[int, int]] = []
    for row, texts in zip(drawn.rows, drawn.extract(), strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            if cell is None:
                continue
            r0, r1 = _covered(rows, cell[1], cell[3])
            c0, c1 = _covered(columns, cell[0], cell[2])
            if r0 == 0:
                head_spans.append((r1 - r0, c1 - c0))
            for r in range(r0, r1):
                grid[r][c0:c1] = [(text or "").replace("\x00", "")] * (c1 - c0)
    return grid, head_spans


def _header_rows(spans: list[tuple[int, int]], rows: int) -> int:
    """Return the number of header rows: where a head spans columns, as many as its tallest neighbour covers."""
    tallest = max((down for down, _ in spans), default=1)
    spanning = any(across > 1 for _, across in spans)
    return tallest if spanning and tallest <= 3 and tallest < rows else 1


def _edges(values: list[float]) -> list[float]:
    edges: list[float] = []
    for value in sorted(values):
        if not edges or value - edges[-1] > _SAME_EDGE:
            edges.append(value)
    return edges


def _covered(edges: list[float], start: float, end: float) -> tuple[int, int]:
    first = bisect_left(edges, start - _SAME_EDGE)
    return first, max(bisect_left(edges, end - _SAME_EDGE), first + 1)
