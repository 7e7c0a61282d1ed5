"""Parse delimited text (CSV with commas, semicolons, tabs or bars), detected by the regularity of its rows."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from io import StringIO
from itertools import pairwise

from ingest.parsing.parsed import Format, Parsed, Reason, Unreadable, one_page
from ingest.parsing.tables import title_rows, to_markdown
from ingest.parsing.text import begins_markdown, first_heading

MOST_ROWS = 1_000_000
REGULAR = 0.95  # share of the multi-cell rows that must have the most common number of cells
PROSE = 60  # average characters per cell above which the text is prose that contains commas
_DELIMITERS = ("\t", ";", "|", ",")  # in order of preference when equally regular
_SAMPLE = 200  # lines
_LAST_CELL = "end"
_THOUSANDS_COMMA = re.compile(r"\d,\d{3}(?!\d)")
_LIST_ITEM = re.compile(r"(?:[-*+•]|\d{1,3}[.)])\s")


def delimiter_of(text: str) -> str | None:
    """Return the cell delimiter, or None if the text is not a table."""
    sample = text[:200_000].split("\n", _SAMPLE)[:_SAMPLE]
    counts = {delimiter: _regular_rows(sample, delimiter) for delimiter in _DELIMITERS}
    regular = {delimiter: count for delimiter, count in counts.items() if count is not None}
    return max(regular, key=regular.__getitem__, default=None)


def parse_delimited(text: str, delimiter: str) -> Parsed:
    """Return the rows as one table, below the rows of one cell that precede them as titles."""
    rows = [row for row in _rows(text, delimiter) if any(row)]
    if len(rows) > MOST_ROWS:
        raise Unreadable(Reason.TOO_LARGE, "more than a million rows")
    titles = title_rows(rows)
    title_lines = [" ".join(cell for cell in row if cell) for row in rows[:titles]]
    title = (first_heading(title_lines[0]) or title_lines[0]) if title_lines else None
    return one_page(Format.CSV, "\n\n".join([*title_lines, to_markdown(rows[titles:])]).strip(), title)


def _rows(text: str, delimiter: str) -> list[list[str]]:
    """Return all rows; raise Unreadable if a cell is not closed."""
    # After an unclosed quotation mark, `csv` puts all further rows into one cell, also the added row `_LAST_CELL`.
    reader = csv.reader(StringIO(f"{text}\n{_LAST_CELL}"), delimiter=delimiter, skipinitialspace=True)
    rows: list[list[str]] = []
    first_line, next_line = 1, 1  # of the last row, and of the row behind it
    try:
        for row in reader:
            rows.append(row)
            first_line, next_line = next_line, reader.line_num + 1
        is_closed = rows.pop() == [_LAST_CELL]
    except csv.Error:  # the unclosed cell is too long for `csv`
        first_line = next_line
        is_closed = False
    if not is_closed:
        raise Unreadable(Reason.MALFORMED, f"line {first_line}: a cell of the table is not closed")
    return rows


def _regular_rows(lines: Sequence[str], delimiter: str) -> tuple[int, int] | None:
    """Return (number of regular rows, cells per row), or None if the lines are not rows of a table."""
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return None
    wide = [row for row in rows if len(row) > 1]
    narrow_count = len(rows) - len(wide)
    if len(wide) < 2 or narrow_count > 3 or _is_markdown(rows, delimiter) or _is_prose(wide, delimiter):
        return None
    width, count = Counter(len(row) for row in wide).most_common(1)[0]
    regular = [row for row in wide if len(row) == width]
    is_list = delimiter != "\t" and _LIST_ITEM.match(regular[0][0])
    commas_are_in_numbers = delimiter == "," and all(map(_cuts_number, regular))
    if count < REGULAR * len(wide) or is_list or commas_are_in_numbers:
        return None
    return count, width


def _is_markdown(rows: Sequence[Sequence[str]], delimiter: str) -> bool:
    """Return whether a row starts with Markdown syntax.

    A lone heading on the first line doesn't count, since it may be the table's title. In tab-separated text, rows of
    several cells don't count, since "#" may be a column name.
    """
    has_title = sum(map(bool, rows[0])) == 1 and rows[0][0].startswith("#")
    body = rows[1:] if has_title else rows
    checked = [row for row in body if len(row) == 1 or delimiter != "\t"]
    return any(begins_markdown(delimiter.join(row)) for row in checked)


def _is_prose(rows: Sequence[Sequence[str]], delimiter: str) -> bool:
    """Return whether the cells are parts of sentences whose commas look like delimiters."""
    cells = [cell for row in rows for cell in row]
    if sum(map(len, cells)) > PROSE * len(cells):
        return True
    # "Dear Sir, thank you" on two lines is not a table: prose has a space after most of its commas. A table may have
    # spaces too, but then in the same columns of each row, and not in all columns.
    spaces = [(column, cell.startswith(" ")) for row in rows for column, cell in enumerate(row[1:]) if cell]
    spaced_count = sum(is_spaced for _, is_spaced in spaces)
    rows_agree = len(set(spaces)) == len({column for column, _ in spaces})
    has_spaced_columns = rows_agree and spaced_count < len(spaces)
    return delimiter == "," and spaced_count * 2 >= len(spaces) and not has_spaced_columns


def _cuts_number(row: Sequence[str]) -> bool:
    """Return whether a comma between two cells may be part of a number, as in "10,000"."""
    return any(_THOUSANDS_COMMA.match(f"{left[-1:]},{right[:4]}") for left, right in pairwise(row))
