"""Marks of footnotes and powers that a PDF raises behind figures."""

from io import BytesIO
from pathlib import Path

import pytest
from reportlab.lib import pagesizes
from reportlab.pdfgen.canvas import Canvas

from tests.ingest.parsing.reading import read, text_of


@pytest.mark.parametrize("is_in_table", [False, True], ids=["line", "table"])
def test_a_raised_mark_is_no_part_of_the_figure_before_it(tmp_path: Path, *, is_in_table: bool) -> None:
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=pagesizes.A4)
    canvas.drawString(72, 760, "Fees and limits since the first of December")
    for row, (name, figure, mark) in enumerate((("Limit", "5,000", "1)"), ("Fee", "500", "2"))):
        y = 700 - 24 * row
        if is_in_table:
            canvas.rect(72, y - 8, 120, 24)
            canvas.rect(192, y - 8, 120, 24)
        canvas.drawString(78, y, name)
        text = canvas.beginText(198 if is_in_table else 110, y)
        text.textOut(figure)
        text.setRise(4)
        text.setFont("Helvetica", 7)
        text.textOut(mark)
        text.setRise(0)
        text.setFont("Helvetica", 12)
        text.textOut(" won")
        canvas.drawText(text)
    canvas.save()
    text_read = text_of(read(tmp_path, buffer.getvalue()))
    assert "5,000¹⁾ won" in text_read
    assert "500² won" in text_read
    assert ("| Limit | 5,000¹⁾ won |" in text_read) is is_in_table


def test_a_small_figure_beside_a_larger_one_on_its_line_is_not_raised(tmp_path: Path) -> None:
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=pagesizes.A4)
    text = canvas.beginText(72, 760)
    text.textOut("The rate of this deposit is 3")
    text.setFont("Helvetica", 7)
    text.textOut(".10")
    text.setRise(1)
    text.textOut("5 percent a year")
    canvas.drawText(text)
    canvas.save()
    assert "3.105 percent" in text_of(read(tmp_path, buffer.getvalue()))
