"""XLSX to Markdown: one page per sheet, one table per block of non-blank rows, merged cells filled in."""

import warnings
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO

from openpyxl import Workbook
from openpyxl.cell.read_only import ReadOnlyCell
from openpyxl.cell.rich_text import CellRichText
from openpyxl.cell.text import InlineFont
from openpyxl.reader.excel import ExcelReader
from openpyxl.styles import Font
from openpyxl.styles.numbers import BUILTIN_FORMATS_MAX_SIZE
from openpyxl.worksheet._read_only import ReadOnlyWorksheet
from openpyxl.worksheet._reader import WorkSheetParser
from openpyxl.xml.constants import SHARED_STRINGS, XLSM, XLSX, XLTM, XLTX

from ingest.parsing.archive import Office
from ingest.parsing.cells import display_text, shows_weekday
from ingest.parsing.parsed import MOST_CHARACTERS, Format, LeftOut, OnPage, Page, Parsed, Reason, Unreadable
from ingest.parsing.superscripts import as_superscript
from ingest.parsing.tables import (
    MOST_COMPARED,
    MOST_HEADER_ROWS,
    Merged,
    header_rows,
    names_figures,
    title_rows,
    to_markdown,
)
from ingest.parsing.xlsx_layout import Layout, text_boxes
from knowledge.passage import UNSTORED

MOST_FILLED = 1_000_000  # cells that a sheet's merged ranges may cover
Range = tuple[int, int, int, int]  # first column, row, last column, row
Cells = dict[int, dict[int, str]]  # row → column → text, both from 1
_WORKBOOK_TYPES = {XLSM, XLSX, XLTM, XLTX}
_MOST_LISTED = 6  # cells without a stored value
_LONGEST_NAME = 10  # characters of a listed cell's name


def parse_xlsx(office: Office, on_page: OnPage) -> Parsed:
    """Return a workbook's visible sheets, each under its name."""
    left_out = Counter[LeftOut]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl's warnings contain document text
        pages = list(_pages(office, on_page, left_out))
    return Parsed(format=Format.XLSX, title=office.title, pages=tuple(pages), left_out=+left_out)


def _pages(office: Office, on_page: OnPage, left_out: Counter[LeftOut]) -> Iterator[Page]:
    """Yield the visible sheets, read row by row, since a whole workbook takes fifty times its file size in memory."""
    _require_one_reading(office)
    reader = _Reader(office.repack(), read_only=True, data_only=True, keep_links=False, rich_text=True)
    reader.read()
    book = reader.wb
    is_stale = _is_stale(office)
    for number, sheet in enumerate(book.worksheets, start=1):
        if sheet.sheet_state != "visible":
            left_out[LeftOut.SHEET] += 1
            continue
        on_page()
        name = sheet._worksheet_path  # noqa: SLF001  two sheets may have the same title
        layout = Layout.of(office.parts[name])
        rows = _rows(_cells(sheet, office.parts[name]), left_out)
        boxes, hidden_boxes = text_boxes(office, name)
        left_out.update(_hidden_counts(rows, layout))
        left_out.update({LeftOut.ELEMENT: hidden_boxes, LeftOut.COMMENT: _comment_count(office, name)})
        first_row = min((at for at, row in rows.items() if row), default=1)
        above = [text for at, text in boxes if at < first_row]
        below = [text for at, text in boxes if at >= first_row]
        mark = _unstored_mark(layout.unstored_cells(is_stale=is_stale))
        blocks = _sheet_blocks(rows, layout)
        parts = [*above, *blocks, *below]
        yield Page(number=number, markdown=mark + "\n\n".join([f"# {sheet.title}", *parts] if parts else []))


class _Reader(ExcelReader):  # type: ignore[misc]  # openpyxl has no types
    """Skip chart-only sheets, on which openpyxl fails in read-only mode."""

    def read_chartsheet(self, sheet: object, rel: object) -> None:
        """Do nothing."""


def _is_stale(office: Office) -> bool:
    """Return whether the workbook asks to be recalculated on opening; openpyxl's own value is always true."""
    books = map(office.root, office.links("", "/officeDocument").values())
    properties = (element for book in books for element in book.iterfind("{*}calcPr"))
    return any(element.get("fullCalcOnLoad", "0") not in {"0", "false"} for element in properties)


def _unstored_mark(cells: Sequence[str]) -> str:
    """Return the mark of a sheet with cells whose values are not stored, with the first few names; "" without any."""
    if not cells:
        return ""
    return f"{UNSTORED}{', '.join(cell[:_LONGEST_NAME] for cell in cells[:_MOST_LISTED])}⟧\n\n"


def _require_one_reading(office: Office) -> None:
    """Refuse a file that openpyxl (by content type and name) and other programs (by links) would read differently."""
    types = office.root("[Content_Types].xml")
    kinds = [(kind.get("ContentType", ""), kind.get("PartName", "").lstrip("/")) for kind in types]
    books = {part for kind, part in kinds if kind in _WORKBOOK_TYPES} - {""} or {"xl/workbook.xml"}
    texts = {part for kind, part in kinds if kind == SHARED_STRINGS}
    styles = {"xl/styles.xml"} & office.parts.keys()
    linked_books = set(office.links("", "/officeDocument").values())
    linked = [set(office.links(book, kind).values()) for book in linked_books for kind in ("/sharedStrings", "/styles")]
    if [books, texts, styles] != [linked_books, *linked]:
        raise Unreadable(
            Reason.MALFORMED, "the archive does not say which part is its workbook, its texts or its styles"
        )
    for part in texts:
        Layout.of(office.parts[part])  # raises Unreadable for a text outside of the table of texts


def _cells(sheet: ReadOnlyWorksheet, part: bytes) -> Iterator[tuple[int, list[ReadOnlyCell]]]:
    """Yield each row's number and its cells, with the fonts of single letters."""
    book = sheet.parent
    # `sheet.rows` loses the formatting of single letters in inline text.
    parser = WorkSheetParser(
        BytesIO(part),
        sheet._shared_strings,  # noqa: SLF001  not exposed by openpyxl
        data_only=True,
        epoch=book.epoch,
        date_formats=_date_styles(book),
        timedelta_formats=book._timedelta_formats,  # noqa: SLF001  as above
        rich_text=True,
    )
    try:
        for at, cells in parser.parse():
            yield at, [ReadOnlyCell(sheet, **cell) for cell in cells]
    except (LookupError, TypeError, ValueError) as exc:
        raise Unreadable(
            Reason.MALFORMED, f"row {parser.row_counter} of the sheet {sheet.title} has a cell that cannot be read"
        ) from exc


def _date_styles(book: Workbook) -> set[int]:
    """Return the indices of the cell styles that show numbers as dates, including those that openpyxl misses."""
    codes = book._number_formats  # noqa: SLF001  as above
    weekdays = {number for number, code in enumerate(codes, start=BUILTIN_FORMATS_MAX_SIZE) if shows_weekday(code)}
    missed = {index for index, style in enumerate(book._cell_styles) if style.numFmtId in weekdays}  # noqa: SLF001  as above
    date_styles: set[int] = book._date_formats  # noqa: SLF001  as above
    return date_styles | missed


def _comment_count(office: Office, sheet: str) -> int:
    parts = map(office.root, office.links(sheet, "/comments").values())
    return sum(len(part.findall(".//{*}comment")) for part in parts)


def _rows(part: Iterable[tuple[int, Sequence[ReadOnlyCell]]], left_out: Counter[LeftOut]) -> Cells:
    """Return the texts of a sheet's cells; count the cells that their number format hides."""
    rows: Cells = {}
    characters = last = 0
    for at, row in part:
        all_texts = {cell.column: _text(cell) for cell in row}
        texts = {column: text for column, text in all_texts.items() if text}
        characters += sum(map(len, texts.values()))
        if characters > MOST_CHARACTERS:  # a long text shared by many cells takes little room in the file
            raise Unreadable(Reason.TOO_LARGE, f"more than {MOST_CHARACTERS // 1_000_000} million characters")
        if at <= last:  # a second row of the same number, which programs treat differently
            continue
        rows |= {between: {} for between in range(last + 1, at)}
        rows[at] = texts
        # A cell with a value and no text is hidden by its number format (such as `;;;`).
        left_out[LeftOut.TEXT] += sum(bool(cell.value) and cell.column not in texts for cell in row)
        last = at
    return rows


def _text(cell: ReadOnlyCell) -> str:
    """Return a cell's text as shown, with superscript and struck text marked; "" if its number format hides it."""
    value = cell.value
    is_rich = isinstance(value, CellRichText)
    text = display_text(str(value) if is_rich else value, cell.number_format)
    if not text:
        return ""
    if not is_rich:
        return _mark_struck(text, cell.font)
    parts: list[str] = []
    before = ""
    for run in value:
        run_text, font = (run, cell.font) if isinstance(run, str) else (run.text, run.font)
        is_superscript = font and font.vertAlign == "superscript"
        parts.append(_mark_struck(as_superscript(run_text, before) if is_superscript else run_text, font))
        before = run_text
    return "".join(parts)


def _mark_struck(text: str, font: Font | InlineFont | None) -> str:
    return f"~~{text}~~" if font and font.strike and text.strip() else text


def _sheet_blocks(rows: Cells, layout: Layout) -> list[str]:
    """Render a sheet's blocks as Markdown; a lone header row is merged with the block below it."""
    merged = _fill(rows, layout.merged)
    blocks: list[list[int]] = []
    for block in _split_into_blocks(rows, layout):
        if blocks and _is_header_of([rows[line] for line in blocks[-1]], [rows[line] for line in block], layout):
            blocks[-1] += block
        else:
            blocks.append(block)
    return [_render_block(block, rows, merged, layout) for block in blocks]


def _hidden_counts(rows: Cells, layout: Layout) -> Counter[LeftOut]:
    """Count the hidden rows and columns that have text."""
    in_rows = sum(at in layout.hidden_rows for at, row in rows.items() if row)
    in_columns = len({column for row in rows.values() for column in row} & layout.hidden_columns)
    return Counter({LeftOut.ROW: in_rows, LeftOut.COLUMN: in_columns})


def _split_into_blocks(rows: Cells, layout: Layout) -> Iterator[list[int]]:
    """Yield the row numbers of each block between blank rows; hidden rows and columns don't separate blocks."""
    block: list[int] = []
    for number in (number for number in sorted(rows) if number not in layout.hidden_rows):
        if not rows[number] and block:
            yield block
            block = []
        elif not rows[number].keys() <= layout.hidden_columns:
            block.append(number)
    if block:
        yield block


def _is_header_of(head: Sequence[Mapping[int, str]], body: Sequence[Mapping[int, str]], layout: Layout) -> bool:
    """Return whether a block is a single row, below any titles, that names the figures of the next block.

    Names other than durations and years count only if the next block has a first column of labels and at least two
    further columns, because a line of two cells may be a note.
    """
    columns, grid = _grid([*head, *body[:MOST_COMPARED]], layout)
    above, below = grid[: len(head)], grid[len(head) :]
    is_single_row = len(above) - title_rows(above) == 1
    names_all_columns = {*columns} <= head[-1].keys()
    if not is_single_row or not names_all_columns or title_rows(below):
        return False
    has_labels = len(columns) > 2 and not any(character.isdigit() for row in below for character in row[0])
    return names_figures(above[-1], below, range(len(columns)), any_name=has_labels)


def _grid(rows: Sequence[Mapping[int, str]], layout: Layout) -> tuple[list[int], list[list[str]]]:
    """Return the visible columns with text, and the texts of each row in these columns."""
    columns = sorted({column for row in rows for column in row} - layout.hidden_columns)
    return columns, [[row.get(column, "") for column in columns] for row in rows]


def _render_block(block: Sequence[int], rows: Cells, merged: Mapping[int, Sequence[Range]], layout: Layout) -> str:
    """Return a block as Markdown: its titles, then a table."""
    columns, grid = _grid([rows[line] for line in block], layout)
    titles = title_rows(grid)
    title_lines = [" ".join(cell for cell in dict.fromkeys(row) if cell) for row in grid[:titles]]
    lines = block[titles:]
    cells = [
        Merged(
            row=row,
            column=bisect_left(columns, left),
            down=bisect_right(lines, bottom) - row,
            across=bisect_right(columns, right) - bisect_left(columns, left),
        )
        for row, line in enumerate(lines[:MOST_HEADER_ROWS])
        for left, _, right, bottom in merged.get(line, ())
    ]
    table = to_markdown(grid[titles:], header_rows=header_rows(grid[titles:], cells), drop_repeated=bool(layout.merged))
    return "\n\n".join([*title_lines, table]).strip()


def _fill(rows: Cells, merged: Sequence[Range]) -> dict[int, list[Range]]:
    """Fill each merged cell's text into all cells it covers; return the ranges by their first row."""
    widest = max((max(row, default=0) for row in rows.values()), default=0)
    deepest = max(rows, default=0)
    by_first_row: dict[int, list[Range]] = {}
    filled = 0
    for left, top, last_column, last_row in merged:
        right, bottom = min(last_column, widest), min(last_row, deepest)
        row = rows.get(top, {})
        text = row.get(left)
        if text is None or len(row) == 1:  # an empty cell, or a title alone in its row
            continue
        filled += (right - left + 1) * (bottom - top + 1)
        if filled > MOST_FILLED:
            raise Unreadable(Reason.TOO_LARGE, "its merged cells cover more than a million cells")
        by_first_row.setdefault(top, []).append((left, top, right, bottom))
        for line in range(top, bottom + 1):
            rows[line].update(dict.fromkeys(range(left, right + 1), text))
    return by_first_row
