"""XLSX to Markdown: a sheet is a page, each block of rows between blank ones a table, merged cells filled in.

Hidden sheets, rows and columns and covered cells are left out: often they are what a bank reckons with internally.
"""

import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from openpyxl import load_workbook
from openpyxl.cell.read_only import EmptyCell, ReadOnlyCell
from openpyxl.styles.colors import COLOR_INDEX, Color
from openpyxl.utils.cell import range_boundaries
from openpyxl.utils.exceptions import InvalidFileException

from ingest.parsing.archive import Office
from ingest.parsing.cells import shown
from ingest.parsing.drawing_text import EMU
from ingest.parsing.parsed import MOST_CHARACTERS, Format, OnPage, Page, Parsed, Reason, Unreadable
from ingest.parsing.tables import title_rows, to_markdown
from ingest.parsing.xlsx_covered import DIGIT, CellText, Covers, Edges, covers_of

MOST_FILLED = 1_000_000  # cells that merged ranges may cover in a sheet
_ATTRIBUTE = re.compile(rb'\s([a-zA-Z]+)="([^"]*)"')
_ELEMENT = re.compile(rb"<(?:\w+:)?(col|row|mergeCell|sheetFormatPr)(\s[^<>]*?)/?>")
_NUMBER = re.compile(rb"\d{1,6}(?:\.\d{0,20})?")
Ends = Mapping[tuple[int, int], tuple[int, int]]  # row and column where a merged range begins → its last column and row
Cells = dict[int, dict[int, str]]  # row → column → text, both from 1
_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
# The theme's first two colours are its light and its dark ground; the others are not known here.
_THEME = {0: "FFFFFF", 1: "000000"}
_LEAST_CONTRAST = 16  # of 255 in red, green or blue
_SMALLEST_POINTS, _LOWEST_POINTS, _NARROWEST = 2.0, 2.0, 0.2  # of letters, of a row, of a column in digits
_USUAL_WIDTH, _USUAL_HEIGHT, _USUAL_POINTS = 9.14, 15.0, 11.0  # of a column in digits, of a row, of letters
_MOST_COLUMNS = 16_384
_MOST_BESIDE = 64  # empty columns over which a long text goes on
_BROKEN = (
    zipfile.BadZipFile, InvalidFileException, ElementTree.ParseError, KeyError, ValueError, TypeError, AttributeError,
    IndexError, OSError, SyntaxError,
)  # fmt: skip


@dataclass(slots=True)
class _Layout:
    """Hidden rows and columns, sizes (EMU) and merged ranges, all from 1: openpyxl omits them when it reads by rows."""

    hidden_rows: set[int] = field(default_factory=set)
    hidden_columns: set[int] = field(default_factory=set)
    widths: dict[int, float] = field(default_factory=dict)
    heights: dict[int, float] = field(default_factory=dict)
    usual: tuple[float, float] = (_USUAL_WIDTH * DIGIT, _USUAL_HEIGHT * EMU)
    merged: list[tuple[int, int, int, int]] = field(default_factory=list)  # first column, row, last column, row

    def measure(self, tag: bytes, attributes: Mapping[bytes, bytes]) -> None:
        """Take the sizes that a row, some columns or the sheet give."""
        width, height = _size(attributes, b"width", DIGIT), _size(attributes, b"ht", EMU)
        if tag == b"col" and width is not None:
            self.widths |= dict.fromkeys(_columns(attributes), width)
        elif tag == b"row" and height is not None and b"r" in attributes:
            self.heights[int(attributes[b"r"])] = height
        elif tag == b"sheetFormatPr":
            usual = _size(attributes, b"defaultColWidth", DIGIT), _size(attributes, b"defaultRowHeight", EMU)
            self.usual = usual[0] or self.usual[0], usual[1] or self.usual[1]

    def edges(self) -> tuple[Edges, Edges]:
        """Return where the columns and the rows begin; hidden ones take no room."""
        widths = self.widths | dict.fromkeys(self.hidden_columns, 0.0)
        heights = self.heights | dict.fromkeys(self.hidden_rows, 0.0)
        counted = ({at - 1: size for at, size in sizes.items()} for sizes in (widths, heights))
        across, down = counted
        return Edges(self.usual[0], across), Edges(self.usual[1], down)


def parse_xlsx(office: Office, on_page: OnPage) -> Parsed:
    """Return a workbook's visible sheets, each under its name.

    Raises:
        Unreadable: malformed, or merged cells that fill more than a million.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl warns with pieces of the content
            pages = list(_pages(office, on_page))
    except _BROKEN as exc:
        raise Unreadable(Reason.MALFORMED, "the workbook inside the archive is damaged") from exc
    return Parsed(format=Format.XLSX, title=office.title, pages=tuple(pages))


def _pages(office: Office, on_page: OnPage) -> Iterator[Page]:
    # Row by row: a whole workbook in memory takes fifty times its file.
    book = load_workbook(office.packed_again(), read_only=True, data_only=True, keep_links=False)
    parts = _sheet_parts(office)
    for number, sheet in enumerate(book.worksheets, start=1):
        if sheet.sheet_state != "visible":
            continue
        on_page()
        layout = _layout(office.parts.get(parts.get(sheet.title, ""), b""))
        sheet.reset_dimensions()  # openpyxl pads every row to the dimensions that a file declares
        covers = covers_of(office, parts.get(sheet.title, ""), *layout.edges())
        yield Page(number=number, markdown=_sheet(sheet.title, _rows(sheet.rows, layout, covers), layout))


def _rows(sheet_rows: Iterable[Sequence[EmptyCell | ReadOnlyCell]], layout: _Layout, covers: Covers) -> Cells:
    rows: Cells = {}
    characters = 0
    ends = {(top, left): (right, bottom) for left, top, right, bottom in layout.merged}
    for at, row in enumerate(sheet_rows, start=1):
        texts = {cell.column: text for cell in row if (text := _text(cell))}
        characters += sum(map(len, texts.values()))
        if characters > MOST_CHARACTERS:  # a long text that many cells share takes no room in the file
            raise Unreadable(Reason.TOO_LARGE, f"more than {MOST_CHARACTERS // 1_000_000} million characters")
        rows[at] = dict(_uncovered(row, texts, ends, covers)) if covers.reach(at) else texts
    return rows


def _uncovered(
    row: Sequence[EmptyCell | ReadOnlyCell], texts: Mapping[int, str], ends: Ends, covers: Covers
) -> Iterator[tuple[int, str]]:
    for cell in row:
        text = texts.get(cell.column) if isinstance(cell, ReadOnlyCell) else None
        if text is not None and not covers.hide(_shown_at(cell, texts, ends.get((cell.row, cell.column)))):
            yield cell.column, text


def _shown_at(cell: ReadOnlyCell, texts: Mapping[int, str], end: tuple[int, int] | None) -> CellText:
    """Return where a cell shows its text: words without a break go on over the empty cells beside it."""
    column, row, alignment = cell.column, cell.row, cell.alignment
    is_text = isinstance(cell.value, str)
    right, bottom = end or (column, row)
    if end is None and is_text and not alignment.wrap_text and alignment.horizontal in {None, "general", "left"}:
        right = min((other for other in texts if other > column), default=column + _MOST_BESIDE) - 1
    size = cell.font.sz if cell.font and cell.font.sz else _USUAL_POINTS
    usual = "left" if is_text else "center" if isinstance(cell.value, bool) else "right"
    across = alignment.horizontal if alignment.horizontal not in {None, "general"} else usual
    upright = alignment.vertical or "bottom"
    columns, rows = (column - 1, right), (row - 1, bottom)
    return CellText(texts[column], columns, rows, size, across, upright, wraps=bool(alignment.wrap_text))


def _text(cell: EmptyCell | ReadOnlyCell) -> str:
    # A cell with nothing in it is openpyxl's EmptyCell, which has no column either.
    if not isinstance(cell, ReadOnlyCell) or cell.value is None or _is_unseen(cell):
        return ""
    return shown(cell.value, cell.number_format)


def _is_unseen(cell: ReadOnlyCell) -> bool:
    """Tell whether a cell shows nothing: by its number format, by its size, or in the colour of its ground."""
    form = cell.number_format.replace('""', "").strip().lower()
    if form == ";;;" or (cell.font and cell.font.sz is not None and cell.font.sz < _SMALLEST_POINTS):
        return True
    kind = cell.fill.fill_type
    ground = "FFFFFF" if kind is None else _rgb(cell.fill.fgColor) if kind == "solid" else None
    written = "FFFFFF" if form.startswith("[white]") else _rgb(cell.font.color if cell.font else None)
    if written is None or ground is None:
        return False
    return all(abs(a - b) < _LEAST_CONTRAST for a, b in zip(bytes.fromhex(written), bytes.fromhex(ground), strict=True))


def _rgb(colour: Color | None) -> str | None:
    """Return a colour in hexadecimal digits; none where it is not known."""
    if colour is None:
        return None
    if colour.type == "theme":
        base = _THEME.get(colour.value)
        return None if base is None else _tinted(base, colour.tint)
    value = COLOR_INDEX[colour.value] if colour.type == "indexed" and colour.value < len(COLOR_INDEX) else colour.value
    return str(value)[-6:] if re.fullmatch(r"(?:[0-9A-Fa-f]{2})?[0-9A-Fa-f]{6}", str(value)) else None


def _tinted(base: str, tint: float) -> str:
    level = base.startswith("F")  # white or black
    share = (1 + tint if tint < 0 else 1) if level else max(tint, 0)
    return f"{round(255 * min(share, 1)):02X}" * 3


def _sheet_parts(office: Office) -> dict[str, str]:
    """Return the part of each sheet, by the sheet's name."""
    links = office.links("xl/workbook.xml")
    # `archive` has refused every part that declares an entity.
    book = ElementTree.fromstring(office.parts["xl/workbook.xml"])  # noqa: S314
    return {sheet.get("name", ""): links.get(sheet.get(_ID, ""), "") for sheet in book.iterfind(".//{*}sheet")}


def _layout(part: bytes) -> _Layout:
    layout = _Layout()
    for element in _ELEMENT.finditer(part):
        tag, attributes = element.group(1), dict(_ATTRIBUTE.findall(element.group(2)))
        is_hidden = attributes.get(b"hidden") in {b"1", b"true"} or _is_flat(attributes)
        layout.measure(tag, attributes)
        if tag == b"mergeCell":
            layout.merged.append(range_boundaries(attributes[b"ref"].decode("ascii", "replace")))
        elif tag == b"row" and is_hidden and b"r" in attributes:
            layout.hidden_rows.add(int(attributes[b"r"]))
        elif tag == b"col" and is_hidden:
            layout.hidden_columns.update(_columns(attributes))
    return layout


def _columns(attributes: Mapping[bytes, bytes]) -> range:
    return range(int(attributes[b"min"]), min(int(attributes[b"max"]), _MOST_COLUMNS) + 1)


def _size(attributes: Mapping[bytes, bytes], name: bytes, unit: float) -> float | None:
    value = attributes.get(name, b"")
    return float(value) * unit if _NUMBER.fullmatch(value) else None


def _is_flat(attributes: Mapping[bytes, bytes]) -> bool:
    """Tell whether a row is as good as no height, or a column no width."""
    sizes = ((attributes.get(b"ht"), _LOWEST_POINTS), (attributes.get(b"width"), _NARROWEST))
    return any(size is not None and _NUMBER.fullmatch(size) and float(size) < least for size, least in sizes)


def _sheet(name: str, rows: Cells, layout: _Layout) -> str:
    spans = _fill(rows, layout.merged)
    parts = [f"# {name}"]
    block: list[int] = []
    for at in [*(at for at in sorted(rows) if at not in layout.hidden_rows), 0]:
        if at and any(column not in layout.hidden_columns for column in rows[at]):
            block.append(at)
        elif block and not (at and rows[at]):
            parts.append(_block([rows[line] for line in block], [spans.get(line, 1) for line in block], layout))
            block = []
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _block(rows: Sequence[Mapping[int, str]], spans: Sequence[int], layout: _Layout) -> str:
    columns = sorted({column for row in rows for column in row} - layout.hidden_columns)
    grid = [[row.get(column, "") for column in columns] for row in rows]
    titles = title_rows(grid)
    title_lines = [" ".join(cell for cell in dict.fromkeys(row) if cell) for row in grid[:titles]]
    depth = spans[titles] if titles < len(spans) else 1
    return "\n\n".join(
        [*title_lines, to_markdown(grid[titles:], header_rows=depth, filled=bool(layout.merged))]
    ).strip()


def _fill(rows: Cells, merged: Sequence[tuple[int, int, int, int]]) -> dict[int, int]:
    """Write each merged cell's text into all cells it covers; return the depth of the header that begins in a row."""
    widest = max((max(row, default=0) for row in rows.values()), default=0)
    deepest = max(rows, default=0)
    spans: dict[int, int] = {}
    filled = 0
    for left, top, last_column, last_row in merged:
        right, bottom = min(last_column, widest), min(last_row, deepest)
        text = rows.get(top, {}).get(left)
        is_title = left == min(rows[top], default=0) and len(rows[top]) == 1 if top in rows else False
        if text is None or is_title:
            continue
        filled += (right - left + 1) * (bottom - top + 1)
        if filled > MOST_FILLED:
            raise Unreadable(Reason.TOO_LARGE, "its merged cells cover more than a million cells")
        if right > left:
            spans[top] = max(spans.get(top, 2), bottom - top + 1)
        for line in range(top, bottom + 1):
            rows[line].update(dict.fromkeys(range(left, right + 1), text))
    return spans
