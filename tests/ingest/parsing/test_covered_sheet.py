"""Cells under a picture, a shape or a chart are no text of a workbook; cells beside them are."""

import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from openpyxl import Workbook
from openpyxl.chart import BarChart, Reference
from openpyxl.chart.shapes import GraphicalProperties
from openpyxl.drawing.image import Image as Picture
from openpyxl.drawing.spreadsheet_drawing import AbsoluteAnchor, AnchorMarker, OneCellAnchor, TwoCellAnchor
from openpyxl.drawing.xdr import XDRPoint2D, XDRPositiveSize2D
from openpyxl.styles import Alignment
from openpyxl.worksheet.worksheet import Worksheet
from PIL import Image, ImageDraw

from ingest.parsing import read_document

CANARY = "금리는 연 99%입니다"
SEEN = "금리는 연 3.1%입니다"
NAMES = (
    'xmlns:xdr="http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing" '
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
)
ROW, COLUMN = 190_500, 609_600  # EMU, where nothing else is said


def picture(image: Image.Image | None = None) -> Picture:
    file = BytesIO()
    (image or Image.new("RGB", (64, 64))).save(file, "PNG")
    file.seek(0)
    return Picture(file)


def cells(left: int, top: int, right: int, bottom: int) -> TwoCellAnchor:
    """Return an anchor over cells, the last of them beyond it; counted from 0."""
    return TwoCellAnchor(_from=AnchorMarker(left, 0, top, 0), to=AnchorMarker(right, 0, bottom, 0))


def cover(
    sheet: Worksheet, anchor: TwoCellAnchor | OneCellAnchor | AbsoluteAnchor, image: Image.Image | None = None
) -> None:
    one = picture(image)
    one.anchor = anchor
    sheet.add_image(one)


def under_a_picture(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    cover(sheet, cells(1, 3, 5, 4))


def under_a_picture_of_a_size(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    size = XDRPositiveSize2D(4 * COLUMN, 2 * ROW)
    cover(sheet, OneCellAnchor(_from=AnchorMarker(1, 0, 3, 0), ext=size))


def under_a_picture_at_a_place(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    size = XDRPositiveSize2D(4 * COLUMN, 2 * ROW)
    cover(sheet, AbsoluteAnchor(pos=XDRPoint2D(COLUMN, 3 * ROW), ext=size))


def under_a_picture_beyond_wide_columns_and_high_rows(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    sheet.column_dimensions["A"].width, sheet.row_dimensions[2].height = 60, 90
    sheet.row_dimensions[3].hidden = True
    size = XDRPositiveSize2D(4 * COLUMN, 2 * ROW)
    cover(sheet, AbsoluteAnchor(pos=XDRPoint2D(60 * 66_675, 90 * 12_700 + ROW), ext=size))


def under_a_picture_of_just_the_words(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    sheet.column_dimensions["B"].width, sheet.row_dimensions[4].height = 100, 300
    cover(sheet, TwoCellAnchor(_from=AnchorMarker(1, 0, 3, 275 * 12_700), to=AnchorMarker(1, 4 * COLUMN, 4, 0)))


def under_a_picture_of_just_the_number(sheet: Worksheet) -> None:
    sheet["B4"] = 99
    sheet.column_dimensions["B"].width = 100
    cover(sheet, TwoCellAnchor(_from=AnchorMarker(1, 95 * 66_675, 3, 0), to=AnchorMarker(2, 0, 4, 0)))


def under_a_picture_beside_another_cell(sheet: Worksheet) -> None:
    sheet["B4"], sheet["C4"] = CANARY * 9, "옆 칸"
    cover(sheet, cells(1, 3, 2, 4))


def in_merged_cells(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    sheet["B4"].alignment = Alignment(horizontal="center", vertical="center", wrap_text=True)
    sheet.merge_cells("B4:E6")
    cover(sheet, cells(1, 3, 5, 6))


def under_a_chart(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    sheet.add_chart(chart(), "B3")


def chart() -> BarChart:
    one = BarChart()
    one.add_data(Reference(Workbook().create_sheet("a"), min_col=1, min_row=1))
    return one


def under_a_shape(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    cover(sheet, cells(1, 3, 5, 4))


def under_a_shape_in_a_group(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    cover(sheet, cells(0, 0, 9, 9))


WHITE = '<a:solidFill><a:schemeClr val="bg1"/></a:solidFill>'
FILLED = f'<xdr:spPr><a:xfrm>{{}}</a:xfrm><a:prstGeom prst="rect"/>{WHITE}</xdr:spPr>'
SHAPE = f"<xdr:sp><xdr:nvSpPr><xdr:cNvPr id='1' name=''/></xdr:nvSpPr>{FILLED}</xdr:sp>"
GROUP = (
    "<xdr:grpSp><xdr:grpSpPr><a:xfrm><a:off x='0' y='0'/><a:ext cx='90' cy='90'/><a:chOff x='0' y='0'/>"
    "<a:chExt cx='90' cy='90'/></a:xfrm></xdr:grpSpPr>"
    + SHAPE.format("<a:off x='10' y='30'/><a:ext cx='40' cy='10'/>")
    + "</xdr:grpSp>"
)
DRAWN: dict[Callable[[Worksheet], None], str] = {under_a_shape: SHAPE.format(""), under_a_shape_in_a_group: GROUP}


@pytest.mark.parametrize(
    "hide",
    [
        under_a_picture, under_a_picture_of_a_size, under_a_picture_at_a_place, under_a_chart, in_merged_cells,
        under_a_picture_beyond_wide_columns_and_high_rows, under_a_picture_of_just_the_words,
        under_a_picture_of_just_the_number, under_a_picture_beside_another_cell, under_a_shape,
        under_a_shape_in_a_group,
    ],
)  # fmt: skip
def test_what_lies_under_something_in_a_sheet_is_left_out(tmp_path: Path, hide: Callable[[Worksheet], None]) -> None:
    text = read_sheet(tmp_path, hide)
    assert SEEN in text
    assert "99" not in text


def read_sheet(folder: Path, draw: Callable[[Worksheet], None]) -> str:
    """Return what is read of a sheet; where a shape of its own is wanted, that stands for its picture."""
    book = Workbook()
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    sheet["A20"] = SEEN
    draw(sheet)
    book.save(folder / "made.xlsx")
    with zipfile.ZipFile(folder / "made.xlsx") as made, zipfile.ZipFile(folder / "deposit.xlsx", "w") as changed:
        for name in made.namelist():
            part = made.read(name)
            if draw in DRAWN and name == "xl/drawings/drawing1.xml":
                part = with_shape(part.decode(), DRAWN[draw]).encode()
            changed.writestr(name, part)
    return read_document(folder / "deposit.xlsx").pages[0].markdown


def with_shape(drawing: str, shape: str) -> str:
    begin, end = drawing.index("<pic"), drawing.index("</pic>") + len("</pic>")
    drawn = shape.replace("<xdr:sp>", f"<xdr:sp {NAMES}>").replace("<xdr:grpSp>", f"<xdr:grpSp {NAMES}>")
    return drawing[:begin] + drawn + drawing[end:]


def under_a_logo_that_covers_its_beginning(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    cover(sheet, cells(1, 3, 2, 4))


def below_a_logo(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    cover(sheet, cells(0, 0, 9, 3))


def beside_a_picture_in_a_wide_column(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    sheet.column_dimensions["B"].width = 100
    cover(sheet, TwoCellAnchor(_from=AnchorMarker(1, 4 * COLUMN, 3, 0), to=AnchorMarker(2, 0, 4, 0)))


def under_a_seal(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    seal = Image.new("RGBA", (64, 64), "#FF000000")
    ImageDraw.Draw(seal).ellipse((2, 2, 62, 62), outline="red")
    cover(sheet, cells(1, 3, 5, 4), seal)


def under_a_frame(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    cover(sheet, cells(1, 3, 5, 4))


def under_a_hidden_shape(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    cover(sheet, cells(1, 3, 5, 4))


def under_a_chart_without_a_ground(sheet: Worksheet) -> None:
    sheet["B4"] = CANARY
    one = chart()
    one.graphical_properties = GraphicalProperties(noFill=True)
    sheet.add_chart(one, "B3")


DRAWN |= {
    under_a_frame: DRAWN[under_a_shape].replace(WHITE, "<a:noFill/>"),
    under_a_hidden_shape: DRAWN[under_a_shape].replace("name=''", "name='' hidden='1'"),
}


@pytest.mark.parametrize(
    "show",
    [
        under_a_logo_that_covers_its_beginning, below_a_logo, beside_a_picture_in_a_wide_column, under_a_seal,
        under_a_frame, under_a_hidden_shape, under_a_chart_without_a_ground,
    ],
)  # fmt: skip
def test_what_lies_beside_something_in_a_sheet_or_is_seen_through_it_is_read(
    tmp_path: Path, show: Callable[[Worksheet], None]
) -> None:
    text = read_sheet(tmp_path, show)
    assert SEEN in text
    assert CANARY in text
