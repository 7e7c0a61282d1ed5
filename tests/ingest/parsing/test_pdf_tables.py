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


def test_a_table_of_which_only_the_header_has_borders_at_its_sides_keeps_its_outer_columns(tmp_path: Path) -> None:
    def headed(canvas: Canvas) -> None:
        ruled(canvas, upright=range(1, 5))
        canvas.rect(_LEFT, _TOP - _HIGH, 5 * _WIDE, _HIGH)

    lines = text_of(read(tmp_path, drawn(headed))).splitlines()
    assert [line for line in lines if line.startswith("|")][2:] == [f"| {' | '.join(row)} |" for row in ROWS[1:]]


def test_a_table_whose_labels_stand_outside_of_it_is_read_as_lines(tmp_path: Path) -> None:
    text = text_of(read(tmp_path, drawn(lambda canvas: ruled(canvas, upright=range(1, 5), across=(1, 4)))))
    assert " ".join(" ".join(row) for row in ROWS) in " ".join(text.split())


def test_a_note_beside_one_row_of_a_table_is_read_beside_it(tmp_path: Path) -> None:
    def noted(canvas: Canvas) -> None:
        ruled(canvas, upright=range(6))
        canvas.drawString(_LEFT + 5 * _WIDE + 4, _TOP - _HIGH - 16, "* for a year")

    lines = text_of(read(tmp_path, drawn(noted))).splitlines()
    assert [line for line in lines if line.startswith("|")][2:] == [f"| {' | '.join(row)} |" for row in ROWS[1:]]
    assert "\\* for a year" in lines or "* for a year" in lines


def test_a_table_whose_border_cuts_a_figure_is_read_as_lines(tmp_path: Path) -> None:
    def too_wide(canvas: Canvas) -> None:
        ruled(canvas, upright=range(6))
        x = _LEFT + 5 * _WIDE
        canvas.drawRightString(x + 20, _TOP - 3 * _HIGH - 16, "1,250,000")

    assert "1,250,000" in text_of(read(tmp_path, drawn(too_wide)))
