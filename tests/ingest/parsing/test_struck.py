"""What is struck out, or deleted while changes are tracked, is no text of a document."""

import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import docx
import pytest
from openpyxl import Workbook
from openpyxl.styles import Font

from tests.ingest.parsing.looks import Look, Runs, hancom, hancom_x, mail, slides, web_page, word, workbook
from tests.ingest.parsing.reading import read, text_of
from tests.ingest.samples_office import hwpx, with_part


@pytest.mark.parametrize("made", [web_page, mail, word, workbook, slides, hancom_x, hancom])
def test_struck_out_letters_are_left_out(tmp_path: Path, made: Callable[[Runs, Look], bytes]) -> None:
    text = text_of(read(tmp_path, made(("정기예금 금리는 ", "연 9.9%", "연 3.1%"), "struck")))
    assert "정기예금 금리는" in text
    assert "연 3.1%" in text
    assert "9.9" not in text
    assert "~" not in text


@pytest.mark.parametrize(
    "struck",
    [
        "<s>{}</s>",
        "<strike>{}</strike>",
        '<span style="text-decoration:line-through">{}</span>',
        '<b style="color:red;TEXT-DECORATION-LINE : underline line-through">{}</b>',
    ],
)
def test_struck_out_letters_of_a_web_page_are_left_out_however_it_strikes(tmp_path: Path, struck: str) -> None:
    page = f"<html><body><p>금리는 {struck.format('연 9.9%')} 연 3.1%</p></body></html>"
    text = text_of(read(tmp_path, page.encode()))
    assert "3.1" in text
    assert "9.9" not in text


def test_letters_that_a_word_file_strikes_twice_are_left_out(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_paragraph("금리는 연 3.1% ").add_run("연 9.9%").font.double_strike = True
    document.save(data := BytesIO())
    assert text_of(read(tmp_path, data.getvalue())) == "금리는 연 3.1%"


def test_a_row_of_a_sheet_that_is_struck_out_parts_no_table(tmp_path: Path) -> None:
    book = Workbook()
    sheet = book.worksheets[0]
    for row in (("상품", "금리"), ("옛 예금", "9.9%"), ("예금", "3.1%")):
        sheet.append(row)
    for cell in sheet[2]:
        cell.font = Font(strike=True)
    book.save(data := BytesIO())
    text = text_of(read(tmp_path, data.getvalue()))
    assert text.endswith("| 상품 | 금리 |\n| --- | --- |\n| 예금 | 3.1% |")


@pytest.mark.parametrize("shape", ["NONE", "3D"])
def test_letters_without_a_line_of_an_hwpx_are_read(tmp_path: Path, shape: str) -> None:
    data = hancom_x(("금리는 ", "연 3.1%", "입니다"), "struck")
    with zipfile.ZipFile(BytesIO(data)) as archive:
        header = archive.read("Contents/header.xml").decode().replace('shape="SOLID"', f'shape="{shape}"')
    assert "연 3.1%" in text_of(read(tmp_path, with_part(data, "Contents/header.xml", header.encode())))


@pytest.mark.parametrize(("end", "is_read"), [("1", False), ("2", True)])
def test_what_was_deleted_in_an_hwpx_is_left_out_where_its_deletion_ends(
    tmp_path: Path, end: str, *, is_read: bool
) -> None:
    data = hwpx("가@@나")
    with zipfile.ZipFile(BytesIO(data)) as archive:
        section = archive.read("Contents/section0.xml").decode()
    deleted = f'<hp:deleteBegin Id="1" TcId="1" paraend="0"/>9.9%<hp:deleteEnd Id="{end}" TcId="1" paraend="0"/>'
    inserted = '<hp:insertBegin Id="3" TcId="3" paraend="0"/>1.1%<hp:insertEnd Id="3" TcId="3" paraend="0"/>'
    section = section.replace("@@", deleted + inserted)
    text = text_of(read(tmp_path, with_part(data, "Contents/section0.xml", section.encode())))
    assert ("가9.9%1.1%나" if is_read else "가1.1%나") in text
