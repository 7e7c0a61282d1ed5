"""What the pages of a PDF have in common: headers and footers, forms, tables that go on."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pytest
from reportlab.lib import pagesizes
from reportlab.pdfgen.canvas import Canvas

from tests.ingest.parsing.reading import read

_HEADS = ("Free account", "Term deposit", "Savings plan")


def pages_of(folder: Path, pages: Sequence[Sequence[str]], footers: Sequence[str] = ()) -> list[str]:
    """Return the pages of a PDF with these lines from the top, and a footer on each page."""
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=pagesizes.A4)
    for at, lines in enumerate(pages):
        for row, line in enumerate(lines):
            canvas.drawString(60, 790 - 16 * row, line)
        canvas.drawString(60, 40, footers[at] if footers else "")
        canvas.showPage()
    canvas.save()
    return [page.markdown for page in read(folder, buffer.getvalue()).pages]


def test_what_each_page_of_a_form_says_is_no_header(tmp_path: Path) -> None:
    rates = ("3.50 %", "4.10 %", "4.10 %")
    forms = [
        [f"Product {at}", f"Rate {rate}", f"A {head}.", "Its terms.", f"Fee {at} %", f"Total {at * 7}"]
        for at, (head, rate) in enumerate(zip(_HEADS, rates, strict=True), start=1)
    ]
    for form, page in zip(forms, pages_of(tmp_path, forms), strict=True):
        assert [line for line in form if line not in page] == []


def test_headers_and_footers_with_the_number_of_their_page_are_read_once(tmp_path: Path) -> None:
    texts = [
        ["Our bank 2026", f"- {at} -", "", f"What {head} is.", "Terms."] for at, head in enumerate(_HEADS, start=9)
    ]
    first, *others = pages_of(tmp_path, texts, [f"{at} / 3 (No. 205056, of 2025.04)" for at in range(1, 4)])
    assert "Our bank 2026" in first
    assert "1 / 3 (No. 205056, of 2025.04)" in first
    assert others == [f"What {head} is. Terms." for head in _HEADS[1:]]


def ruled(canvas: Canvas, bottom: int, rows: Sequence[tuple[str, str]]) -> None:
    for row, texts in enumerate(reversed(rows)):
        for column, text in enumerate(texts):
            canvas.rect(60 + 150 * column, bottom + 22 * row, 150, 22)
            canvas.drawString(65 + 150 * column, bottom + 22 * row + 7, text)


@pytest.mark.parametrize(
    ("header", "footer"),
    [
        ("Our bank", "Chapter 3 Deposits | {}"),
        ("Deposits 2026.03.01 | {}", "- {} -"),
        ("Page {} of 3 Deposits", "Our bank"),
    ],
)
def test_a_table_goes_on_under_a_header_and_over_a_footer_with_the_number_of_the_page(
    tmp_path: Path, header: str, footer: str
) -> None:
    """Also where these two are all that stands beside it."""
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=pagesizes.A4)
    for page in range(1, 4):
        canvas.drawString(60, 800, header.format(page))
        months = [(f"{page * 100 + row} months", f"{page}.{row:02} %") for row in range(30)]
        ruled(canvas, 100, [*([("Term", "Rate")] if page == 1 else []), *months])
        canvas.drawString(60, 40, footer.format(page))
        canvas.showPage()
    canvas.save()
    for later in read(tmp_path, buffer.getvalue()).pages[1:]:
        assert later.markdown.startswith("| Term | Rate |")
        assert later.markdown.endswith(".29 % |")


def test_a_table_after_a_page_with_room_below_its_own_has_no_other_ones_header(tmp_path: Path) -> None:
    terms, fees = [("Term", "Rate"), ("6 months", "3.0 %")], [("Service", "Fee"), ("Transfer", "500 won")]
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=pagesizes.A4)
    ruled(canvas, 700, terms)
    canvas.showPage()
    ruled(canvas, 60, fees)
    canvas.showPage()
    ruled(canvas, 700, [("Cash", "700 won"), ("Notes", "900 won")])
    canvas.save()
    second, third = (page.markdown for page in read(tmp_path, buffer.getvalue()).pages[1:])
    assert second == "| Service | Fee |\n| --- | --- |\n| Transfer | 500 won |"
    assert third == "| Service | Fee |\n| --- | --- |\n| Cash | 700 won |\n| Notes | 900 won |"
