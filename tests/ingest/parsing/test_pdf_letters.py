"""Which letters of a PDF page are its text: those that the file itself does not hide, whatever is drawn over them."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pypdfium2
import pytest
from reportlab.pdfgen.canvas import Canvas

from ingest.parsing.pdf_letters import has_undrawable_letters
from tests.ingest import samples
from tests.ingest.parsing.reading import read, text_of

SEEN = "The rate of this deposit is 3.1 percent a year."


def in_mode_3(canvas: Canvas) -> None:
    text = canvas.beginText(72, 600)
    text.setTextRenderMode(3)
    text.textLine("hidden 99 percent")
    canvas.drawText(text)


def in_mode_3_in_a_form(canvas: Canvas) -> None:
    canvas.beginForm("note")
    in_mode_3(canvas)
    canvas.endForm()
    canvas.doForm("note")


def in_mode_3_in_a_table(canvas: Canvas) -> None:
    canvas.lines([(x, 500, x, 540) for x in (72, 200, 400)])
    for y in (500, 520, 540):
        canvas.line(72, y, 400, y)
    for x, y, words in ((80, 525, "Deposit"), (210, 525, "Rate"), (80, 505, "One year"), (210, 505, "3.1 percent")):
        canvas.drawString(x, y, words)
    text = canvas.beginText(300, 505)
    text.setTextRenderMode(3)
    text.textLine("99")
    canvas.drawText(text)


def tiny(canvas: Canvas) -> None:
    canvas.setFont("Helvetica", 0.2)
    canvas.drawString(72, 600, "hidden 99 percent")


def off_the_page(canvas: Canvas) -> None:
    canvas.drawString(72, 2000, "hidden 99 percent")
    canvas.drawString(-400, 600, "hidden 99 percent")


def in_white(canvas: Canvas) -> None:
    canvas.setFillColorRGB(1, 1, 1)
    canvas.drawString(72, 600, "shown 99 percent")


def under_a_shape(canvas: Canvas) -> None:
    canvas.drawString(72, 600, "shown 99 percent")
    canvas.rect(60, 590, 200, 30, fill=1)


def as_outlines(canvas: Canvas) -> None:
    text = canvas.beginText(72, 600)
    text.setTextRenderMode(1)
    text.textLine("shown 99 percent")
    canvas.drawText(text)


def small(canvas: Canvas) -> None:
    canvas.setFont("Helvetica", 5)
    canvas.drawString(72, 600, "shown 99 percent")


def page(draw: Callable[[Canvas], None], *, turned: int = 0) -> bytes:
    canvas = Canvas(buffer := BytesIO(), pagesize=(842, 842))
    canvas.setPageRotation(turned)
    canvas.drawString(72, 700, SEEN)
    draw(canvas)
    canvas.save()
    return buffer.getvalue()


@pytest.mark.parametrize("turned", [0, 90], ids=["upright", "turned"])
@pytest.mark.parametrize("hide", [in_mode_3, in_mode_3_in_a_form, in_mode_3_in_a_table, tiny, off_the_page])
def test_text_that_a_pdf_marks_as_hidden_is_left_out(
    tmp_path: Path, hide: Callable[[Canvas], None], turned: int
) -> None:
    parsed = read(tmp_path, page(hide, turned=turned))
    text = text_of(parsed)
    assert SEEN in text
    assert sum(parsed.left_out.values()) > 0
    assert "99" not in text
    if hide is in_mode_3_in_a_table:
        assert "| One year | 3.1 percent |" in text


@pytest.mark.parametrize("draw", [in_white, under_a_shape, as_outlines, small])
def test_all_other_text_of_a_pdf_is_read(tmp_path: Path, draw: Callable[[Canvas], None]) -> None:
    text = text_of(read(tmp_path, page(draw)))
    assert SEEN in text
    assert "shown 99 percent" in text


def test_words_that_replace_the_letters_of_a_pdf_are_not_read(tmp_path: Path) -> None:
    def replaced(canvas: Canvas) -> None:
        canvas.addLiteral("/Span <</ActualText (The limit is 9 million won)>> BDC")
        canvas.drawString(72, 600, "The limit is 1 million won.")
        canvas.addLiteral("EMC")

    text = text_of(read(tmp_path, page(replaced)))
    assert "The limit is 1 million won." in text
    assert "9" not in text


def test_a_process_that_has_read_a_pdf_sees_no_installed_font(tmp_path: Path) -> None:
    assert "정기예금 상품설명서" in text_of(read(tmp_path, samples.pdf(), "paper.pdf"))
    with pypdfium2.PdfDocument(tmp_path / "paper.pdf") as document:
        assert has_undrawable_letters(document[0])
