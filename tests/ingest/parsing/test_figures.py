"""A figure is read as its reader sees it, however its letters are formatted and wherever they stand in the file."""

from datetime import date
from io import BytesIO
from pathlib import Path

import docx
import pytest
from openpyxl import Workbook

from ingest.parsing.html import parse_html
from tests.ingest.parsing.looks import Runs, hancom, hancom_x
from tests.ingest.parsing.reading import read, text_of


def cell(html: str) -> str:
    """Return how a cell of a web page's table is read."""
    head = "<tr><th>상품</th><th>금리</th></tr>"
    page = f"<html><body><table>{head}<tr><td>예금</td><td>{html}</td></tr></table></body></html>"
    return parse_html(page).pages[0].markdown.splitlines()[-1].split(" | ")[1].removesuffix(" |")


def prose(html: str) -> str:
    return parse_html(f"<html><body><p>{html}</p></body></html>").pages[0].markdown


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<b>3</b>.<b>5</b>%", "3.5%"),
        ("3<span>,000</span>만원", "3,000만원"),
        ('<span style="display: inline">1</span>%', "1%"),
        ("연 1%<br>우대 2%", "연 1% 우대 2%"),
        ("<p>연 1%</p><p>우대 2%</p>", "연 1% 우대 2%"),
        ("<ul><li>1%<li>2%</ul>", "1% 2%"),
        ('<span style="display:block">1%</span><span style="display:block">2%</span>', "1% 2%"),
        ("3.5<img src=a>4.0", "3.5 4.0"),
        ("3<sup>년</sup>", "3년"),
        ('5,000<sup class="note">1)</sup>원', "5,000¹⁾원"),
    ],
)
def test_a_figure_of_a_cell_is_torn_by_no_look_of_its_letters_and_never_joined_with_another(
    html: str, text: str
) -> None:
    assert cell(html) == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("금리 <b>3</b>.<b>5</b>%", "금리 3.5%"),
        ("금리 3.<b><i>5</i></b>%", "금리 3.5%"),
        ("<b>500</b>원", "500원"),
        ("<b>예금</b>은 <b>연</b> 3%", "**예금**은 **연** 3%"),
        ('<b style="display:block">3.5</b><b style="display:block">4.0</b>', "3.5\n\n4.0"),
    ],
)
def test_emphasis_does_not_part_a_figure(html: str, text: str) -> None:
    assert prose(html) == text


@pytest.mark.parametrize(
    "block", ["address", "aside", "main", "header", "footer", "form", "fieldset", "figure", "menu"]
)
def test_figures_on_lines_of_their_own_are_not_joined(block: str) -> None:
    page = parse_html(f"<html><body><div>한도 5<{block}>3</{block}>90원</div></body></html>").pages[0].markdown
    assert page == "한도 5\n\n3\n\n90원"


@pytest.mark.parametrize(
    "html",
    [
        "<details><summary>한도 5</summary>90원</details>",
        '<fieldset><legend>한도 5</legend><span style="float: right">90원</span></fieldset>',
        '<span>한도 5</span><span style="display: block">90원</span>',
    ],
)
def test_figures_of_two_parts_of_a_page_are_not_joined(html: str) -> None:
    assert parse_html(f"<html><body><div>{html}</div></body></html>").pages[0].markdown.split() == ["한도", "5", "90원"]


def test_boxes_of_a_page_say_whether_they_are_checked() -> None:
    assert prose('<input type="checkbox" checked> 면제 <input type="RADIO"> 부과') == "☑ 면제 ☐ 부과"


@pytest.mark.parametrize(
    "start", ['<meta charset="utf-8">', "<style>td {{ color: red }}</style>", "<!-- 1 -->", "<form>"]
)
def test_a_table_that_a_program_saves_as_a_workbook_is_a_page(tmp_path: Path, start: str) -> None:
    table = "<table border=1><tr><th>구분</th><th>금액</th></tr><tr><td>송금</td><td>500원</td></tr></table>"
    assert "| 송금 | 500원 |" in text_of(read(tmp_path, f"{start}\n{table}".encode()))


def test_a_digit_of_its_own_format_stays_in_its_figure_of_a_word_file(tmp_path: Path) -> None:
    document = docx.Document()
    table = document.add_table(rows=1, cols=2)
    for where in (table.rows[0].cells[1].paragraphs[0], document.add_paragraph()):
        for text, is_bold in (("1,", False), ("0", True), ("00", False), ("원", True)):
            where.add_run(text).bold = is_bold
    table.rows[0].cells[0].text = "한도"
    document.save(data := BytesIO())
    assert text_of(read(tmp_path, data.getvalue())).count("1,000원") == 2


@pytest.mark.parametrize(
    ("runs", "text"),
    [
        (("금리 3.", "5", "%"), "금리 3.5%"),
        (("금리 ", "3", ".5%"), "금리 3.5%"),
        (("금리는 ", "매우", " 높음"), "금리는 **매우** 높음"),
    ],
)
def test_a_bold_digit_stays_in_its_figure_of_a_hangul_document(tmp_path: Path, runs: Runs, text: str) -> None:
    for made in (hancom_x, hancom):
        assert text in text_of(read(tmp_path, made(runs, "bold")))


def test_a_row_span_of_zero_goes_on_to_the_end_of_its_group() -> None:
    head = "<thead><tr><th>구분</th><th>상품</th></tr></thead>"
    rows = "<tbody><tr><td rowspan=0>예금</td><td>A</td></tr><tr><td>B</td></tr></tbody>"
    page = f"<html><body><table>{head}{rows}</table></body></html>"
    assert parse_html(page).pages[0].markdown.splitlines()[2:] == ["| 예금 | A |", "| 예금 | B |"]


@pytest.mark.parametrize("number_format", ["aaaa", "aaa", '"("AAA")"'])
def test_a_date_of_which_a_cell_shows_the_weekday_is_a_date(tmp_path: Path, number_format: str) -> None:
    book = Workbook()
    book.worksheets[0].append(["시행일", date(2026, 3, 2)])
    book.worksheets[0]["B1"].number_format = number_format
    book.save(data := BytesIO())
    assert "2026-03-02" in text_of(read(tmp_path, data.getvalue()))


def test_a_number_beside_the_words_of_its_format_is_no_date(tmp_path: Path) -> None:
    book = Workbook()
    book.worksheets[0].append(["한도", 300])
    book.worksheets[0]["B1"].number_format = '0"aaa"'
    book.save(data := BytesIO())
    assert "300aaa" in text_of(read(tmp_path, data.getvalue()))
