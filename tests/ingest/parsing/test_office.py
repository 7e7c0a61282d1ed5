import gc
import re
import time
import warnings
import zipfile
from collections.abc import Iterator
from datetime import date, datetime
from io import BytesIO
from pathlib import Path

import docx
import pytest

from ingest.parsing.cells import Value, shown
from ingest.parsing.parsed import Format, LeftOut, Reason, Unreadable
from tests.ingest import samples
from tests.ingest import samples_office as office
from tests.ingest.parsing.reading import read, text_of


@pytest.fixture(autouse=True)
def _quiet_samples() -> Iterator[None]:
    """python-hwpx, which makes the samples, warns about what it leaves out of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_a_sheet_is_a_page_with_its_name_its_title_and_its_table(tmp_path: Path) -> None:
    parsed = read(tmp_path, office.xlsx())
    assert (parsed.format, [page.number for page in parsed.pages]) == (Format.XLSX, [1, 2])
    assert parsed.pages[0].markdown == (
        "# 금리\n\n정기예금 금리표\n\n| 기간 | 금리 | 한도 |\n| --- | --- | --- |\n"
        "| 6개월 | 2.10% | 50,000,000원 |\n| 12개월 | 2.35% | 30,000,000원 |"
    )


def test_merged_header_cells_of_a_sheet_name_every_column_below_them(tmp_path: Path) -> None:
    text = read(tmp_path, office.xlsx()).pages[1].markdown
    assert "| 구분 | 금액 / 창구 | 금액 / 모바일 |" in text
    assert "| 타행 이체 | 1000 | 면제 |" in text


def test_hidden_sheets_rows_and_columns_stay_hidden(tmp_path: Path) -> None:
    parsed = read(tmp_path, office.xlsx())
    assert not any(hidden in text_of(parsed) for hidden in ("내부", "특판", "원가", "0.03"))
    assert parsed.left_out == {LeftOut.ROW: 1, LeftOut.COLUMN: 1, LeftOut.SHEET: 1}


def test_columns_that_say_the_same_are_kept_where_nothing_was_merged(tmp_path: Path) -> None:
    text = text_of(read(tmp_path, office.xlsx_of(["a", "b", "c"], [1, 1, 1], [2, 2, 2])))
    assert "| 2 | 2 | 2 |" in text


@pytest.mark.parametrize(
    ("value", "number_format", "text"),
    [
        (0.0235, "0.00%", "2.35%"),
        (0.5, "0%", "50%"),
        (1234567, "#,##0", "1,234,567"),
        (1234.5, '₩#,##0.00;[Red]-₩#,##0.00', "₩1,234.50"),
        (1000, '[$₩-412]#,##0_ ', "₩1,000"),
        (12, '0"개월"', "12개월"),
        (1.5, "0.###", "1.5"),
        (3, "0.###", "3"),
        (0.1 + 0.2, "General", "0.3"),
        (7.0, "General", "7"),
        (1e20, "0.00E+00", "1e+20"),
        (float("inf"), "0.00", "inf"),
        (3.5, '0.00"%"', "3.50%"),
        (3.5, "0.00\\%", "3.50%"),
        (0.035, '"10년 만기 "0.00%', "10년 만기 3.50%"),
        (3000, '#,##0"원/월"', "3,000원/월"),
        (12, 'General"원"', "12원"),
        (1_500_000, "#,##0,", "1,500"),
        (1_500_000, '0.0,,"백만"', "1.5백만"),
        (1_500_000, '[>=1000000]0.0,,"백만";[>=1000]#,##0,"천";0', "1.5백만"),
        (5000, '[>=1000000]0.0,,"백만";[>=1000]#,##0,"천";0', "5천"),
        (5, '[>=1000000]0.0,,"백만";[>=1000]#,##0,"천";0', "5"),
        (0.02345, "0.00%", "2.35%"),
        (0.03125, "0.00%", "3.13%"),
        (-1234.5, "₩#,##0", "-₩1,235"),
        (-0.001, "0.00", "0.00"),
        (4, "000", "004"),
        (15991234, "####-####", "1599-1234"),
        (212345678, "[<=9999999]###-####;(0##) ####-####", "(02) 1234-5678"),
        (7654321, "[<=9999999]###-####;(0##) ####-####", "765-4321"),
        (123456789, '###0","####","####', "1,2345,6789"),
        (-0.005, "+0.00%;-0.00%", "-0.50%"),
        (0.005, "+0.00%;-0.00%", "+0.50%"),
        (0, "+0.00%;-0.00%", "+0.00%"),
        (-3, '[<0]"△"0;0', "△3"),
        (-3, '[>=0]0;"▲ "0', "▲ 3"),
        (-1234, "#,##0;(#,##0)", "(1,234)"),
        (-1234, "#,##0;#,##0-", "1,234-"),
        (-1234, '#,##0;[Red]#,##0', "-1,234"),
        (-3, '0;"(손실) "0', "-(손실) 3"),
        (-3, "(0)", "-(3)"),
        (-3, '0;"△"General', "△3"),
        (-3, '[<100]"▲"0;0', "-▲3"),
        (0, '0;-0;"면제"', "면제"),
        (0, "0;-0;@", "0"),
        (9.9, '"연 3.5%"', "연 3.5%"),
        (3, "[<5];0", ""),
        (1, '[=1]"예";[=0]"아니오"', "예"),
        (0, '[=1]"예";[=0]"아니오"', "아니오"),
        (2, '[=1]"예";[=0]"아니오"', "2"),
        (4, "[>5];[<3]", ""),
        (5, '""', ""),
        (5, "[Red]", "5"),
        (5, '"약 "@', "약 5"),
        (0.5, "[h]", "0.5"),
        (46082, 'yyyy"년"', "46082"),
        (12345, '0!.0,"만"', "1.2만"),
        (12345, '0\\.0,"만"', "1.2만"),
        (3.5, '0.0"[만원]"', "3.5[만원]"),
        (3.5, '0.0"원; 부가세"', "3.5원; 부가세"),
        (3.5, '0.0"_*@!"', "3.5_*@!"),
        (3, '0"[<5]";0', "3[<5]"),
        (True, "General", "TRUE"),
        (datetime(2026, 3, 1), "yyyy-mm-dd", "2026-03-01"),  # noqa: DTZ001  a cell has no zone
        (datetime(2026, 3, 1, 9, 30), "yyyy-mm-dd", "2026-03-01 09:30"),  # noqa: DTZ001
        (date(2026, 3, 1), "yyyy-mm-dd", "2026-03-01"),
        (None, "General", ""),
    ],
)  # fmt: skip
def test_a_value_is_read_as_its_cell_shows_it(value: Value, number_format: str, text: str) -> None:
    assert shown(value, number_format) == text


def test_a_number_beyond_all_spreadsheets_is_a_damaged_workbook(tmp_path: Path) -> None:
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    cell = f'<c r="A1"><v>{10**309}</v></c>'
    sheet = f'<worksheet xmlns="{main}"><sheetData><row r="1">{cell}</row></sheetData></worksheet>'
    with pytest.raises(Unreadable) as refused:
        read(tmp_path, office.with_part(office.xlsx_of([1]), "xl/worksheets/sheet1.xml", sheet.encode()))
    assert refused.value.reason is Reason.MALFORMED


def test_a_slide_is_a_page_with_its_title_its_list_its_table_and_its_chart(tmp_path: Path) -> None:
    parsed = read(tmp_path, office.pptx())
    assert (parsed.format, parsed.title) == (Format.PPTX, "적금 안내")
    assert [page.number for page in parsed.pages] == [1, 2]
    assert parsed.pages[0].markdown == "# 적금 안내\n\n- 매달 넣습니다\n- 만기에 이자를 받습니다"
    assert "| 기간 | 금리 |\n| --- | --- |\n| 6개월 | 연 2.10% |" in parsed.pages[1].markdown
    assert "| 1분기 | 100.5 | 2.35% |\n| 2분기 | 200 |  |" in parsed.pages[1].markdown


def test_hidden_slides_and_notes_stay_hidden(tmp_path: Path) -> None:
    parsed = read(tmp_path, office.pptx())
    assert not any(hidden in text_of(parsed) for hidden in ("숨긴 쪽", "비밀 메모"))
    assert parsed.left_out == {LeftOut.SLIDE: 1, LeftOut.NOTES: 1}


@pytest.mark.parametrize(("make", "kind"), [(office.hwp, Format.HWP), (office.hwpx, Format.HWPX)])
def test_hwp_gives_its_text_and_its_tables_with_merged_cells_filled_in(
    tmp_path: Path, make: type[bytes], kind: Format
) -> None:
    parsed = read(tmp_path, make())
    text = text_of(parsed)
    assert parsed.format is kind
    assert text.index("정기예금 상품설명서") < text.index("| 6개월 | 연 2.10% |") < text.index("중도해지하면")
    assert text.count("| --- | --- |") + text.count("| :--- | :--- |") >= 2
    assert "| 이체 | 면제 | 면제 |" in text


def test_a_table_that_runs_over_two_pages_has_its_header_on_both(tmp_path: Path) -> None:
    parsed = read(tmp_path, samples.pdf_of_two_pages_with_one_table())
    for page in parsed.pages:
        assert page.markdown.startswith("| Term | Rate |\n| --- | --- |\n")
    assert "| 11 months | 1.10 % |" in parsed.pages[1].markdown


def test_a_header_that_runs_through_a_pdf_is_read_once(tmp_path: Path) -> None:
    text = text_of(read(tmp_path, samples.pdf_with_running_lines()))
    assert text.count("Rules of the savings account") == 1
    assert all(fruit in text for fruit in ("apples", "pears", "plums", "figs"))


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


def hostile_others() -> Iterator[tuple[str, bytes, Reason]]:
    macros = b'<Types><Override ContentType="application/vnd.ms-excel.sheet.macroEnabled.main+xml"/></Types>'
    encrypted = b"<odf:manifest><odf:file-entry><odf:encryption-data/></odf:file-entry></odf:manifest>"
    yield (
        "a workbook that calls itself one with macros",
        office.with_part(office.xlsx(), "[Content_Types].xml", macros),
        Reason.HOSTILE,
    )
    yield "a macro sheet", office.with_part(office.xlsx(), "xl/macrosheets/sheet1.xml", b"<x/>"), Reason.HOSTILE
    yield "a bomb of shared strings", office.xlsx_of_shared_strings(), Reason.TOO_LARGE
    yield "an archive of 5,001 parts", office.archive(**{f"xl/{n}": b"" for n in range(5001)}), Reason.TOO_LARGE
    yield "an archive of 300 MiB", office.declaring(office.xlsx(), b"xl/styles.xml", 300 * 2**20), Reason.TOO_LARGE
    yield "an empty workbook", office.xlsx_of([]), Reason.EMPTY_TEXT
    yield "an empty HWPX", office.hwpx(""), Reason.EMPTY_TEXT
    yield (
        "an HWPX under a password",
        office.with_part(office.hwpx(), "META-INF/manifest.xml", encrypted),
        Reason.ENCRYPTED,
    )
    yield "an HWPX that is a distribution copy", office.hwpx(office.PLACEHOLDER), Reason.PROTECTED
    yield "an HWP that is a distribution copy", office.hwp_with_flag(2), Reason.PROTECTED
    yield "an HWP with the placeholder alone", office.hwp(office.PLACEHOLDER), Reason.PROTECTED
    yield "an HWP under a password", office.hwp_with_flag(1), Reason.ENCRYPTED
    yield "an HWP under digital rights", office.hwp_with_flag(4), Reason.ENCRYPTED
    yield (
        "an HWP with a bomb for a picture",
        office.hwp_with("BinData/BIN0001.png", office.deflated_bomb(201)),
        (Reason.HOSTILE),
    )
    yield "an HWP with nonsense inside", office.hwp_with("BodyText/Section0", b"\xff" * 5000), Reason.MALFORMED
    yield "an HWP that is cut off", office.hwp()[:1500], Reason.MALFORMED
    yield "a workbook under a password", office.ole({"EncryptedPackage": b"x"}), Reason.ENCRYPTED
    yield "an Outlook message", office.ole({"__properties_version1.0": b"x"}), Reason.UNKNOWN_TYPE
    yield "an old Word file", office.ole({"WordDocument": b"x"}), Reason.UNKNOWN_TYPE


def test_a_hostile_broken_or_locked_office_file_is_refused_with_its_reason(tmp_path: Path) -> None:
    wrong = []
    for name, data, reason in hostile():
        try:
            result: Reason | str = text_of(read(tmp_path, data))[:60]
        except Unreadable as exc:
            result = exc.reason
        if result is not reason:
            wrong.append(f"{name}: {result!r}, not {reason!r}")
    assert wrong == []


def test_how_the_styles_of_a_word_file_look_is_little_work(tmp_path: Path) -> None:
    made = BytesIO()
    document = docx.Document()  # by a template with the looks of 164 styles
    document.add_paragraph("금리는 연 3.1%입니다", style="List Bullet")
    document.save(made)
    styles = zipfile.ZipFile(made).read("word/styles.xml")
    plain, looks = re.subn(
        rb"<w:(docDefaults|latentStyles|rPr|tblPr|trPr|tcPr|tblStylePr)\b.*?</w:\1>", b"", styles, flags=re.DOTALL
    )
    assert looks > 500
    without = office.with_part(made.getvalue(), "word/styles.xml", plain)
    tries = [[seconds_of(tmp_path, data) for data in (made.getvalue(), without)] for _ in range(3)]
    assert min(longer for longer, _ in tries) < 2 * min(shorter for _, shorter in tries)


def seconds_of(folder: Path, data: bytes) -> float:
    """Return the processor's time of this thread to read a Word file with one item of a list."""
    gc.disable()  # what other tests have left is searched for garbage in some tries and not in others
    try:
        began = time.thread_time()
        assert text_of(read(folder, data)) == "- 금리는 연 3.1%입니다"
        return time.thread_time() - began
    finally:
        gc.enable()
