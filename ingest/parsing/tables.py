"""Write tables as Markdown pipe tables: one header row, one line per row, without spans and line breaks."""

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

Row = Sequence[str]
MOST_HEADER_ROWS = 3
MOST_COMPARED = 100  # rows below a possible header that are compared with it
FIGURE = "0"
LONGEST_FIGURE = 200  # characters of a cell; a longer one is prose
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)(?:[./-]\d{1,2}(?!\d)){0,2}")  # a year, or a date that starts with it
_NUMBER = re.compile(r"\d[\d.,]*")
_UNIT = re.compile(r"\d[\d.,]*+\s?([^\W\d_]+|[^\w\s]|)")  # a number and its unit of measure, if any
_DURATION_OR_YEAR = re.compile(
    r"(?:19|20)\d\d(?!\d)|(?<![\d.,])\d[\d.,]*+\s?[^\W\d_]"
)  # a year, or a number before a word


@dataclass(frozen=True, slots=True)
class Merged:
    """A cell that spans rows or columns: its position, from 0, and how many rows and columns it covers."""

    row: int
    column: int
    down: int
    across: int

    def is_within(self, other: "Merged") -> bool:
        """Return whether another cell covers all of its columns."""
        return other.column <= self.column and self.column + self.across <= other.column + other.across


def to_markdown(rows: Sequence[Row], *, header_rows: int = 1, drop_repeated: bool = False) -> str:
    """Return the rows as a pipe table, with header rows joined cell by cell; "" if all cells are empty.

    With `drop_repeated`, a column that repeats the one before it is dropped, because both come from merged cells.
    """
    cells = [[_cell(text) for text in row] for row in rows]
    cells = [row for row in cells if any(row)]
    if not cells:
        return ""
    width = max(len(row) for row in cells)
    padded = [row + [""] * (width - len(row)) for row in cells]
    columns = [[row[i] for row in padded] for i in range(width)]
    repeated = {i for i in range(1, width) if columns[i] == columns[i - 1]} if drop_repeated else set()
    shown_columns = [i for i in range(width) if any(columns[i]) and i not in repeated]
    padded = [[row[i] for i in shown_columns] for row in padded]
    count = min(max(header_rows, 1), len(padded))
    head = [_join_distinct([row[i] for row in padded[:count]]) for i in range(len(shown_columns))]
    lines = [_line(head), _line(["---"] * len(shown_columns)), *(_line(row) for row in padded[count:])]
    return "\n".join(lines)


def header_rows(grid: Sequence[Row], merged: Sequence[Merged], *, least: int = 1) -> int:
    """Return the number of header rows, at least `least`; `grid` has its merged cells filled in.

    A row below a spanning header cell is another header row in three cases: another header cell extends into the row,
    and the row has no data figures; only the columns below the spanning cell have text; or the row names the figures
    below it, and no column beside the spanned columns already has a name. A row that may be data is not a header row.
    """
    width = max(map(len, grid), default=0)
    first = [[*row, *[""] * (width - len(row))] for row in grid[: MOST_HEADER_ROWS + MOST_COMPARED]]
    depth = least
    while depth < min(MOST_HEADER_ROWS, len(first) - 1) and _is_header(first, depth, merged):
        depth += 1
    return depth


def names_figures(row: Row, below: Sequence[Row], columns: Iterable[int], *, any_name: bool) -> bool:
    """Return whether a row names the figures below it; all rows must have the same length.

    A row with an empty cell, or with a unit of measure (%, 원) that its column also has below, is data. The names are
    the cells above columns whose figures have the same form ("5,100원", "300원"). Without `any_name`, each name must
    start with a duration or a year ("6개월", "2025"), because the words of a data row look like names too.
    """
    figure_names = []
    for column in columns:
        name = row[column]
        cells = [line[column] for line in below]
        units_below = set[str]().union(*map(_units, cells))
        if not name or _units(name) & units_below:
            return False
        forms = [_form(cell) for cell in cells]
        if forms and FIGURE in forms[0] and forms.count(forms[0]) > 1:
            figure_names.append(name)
    return bool(figure_names) and (any_name or all(map(_DURATION_OR_YEAR.match, figure_names)))


def _is_header(grid: Sequence[Row], at: int, merged: Sequence[Merged]) -> bool:
    """Return whether row `at`, below a header row, is another header row (`header_rows`)."""
    above = [cell for cell in merged if cell.row < at]
    spanning = [cell for cell in above if cell.across > 1]
    if not spanning or not any(grid[at]):
        return False
    extended = _columns(cell for cell in above if cell.row + cell.down > at)
    if extended:
        return not _has_values(grid, at, extended)
    in_row = [cell for cell in merged if cell.row == at]
    touching = [head for head in spanning if head.row + head.down == at]
    return _names_columns([head for head in touching if not any(map(head.is_within, in_row))], grid, at)


def _names_columns(heads: Sequence[Merged], grid: Sequence[Row], at: int) -> bool:
    """Return whether row `at` names the columns that are spanned by the header cells directly above."""
    row = grid[at]
    columns = _columns(heads)
    beside = [(grid[at - 1][column], row[column]) for column in range(len(row)) if column not in columns]
    has_names_beside = any(name for name, _ in beside)
    has_cells_beside = any(cell for _, cell in beside)
    if any(name and cell for name, cell in beside) or len({row[column] for column in columns}) < 2:
        return False
    if has_names_beside and not has_cells_beside:
        return not _has_values(grid, at, set())
    is_title = len(heads) == 1 and not beside  # a title above the whole table, so the row below it may be data
    return names_figures(row, grid[at + 1 :], columns, any_name=not is_title and not has_cells_beside)


def _columns(cells: Iterable[Merged]) -> set[int]:
    return {column for cell in cells for column in range(cell.column, cell.column + cell.across)}


def _has_values(grid: Sequence[Row], at: int, excluded: Container[int]) -> bool:
    """Return whether row `at` has a value in a column outside `excluded`.

    A value is a figure whose column has another figure of the same form below, or no figures at all.
    """
    for column, cell in enumerate(grid[at]):
        form = _form(cell)
        if column in excluded or FIGURE not in form:
            continue
        forms_below = [_form(line[column]) for line in grid[at + 1 :]]
        if form in forms_below or not any(FIGURE in other for other in forms_below):
            return True
    return False


def _form(cell: str) -> str:
    """Return a cell with 0 for each number and Y for each year: "0원" for both "5,100원" and "300원"."""
    return _NUMBER.sub(FIGURE, _YEAR.sub("Y", cell)) if len(cell) < LONGEST_FIGURE else ""


def _units(cell: str) -> set[str]:
    """Return the unit of measure after each number ("" if it has none): the same for "최고 3.0%" and "3.5%"."""
    return set(_UNIT.findall(_YEAR.sub("Y", cell))) if len(cell) < LONGEST_FIGURE else set()


def title_rows(rows: Sequence[Row]) -> int:
    """Return the number of rows above the first one with several filled cells; of all rows if there is none."""
    filled_counts = [sum(map(bool, row)) for row in rows]
    return next((i for i, count in enumerate(filled_counts) if count > 1), len(rows))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def _join_distinct(parts: Sequence[str]) -> str:
    return " / ".join(dict.fromkeys(part for part in parts if part))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
