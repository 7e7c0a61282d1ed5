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
_END = "end"
_IN_NUMBER = re.compile(r"\d,\d{3}(?!\d)")
_ITEM = re.compile(r"(?:[-*+•]|\d{1,3}[.)])\s")


def delimiter_of(text: str) -> str | None:
    """Return the cell delimiter, or None if the text is not a table."""
    sample = text[:200_000].split("\n", _SAMPLE)[:_SAMPLE]
    regular = {delimiter: rows for delimiter in _DELIMITERS if (rows := _regular_rows(sample, delimiter))}
    return max(regular, key=regular.__getitem__, default=None)


def parse_delimited(text: str, delimiter: str) -> Parsed:
    """Return the rows as one table below the lines that precede it."""
    rows = [row for row in _rows(text, delimiter) if any(row)]
    if len(rows) > MOST_ROWS:
        raise Unreadable(Reason.TOO_LARGE, "more than a million rows")
    titles = title_rows(rows)
    title_lines = [" ".join(cell for cell in row if cell) for row in rows[:titles]]
    title = (first_heading(title_lines[0]) or title_lines[0]) if title_lines else None
    return one_page(Format.CSV, "\n\n".join([*title_lines, to_markdown(rows[titles:])]).strip(), title)


def _rows(text: str, delimiter: str) -> list[list[str]]:
    """Return all rows; raise Unreadable if a cell is not closed."""
    reader = csv.reader(StringIO(f"{text}\n{_END}"), delimiter=delimiter, skipinitialspace=True)
    rows, line, end = list[list[str]](), 1, 0
    try:
        for row in reader:
            rows.append(row)
            line, end = end + 1, reader.line_num
    except csv.Error:  # a cell is too long: most often one that is not closed
        line, rows = end + 1, [[]]
    if rows.pop() != [_END]:  # `csv` puts all rows after an opening quotation mark into one cell
        raise Unreadable(Reason.MALFORMED, f"line {line}: a cell of the table is not closed")
    return rows


def _regular_rows(lines: Sequence[str], delimiter: str) -> tuple[int, int] | None:
    """Return (number of regular rows, cells per row), or None if the lines are not rows of a table."""
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return None
    wide = [row for row in rows if len(row) > 1]
    if len(wide) < 2 or len(rows) - len(wide) > 3 or _is_markdown(rows, delimiter) or _is_prose(wide, delimiter):
        return None
    width, count = Counter(len(row) for row in wide).most_common(1)[0]
    regular = [row for row in wide if len(row) == width]
    is_text = delimiter != "\t" and _ITEM.match(regular[0][0])
    if count < REGULAR * len(wide) or is_text or (delimiter == "," and all(map(_cuts_number, regular))):
        return None
    return count, width


def _is_markdown(rows: Sequence[Sequence[str]], delimiter: str) -> bool:
    """Return whether a row starts with Markdown syntax; a lone heading on the first line may be the table's title.

    In tab-separated text, "#" may be a column name.
    """
    is_title = sum(map(bool, rows[0])) == 1 and rows[0][0].startswith("#")
    checked = [row for row in rows[is_title:] if len(row) == 1 or delimiter != "\t"]
    return any(begins_markdown(delimiter.join(row)) for row in checked)


def _is_prose(rows: Sequence[Sequence[str]], delimiter: str) -> bool:
    cells = [cell for row in rows for cell in row]
    if sum(map(len, cells)) > PROSE * len(cells):
        return True
    # "Dear Sir, thank you" on two lines is not a table: prose has a space after each comma. A table may have one before
    # some of its columns.
    later = [(at, cell.startswith(" ")) for row in rows for at, cell in enumerate(row[1:]) if cell]
    spaced = sum(is_spaced for _, is_spaced in later)
    is_by_column = len(set(later)) == len(dict(later)) and spaced < len(later)
    return delimiter == "," and spaced * 2 >= len(later) and not is_by_column


def _cuts_number(row: Sequence[str]) -> bool:
    """Return whether a comma between two cells may be part of a number, as in "10,000"."""
    return any(_IN_NUMBER.match(f"{left[-1:]},{right[:4]}") for left, right in pairwise(row))
