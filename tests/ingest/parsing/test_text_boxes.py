"""The text of a sheet's text boxes is read; the unit of a table's figures often stands in one."""

import re
import zipfile
from io import BytesIO
from pathlib import Path

from openpyxl import Workbook
from openpyxl.drawing.image import Image as Picture
from openpyxl.drawing.spreadsheet_drawing import AnchorMarker, TwoCellAnchor
from PIL import Image

from tests.ingest.parsing.reading import read, text_of

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
    book.save(made := BytesIO())
    shapes = iter(boxes)
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(changed := BytesIO(), "w") as target:
        for name in source.namelist():
            part = source.read(name)
            if name == "xl/drawings/drawing1.xml":
                part = re.sub("<pic.*?</pic>", lambda _: next(shapes), part.decode(), flags=re.DOTALL).encode()
            target.writestr(name, part)
    return text_of(read(folder, changed.getvalue()))


TABLE = "| 구분 | 금액 |\n| --- | --- |\n| 송금 | 500 |"


def test_a_box_is_read_above_or_below_the_table_as_it_stands(tmp_path: Path) -> None:
    assert sheet_with(tmp_path, box("(단위: 천원)"), top=1) == f"# Sheet\n\n(단위: 천원)\n\n{TABLE}"
    assert sheet_with(tmp_path, box("(단위: 천원)")) == f"# Sheet\n\n{TABLE}\n\n(단위: 천원)"
    assert sheet_with(tmp_path, box("1)", look='baseline="30000"')) == f"# Sheet\n\n{TABLE}\n\n¹⁾"


def test_a_box_between_the_first_row_and_the_table_is_read_above_it(tmp_path: Path) -> None:
    assert sheet_with(tmp_path, box("(단위: 천원)"), top=2) == f"# Sheet\n\n(단위: 천원)\n\n{TABLE}"


def test_a_box_that_stands_there_for_older_programs_too_is_read_once(tmp_path: Path) -> None:
    twice = [box("(단위: 천원)")] * 2
    assert sheet_with(tmp_path, *twice) == f"# Sheet\n\n{TABLE}\n\n(단위: 천원)"


def test_a_hidden_box_is_left_out(tmp_path: Path) -> None:
    assert sheet_with(tmp_path, box("700원", hidden="1")) == f"# Sheet\n\n{TABLE}"
