"""How many rows of a table are its header: merged cells alone do not say so."""

from io import BytesIO
from pathlib import Path

import pytest
from openpyxl import Workbook
from pptx import Presentation
from pptx.util import Inches

from ingest.parsing.tables import Merged, header_rows
from tests.ingest.parsing.reading import read, text_of

TERMS = ("<td rowspan=2>상품</td><td colspan=2>금리</td>", "<td>6개월</td><td>12개월</td>")


def _page(*rows: str) -> bytes:
    return (
        f"<!doctype html><html><body><table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table></body></html>".encode()
    )


def _sheet(*rows: list[str | None], merged: list[str]) -> bytes:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row in rows:
        sheet.append(row)
    for cells in merged:
        sheet.merge_cells(cells)
    book.save(saved := BytesIO())
    return saved.getvalue()


def test_a_header_of_two_rows_is_known_by_its_spans_without_th(tmp_path: Path) -> None:
    text = text_of(read(tmp_path, _page(*TERMS, "<td>예금</td><td>3.0%</td><td>3.5%</td>")))
    assert text.startswith("| 상품 | 금리 / 6개월 | 금리 / 12개월 |\n| --- |")


def test_a_header_of_one_row_of_th_goes_on_below_its_spans(tmp_path: Path) -> None:
    rows = (TERMS[0].replace("td", "th"), TERMS[1], "<td>예금</td><td>3.0%</td><td>3.5%</td>")
    assert "| 상품 | 금리 / 6개월 | 금리 / 12개월 |" in text_of(read(tmp_path, _page(*rows)))


def test_columns_merged_in_every_row_of_a_sheet_are_one_column_under_one_header_row(tmp_path: Path) -> None:
    rows: list[list[str | None]] = [["상품", "금리", None], ["정기예금", "3.5%", None], ["적금", "4.1%", None]]
    text = text_of(read(tmp_path, _sheet(*rows, merged=["B1:C1", "B2:C2", "B3:C3"])))
    assert "| 상품 | 금리 |\n| --- | --- |\n| 정기예금 | 3.5% |\n| 적금 | 4.1% |" in text


def test_columns_merged_in_every_row_of_a_slide_are_one_column_under_one_header_row(tmp_path: Path) -> None:
    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[6])
    table = slide.shapes.add_table(3, 3, Inches(1), Inches(1), Inches(6), Inches(2)).table
    for r, row in enumerate([("상품", "금리"), ("정기예금", "3.5%"), ("적금", "4.1%")]):
        for c, text in enumerate(row):
            table.cell(r, c).text = text
        table.cell(r, 1).merge(table.cell(r, 2))
    deck.save(saved := BytesIO())
    assert "| 상품 | 금리 |\n| --- | --- |\n| 정기예금 | 3.5% |" in text_of(read(tmp_path, saved.getvalue()))


def test_a_blank_row_below_the_header_of_a_sheet_leaves_it_the_header(tmp_path: Path) -> None:
    rows: list[list[str | None]] = [["상품", "6개월"], [None], ["예금", "3.0%"], ["적금", "3.1%"], [None]]
    text = text_of(read(tmp_path, _sheet(*rows, ["합계", "2"], [None], ["구분", "창구"], ["송금", "500"], merged=[])))
    assert "| 상품 | 6개월 |\n| --- | --- |\n| 예금 | 3.0% |\n| 적금 | 3.1% |\n\n| 합계 | 2 |" in text
    assert "| 구분 | 창구 |\n| --- | --- |\n| 송금 | 500 |" in text


@pytest.mark.parametrize("note", [["고객센터", "평일 운영"], ["고객센터", "1588-0000"], ["구분", "평일 9시부터"]])
def test_a_note_above_a_blank_row_of_a_sheet_heads_no_table(tmp_path: Path, note: list[str | None]) -> None:
    rows: list[list[str | None]] = [note, [None], ["6개월", "2.5%"], ["12개월", "2.8%"]]
    text = text_of(read(tmp_path, _sheet(*rows, merged=[])))
    assert f"| {note[0]} | {note[1]} |\n| --- | --- |\n\n| 6개월 | 2.5% |\n| --- | --- |" in text


def test_words_above_a_blank_row_head_labels_and_their_figures(tmp_path: Path) -> None:
    rows: list[list[str | None]] = [
        ["상품", "기본", "우대"],
        [None],
        ["예금", "3.0%", "3.5%"],
        ["적금", "3.1%", "3.6%"],
    ]
    assert "| 상품 | 기본 | 우대 |\n| --- | --- | --- |\n| 예금" in text_of(read(tmp_path, _sheet(*rows, merged=[])))


@pytest.mark.parametrize(
    ("grid", "merged", "depth"),
    [
        # The second row has a product of its own.
        (["상품 금리 금리", "예금 5,100원 3,100원", "적금 5,200원 3,200원"], [(0, 1, 1, 2)], 1),
        # Two columns of labels share one name.
        (["구분 구분 내용", "급여 이체 인정", "카드 사용 인정"], [(0, 0, 1, 2)], 1),
        (["안내 안내", "대상 개인", "금액 1만원", "기간 6개월"], [(0, 0, 1, 2)], 1),
        # The first column is named in the second row only, or nowhere else.
        (["_ 금리 금리", "상품 6개월 12개월", "예금 3.0% 3.5%", "적금 3.1% 3.6%"], [(0, 1, 1, 2)], 2),
        (["_ 금리 금리", "예금 3.0% 3.5%", "적금 3.1% 3.6%", "청약 3.2% 3.7%"], [(0, 1, 1, 2)], 1),
        (["상품 금리 금리", "_ 기본 우대", "예금 문의 문의"], [(0, 1, 1, 2)], 2),
        (["_ 매출 매출", "구분 2024 2025", "한국 1,200 1,300", "미국 300 400"], [(0, 1, 1, 2)], 2),
        # All heads span.
        (["수신 수신 여신 여신", "상품 금리 상품 금리", "가 3% 나 5%", "다 4% 라 6%"], [(0, 0, 1, 2), (0, 2, 1, 2)], 2),
        # Three rows: a span below a span.
        (
            ["상품 금리 금리 금리 금리", "상품 기본 기본 우대 우대", "상품 1년 2년 1년 2년", "예금 1% 2% 3% 4%"],
            [(0, 0, 3, 1), (0, 1, 1, 4), (1, 1, 1, 2), (1, 3, 1, 2)],
            3,
        ),
        # One cell of two rows and two columns is no head above others.
        (["상품 금리 금리", "상품 금리 금리", "예금 3% 3%"], [(0, 0, 2, 1), (0, 1, 2, 2), (2, 1, 1, 2)], 2),
        (["상품 금리", "상품 3%", "예금 4%"], [(0, 0, 2, 1)], 1),
        (["상품 금리 금리", "_ 6개월 12개월"], [(0, 1, 1, 2)], 1),
        # The first row of data: words in place of figures, figures with words before them, under heads that say little.
        (["_ 수수료 수수료", "이체 면제 면제", "창구 500원 1,000원", "ATM 600원 900원"], [(0, 1, 1, 2)], 1),
        (["_ 수수료 수수료", "이체 면제 유료", "창구 500원 1,000원", "ATM 600원 900원"], [(0, 1, 1, 2)], 1),
        (["_ 금리 금리", "특판 최고3.0 최고3.2", "예금 3.5 3.7", "적금 3.6 3.8"], [(0, 1, 1, 2)], 1),
        (["_ 금리 금리", "_ 최고3.0% 최고3.2%", "예금 3.5% 3.7%", "적금 3.6% 3.8%"], [(0, 1, 1, 2)], 1),
        (["상품 금리 금리", "_ 3.0% 3.2%", "예금 3.5% 3.7%"], [(0, 1, 1, 2)], 1),
        (["상품 금리 금리", "_ 문의 문의", "예금 3.5% 3.7%"], [(0, 1, 1, 2)], 1),
        (["안내 안내 안내", "신용대출 없음 협의", "예금 3% 1만원", "적금 4% 2만원"], [(0, 0, 1, 3)], 1),
        (["안내 안내 안내", "상품 6개월 12개월", "예금 3% 4%", "적금 4% 5%"], [(0, 0, 1, 3)], 2),
        (["_ 금리 금리", "상품 2026.03 2026.09", "예금 3.0 3.5", "적금 3.1 3.6"], [(0, 1, 1, 2)], 2),
        (["_ 금리 금리", "_ 기본 우대", "예금 3.0 3.5", "적금 3.1 3.6"], [(0, 1, 1, 2)], 2),
        (
            ["창구 금액 금액", "창구 10만원이하 500원", "창구 10만원초과 1,000원", "앱 전체 면제"],
            [(0, 0, 3, 1), (0, 1, 1, 2)],
            1,
        ),
        (["창구 금액 금액", "창구 10만원이하 500원", "앱 전체 면제"], [(0, 0, 2, 1), (0, 1, 1, 2)], 1),
        (["구분 수수료 수수료", "구분 1만원이하 1만원초과", "창구 500원 900원"], [(0, 0, 2, 1), (0, 1, 1, 2)], 2),
    ],
)
def test_a_row_is_of_the_header_where_it_parts_what_a_head_spans(
    grid: list[str], merged: list[tuple[int, int, int, int]], depth: int
) -> None:
    rows = [["" if cell == "_" else cell for cell in line.split()] for line in grid]
    assert header_rows(rows, [Merged(*cell) for cell in merged]) == depth
