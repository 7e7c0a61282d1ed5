"""Write tables as Markdown pipe tables: one header row, one line per row, without spans and line breaks."""

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

Row = Sequence[str]
MOST_HEADER_ROWS = 3
MOST_COMPARED = 100  # rows below a possible header that are compared with it
FIGURE = "0"
LONGEST_FIGURE = 200  # characters of a cell; a longer one is prose
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)(?:[./-]\d{1,2}(?!\d)){0,2}")
_NUMBER = re.compile(r"\d[\d.,]*")
_UNIT = re.compile(r"\d[\d.,]*+\s?([^\W\d_]+|[^\w\s]|)")
_TERM = re.compile(r"(?:19|20)\d\d(?!\d)|(?<![\d.,])\d[\d.,]*+\s?[^\W\d_]")


@dataclass(frozen=True, slots=True)
class Merged:
    """A cell that spans rows or columns: its position, from 0, and the number it covers."""

    row: int
    column: int
    down: int
    across: int

    def is_within(self, other: "Merged") -> bool:
        """Return whether another cell covers all of its columns."""
        return other.column <= self.column and self.column + self.across <= other.column + other.across


def to_markdown(rows: Sequence[Row], *, header_rows: int = 1, filled: bool = False) -> str:
    """Return the rows as a pipe table, with header rows joined cell by cell; "" if all cells are empty.

    `filled` means that merged cells were filled in: equal neighbouring columns are reduced to one.
    """
    cells = [[_cell(text) for text in row] for row in rows]
    cells = [row for row in cells if any(row)]
    if not cells:
        return ""
    width = max(len(row) for row in cells)
    padded = [row + [""] * (width - len(row)) for row in cells]
    columns = [[row[i] for row in padded] for i in range(width)]
    kept_columns = [
        i for i, column in enumerate(columns) if any(column) and not (filled and i > 0 and column == columns[i - 1])
    ]
    padded = [[row[i] for i in kept_columns] for row in padded]
    count = min(max(header_rows, 1), len(padded))
    head = [_joined([row[i] for row in padded[:count]]) for i in range(len(kept_columns))]
    lines = [_line(head), _line(["---"] * len(kept_columns)), *(_line(row) for row in padded[count:])]
    return "\n".join(lines)


def header_rows(grid: Sequence[Row], merged: Sequence[Merged], *, known: int = 1) -> int:
    """Return the number of header rows, at least `known`; `grid` has its merged cells filled in.

    A row below a spanning header cell is another header row in three cases: another header cell extends into it and it
    has no data figures; only the spanned columns have text; or it names the figures below, and no column beside them
    already has a name. In doubt, it is data.
    """
    width = max(map(len, grid), default=0)
    first = [[*row, *[""] * (width - len(row))] for row in grid[: MOST_HEADER_ROWS + MOST_COMPARED]]
    depth = known
    while depth < min(MOST_HEADER_ROWS, len(first) - 1) and _is_header(first, depth, merged):
        depth += 1
    return depth


def names(row: Row, below: Sequence[Row], columns: Iterable[int], *, by_words: bool) -> bool:
    """Return whether a row names figures: no cell shares a unit with the cells below it, in a column of one form.

    Since a data label may look like a name, words count only with `by_words`; otherwise terms or years are required
    ("6개월", "2025"). All rows must have the same length.
    """
    named = []
    for column in columns:
        cells = [line[column] for line in below]
        forms = [_form(cell) for cell in cells]
        if not row[column] or _units(row[column]) & {unit for cell in cells for unit in _units(cell)}:
            return False
        if forms and FIGURE in forms[0] and forms.count(forms[0]) > 1:
            named.append(row[column])
    return bool(named) and (by_words or all(map(_TERM.match, named)))


def _is_header(grid: Sequence[Row], at: int, merged: Sequence[Merged]) -> bool:
    above = [cell for cell in merged if cell.row < at]
    heads = [cell for cell in above if cell.across > 1]
    if not heads or not any(grid[at]):
        return False
    reached = _columns(cell for cell in above if cell.row + cell.down > at)
    if reached:
        return not _has_values(grid, at, reached)
    as_wide = [cell for cell in merged if cell.row == at]
    return _parts(
        [head for head in heads if head.row + head.down == at and not any(map(head.is_within, as_wide))], grid, at
    )


def _parts(heads: Sequence[Merged], grid: Sequence[Row], at: int) -> bool:
    """Return whether a row names the columns spanned by the header cells directly above."""
    row, columns = grid[at], _columns(heads)
    beside = [(grid[at - 1][column], row[column]) for column in range(len(row)) if column not in columns]
    if any(name and cell for name, cell in beside) or len({row[column] for column in columns}) < 2:
        return False
    if any(name for name, _ in beside) and not any(cell for _, cell in beside):
        return not _has_values(grid, at, set())
    is_title = len(heads) == 1 and not beside  # of the whole table, so the row below it may be data
    return names(row, grid[at + 1 :], columns, by_words=not is_title and not any(cell for _, cell in beside))


def _columns(cells: Iterable[Merged]) -> set[int]:
    return {column for cell in cells for column in range(cell.column, cell.column + cell.across)}


def _has_values(grid: Sequence[Row], at: int, reached: Container[int]) -> bool:
    """Return whether a row has a figure that also occurs below in its form, or whose column has no other figures."""
    for column, cell in enumerate(grid[at]):
        form = _form(cell)
        forms = [_form(line[column]) for line in grid[at + 1 :]]
        if column not in reached and FIGURE in form and (form in forms or not any(FIGURE in other for other in forms)):
            return True
    return False


def _form(cell: str) -> str:
    """Return the pattern of a figure: "5,100원" and "300원" are both "0원"; years don't count."""
    return _NUMBER.sub(FIGURE, _YEAR.sub("Y", cell)) if len(cell) < LONGEST_FIGURE else ""


def _units(cell: str) -> set[str]:
    """Return the text after each number: the same for "최고 3.0%" and "3.5%", different for "6개월"."""
    return set(_UNIT.findall(_YEAR.sub("Y", cell))) if len(cell) < LONGEST_FIGURE else set()


def title_rows(rows: Sequence[Row]) -> int:
    """Return the number of title rows at the top: rows with one filled cell, if later rows have several."""
    filled = [sum(map(bool, row)) for row in rows]
    if max(filled, default=0) < 2:
        return len(rows)
    return next(i for i, count in enumerate(filled) if count > 1)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def _joined(parts: Sequence[str]) -> str:
    return " / ".join(dict.fromkeys(part for part in parts if part))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
