"""Raised text does not become a part of the figure before it."""

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import docx
import pytest
from docx.enum.style import WD_STYLE_TYPE
from openpyxl import Workbook
from openpyxl.styles import Font
from pptx import Presentation

from ingest.parsing.html import parse_html
from ingest.parsing.raised import raised
from tests.ingest.parsing.looks import Look, Runs, hancom, hancom_x, mail, slides, web_page, word, workbook
from tests.ingest.parsing.reading import read, text_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1", "¹"), ("1)", "¹⁾"), ("(12)", "⁽¹²⁾"), ("[3]", "⁽³⁾"), ("-2", "⁻²"), (" 2 ", "²"), ("1,2", "¹,²"),
        ("a", "[a]"), ("주1", "[주1]"), ("[b]", "[b]"), ("*", "*"), ("®", "®"), ("th", "th"), ("", ""), ("¹", "¹"),
        ("１）", "¹⁾"), ("(a)", "[a]"), ("a,b", "[a,b]"), ("주1)", "[주1]"), ("(주 2)", "[주 2]"), ("1.", "¹."),
        ("원", "원"), ("%p", "%p"), ("년", "년"), ("(부가세 포함)", "(부가세 포함)"),
        ("5,000", "5,000"), (".50", ".50"), ("50%", "50%"), ("TM", "TM"),
    ],
)  # fmt: skip
def test_a_raised_mark_is_written_in_raised_characters_or_in_brackets_and_other_text_as_it_is(
    text: str, shown: str
) -> None:
    assert raised(text) == shown


@pytest.mark.parametrize("made", [web_page, mail, word, workbook, slides, hancom_x, hancom])
def test_a_raised_mark_is_no_digit_of_the_figure_before_it(tmp_path: Path, made: Callable[[Runs, Look], bytes]) -> None:
    text = text_of(read(tmp_path, made(("수수료 5,000", "1)", "원"), "raised")))
    assert "수수료 5,000¹⁾원" in text
    assert "1)" not in text


@pytest.mark.parametrize("made", [web_page, mail, word, workbook, slides, hancom_x, hancom])
@pytest.mark.parametrize(
    ("runs", "shown"),
    [(("수수료 5,000", "원", " 이상"), "수수료 5,000원 이상"), (("금리 3.", "50", "%"), "금리 3.50%")],
)
def test_a_raised_unit_and_raised_decimals_stay_in_their_figure(
    tmp_path: Path, made: Callable[[Runs, Look], bytes], runs: Runs, shown: str
) -> None:
    text = text_of(read(tmp_path, made(runs, "raised")))
    assert shown in text
    assert text.count(shown) == text.count(runs[0])


@pytest.mark.parametrize("page", [
    "<table><tr><td>수수료</td><td{raised}>700</td></tr></table>",
    "<table><tr><td>수수료</td><td><b><sup>700</sup></b></td></tr></table>",
    "<div{raised}><p>700</p><table><tr><td>가</td><td>나</td></tr></table></div>",
    "<div{raised}>700</div>",
    "<p{raised}>700</p>",
    "<span{raised}><p>700</p><p>8</p></span>",
])  # fmt: skip
def test_a_box_or_a_whole_cell_that_is_raised_is_read_as_it_is(page: str) -> None:
    styled = page.replace("{raised}", ' style="vertical-align: super"')
    plain = re.sub("</?(?:sup|b)>", "", page.replace("{raised}", ""))
    assert parse_html(styled).pages == parse_html(plain).pages


def test_a_whole_cell_of_a_workbook_that_is_raised_is_read_as_it_is(tmp_path: Path) -> None:
    book = Workbook()
    book.worksheets[0].append(["수수료", 700])
    book.worksheets[0]["B1"].font = Font(vertAlign="superscript")
    book.save(data := BytesIO())
    assert "700" in text_of(read(tmp_path, data.getvalue()))


def test_a_style_raises_letters_of_a_web_page_and_of_a_word_file(tmp_path: Path) -> None:
    for tag in ("span", "sup"):
        words = f'한도 5,000<{tag} style="vertical-align: super"><{tag}>1</{tag}></{tag}>원'
        assert "한도 5,000¹원" in text_of(read(tmp_path, f"<html><body><p>{words}</p></body></html>".encode()))
    document = docx.Document()
    document.styles.add_style("각주", WD_STYLE_TYPE.CHARACTER).font.superscript = True
    paragraph = document.add_paragraph("한도 5,000")
    paragraph.add_run("1", style="각주")
    paragraph.add_run("원")
    document.save(data := BytesIO())
    assert "한도 5,000¹원" in text_of(read(tmp_path, data.getvalue()))


def test_lowered_letters_of_a_slide_are_plain(tmp_path: Path) -> None:
    presentation = Presentation(BytesIO(slides(("CO", "2", " 배출권"), "raised")))
    for properties in presentation.slides[0].shapes.element.iter("{*}rPr"):
        if properties.get("baseline"):
            properties.set("baseline", "-25000")
    presentation.save(data := BytesIO())
    assert "CO2 배출권" in text_of(read(tmp_path, data.getvalue()))
