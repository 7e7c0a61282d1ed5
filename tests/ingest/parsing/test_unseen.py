"""Text that nobody sees on a page of the document is no text of it."""

from pathlib import Path

import docx
import pytest
from docx.shared import Pt, RGBColor
from openpyxl import Workbook
from openpyxl.styles import Font, PatternFill

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
            ("흰 글씨의 제목", Font(color="FFFFFFFF"), PatternFill("solid", fgColor="FF003366"), None),
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
    assert "흰 글씨의 제목" in text
    assert "99" not in text
