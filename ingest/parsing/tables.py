"""Tables as Markdown (pipe tables): one header row, one line for each row, without spans and line breaks."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Row = Sequence[str]
MOST_HEADER_ROWS = 3
MOST_COMPARED = 100  # rows below a header that tell whether it is one
FIGURE = "0"
LONGEST_FIGURE = 200  # characters of a cell: a longer one is prose
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_NUMBER = re.compile(r"\d[\d.,]*")


@dataclass(frozen=True, slots=True)
class Merged:
    """A cell that covers several rows or columns of a table: where it begins, from 0, and how many it covers."""

    row: int
    column: int
    down: int
    across: int

    def is_within(self, other: "Merged") -> bool:
        """Tell whether another cell covers all of its columns."""
        return other.column <= self.column and self.column + self.across <= other.column + other.across


def to_markdown(rows: Sequence[Row], *, header_rows: int = 1, filled: bool = False) -> str:
    """Return the rows as a pipe table, several header rows joined cell by cell into one; "" without any content.

    With `filled`, merged cells were filled in: of neighbouring columns that are then equal, one is kept.
    """
    cells = [[_cell(text) for text in row] for row in rows]
    cells = [row for row in cells if any(row)]
    if not cells:
        return ""
    width = max(len(row) for row in cells)
    padded = [row + [""] * (width - len(row)) for row in cells]
    columns = [[row[i] for row in padded] for i in range(width)]
    kept = [
        i for i, column in enumerate(columns) if any(column) and not (filled and i > 0 and column == columns[i - 1])
    ]
    padded = [[row[i] for i in kept] for row in padded]
    count = min(max(header_rows, 1), len(padded))
    head = [_joined([row[i] for row in padded[:count]]) for i in range(len(kept))]
    lines = [_line(head), _line(["---"] * len(kept)), *(_line(row) for row in padded[count:])]
    return "\n".join(lines)


def header_rows(grid: Sequence[Row], merged: Sequence[Merged], *, known: int = 1) -> int:
    """Return how many first rows are the header, at least `known`; `grid` has its merged cells filled in.

    Below a head that spans columns a row is one more where another head reaches into it; where it is empty but for the
    columns spanned; or where it names figures that stand below it, and no column beside them has a name already.
    """
    width = max(map(len, grid), default=0)
    first = [[*row, *[""] * (width - len(row))] for row in grid[: MOST_HEADER_ROWS + MOST_COMPARED]]
    depth = known
    while depth < min(MOST_HEADER_ROWS, len(first) - 1) and _is_header(first, depth, merged):
        depth += 1
    return depth


def names(row: Row, below: Sequence[Row], columns: Iterable[int]) -> bool:
    """Tell whether a row names figures: in a column the rows below it have those of one form, in none those of its own.

    All rows are as long.
    """
    named = False
    for column in columns:
        form = _form(row[column])
        forms = [_form(line[column]) for line in below]
        if FIGURE in form and form in forms:
            return False
        named = named or (bool(forms) and FIGURE in forms[0] and forms.count(forms[0]) > 1)
    return named


def _is_header(grid: Sequence[Row], at: int, merged: Sequence[Merged]) -> bool:
    above = [cell for cell in merged if cell.row < at]
    heads = [cell for cell in above if cell.across > 1]
    if not heads or not any(grid[at]):
        return False
    if any(cell.row + cell.down > at for cell in above):
        return True
    as_wide = [cell for cell in merged if cell.row == at]
    parted = [head for head in heads if head.row + head.down == at and not any(map(head.is_within, as_wide))]
    columns = {column for head in parted for column in range(head.column, head.column + head.across)}
    beside = [(grid[at - 1][column], grid[at][column]) for column in range(len(grid[at])) if column not in columns]
    if not parted or any(name and cell for name, cell in beside):
        return False
    is_empty_beside = any(name for name, _ in beside) and not any(cell for _, cell in beside)
    return is_empty_beside or names(grid[at], grid[at + 1 :], columns)


def _form(cell: str) -> str:
    """Return what figures of one kind have in common: "5,100원" and "300원" are both "0원"; a year is no figure."""
    return _NUMBER.sub(FIGURE, _YEAR.sub("Y", cell)) if len(cell) < LONGEST_FIGURE else ""


def title_rows(rows: Sequence[Row]) -> int:
    """Return the number of first rows that are titles: with one filled cell, where later rows have several."""
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
