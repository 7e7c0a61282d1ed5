"""Office files: what is read of each format, and the hostile ones that are refused."""

import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook
from openpyxl.chart import BarChart
from openpyxl.drawing.image import Image as Picture
from openpyxl.drawing.spreadsheet_drawing import AnchorMarker, TwoCellAnchor
from PIL import Image
from pptx import Presentation
from pptx.chart import data as chart_data
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from ingest.parsing.cells import Value, display_text
from ingest.parsing.parsed import Format, LeftOut, Reason, Unreadable
from ingest.parsing.tables import Merged, header_rows
from ingest.review import passage_findings
from tests.ingest import samples
from tests.ingest import samples_office as office
from tests.ingest.parsing.reading import read, saved, text_in, text_of
from tests.passages import FEES

pytestmark = pytest.mark.filterwarnings("ignore")  # python-hwpx warns about what it leaves out of the samples


def test_a_sheet_is_a_page_with_name_title_and_table_without_hidden_cells(tmp_path: Path) -> None:
    parsed = read(tmp_path, office.xlsx())
    assert (parsed.format, [page.number for page in parsed.pages]) == (Format.XLSX, [1, 2])
    assert parsed.pages[0].markdown == (
        "# 금리\n\n정기예금 금리표\n\n| 기간 | 금리 | 한도 |\n| --- | --- | --- |\n"
        "| 6개월 | 2.10% | 50,000,000원 |\n| 12개월 | 2.35% | 30,000,000원 |"
    )
    merged = ("| 구분 | 금액 / 창구 | 금액 / 모바일 |", "| 타행 이체 | 1000 | 면제 |")
    assert all(row in parsed.pages[1].markdown for row in merged)
    assert not any(hidden in text_of(parsed) for hidden in ("내부", "특판", "원가", "0.03"))
    assert parsed.left_out == {LeftOut.ROW: 1, LeftOut.COLUMN: 1, LeftOut.SHEET: 1}


@pytest.mark.parametrize(("value", "number_format", "text"), [
    (0.0235, "0.00%", "2.35%"), (0.5, "0%", "50%"), (1234567, "#,##0", "1,234,567"),
    (1234.5, '₩#,##0.00;[Red]-₩#,##0.00', "₩1,234.50"), (1000, '[$₩-412]#,##0_ ', "₩1,000"), (12, '0"개월"', "12개월"),
    (1.5, "0.###", "1.5"), (3, "0.###", "3"), (0.1 + 0.2, "General", "0.3"), (7.0, "General", "7"),
    (1e20, "0.00E+00", "1e+20"), (float("inf"), "0.00", "inf"), (3.5, '0.00"%"', "3.50%"), (3.5, "0.00\\%", "3.50%"),
    (0.035, '"10년 만기 "0.00%', "10년 만기 3.50%"), (3000, '#,##0"원/월"', "3,000원/월"), (12, 'General"원"', "12원"),
    (1_500_000, "#,##0,", "1,500"), (1_500_000, '0.0,,"백만"', "1.5백만"),
    (1_500_000, '[>=1000000]0.0,,"백만";[>=1000]#,##0,"천";0', "1.5백만"),
    (5000, '[>=1000000]0.0,,"백만";[>=1000]#,##0,"천";0', "5천"),
    (5, '[>=1000000]0.0,,"백만";[>=1000]#,##0,"천";0', "5"), (0.02345, "0.00%", "2.35%"), (0.03125, "0.00%", "3.13%"),
    (-1234.5, "₩#,##0", "-₩1,235"), (-0.001, "0.00", "0.00"), (4, "000", "004"), (15991234, "####-####", "1599-1234"),
    (212345678, "[<=9999999]###-####;(0##) ####-####", "(02) 1234-5678"),
    (7654321, "[<=9999999]###-####;(0##) ####-####", "765-4321"), (123456789, '###0","####","####', "1,2345,6789"),
    (-0.005, "+0.00%;-0.00%", "-0.50%"), (0.005, "+0.00%;-0.00%", "+0.50%"), (0, "+0.00%;-0.00%", "+0.00%"),
    (-3, '[<0]"△"0;0', "△3"), (-3, '[>=0]0;"▲ "0', "▲ 3"), (-1234, "#,##0;(#,##0)", "(1,234)"),
    (-1234, "#,##0;#,##0-", "1,234-"), (-1234, '#,##0;[Red]#,##0', "-1,234"), (-3, '0;"(손실) "0', "-(손실) 3"),
    (0, '0;-0;"면제"', "면제"), (9.9, '"연 3.5%"', "연 3.5%"), (1, '[=1]"예";[=0]"아니오"', "예"),
    (5, '"약 "@', "약 5"), (0, '[=1]"예";[=0]"아니오"', "아니오"),
    (46082, 'yyyy"년"', "46082"), (12345, '0!.0,"만"', "1.2만"),
    (3.5, '0.0"[만원]"', "3.5[만원]"), (3.5, '0.0"원; 부가세"', "3.5원; 부가세"),
    (True, "General", "TRUE"), (date(2026, 3, 1), "yyyy-mm-dd", "2026-03-01"), (None, "General", ""),
    (datetime(2026, 3, 1), "yyyy-mm-dd", "2026-03-01"),  # noqa: DTZ001  a cell has no zone
    (date(2026, 3, 2), "aaaa", "2026-03-02"), (date(2026, 3, 2), '"("AAA")"', "2026-03-02"), (300, '0"aaa"', "300aaa"),
    (datetime(2026, 3, 1, 9, 30), "yyyy-mm-dd", "2026-03-01 09:30"),  # noqa: DTZ001  a cell has no zone
])  # fmt: skip
def test_a_value_is_read_as_its_cell_shows_it(value: Value, number_format: str, text: str) -> None:
    assert display_text(value, number_format) == text


def test_a_slide_is_a_page_with_its_title_its_list_its_table_and_its_chart(tmp_path: Path) -> None:
    parsed = read(tmp_path, office.pptx())
    assert (parsed.format, parsed.title) == (Format.PPTX, "적금 안내")
    assert [page.number for page in parsed.pages] == [1, 2]
    assert parsed.pages[0].markdown == "# 적금 안내\n\n- 매달 넣습니다\n- 만기에 이자를 받습니다"
    assert "| 기간 | 금리 |\n| --- | --- |\n| 6개월 | 연 2.10% |" in parsed.pages[1].markdown
    assert "| 1분기 | 100.5 | 2.35% |\n| 2분기 | 200 |  |" in parsed.pages[1].markdown
    assert not any(hidden in text_of(parsed) for hidden in ("숨긴 쪽", "비밀 메모"))
    assert parsed.left_out == {LeftOut.SLIDE: 1, LeftOut.NOTES: 1}


@pytest.mark.parametrize(("make", "kind"), [(office.hwp, Format.HWP), (office.hwpx, Format.HWPX)])
def test_hwp_gives_text_and_tables_with_merged_cells_filled_in(tmp_path: Path, make: type[bytes], kind: Format) -> None:
    parsed = read(tmp_path, make())
    text = text_of(parsed)
    assert parsed.format is kind
    assert text.index("정기예금 상품설명서") < text.index("| 6개월 | 연 2.10% |") < text.index("중도해지하면")
    assert text.count("| --- | --- |") + text.count("| :--- | :--- |") >= 2
    assert "| 이체 | 면제 | 면제 |" in text


ENTITIES = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'
UTF16 = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE x [<!ENTITY a "aa">]><x/>'.encode("utf-16")
BOMB = b"<a>" + b" " * 4_000_000 + b"</a>"


def hostile() -> Iterator[tuple[str, bytes, Reason]]:
    parts = {
        "XLSX": (office.xlsx(), "xl/workbook.xml", "xl/vbaProject.bin"),
        "PPTX": (office.pptx(), "ppt/slides/slide1.xml", "ppt/vbaProject.bin"),
        "HWPX": (office.hwpx(), "Contents/section0.xml", "Scripts/vbaProject.bin"),
        "DOCX": (samples.docx(), "word/document.xml", "word/vbaData.xml"),
    }
    for kind, (data, part, macro) in parts.items():
        yield f"{kind} with an external entity", office.with_part(data, part, ENTITIES), Reason.HOSTILE
        yield f"{kind} with entities in UTF-16", office.with_part(data, part, UTF16), Reason.HOSTILE
        yield f"{kind} that is a bomb", office.with_part(data, part, BOMB), Reason.HOSTILE
        yield f"{kind} with macros", office.with_part(data, macro, b"x"), Reason.HOSTILE
        yield f"{kind} that is cut off", data[: len(data) // 2], Reason.MALFORMED
        yield f"{kind} with nonsense inside", office.with_part(data, part, b"<x"), Reason.MALFORMED
        yield f"{kind} under a password", office.flagged_encrypted(data), Reason.ENCRYPTED
        yield f"{kind} that holds more than it says", office.declaring(data, part.encode(), 1), Reason.MALFORMED
    yield from hostile_others()


def test_a_damaged_part_or_cell_is_named_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"archive is damaged \(.*: line 2, column \d+\)"):
        read(tmp_path, office.with_part(samples.docx(), "word/document.xml", b"<a>\n<b></a>"))
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rows = '<row r="2"><c r="A2"><v>1</v></c></row><row r="3"><c r="A3"><v>no number</v></c></row>'
    sheet = f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>'.encode()
    with pytest.raises(Unreadable, match="row 3 of the sheet Sheet has a cell that cannot be read"):
        read(tmp_path, office.with_part(office.xlsx_of([1]), "xl/worksheets/sheet1.xml", sheet))


def hostile_others() -> list[tuple[str, bytes, Reason]]:
    macros = b'<Types><Override ContentType="application/vnd.ms-excel.sheet.macroEnabled.main+xml"/></Types>'
    encrypted = b"<odf:manifest><odf:file-entry><odf:encryption-data/></odf:file-entry></odf:manifest>"
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    number = f'<row r="1"><c r="A1"><v>{10**309}</v></c></row>'
    sheet = f'<worksheet xmlns="{main}"><sheetData>{number}</sheetData></worksheet>'.encode()
    return [
        ("a number beyond all spreadsheets",
         office.with_part(office.xlsx_of([1]), "xl/worksheets/sheet1.xml", sheet), Reason.MALFORMED),
        ("a workbook that calls itself one with macros",
         office.with_part(office.xlsx(), "[Content_Types].xml", macros), Reason.HOSTILE),
        ("a macro sheet", office.with_part(office.xlsx(), "xl/macrosheets/sheet1.xml", b"<x/>"), Reason.HOSTILE),
        ("a bomb of shared strings", office.xlsx_of_shared_strings(), Reason.TOO_LARGE),
        ("an archive of 5,001 parts", office.archive(**{f"xl/{n}": b"" for n in range(5001)}), Reason.TOO_LARGE),
        ("an archive of 300 MiB", office.declaring(office.xlsx(), b"xl/styles.xml", 300 * 2**20), Reason.TOO_LARGE),
        ("an empty workbook", office.xlsx_of([]), Reason.EMPTY_TEXT),
        ("an empty HWPX", office.hwpx(""), Reason.EMPTY_TEXT),
        ("an HWPX under a password",
         office.with_part(office.hwpx(), "META-INF/manifest.xml", encrypted), Reason.ENCRYPTED),
        ("an HWPX that is a distribution copy", office.hwpx(office.PLACEHOLDER), Reason.PROTECTED),
        ("an HWP that is a distribution copy", office.hwp_with_flag(2), Reason.PROTECTED),
        ("an HWP with the placeholder alone", office.hwp(office.PLACEHOLDER), Reason.PROTECTED),
        ("an HWP under a password", office.hwp_with_flag(1), Reason.ENCRYPTED),
        ("an HWP under digital rights", office.hwp_with_flag(4), Reason.ENCRYPTED),
        ("an HWP with a bomb for a picture",
         office.hwp_with("BinData/BIN0001.png", office.deflated_bomb(201)), Reason.HOSTILE),
        ("an HWP with nonsense inside", office.hwp_with("BodyText/Section0", b"\xff" * 5000), Reason.MALFORMED),
        ("an HWP that is cut off", office.hwp()[:1500], Reason.MALFORMED),
        ("a workbook under a password", office.ole({"EncryptedPackage": b"x"}), Reason.ENCRYPTED),
        ("an Outlook message", office.ole({"__properties_version1.0": b"x"}), Reason.UNKNOWN_TYPE),
        ("an old Word file", office.ole({"WordDocument": b"x"}), Reason.UNKNOWN_TYPE),
    ]  # fmt: skip


def test_a_hostile_broken_or_locked_office_file_is_refused_with_its_reason(tmp_path: Path) -> None:
    wrong = []
    for name, data, reason in hostile():
        try:
            result: Reason | str = text_in(tmp_path, data)[:60]
        except Unreadable as exc:
            result = exc.reason
        if result is not reason:
            wrong.append(f"{name}: {result!r}, not {reason!r}")
    assert wrong == []


NOT_STORED = "⟦수식의 값이 파일에 없음: "


def with_formula(cell: str = "<c r='B2'><f>A2*3</f><v/></c>", *, hidden: bool = False, is_asked: bool = False) -> bytes:
    """Return a workbook whose B2 is a formula, and which may ask to be calculated when it is opened."""
    book = Workbook()
    book.active.append(["원금", "이자"])
    book.active.append([1000, "=A2*3"])
    book.active.column_dimensions["B"].hidden = hidden
    data = saved(book)
    if not is_asked:
        data = with_changed_part(data, "xl/workbook.xml", 'fullCalcOnLoad="1"', lambda _: "")
    return with_changed_part(data, "xl/worksheets/sheet1.xml", r'<c r="B2".*?</c>', lambda _: cell)


def with_changed_part(data: bytes, name: str, pattern: str, new: Callable[[re.Match[str]], str]) -> bytes:
    part = zipfile.ZipFile(BytesIO(data)).read(name).decode()
    return office.with_part(data, name, re.sub(pattern, new, part, flags=re.DOTALL).encode())


@pytest.mark.parametrize("made", [with_formula(), with_formula(is_asked=True), with_formula(
    f"<c r='B2{' ' * 90}'><f>A2*3</f><v/></c>")])  # fmt: skip
def test_a_visible_formula_without_a_stored_value_blocks_an_approval(tmp_path: Path, made: bytes) -> None:
    text = text_in(tmp_path, made)
    assert f"{NOT_STORED}B2" in text
    assert [finding.blocks for finding in passage_findings([replace(FEES, text=text)])] == [True]
    assert NOT_STORED not in text_in(tmp_path, with_formula(hidden=True))


@pytest.mark.parametrize(("cell", "row"), [
    ('<c r="B2"><f>A2*3</f><v>0</v></c>', "| 1000 | 0 |"),
    ('<c r="B2" t="str"><f>A2</f><v>면제</v></c>', "| 1000 | 면제 |"),
    ('<c r="B2" t="str"><f>A2</f><v></v></c>', "| 1000 |  |"),
])  # fmt: skip
def test_a_stored_value_is_read_unless_the_file_asks_to_be_calculated(tmp_path: Path, cell: str, row: str) -> None:
    text = text_in(tmp_path, with_formula(cell))
    assert row in text
    assert NOT_STORED not in text
    assert f"{NOT_STORED}B2⟧" in text_in(tmp_path, with_formula(cell, is_asked=True))


def test_a_workbook_with_a_sheet_that_is_a_chart_is_read(tmp_path: Path) -> None:
    book = Workbook()
    book.active.append(["6개월", 2.1])
    book.create_chartsheet("차트").add_chart(BarChart())
    assert "| 6개월 | 2.1 |" in text_in(tmp_path, saved(book))


kinds: Any = chart_data  # which publishes no types


def drawn(folder: Path, kind: XL_CHART_TYPE, data: Any, *, without: str = "") -> list[str]:
    """Return the rows of a chart's table, of a file that lacks an element of the chart."""
    presentation = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    place = (Inches(1), Inches(1), Inches(4), Inches(3))
    chart = slide.shapes.add_chart(kind, *place, data).chart
    for element in chart._chartSpace.xpath(without) if without else ():
        element.getparent().remove(element)
    return text_in(folder, presentation).splitlines()[2:]


def of(*labels: str | float | date) -> Any:
    data = kinds.CategoryChartData()
    data.categories = labels
    data.add_series("금리", [3.5, 4.0, 4.5])
    return data


@pytest.mark.parametrize(
    ("labels", "without", "rows"),
    [
        (("서울", "부산", "광주"), "//c:cat/*/*/c:pt[2]", ["| 서울 | 3.5 |", "|  | 4 |", "| 광주 | 4.5 |"]),
        (("서울", "부산", "광주"), "//c:cat", ["| 3.5 |", "| 4 |", "| 4.5 |"]),
        ((date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)), "//c:cat/*/*/c:pt[3]",
         ["| 2026-01-01 | 3.5 |", "| 2026-02-01 | 4 |", "|  | 4.5 |"]),
        ((6, 12, 24), "", ["| 6 | 3.5 |", "| 12 | 4 |", "| 24 | 4.5 |"]),
    ],
)  # fmt: skip
def test_each_value_has_its_label(
    tmp_path: Path, labels: tuple[str | float | date, ...], without: str, rows: list[str]
) -> None:
    assert drawn(tmp_path, XL_CHART_TYPE.COLUMN_CLUSTERED, of(*labels), without=without) == rows


NAMES = (
    'xmlns:xdr="http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing" '
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
)


def box(text: str, *, look: str = "", hidden: str = "0") -> str:
    """Return a text box whose letters have a look."""
    return (
        f'<xdr:sp {NAMES}><xdr:nvSpPr><xdr:cNvPr id="1" name="" hidden="{hidden}"/></xdr:nvSpPr><xdr:spPr>'
        f'<a:prstGeom prst="rect"/></xdr:spPr><xdr:txBody><a:bodyPr/>'
        f"<a:p><a:r><a:rPr {look}/><a:t>{text}</a:t></a:r></a:p></xdr:txBody></xdr:sp>"
    )


def sheet_with(folder: Path, *boxes: str, top: int = 6) -> str:
    """Return what is read of a sheet with a table in rows 4 and 5, and boxes in the two rows from `top` on."""
    book = Workbook()
    sheet = book.active
    for row, cells in ((4, ("구분", "금액")), (5, ("송금", 500))):
        sheet.cell(row, 1, cells[0])
        sheet.cell(row, 2, cells[1])
    for _ in boxes:
        Image.new("RGB", (8, 8)).save(file := BytesIO(), "PNG")
        picture = Picture(file)
        picture.anchor = TwoCellAnchor(_from=AnchorMarker(0, 0, top - 1, 0), to=AnchorMarker(4, 0, top + 1, 0))
        sheet.add_image(picture)
    shapes = iter(boxes)
    return text_in(
        folder, with_changed_part(saved(book), "xl/drawings/drawing1.xml", "<pic.*?</pic>", lambda _: next(shapes))
    )


TABLE = "| 구분 | 금액 |\n| --- | --- |\n| 송금 | 500 |"


@pytest.mark.parametrize(("boxes", "top", "parts"), [
    ([box("(단위: 천원)")], 1, ["(단위: 천원)", TABLE]), ([box("(단위: 천원)")], 2, ["(단위: 천원)", TABLE]),
    ([box("(단위: 천원)")], 6, [TABLE, "(단위: 천원)"]), ([box("1)", look='baseline="30000"')], 6, [TABLE, "¹⁾"]),
    ([box("(단위: 천원)")] * 2, 6, [TABLE, "(단위: 천원)"]), ([box("700원", hidden="1")], 6, [TABLE]),
])  # fmt: skip
def test_a_box_is_read_once_where_it_stands(tmp_path: Path, boxes: list[str], top: int, parts: list[str]) -> None:
    assert sheet_with(tmp_path, *boxes, top=top) == "\n\n".join(["# Sheet", *parts])


@pytest.mark.parametrize(("lines", "merged", "table"), [
    ("a b c/1 1 1/2 2 2", "", "| a | b | c |/| --- | --- | --- |/| 1 | 1 | 1 |/| 2 | 2 | 2 |"),
    ("상품 금리/정기예금 3.5%/적금 4.1%", "B1:C1 B2:C2 B3:C3",
     "| 상품 | 금리 |/| --- | --- |/| 정기예금 | 3.5% |/| 적금 | 4.1% |"),
    ("상품 6개월//예금 3.0%/적금 3.1%//합계 2//구분 창구/송금 500", "",
     "| 상품 | 6개월 |/| --- | --- |/| 예금 | 3.0% |/| 적금 | 3.1% |//| 합계 | 2 |/| --- | --- |//"
     "| 구분 | 창구 |/| --- | --- |/| 송금 | 500 |"),
    *((f"{note}//6개월 2.5%/12개월 2.8%", "",
       f"| {note.replace(' ', ' | ')} |/| --- | --- |//| 6개월 | 2.5% |/| --- | --- |/| 12개월 | 2.8% |")
      for note in ("고객센터 평일_운영", "고객센터 1588-0000", "구분 평일_9시부터")),
    ("상품 기본 우대//예금 3.0% 3.5%/적금 3.1% 3.6%", "",
     "| 상품 | 기본 | 우대 |/| --- | --- | --- |/| 예금 | 3.0% | 3.5% |/| 적금 | 3.1% | 3.6% |"),
])  # fmt: skip
def test_each_table_of_a_sheet_has_its_header(tmp_path: Path, lines: str, merged: str, table: str) -> None:
    book = Workbook()
    for line in lines.split("/"):
        book.worksheets[0].append([*line.split()] or [""])
    for cells in merged.split():
        book.worksheets[0].merge_cells(cells)
    assert text_in(tmp_path, book) == "\n".join(["# Sheet", "", *table.split("/")])


@pytest.mark.parametrize(
    ("grid", "merged", "depth"),
    [
        # The second row has a product of its own.
        (["상품 금리 금리", "예금 5,100원 3,100원", "적금 5,200원 3,200원"], [(0, 1, 1, 2)], 1),
        # Two columns of labels share one name.
        (["구분 구분 내용", "급여 이체 인정", "카드 사용 인정"], [(0, 0, 1, 2)], 1),
        # The first column is named in the second row only, or nowhere else.
        (["_ 금리 금리", "상품 6개월 12개월", "예금 3.0% 3.5%", "적금 3.1% 3.6%"], [(0, 1, 1, 2)], 2),
        (["상품 금리 금리", "_ 기본 우대", "예금 문의 문의"], [(0, 1, 1, 2)], 2),
        (["_ 매출 매출", "구분 2024 2025", "한국 1,200 1,300", "미국 300 400"], [(0, 1, 1, 2)], 2),
        # All heads span.
        (["수신 수신 여신 여신", "상품 금리 상품 금리", "가 3% 나 5%", "다 4% 라 6%"], [(0, 0, 1, 2), (0, 2, 1, 2)], 2),
        # Three rows: a span below a span.
        (["상품 금리 금리 금리 금리", "상품 기본 기본 우대 우대", "상품 1년 2년 1년 2년", "예금 1% 2% 3% 4%"],
         [(0, 0, 3, 1), (0, 1, 1, 4), (1, 1, 1, 2), (1, 3, 1, 2)], 3),
        # One cell of two rows and two columns is no head above others.
        (["상품 금리 금리", "상품 금리 금리", "예금 3% 3%"], [(0, 0, 2, 1), (0, 1, 2, 2), (2, 1, 1, 2)], 2),
        # The first row of data: words in place of figures, figures with words before them, under heads that say little.
        (["_ 수수료 수수료", "이체 면제 유료", "창구 500원 1,000원", "ATM 600원 900원"], [(0, 1, 1, 2)], 1),
        (["안내 안내 안내", "신용대출 없음 협의", "예금 3% 1만원", "적금 4% 2만원"], [(0, 0, 1, 3)], 1),
        (["안내 안내 안내", "상품 6개월 12개월", "예금 3% 4%", "적금 4% 5%"], [(0, 0, 1, 3)], 2),
        (["_ 금리 금리", "_ 기본 우대", "예금 3.0 3.5", "적금 3.1 3.6"], [(0, 1, 1, 2)], 2),
        (["구분 수수료 수수료", "구분 1만원이하 1만원초과", "창구 500원 900원"], [(0, 0, 2, 1), (0, 1, 1, 2)], 2),
    ],
)  # fmt: skip
def test_the_rows_of_a_header_are_counted(grid: list[str], merged: list[tuple[int, int, int, int]], depth: int) -> None:
    rows = [["" if cell == "_" else cell for cell in line.split()] for line in grid]
    assert header_rows(rows, [Merged(*cell) for cell in merged]) == depth
