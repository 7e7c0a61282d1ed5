"""Tables as Markdown (pipe tables): one header row, one line for each row, without spans and line breaks."""

from collections.abc import Sequence

Row = Sequence[str]


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
