"""Tables of a PDF that are not ruled all around, and what stands beside them."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from reportlab.lib import pagesizes
from reportlab.pdfgen.canvas import Canvas

from tests.ingest.parsing.reading import read, text_of

ROWS = (
    ("Product", "6 months", "12 months", "24 months", "Tax"),
    ("Deposit", "3.0 %", "3.5 %", "3.7 %", "before"),
    ("Savings", "3.2 %", "3.6 %", "3.9 %", "before"),
    ("Housing", "2.0 %", "2.5 %", "2.8 %", "free"),
)
_LEFT, _TOP, _WIDE, _HIGH = 60, 740, 90, 22


def drawn(draw: Callable[[Canvas], None]) -> bytes:
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=pagesizes.A4)
    canvas.drawString(60, 780, "Rates of our deposits since the first of December")
    draw(canvas)
    canvas.save()
    return buffer.getvalue()


def ruled(canvas: Canvas, *, upright: range, across: tuple[int, int] = (0, 5)) -> None:
    """Draw the table with these upright rules, and rules across from one column's edge to another's."""
    for row in range(len(ROWS) + 1):
        y = _TOP - row * _HIGH
        canvas.line(_LEFT + across[0] * _WIDE, y, _LEFT + across[1] * _WIDE, y)
    for column in upright:
        x = _LEFT + column * _WIDE
        canvas.line(x, _TOP, x, _TOP - len(ROWS) * _HIGH)
    for row, texts in enumerate(ROWS):
        for column, text in enumerate(texts):
            canvas.drawString(_LEFT + column * _WIDE + 5, _TOP - row * _HIGH - 16, text)


@pytest.mark.parametrize("upright", [range(1, 5), range(1, 6), range(5), range(2, 4)])
def test_a_table_without_borders_at_its_sides_keeps_its_outer_columns(tmp_path: Path, upright: range) -> None:
    text = text_of(read(tmp_path, drawn(lambda canvas: ruled(canvas, upright=upright))))
    assert [word for line in ROWS for cell in line for word in cell.split() if word not in text] == []
    if len(upright) > 2:
        assert "\n".join(f"| {' | '.join(row)} |" for row in ROWS[1:]) in text


def test_what_stands_beside_a_table_without_a_rule_is_read(tmp_path: Path) -> None:
    text = text_of(read(tmp_path, drawn(lambda canvas: ruled(canvas, upright=range(1, 5), across=(1, 4)))))
    assert "| 3.0 % | 3.5 % | 3.7 % |" in text
    for label in ("Product", "Deposit", "Savings", "Housing", "Tax", "free"):
        assert label in text
    assert (text.count("before"), text.count("3.5")) == (2, 1)


def test_a_table_whose_border_cuts_a_figure_is_read_as_lines(tmp_path: Path) -> None:
    def too_wide(canvas: Canvas) -> None:
        ruled(canvas, upright=range(6))
        x = _LEFT + 5 * _WIDE
        canvas.drawRightString(x + 20, _TOP - 3 * _HIGH - 16, "1,250,000")

    assert "1,250,000" in text_of(read(tmp_path, drawn(too_wide)))
