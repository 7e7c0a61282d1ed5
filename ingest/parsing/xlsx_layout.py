"""Parse what openpyxl omits from a sheet: hidden rows and columns, merged ranges, formulas, text boxes. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from openpyxl.utils.cell import column_index_from_string, range_boundaries

from ingest.parsing.archive import Office, local_name
from ingest.parsing.parsed import Reason, Unreadable
from ingest.parsing.superscripts import run_text

_MAIN: Final = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_MOST_COLUMNS = 16_384
_OFF: Final = frozenset({"", "0", "false", "off"})
_ROW_AT: Final = ["worksheet", "sheetData", "row"]
_STRING_AT: Final = ["sst", "si"]


@dataclass(slots=True)
class Layout:
    """A sheet's layout, collected as the target of an XML parser; rows and columns count from 1.

    Raises Unreadable for rows, cells and texts in places (such as extensions) where openpyxl reads them and spreadsheet
    programs don't show them.
    """

    hidden_rows: set[int] = field(default_factory=set)
    hidden_columns: set[int] = field(default_factory=set)
    sized_columns: set[int] = field(default_factory=set)
    shows_default_columns: bool = True
    merged: list[tuple[int, int, int, int]] = field(default_factory=list)  # first column, row, last column, row
    formulas: dict[str, tuple[int, bool]] = field(default_factory=dict)  # cell name → (row, whether a value is stored)
    _open: list[str] = field(default_factory=list)
    _row: int = 0
    _cell: str = ""
    _value_type: str | None = None

    @classmethod
    def of(cls, part: bytes) -> "Layout":
        """Parse the layout of a sheet; for the shared strings part it is empty."""
        layout = cls()
        parser = ElementTree.XMLParser(target=layout)  # noqa: S314  `archive` has refused every part with an entity
        parser.feed(part)
        parser.close()
        if not layout.shows_default_columns:
            layout.hidden_columns.update({*range(1, _MOST_COLUMNS + 1)} - layout.sized_columns)
        return layout

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Handle the start of an element."""
        name = tag.removeprefix(_MAIN) if tag.startswith(_MAIN) else ""  # elements of other namespaces are ignored
        self._open.append(name)
        if name == "row":
            self._read_row(attributes)
        elif name == "c":
            self._cell = attributes.get("r", "?")
            self._value_type = attributes.get("t")
        elif name == "si" and self._open != _STRING_AT:
            raise Unreadable(Reason.MALFORMED, "a text of the workbook is outside of its table of texts")
        elif self._open[-2:-1] == ["row"] and name not in {"c", "extLst"}:
            raise Unreadable(Reason.MALFORMED, "a row of a sheet holds something other than cells")
        else:
            self._read_other(name, attributes)

    def data(self, text: str) -> None:
        """Record that the current formula has a stored value."""
        if self._open[-1:] == ["v"] and text.strip() and self._cell in self.formulas:
            self.formulas[self._cell] = (self._row, True)

    def end(self, _tag: str) -> None:
        """Handle the end of an element."""
        name = self._open.pop()
        if name == "f" and self._open[-1:] == ["c"]:
            self.formulas[self._cell] = (self._row, False)
        elif name == "v" and self._value_type == "str" and self._cell in self.formulas:  # an empty string is a value
            self.formulas[self._cell] = (self._row, True)

    def close(self) -> None:
        """Do nothing; required by the parser."""

    def unstored_cells(self, *, is_stale: bool) -> list[str]:
        """Return the visible cells whose formula has no stored value; with `is_stale`, all formula cells."""
        return [
            name
            for name, (row, has_value) in self.formulas.items()
            if (is_stale or not has_value) and row not in self.hidden_rows and not self._is_in_hidden_column(name)
        ]

    def _is_in_hidden_column(self, name: str) -> bool:
        letters = name.rstrip("0123456789")
        return letters.isalpha() and column_index_from_string(letters) in self.hidden_columns

    def _read_other(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "col":
            self._read_columns(attributes)
        elif name == "mergeCell":
            self.merged.append(range_boundaries(attributes["ref"]))
        elif name == "sheetFormatPr":
            self.shows_default_columns = not _is_zero(attributes, "defaultColWidth")

    def _read_row(self, attributes: Mapping[str, str]) -> None:
        if self._open != _ROW_AT:
            raise Unreadable(Reason.MALFORMED, "a row is outside of its sheet's cells")
        self._row = int(attributes["r"]) if "r" in attributes else self._row + 1
        if _is_hidden(attributes) or _is_zero(attributes, "ht"):
            self.hidden_rows.add(self._row)

    def _read_columns(self, attributes: Mapping[str, str]) -> None:
        columns = range(int(attributes["min"]), min(int(attributes["max"]), _MOST_COLUMNS) + 1)
        self.sized_columns.update(columns)
        if _is_hidden(attributes) or _is_zero(attributes, "width"):
            self.hidden_columns.update(columns)


def _is_hidden(attributes: Mapping[str, str]) -> bool:
    return attributes.get("hidden", "").strip().lower() not in _OFF


def _is_zero(attributes: Mapping[str, str], name: str) -> bool:
    try:
        return float(attributes.get(name, "1")) == 0
    except ValueError:
        return False


def text_boxes(office: Office, sheet: str) -> tuple[list[tuple[int, str]], int]:
    """Return a sheet's visible shape texts from the top, as (first row from 1, text), and the number of hidden ones."""
    boxes: list[tuple[int, str]] = []
    hidden_count = 0
    anchors = [anchor for name in office.links(sheet, "/drawing").values() for anchor in office.root(name)]
    for anchor in anchors:
        row = int(anchor.findtext("{*}from/{*}row", "0")) + 1
        for shape, is_hidden in _shapes(anchor):
            text = "\n\n".join(filter(None, map(_paragraph_text, shape.iterfind("{*}txBody/{*}p"))))
            if text and is_hidden:
                hidden_count += 1
            elif text:
                boxes.append((row, text))
    return sorted(dict.fromkeys(boxes), key=lambda box: box[0]), hidden_count


def _shapes(element: Element, *, is_hidden: bool = False) -> Iterator[tuple[Element, bool]]:
    """Yield an anchor's shapes and whether they, or a group around them, are marked as hidden."""
    for child in element:
        if local_name(child) == "Fallback":  # the same shape for older programs
            continue
        properties = [inner for part in child for inner in part if local_name(inner) == "cNvPr"]
        hides_child = is_hidden or any(element.get("hidden", "0") not in _OFF for element in properties)
        if local_name(child) == "sp":
            yield child, hides_child
        yield from _shapes(child, is_hidden=hides_child)


def _paragraph_text(paragraph: Element) -> str:
    text = ""
    for run in paragraph:
        if local_name(run) in {"r", "fld"}:
            text += run_text(run, text)
        elif local_name(run) == "br":
            text += " "
    return " ".join(text.split())
