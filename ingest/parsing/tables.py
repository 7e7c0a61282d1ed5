"""Tables as Markdown (pipe tables): one header row, one line for each row, without spans and line breaks."""

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

Row = Sequence[str]
MOST_HEADER_ROWS = 3
MOST_COMPARED = 100  # rows below a header that tell whether it is one
FIGURE = "0"
LONGEST_FIGURE = 200  # characters of a cell: a longer one is prose
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)(?:[./-]\d{1,2}(?!\d)){0,2}")
_NUMBER = re.compile(r"\d[\d.,]*")
_UNIT = re.compile(r"\d[\d.,]*+\s?([^\W\d_]+|[^\w\s]|)")
_TERM = re.compile(r"(?:19|20)\d\d(?!\d)|(?<![\d.,])\d[\d.,]*+\s?[^\W\d_]")


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

    Below a head that spans columns a row is one more where another head reaches into it and it has no figures of data;
    where it is empty but for the columns spanned; or where it names figures that stand below it, and no column beside
    them has a name already. In doubt a row is one of data.
    """
    width = max(map(len, grid), default=0)
    first = [[*row, *[""] * (width - len(row))] for row in grid[: MOST_HEADER_ROWS + MOST_COMPARED]]
    depth = known
    while depth < min(MOST_HEADER_ROWS, len(first) - 1) and _is_header(first, depth, merged):
        depth += 1
    return depth


def names(row: Row, below: Sequence[Row], columns: Iterable[int], *, by_words: bool) -> bool:
    """Tell whether a row names figures: each cell differs in its unit from those below, in a column of one form.

    A label of data may stand there as well as a name: words suffice with `by_words`, else it takes terms or years
    ("6개월", "2025"). All rows are as long.
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
    """Tell whether a row names the columns that the heads right above it span."""
    row, columns = grid[at], _columns(heads)
    beside = [(grid[at - 1][column], row[column]) for column in range(len(row)) if column not in columns]
    if any(name and cell for name, cell in beside) or len({row[column] for column in columns}) < 2:
        return False
    if any(name for name, _ in beside) and not any(cell for _, cell in beside):
        return not _has_values(grid, at, set())
    is_title = len(heads) == 1 and not beside  # of the whole table: what is below it may be data
    return names(row, grid[at + 1 :], columns, by_words=not is_title and not any(cell for _, cell in beside))


def _columns(cells: Iterable[Merged]) -> set[int]:
    return {column for cell in cells for column in range(cell.column, cell.column + cell.across)}


def _has_values(grid: Sequence[Row], at: int, reached: Container[int]) -> bool:
    """Tell whether a row has a figure of a form that stands below it as well, or above a column without figures."""
    for column, cell in enumerate(grid[at]):
        form = _form(cell)
        forms = [_form(line[column]) for line in grid[at + 1 :]]
        if column not in reached and FIGURE in form and (form in forms or not any(FIGURE in other for other in forms)):
            return True
    return False


def _form(cell: str) -> str:
    """Return what figures of one kind have in common: "5,100원" and "300원" are both "0원"; a year does not count."""
    return _NUMBER.sub(FIGURE, _YEAR.sub("Y", cell)) if len(cell) < LONGEST_FIGURE else ""


def _units(cell: str) -> set[str]:
    """Return what follows the numbers of a cell: of "최고 3.0%" and "3.5%" it is the same, of "6개월" another."""
    return set(_UNIT.findall(_YEAR.sub("Y", cell))) if len(cell) < LONGEST_FIGURE else set()


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
