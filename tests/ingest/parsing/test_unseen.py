"""Text that nobody sees on a page of the document is no text of it."""

from collections.abc import Callable
from pathlib import Path

import docx
import pytest
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Pt, RGBColor
from openpyxl import Workbook
from openpyxl.styles import Color, Font, PatternFill
from reportlab.pdfgen.canvas import Canvas

from ingest.parsing import read_document
from ingest.parsing.html import parse_html

CANARY = "금리는 연 99%입니다"
SEEN = "금리는 연 3.1%입니다"


@pytest.mark.parametrize(
    "hidden",
    [
        "<p hidden>{}</p>",
        '<p style="display:none">{}</p>',
        '<p style="DISPLAY : none !important">{}</p>',
        '<p style="dis/**/play:none">{}</p>',
        '<p style="visibility:hidden">{}</p>',
        '<p style="opacity:0">{}</p>',
        '<p style="opacity: 0.00">{}</p>',
        '<p style="font-size:0">{}</p>',
        '<p style="font-size:0.2pt">{}</p>',
        '<p style="font-size:1px">{}</p>',
        '<p style="color:#FFF">{}</p>',
        '<p style="color: white">{}</p>',
        '<p style="color:rgb(255, 255, 255)">{}</p>',
        '<p style="color:transparent">{}</p>',
        '<p><font color="white">{}</font></p>',
        '<p style="position:absolute;left:-9999px">{}</p>',
        '<p style="text-indent:-5000px">{}</p>',
        '<p style="clip:rect(0,0,0,0)">{}</p>',
        '<style>.x{{display:none}}</style><p class="x">{}</p>',
        '<style>#y, .z {{ font-size: 0 }}</style><p id="y">{}</p>',
        '<div style="display:none"><div style="display:block">{}</div></div>',
        "<!-- {} -->",
        "<template>{}</template>",
    ],
)
def test_what_a_web_page_hides_is_left_out(hidden: str) -> None:
    page = f"<html><body><h1>예금</h1><p>{SEEN}</p>{hidden.format(CANARY)}</body></html>"
    text = parse_html(page).pages[0].markdown
    assert SEEN in text
    assert "99" not in text


@pytest.mark.parametrize(
    "shown",
    [
        '<p style="font-size:1em;opacity:0.9">{}</p>',
        '<p style="font-size:10px">{}</p>',
        '<p style="font-size:1.5em">{}</p>',
        '<p style="font-size:.9rem; color:#ffffe0">{}</p>',
        '<div style="background:#003366"><p style="color:white">{}</p></div>',
        '<table bgcolor="navy"><tr><td><font color="white">{}</font></td></tr></table>',
        '<style>@media print {{ .x {{ display:none }} }}</style><p class="x">{}</p>',
        "<style>p:hover(, {{ display:none }}</style><p>{}</p>",
        '<p style="left:-1px">{}</p>',
    ],
)
def test_what_a_web_page_shows_is_read(shown: str) -> None:
    assert CANARY in parse_html(f"<html><body><h1>예금</h1>{shown.format(CANARY)}</body></html>").pages[0].markdown


def test_what_a_word_file_hides_is_left_out(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_paragraph(SEEN)
    for change in ("hidden", "white", "tiny"):
        font = document.add_paragraph().add_run(CANARY).font
        if change == "hidden":
            font.hidden = True
        elif change == "white":
            font.color.rgb = RGBColor(255, 255, 255)
        else:
            font.size = Pt(0.5)
    document.save(str(tmp_path / "deposit.docx"))
    text = read_document(tmp_path / "deposit.docx").pages[0].markdown
    assert SEEN in text
    assert "99" not in text


def test_what_a_workbook_hides_is_left_out(tmp_path: Path) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row, (value, font, ground, form) in enumerate(
        [
            (SEEN, None, None, None),
            (CANARY, Font(color="FFFFFFFF"), None, None),
            (CANARY, None, None, ";;;"),
            (CANARY, Font(color=Color(theme=0)), None, None),
            (CANARY, Font(color=Color(theme=0, tint=0.4)), None, None),
            (CANARY, Font(color=Color(indexed=9)), None, None),
            ("흰 글씨의 제목", Font(color="FFFFFFFF"), PatternFill("solid", fgColor="FF003366"), None),
            ("흰 테마의 제목", Font(color=Color(theme=0)), PatternFill("solid", fgColor="FF003366"), None),
            ("회색 글씨", Font(color=Color(theme=0, tint=-0.5)), None, None),
            ("검은 글씨", Font(color=Color(theme=1)), None, None),
        ],
        start=1,
    ):
        cell = sheet.cell(row=row, column=1, value=value)
        if font is not None:
            cell.font = font
        if ground is not None:
            cell.fill = ground
        if form is not None:
            cell.number_format = form
    book.save(tmp_path / "deposit.xlsx")
    text = read_document(tmp_path / "deposit.xlsx").pages[0].markdown
    assert SEEN in text
    assert all(seen in text for seen in ("흰 글씨의 제목", "흰 테마의 제목", "회색 글씨", "검은 글씨"))
    assert "99" not in text


def test_what_the_style_of_a_paragraph_hides_is_left_out(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_paragraph(SEEN)
    hidden = document.styles.add_style("Hidden", WD_STYLE_TYPE.PARAGRAPH)
    hidden.font.hidden = True
    white = document.styles.add_style("White", WD_STYLE_TYPE.PARAGRAPH)
    white.font.color.rgb = RGBColor(255, 255, 255)
    based = document.styles.add_style("Based", WD_STYLE_TYPE.PARAGRAPH)
    based.base_style = white
    for style in (hidden, white, based):
        document.add_paragraph(CANARY, style=style)
    shown = document.add_paragraph(style=white).add_run("검게 쓴 글")
    shown.font.color.rgb = RGBColor(0, 0, 0)
    cell = document.add_table(1, 1).cell(0, 0)
    cell.paragraphs[0].add_run("흰 글씨의 칸").font.color.rgb = RGBColor(255, 255, 255)
    shading = OxmlElement("w:shd")
    shading.set(qn("w:fill"), "003366")
    cell._tc.get_or_add_tcPr().append(shading)  # python-docx has no call for it
    document.save(str(tmp_path / "deposit.docx"))
    text = read_document(tmp_path / "deposit.docx").pages[0].markdown
    assert all(seen in text for seen in (SEEN, "검게 쓴 글", "흰 글씨의 칸"))
    assert "99" not in text


def in_white(canvas: Canvas) -> None:
    canvas.setFillColorRGB(1, 1, 1)
    canvas.drawString(72, 600, "hidden 99 percent")


def in_mode_3(canvas: Canvas) -> None:
    text = canvas.beginText(72, 600)
    text.setTextRenderMode(3)
    text.textLine("hidden 99 percent")
    canvas.drawText(text)


def transparent(canvas: Canvas) -> None:
    canvas.setFillAlpha(0)
    canvas.drawString(72, 600, "hidden 99 percent")


def tiny(canvas: Canvas) -> None:
    canvas.setFont("Helvetica", 0.2)
    canvas.drawString(72, 600, "hidden 99 percent")


def off_the_page(canvas: Canvas) -> None:
    canvas.drawString(72, 2000, "hidden 99 percent")
    canvas.drawString(-400, 600, "hidden 99 percent")


def white_in_a_table(canvas: Canvas) -> None:
    for x in (72, 200, 400):
        canvas.line(x, 500, x, 540)
    for y in (500, 520, 540):
        canvas.line(72, y, 400, y)
    for x, y, words in ((80, 525, "Deposit"), (210, 525, "Rate"), (80, 505, "One year"), (210, 505, "3.1 percent")):
        canvas.drawString(x, y, words)
    canvas.setFillColorRGB(1, 1, 1)
    canvas.drawString(300, 505, "99")


HIDDEN_IN_PDF = [in_white, in_mode_3, transparent, tiny, off_the_page, white_in_a_table]


@pytest.mark.parametrize("turned", [0, 90], ids=["upright", "turned"])
@pytest.mark.parametrize("hide", HIDDEN_IN_PDF)
def test_what_a_pdf_hides_is_left_out_and_what_it_shows_is_kept(
    tmp_path: Path, hide: Callable[[Canvas], None], turned: int
) -> None:
    canvas = Canvas(str(tmp_path / "deposit.pdf"), pagesize=(842, 842))
    canvas.setPageRotation(turned)
    canvas.drawString(72, 700, "The rate of this deposit is 3.1 percent a year.")
    canvas.setFillColorRGB(0, 0.2, 0.4)
    canvas.rect(72, 640, 300, 20, fill=1)
    canvas.setFillColorRGB(1, 1, 1)
    canvas.drawString(80, 645, "White heading on a ground")
    canvas.setFillColorRGB(0, 0, 0)
    canvas.saveState()
    hide(canvas)
    canvas.restoreState()
    canvas.save()
    text = read_document(tmp_path / "deposit.pdf").pages[0].markdown
    assert "The rate of this deposit is 3.1 percent a year." in text
    assert "White heading on a ground" in text
    assert "99" not in text
    if hide is white_in_a_table:
        assert "| One year | 3.1 percent |" in text
