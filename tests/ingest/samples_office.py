"""Small office files, made here: workbooks, presentations, HWP and HWPX, OLE containers; and some gone wrong."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Literal

from hwpx import HwpxDocument
from hwpx.hwp5.cfb import CompoundFile, build_compound_file, read_all_streams
from hwpx.oxml.table import HwpxOxmlTable
from openpyxl import Workbook
from openpyxl.worksheet.worksheet import Worksheet
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from tests.ingest.parsing.reading import saved

RATES = (("기간", "금리"), ("6개월", "연 2.10%"), ("12개월", "연 2.35%"))
PLACEHOLDER = (
    "이 문서는 상위 버전의 배포용 문서입니다. 문서를 읽으려면 최신 버전의 한글 또는 한글 전용 뷰어가 필요합니다."
)


def xlsx() -> bytes:
    """Return a workbook: rates under a title, fees under a header of two rows, and a hidden sheet, row and column."""
    book = Workbook()
    rates = book.active
    assert isinstance(rates, Worksheet)
    rates.title = "금리"
    rates.append(["정기예금 금리표"])
    rates.append([])
    rates.append(["기간", "금리", "한도", "원가"])
    rates.append(["6개월", 0.021, 50_000_000, 0.03])
    rates.append(["12개월", 0.0235, 30_000_000, 0.04])
    rates.append(["특판", 0.05, 1, 1])
    rates.merge_cells("A1:C1")
    for line in (4, 5):
        rates[f"B{line}"].number_format = "0.00%"
        rates[f"C{line}"].number_format = '#,##0"원"'
    rates.row_dimensions[6].hidden = True
    rates.column_dimensions["D"].hidden = True
    fees = book.create_sheet("수수료")
    fees.append(["구분", "금액", None])
    fees.append([None, "창구", "모바일"])
    fees.append(["타행 이체", 1000, "면제"])
    fees.merge_cells("A1:A2")
    fees.merge_cells("B1:C1")
    hidden = book.create_sheet("원가")
    hidden.append(["내부", "자료"])
    hidden.sheet_state = "hidden"
    return saved(book)


def xlsx_of(*rows: list[str | float | None]) -> bytes:
    """Return a workbook of one sheet."""
    book = Workbook()
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    for row in rows:
        sheet.append(row)
    return saved(book)


def xlsx_of_shared_strings() -> bytes:
    """Return a workbook of a few kilobytes whose cells all say the same long text: a thousand times a megabyte."""
    rows = "".join(f'<row r="{n}"><c r="A{n}" t="s"><v>0</v></c></row>' for n in range(1, 1001))
    strings = f"<si><t>{' '.join(str(n) for n in range(100_000))}</t></si>"
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    data = with_shared_strings(xlsx_of(["x"]), f'<sst xmlns="{main}">{strings}</sst>')
    sheet = f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>'
    return with_part(data, "xl/worksheets/sheet1.xml", sheet.encode())


def with_shared_strings(data: bytes, table: str) -> bytes:
    """Return a workbook with a table of texts, as Excel writes them."""
    office = "application/vnd.openxmlformats-officedocument.spreadsheetml."
    relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/sharedStrings"
    kind = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{office}sharedStrings+xml"/></Types>'
    link = f'<Relationship Id="texts" Type="{relation}" Target="sharedStrings.xml"/></Relationships>'
    data = with_part(data, "xl/sharedStrings.xml", table.encode())
    for name, added in (("[Content_Types].xml", kind), ("xl/_rels/workbook.xml.rels", link)):
        with zipfile.ZipFile(BytesIO(data)) as archive:
            part = archive.read(name).decode()
        end = added[added.rindex("<") :]
        data = with_part(data, name, part.replace(end, added).encode())
    return data


def pptx() -> bytes:
    """Return a presentation: a list with notes, a table and a chart, and a hidden slide."""
    deck = Presentation()
    first = deck.slides.add_slide(deck.slide_layouts[1])
    first.shapes.title.text = "적금 안내"
    first.placeholders[1].text_frame.text = "매달 넣습니다"
    first.placeholders[1].text_frame.add_paragraph().text = "만기에 이자를 받습니다"
    first.notes_slide.notes_text_frame.text = "비밀 메모"
    second = deck.slides.add_slide(deck.slide_layouts[5])
    second.shapes.title.text = "금리"
    table = second.shapes.add_table(3, 2, Inches(1), Inches(2), Inches(6), Inches(1)).table
    for r, row in enumerate(RATES):
        for c, text in enumerate(row):
            table.cell(r, c).text = text
    figures = CategoryChartData()  # type: ignore[no-untyped-call]  # publishes no types
    figures.categories = ["1분기", "2분기"]
    figures.add_series("잔액", (100.5, 200))  # type: ignore[no-untyped-call]
    figures.add_series("금리", (0.0235, None), number_format="0.00%")  # type: ignore[no-untyped-call]
    second.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(4), Inches(6), Inches(2), figures)
    third = deck.slides.add_slide(deck.slide_layouts[5])
    third.shapes.title.text = "숨긴 쪽"
    third.element.set("show", "0")
    return saved(deck)


def hwpx(*paragraphs: str) -> bytes:
    """Return an HWPX document with these paragraphs, or with two, a table and a table with merged cells."""
    return _hancom(paragraphs, "hwpx")


def hwp(*paragraphs: str) -> bytes:
    """Return the same as an HWP 5 document."""
    return _hancom(paragraphs, "hwp")


def _hancom(paragraphs: tuple[str, ...], kind: Literal["hwp", "hwpx"]) -> bytes:
    document = HwpxDocument.new()
    for text in paragraphs or ("정기예금 상품설명서",):
        document.add_paragraph(text)
    if not paragraphs:
        _table(document, RATES)
        document.add_paragraph("중도해지하면 이율이 낮습니다.")
        _table(document, (("구분", "창구", "모바일"), ("이체", "면제", ""), ("출금", "500원", "300원"))).merge_cells(
            1, 1, 1, 2
        )
    buffer = BytesIO()
    document.save_to_stream(buffer, format=kind)
    return buffer.getvalue()


def _table(document: HwpxDocument, rows: Sequence[Sequence[str]]) -> HwpxOxmlTable:
    table = document.add_table(len(rows), len(rows[0]))
    for r, row in enumerate(rows):
        for c, text in enumerate(row):
            table.set_cell_text(r, c, text)
    return table


def hwp_with(name: str, data: bytes) -> bytes:
    """Return an HWP 5 document with one stream replaced or added."""
    streams = dict(read_all_streams(CompoundFile(hwp())))
    return ole({**streams, name: data})


def hwp_with_flag(bit: int) -> bytes:
    """Return an HWP 5 document whose header says that something holds: 1 password, 2 distribution, 4 DRM."""
    header = bytearray(dict(read_all_streams(CompoundFile(hwp())))["FileHeader"])
    header[36] |= 1 << bit
    return hwp_with("FileHeader", bytes(header))


def deflated_bomb(mebibytes: int) -> bytes:
    """Return so many mebibytes of nothing as a raw deflate stream."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = bytes(1024 * 1024)
    return b"".join([*(deflater.compress(block) for _ in range(mebibytes)), deflater.flush()])


def ole(streams: Mapping[str, bytes]) -> bytes:
    """Return an OLE container of these streams."""
    return build_compound_file(list(streams.items()))


def with_part(data: bytes, name: str, content: bytes) -> bytes:
    """Return an archive with one part replaced or added."""
    buffer = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for part in source.namelist():
            if part != name:
                target.writestr(part, source.read(part))
        target.writestr(name, content)
    return buffer.getvalue()


def archive(**parts: bytes) -> bytes:
    """Return an archive that is no office file."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in parts.items():
            target.writestr(name, content)
    return buffer.getvalue()


def flagged_encrypted(data: bytes) -> bytes:
    """Return an archive whose directory says that its first part is encrypted."""
    at = data.index(b"PK\x01\x02") + 8
    return data[:at] + bytes([data[at] | 1]) + data[at + 1 :]


def declaring(data: bytes, name: bytes, size: int) -> bytes:
    """Return an archive whose directory says that one part is so many bytes long."""
    at = data.rindex(name, data.index(b"PK\x01\x02")) - 46 + 24
    return data[:at] + size.to_bytes(4, "little") + data[at + 4 :]
