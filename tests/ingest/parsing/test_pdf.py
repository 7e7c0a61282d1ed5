"""What is read of PDFs: letters, notes and fields, tables, lines that pages share, raised marks."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pypdfium2
import pypdfium2.raw as pdfium_c
import pytest
from reportlab.pdfgen.canvas import Canvas

from tests.ingest.parsing.reading import read, saved, text_in, text_of

SEEN = "The rate of this deposit is 3.1 percent a year."
_LEFT, _TOP, _WIDE, _HIGH = 72, 600, 90, 22
Draw = Callable[[Canvas], object]


def page(draw: Draw, *, turned: int = 0) -> bytes:
    canvas = Canvas("", pagesize=(842, 842))
    canvas.setPageRotation(turned)
    canvas.drawString(72, 700, SEEN)
    draw(canvas)
    pdf: bytes = canvas.getpdfdata()
    return pdf


def write(canvas: Canvas, *parts: str | tuple[float, float], x: float = 72, y: float = 600, mode: int = 0) -> None:
    """Write words in a render mode; a pair is the size of the next words, and how far they are raised."""
    text = canvas.beginText(x, y)
    text.setTextRenderMode(mode)
    for part in parts:
        if isinstance(part, str):
            text.textOut(part)
        else:
            text.setFont("Helvetica", part[0])
            text.setRise(part[1])
    canvas.drawText(text)


def in_a_form(canvas: Canvas) -> None:
    canvas.beginForm("note")
    write(canvas, "hidden 99 percent", mode=3)
    canvas.endForm()
    canvas.doForm("note")


def boxed(canvas: Canvas, bottom: int, rows: Sequence[tuple[str, str]]) -> None:
    for row, texts in enumerate(reversed(rows)):
        for column, text in enumerate(texts):
            canvas.rect(60 + 150 * column, bottom + 22 * row, 150, 22)
            canvas.drawString(65 + 150 * column, bottom + 22 * row + 7, text)


def in_a_table(canvas: Canvas) -> None:
    boxed(canvas, 500, [("Deposit", "Rate"), ("One year", "3.1 percent")])
    write(canvas, "99", x=300, y=507, mode=3)


def off_the_page(canvas: Canvas) -> None:
    canvas.drawString(72, 2000, "hidden 99 percent")
    canvas.drawString(-400, 600, "hidden 99 percent")


@pytest.mark.parametrize("turned", [0, 90], ids=["upright", "turned"])
@pytest.mark.parametrize("hide", [
    lambda canvas: write(canvas, "hidden 99 percent", mode=3), in_a_form, in_a_table, off_the_page,
    lambda canvas: write(canvas, (0.2, 0), "hidden 99 percent"),
])  # fmt: skip
def test_text_that_a_pdf_marks_as_hidden_is_left_out(tmp_path: Path, hide: Draw, turned: int) -> None:
    parsed = read(tmp_path, page(hide, turned=turned))
    text = text_of(parsed)
    assert SEEN in text
    assert sum(parsed.left_out.values()) > 0
    assert "99" not in text
    assert hide is not in_a_table or "| One year | 3.1 percent |" in text


def in_white(canvas: Canvas) -> None:
    canvas.setFillColorRGB(1, 1, 1)
    write(canvas, "shown 99 percent")


def under_a_shape(canvas: Canvas) -> None:
    write(canvas, "shown 99 percent")
    canvas.rect(60, 590, 200, 30, fill=1)


def in_a_field(canvas: Canvas) -> None:
    canvas.acroForm.textfield(name="fee", value="shown 99 percent", x=72, y=600, width=180, height=16, fontSize=11)


@pytest.mark.parametrize("draw", [
    in_white, under_a_shape, in_a_field, lambda canvas: write(canvas, "shown 99 percent", mode=1),
    lambda canvas: write(canvas, (5, 0), "shown 99 percent"),
])  # fmt: skip
def test_all_other_text_of_a_pdf_is_read(tmp_path: Path, draw: Draw) -> None:
    text = text_in(tmp_path, page(draw))
    assert SEEN in text
    assert "shown 99 percent" in text


def test_words_that_replace_the_letters_of_a_pdf_are_not_read(tmp_path: Path) -> None:
    def replaced(canvas: Canvas) -> None:
        canvas.addLiteral("/Span <</ActualText (The limit is 9 million won)>> BDC")
        canvas.drawString(72, 600, "The limit is 1 million won.")
        canvas.addLiteral("EMC")

    text = text_in(tmp_path, page(replaced))
    assert "The limit is 1 million won." in text
    assert "9" not in text


def test_a_note_over_a_figure_is_read_beside_it(tmp_path: Path) -> None:
    def drawn(canvas: Canvas) -> None:
        canvas.drawString(72, 760, "The fee of this deposit is")
        canvas.drawString(300, 760, "500 won")

    text = text_in(tmp_path, with_stamp(page(drawn), "700 won"))
    assert "The fee of this deposit is 500 won" in text
    assert "700 won" in text


def with_stamp(data: bytes, words: str) -> bytes:
    """Return a PDF with a note at (300, 760)."""
    document = pypdfium2.PdfDocument(data)
    page = document[0]
    note = pdfium_c.FPDFPage_CreateAnnot(page, pdfium_c.FPDF_ANNOT_STAMP)
    pdfium_c.FPDFAnnot_SetRect(note, pdfium_c.FS_RECTF(295, 780, 400, 750))
    written = pdfium_c.FPDFPageObj_NewTextObj(document, b"Helvetica", 12.0)
    letters = f"{words}\0".encode("utf-16-le")
    pdfium_c.FPDFText_SetText(written, (pdfium_c.FPDF_WCHAR * (len(letters) // 2)).from_buffer_copy(letters))
    pdfium_c.FPDFPageObj_Transform(written, 1, 0, 0, 1, 300, 760)
    pdfium_c.FPDFAnnot_AppendObject(note, written)
    pdfium_c.FPDFPage_CloseAnnot(note)
    page.close()
    return saved(document)


ROWS = (
    ("Product", "6 months", "12 months", "24 months", "Tax"), ("Deposit", "3.0 %", "3.5 %", "3.7 %", "before"),
    ("Savings", "3.2 %", "3.6 %", "3.9 %", "before"), ("Housing", "2.0 %", "2.5 %", "2.8 %", "free"),
)  # fmt: skip
LINES = [f"| {' | '.join(row)} |" for row in ROWS]


def text_with_table(folder: Path, upright: range, across: tuple[int, int] = (0, 5), more: Draw = lambda _: None) -> str:
    """Return what is read of the table with these upright rules, and rules from one column's edge to another's."""

    def ruled(canvas: Canvas) -> None:
        for row in range(len(ROWS) + 1):
            y = _TOP - row * _HIGH
            canvas.line(_LEFT + across[0] * _WIDE, y, _LEFT + across[1] * _WIDE, y)
        for column in upright:
            canvas.line(_LEFT + column * _WIDE, _TOP, _LEFT + column * _WIDE, _TOP - len(ROWS) * _HIGH)
        for row, texts in enumerate(ROWS):
            for column, text in enumerate(texts):
                canvas.drawString(_LEFT + column * _WIDE + 5, _TOP - row * _HIGH - 16, text)
        more(canvas)

    return text_in(folder, page(ruled))


@pytest.mark.parametrize(("upright", "is_headed"), [
    (range(1, 5), False), (range(1, 6), False), (range(5), False), (range(1, 5), True),
])  # fmt: skip
def test_a_table_open_at_its_sides_keeps_its_outer_columns(tmp_path: Path, upright: range, *, is_headed: bool) -> None:
    def head(canvas: Canvas) -> None:
        if is_headed:
            canvas.rect(_LEFT, _TOP - _HIGH, 5 * _WIDE, _HIGH)

    lines = text_with_table(tmp_path, upright, more=head).splitlines()
    assert [line for line in lines if line.startswith("|")][2:] == LINES[1:]


@pytest.mark.parametrize(("upright", "across"), [(range(1, 5), (1, 4)), (range(2, 4), (0, 5))])
def test_a_table_with_labels_outside_loses_no_word(tmp_path: Path, upright: range, across: tuple[int, int]) -> None:
    text = text_with_table(tmp_path, upright, across)
    assert [word for line in ROWS for cell in line for word in cell.split() if word not in text] == []
    assert across == (0, 5) or " ".join(" ".join(row) for row in ROWS) in " ".join(text.split())


def test_a_note_beside_one_row_of_a_table_is_read_beside_it(tmp_path: Path) -> None:
    note = (_LEFT + 5 * _WIDE + 4, _TOP - _HIGH - 16, "* for a year")
    lines = text_with_table(tmp_path, range(6), more=lambda canvas: canvas.drawString(*note)).splitlines()
    assert [line for line in lines if line.startswith("|")][2:] == LINES[1:]
    assert "\\* for a year" in lines or "* for a year" in lines


def test_a_table_whose_border_cuts_a_figure_is_read_as_lines(tmp_path: Path) -> None:
    cut = (_LEFT + 5 * _WIDE + 20, _TOP - 3 * _HIGH - 16, "1,250,000")
    assert "1,250,000" in text_with_table(tmp_path, range(6), more=lambda canvas: canvas.drawRightString(*cut))


_HEADS = ("Free account", "Term deposit", "Savings plan")


def pages_of(folder: Path, *pages: Draw) -> list[str]:
    canvas = Canvas("", pagesize=(595, 842))
    for draw in pages:
        draw(canvas)
        canvas.showPage()
    return [page.markdown for page in read(folder, canvas.getpdfdata()).pages]


def lines_of(lines: Sequence[str], footer: str = "") -> Draw:
    """Draw lines from the top and a footer."""

    def draw(canvas: Canvas) -> None:
        for row, line in enumerate(lines):
            canvas.drawString(60, 790 - 16 * row, line)
        canvas.drawString(60, 40, footer)

    return draw


def test_lines_that_differ_on_each_page_are_no_header(tmp_path: Path) -> None:
    forms = [
        [f"Product {at}", f"Rate {rate}", f"A {head}.", "Its terms.", f"Fee {at} %", f"Total {at * 7}"]
        for at, (head, rate) in enumerate(zip(_HEADS, ("3.50 %", "4.10 %", "4.10 %"), strict=True), start=1)
    ]
    for form, page in zip(forms, pages_of(tmp_path, *map(lines_of, forms)), strict=True):
        assert [line for line in form if line not in page] == []


def test_headers_and_footers_with_the_number_of_their_page_are_read_once(tmp_path: Path) -> None:
    first, *others = pages_of(tmp_path, *(
        lines_of(["Our bank 2026", f"- {at + 9} -", "", f"What {head} is.", "Terms."], f"{at + 1} / 3 (of 2025.04)")
        for at, head in enumerate(_HEADS)
    ))  # fmt: skip
    assert "Our bank 2026" in first
    assert "1 / 3 (of 2025.04)" in first
    assert others == [f"What {head} is. Terms." for head in _HEADS[1:]]


@pytest.mark.parametrize(("header", "footer"), [
    ("Our bank", "Chapter 3 Deposits | {}"), ("Deposits 2026.03.01 | {}", "- {} -"),
    ("Page {} of 3 Deposits", "Our bank"),
])  # fmt: skip
def test_a_table_goes_on_between_headers_and_footers(tmp_path: Path, header: str, footer: str) -> None:
    """Also where these two are all that stands beside it."""

    def draw(canvas: Canvas, page: int) -> None:
        canvas.drawString(60, 800, header.format(page))
        months = [(f"{page * 100 + row} months", f"{page}.{row:02} %") for row in range(30)]
        boxed(canvas, 100, [*([("Term", "Rate")] if page == 1 else []), *months])
        canvas.drawString(60, 40, footer.format(page))

    for later in pages_of(tmp_path, *(partial(draw, page=number) for number in (1, 2, 3)))[1:]:
        assert later.startswith("| Term | Rate |")
        assert later.endswith(".29 % |")


def test_a_table_after_a_page_that_is_not_full_has_its_own_header(tmp_path: Path) -> None:
    terms, fees = [("Term", "Rate"), ("6 months", "3.0 %")], [("Service", "Fee"), ("Transfer", "500 won")]
    tables = ((700, terms), (60, fees), (700, [("Cash", "700 won"), ("Notes", "900 won")]))
    _, second, third = pages_of(tmp_path, *(partial(boxed, bottom=bottom, rows=rows) for bottom, rows in tables))
    assert second == "| Service | Fee |\n| --- | --- |\n| Transfer | 500 won |"
    assert third == "| Service | Fee |\n| --- | --- |\n| Cash | 700 won |\n| Notes | 900 won |"


@pytest.mark.parametrize("is_in_table", [False, True], ids=["line", "table"])
def test_a_raised_mark_is_no_part_of_the_figure_before_it(tmp_path: Path, *, is_in_table: bool) -> None:
    def drawn(canvas: Canvas) -> None:
        boxed(canvas, 600, [("Limit", ""), ("Fee", "")] if is_in_table else [])
        write(canvas, "5,000", (7, 4), "1)", (12, 0), " won", x=220, y=629)
        write(canvas, "500", (7, 4), "2", (12, 0), " won", x=220, y=607)

    text = text_in(tmp_path, page(drawn))
    assert "5,000¹⁾ won" in text
    assert "500² won" in text
    assert ("| Limit | 5,000¹⁾ won |" in text) is is_in_table


def test_a_small_figure_beside_a_larger_one_on_its_line_is_not_raised(tmp_path: Path) -> None:
    words = ("The rate of this deposit is 3", (7, 0), ".10", (7, 1), "5 percent a year")
    assert "3.105 percent" in text_in(tmp_path, page(lambda canvas: write(canvas, *words)))
