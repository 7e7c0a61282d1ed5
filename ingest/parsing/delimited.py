"""Delimited text (CSV, with commas, semicolons, tabs or bars): recognised by the regularity of its rows."""

import csv
from collections import Counter
from collections.abc import Sequence
from io import StringIO

from ingest.parsing.parsed import Format, Page, Parsed, Reason, Unreadable
from ingest.parsing.tables import title_rows, to_markdown

MOST_ROWS = 1_000_000
REGULAR = 0.95  # of the rows with more than one cell that must have the commonest number of cells
PROSE = 60  # characters of an average cell: longer ones are sentences with commas in them
_DELIMITERS = ("\t", ";", ",", "|")
_SAMPLE = 200  # lines


def delimiter_of(text: str) -> str | None:
    """Return the delimiter of the cells, None where the text is no table."""
    sample = text[:200_000].split("\n", _SAMPLE)[:_SAMPLE]
    shapes = {delimiter: shape for delimiter in _DELIMITERS if (shape := _shape(sample, delimiter)) is not None}
    return max(shapes, key=lambda delimiter: shapes[delimiter]) if shapes else None


def parse_delimited(text: str, delimiter: str) -> Parsed:
    """Return the rows as one table, after the lines above it.

    Raises:
        Unreadable: more than a million rows, or cells longer than 128 KiB.
    """
    try:
        rows = [row for row in csv.reader(StringIO(text), delimiter=delimiter, skipinitialspace=True) if any(row)]
    except csv.Error as exc:
        raise Unreadable(Reason.MALFORMED, "a cell of the table never ends") from exc
    if len(rows) > MOST_ROWS:
        raise Unreadable(Reason.TOO_LARGE, "more than a million rows")
    titles = title_rows(rows)
    title_lines = [" ".join(cell for cell in row if cell) for row in rows[:titles]]
    return Parsed(
        format=Format.CSV,
        title=title_lines[0] if title_lines else None,
        pages=(Page(number=None, markdown="\n\n".join([*title_lines, to_markdown(rows[titles:])]).strip()),),
    )


def _shape(lines: Sequence[str], delimiter: str) -> tuple[int, int] | None:
    """Return the commonest number of cells and the number of rows with it, None where the lines are no rows."""
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return None
    wide = [row for row in rows if len(row) > 1]
    if len(wide) < 2 or len(rows) - len(wide) > 3:
        return None
    width, count = Counter(len(row) for row in wide).most_common(1)[0]
    cells = [cell for row in wide for cell in row]
    too_long = sum(len(cell) for cell in cells) > PROSE * len(cells)
    # "Dear Sir, thank you" on two lines is no table: there, a space follows every comma.
    as_prose = delimiter == "," and all(cell.startswith(" ") for row in wide for cell in row[1:] if cell)
    return None if count < REGULAR * len(wide) or too_long or as_prose else (width, count)
