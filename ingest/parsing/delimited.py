"""Delimited text (CSV, with commas, semicolons, tabs or bars): recognised by the regularity of its rows.

Text where a heading, a rule or a fence of Markdown stands outside of quoted cells is none, nor is a list.
"""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from io import StringIO
from itertools import pairwise

from ingest.parsing.parsed import Format, Page, Parsed, Reason, Unreadable
from ingest.parsing.tables import title_rows, to_markdown
from ingest.parsing.text import begins_markdown

MOST_ROWS = 1_000_000
REGULAR = 0.95  # of the rows with more than one cell that must have the commonest number of cells
PROSE = 60  # characters of an average cell: longer ones are sentences with commas in them
_DELIMITERS = ("\t", ";", "|", ",")  # the first where several are as regular
_SAMPLE = 200  # lines
_IN_NUMBER = re.compile(r"\d,\d{3}(?!\d)")
_ITEM = re.compile(r"(?:[-*+•]|\d{1,3}[.)])\s")


def delimiter_of(text: str) -> str | None:
    """Return the delimiter of the cells, None where the text is no table."""
    sample = text[:200_000].split("\n", _SAMPLE)[:_SAMPLE]
    regular = {delimiter: rows for delimiter in _DELIMITERS if (rows := _regular_rows(sample, delimiter))}
    return max(regular, key=regular.__getitem__, default=None)


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


def _regular_rows(lines: Sequence[str], delimiter: str) -> int:
    """Return the number of rows that have as many cells as most, 0 where the lines are no rows."""
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return 0
    wide = [row for row in rows if len(row) > 1]
    if len(wide) < 2 or len(rows) - len(wide) > 3 or any(begins_markdown(delimiter.join(row)) for row in rows):
        return 0
    width, count = Counter(len(row) for row in wide).most_common(1)[0]
    head = next(row for row in wide if len(row) == width)
    is_text = _is_prose(wide, delimiter) or _ITEM.match(head[0]) or (delimiter == "," and _cuts_number(head))
    return 0 if count < REGULAR * len(wide) or is_text else count


def _is_prose(rows: Sequence[Sequence[str]], delimiter: str) -> bool:
    cells = [cell for row in rows for cell in row]
    later = [cell for row in rows for cell in row[1:] if cell]
    # "Dear Sir, thank you" on two lines is no table: there, a space follows the commas.
    spaced = sum(cell.startswith(" ") for cell in later)
    return sum(map(len, cells)) > PROSE * len(cells) or (delimiter == "," and spaced * 2 >= len(later))


def _cuts_number(row: Sequence[str]) -> bool:
    """Tell whether a comma between two cells may be one of a number, as in "10,000"."""
    return any(_IN_NUMBER.match(f"{left[-1:]},{right[:4]}") for left, right in pairwise(row))
