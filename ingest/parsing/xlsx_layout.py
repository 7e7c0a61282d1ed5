"""How a sheet's part lays its cells out: hidden rows and columns, sizes, merged ranges: openpyxl omits them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.etree import ElementTree

from openpyxl.utils.cell import column_index_from_string, range_boundaries

from ingest.parsing.drawing_text import EMU
from ingest.parsing.parsed import Reason, Unreadable
from ingest.parsing.xlsx_conditions import Condition
from ingest.parsing.xlsx_covered import DIGIT, Edges

_MAIN: Final = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_LOWEST_POINTS, _NARROWEST = 2.0, 0.2  # of a row, of a column in digits
_USUAL_WIDTH, _USUAL_HEIGHT = 9.14, 15.0  # of a column in digits, of a row in points
_MOST_COLUMNS = 16_384
_LARGEST = 1_000_000.0  # of a width or a height
_OFF: Final = frozenset({"", "0", "false", "off"})
_ROW_AT: Final = ["worksheet", "sheetData", "row"]
_STRING_AT: Final = ["sst", "si"]


@dataclass(slots=True)
class Layout:
    """Rows and columns from 1, sizes in EMU. It takes a part's elements as a parser of XML comes to them.

    openpyxl reads rows, cells and texts wherever they stand: in an extension too, or among the ways in which to show
    something, of which every program shows one.
    """

    hidden_rows: set[int] = field(default_factory=set)
    hidden_columns: set[int] = field(default_factory=set)
    widths: dict[int, float] = field(default_factory=dict)
    heights: dict[int, float] = field(default_factory=dict)
    usual: tuple[float, float] = (_USUAL_WIDTH * DIGIT, _USUAL_HEIGHT * EMU)
    shows_usual_columns: bool = True
    merged: list[tuple[int, int, int, int]] = field(default_factory=list)  # first column, row, last column, row
    conditions: list[Condition] = field(default_factory=list)
    formulas: dict[str, tuple[int, bool]] = field(default_factory=dict)  # by cell: its row, whether a value is stored
    _open: list[str] = field(default_factory=list)
    _row: int = 0
    _cell: str = ""
    _kind: str | None = None  # of the cell's value
    _areas: str = ""  # of the rules that follow
    _formula: str = ""

    @classmethod
    def of(cls, part: bytes) -> "Layout":
        """Return the layout that a sheet's part says; the table of texts says none.

        Raises:
            Unreadable: rows, cells or texts stand where they have no place.
            ParseError, ValueError, KeyError: the part is damaged.
        """
        layout = cls()
        parser = ElementTree.XMLParser(target=layout)  # noqa: S314  `archive` has refused every part with an entity
        parser.feed(part)
        parser.close()
        if not layout.shows_usual_columns:
            layout.hidden_columns.update({*range(1, _MOST_COLUMNS + 1)} - layout.widths.keys())
        return layout

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Take what an element says as it begins."""
        name = tag.removeprefix(_MAIN) if tag.startswith(_MAIN) else ""  # that of another kind means nothing here
        self._open.append(name)
        if name == "row":
            self._take_row(attributes)
        elif name == "c":
            self._cell, self._kind = attributes.get("r", "?"), attributes.get("t")
        elif name == "si" and self._open != _STRING_AT:
            raise Unreadable(Reason.MALFORMED, "a text of a workbook stands outside of their table")
        elif self._open[-2:-1] == ["row"] and name not in {"c", "extLst"}:
            raise Unreadable(Reason.MALFORMED, "a row of a sheet holds what is no cell")
        else:
            self._take(name, attributes)

    def data(self, text: str) -> None:
        """Take the text of a rule's formula; a cell's value has one where it is stored."""
        if self._open[-1:] == ["v"] and text.strip() and self._cell in self.formulas:
            self.formulas[self._cell] = (self._row, True)
        elif self._open[-2:] == ["cfRule", "formula"]:
            self._formula += text

    def end(self, _tag: str) -> None:
        """Leave an element."""
        name = self._open.pop()
        if name == "f" and self._open[-1:] == ["c"]:
            self.formulas[self._cell] = (self._row, False)
        elif name == "v" and self._kind == "str" and self._cell in self.formulas:  # an empty text
            self.formulas[self._cell] = (self._row, True)
        elif name == "formula" and self._open[-1:] == ["cfRule"] and self.conditions:
            self.conditions[-1].formulas.append(self._formula.strip())
            self._formula = ""

    def close(self) -> None:
        """Nothing is left to do at the end of the part."""

    def unstored(self, *, is_stale: bool) -> list[str]:
        """Return the names of visible cells whose formula has no stored value; with `is_stale` none is one."""
        return [
            name
            for name, (row, has_value) in self.formulas.items()
            if (is_stale or not has_value) and row not in self.hidden_rows and not self._is_in_hidden_column(name)
        ]

    def _is_in_hidden_column(self, name: str) -> bool:
        letters = name.rstrip("0123456789")
        return letters.isalpha() and column_index_from_string(letters) in self.hidden_columns

    def edges(self) -> tuple[Edges, Edges]:
        """Return where the columns and the rows begin; hidden ones take no room."""
        widths = self.widths | dict.fromkeys(self.hidden_columns, 0.0)
        heights = self.heights | dict.fromkeys(self.hidden_rows, 0.0)
        counted = ({at - 1: size for at, size in sizes.items()} for sizes in (widths, heights))
        across, down = counted
        return Edges(self.usual[0], across), Edges(self.usual[1], down)

    def _take(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "col":
            self._take_columns(attributes)
        elif name == "mergeCell":
            self.merged.append(range_boundaries(attributes["ref"]))
        elif name in {"conditionalFormatting", "cfRule"}:
            self._take_rule(attributes)
        elif name == "sheetFormatPr":
            width, height = _size(attributes, "defaultColWidth"), _size(attributes, "defaultRowHeight")
            self.shows_usual_columns = width is None or width >= _NARROWEST
            self.usual = width * DIGIT if width else self.usual[0], height * EMU if height else self.usual[1]

    def _take_row(self, attributes: Mapping[str, str]) -> None:
        if self._open != _ROW_AT:
            raise Unreadable(Reason.MALFORMED, "a row stands outside of its sheet's cells")
        self._row = int(attributes["r"]) if "r" in attributes else self._row + 1
        height = _size(attributes, "ht")
        if _is_hidden(attributes) or (height is not None and height < _LOWEST_POINTS):
            self.hidden_rows.add(self._row)
        if height is not None:
            self.heights[self._row] = height * EMU

    def _take_rule(self, attributes: Mapping[str, str]) -> None:
        self._areas = attributes.get("sqref", self._areas)
        if "dxfId" in attributes:
            areas = tuple(range_boundaries(area) for area in self._areas.split())
            kind, comparison = attributes.get("type", ""), attributes.get("operator", "")
            self.conditions.append(Condition(areas, kind, comparison, int(attributes["dxfId"])))

    def _take_columns(self, attributes: Mapping[str, str]) -> None:
        columns = range(int(attributes["min"]), min(int(attributes["max"]), _MOST_COLUMNS) + 1)
        width = _size(attributes, "width")
        if _is_hidden(attributes) or (width is not None and width < _NARROWEST):
            self.hidden_columns.update(columns)
        if width is not None:
            self.widths |= dict.fromkeys(columns, width * DIGIT)


def _is_hidden(attributes: Mapping[str, str]) -> bool:
    return attributes.get("hidden", "").strip().lower() not in _OFF


def _size(attributes: Mapping[str, str], name: str) -> float | None:
    try:
        size = float(attributes.get(name, ""))
    except ValueError:
        return None
    return size if 0 <= size < _LARGEST else None
