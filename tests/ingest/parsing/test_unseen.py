"""Text that nobody sees on a page of the document is no text of it."""

import re
import warnings
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import docx
import pytest
from docx.enum.style import WD_STYLE_TYPE
from docx.enum.text import WD_COLOR_INDEX
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.oxml.xmlchemy import BaseOxmlElement
from docx.shared import Pt, RGBColor
from hwpx import HwpxDocument
from openpyxl import Workbook
from openpyxl.cell.rich_text import CellRichText, TextBlock
from openpyxl.cell.text import InlineFont
from openpyxl.styles import Color, Font, PatternFill
from pptx import Presentation
from pptx.util import Inches

from ingest.parsing import Unreadable, read_document
from ingest.parsing.html import parse_html
from tests.ingest.parsing.reading import read, text_of
from tests.ingest.samples_office import hwpx, with_part, with_shared_strings, xlsx_of

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
        '<p style="height:0;overflow:hidden">{}</p>',
        '<p style="max-height:1px; overflow-y : clip">{}</p>',
        '<p style="width:0;overflow:hidden">{}</p>',
        '<p style="clip-path:circle(0)">{}</p>',
        '<p style="clip-path:polygon(0 0, 0 0)">{}</p>',
        '<p style="mso-hide:all">{}</p>',
        '<p style="font:0/0 a">{}</p>',
        '<p style="font:italic 700 0/0 a">{}</p>',
        '<style>p {{ font-size: 14px }} .h {{ font: 0/0 a }}</style><p class="h">{}</p>',
        '<style>p {{ font-size: 14px }} .h {{ font: 0 a !important }}</style><p class="h" style="font-size:1em">{}</p>',
        '<p style="filter:opacity(0)">{}</p>',
        '<p style="opacity:1%">{}</p>',
        '<p style="transform:translateX(-9999px)">{}</p>',
        '<p style="transform:scale(.001)">{}</p>',
        '<p style="position:absolute;top:-50em">{}</p>',
        '<p style="margin-left:-100vw">{}</p>',
        '<p style="text-indent:100%;white-space:nowrap;overflow:hidden">{}</p>',
        '<p style="letter-spacing:-1em">{}</p>',
        '<p style="color:hsl(0,0%,100%)">{}</p>',
        '<p style="color:hsl(200 10% 99%)">{}</p>',
        '<p style="color:#fdfdfd">{}</p>',
        '<p style="color:#FFFFFF80">{}</p>',
        '<p style="color:rgb(255 255 255)">{}</p>',
        '<p style="color:rgb(100% 100% 100% / .9)">{}</p>',
        '<p style="color:rgba(0,0,0,.01)">{}</p>',
        '<p style="color:snow">{}</p>',
        '<p style="color:white !important;color:black">{}</p>',
        '<p style="color:white;background-color:#ffffff">{}</p>',
        '<p style="background:#000;color:#000">{}</p>',
        '<p style="background:navy;color:navy">{}</p>',
        '<div style="background:#003366"><b style="color:#003368">{}</b></div>',
        "<table bgcolor=white><tr><td><font color=white>{}</font></td></tr></table>",
        '<p class="a">{}</p><style>.a {{ color:white }}</style>',
        '<style>p.b {{ height:0; overflow:hidden }} p {{ height:9em }}</style><p class="b">{}</p>',
        '<style>:root {{ --x: white }}</style><p style="color:var(--x)">{}</p>',
        "<dialog>{}</dialog>",
        "<video>{}</video>",
        "<datalist><option>{}</option></datalist>",
        '<div style="font-size:0"><p style="font-size:1em">{}</p></div>',
        '<div style="font-size:0"><p style="font-size:big">{}</p></div>',
        '<div style="font:50%/1 a"><p style="font-size:20%">{}</p></div>',
        '<div style="visibility:hidden"><p style="visibility:inherit">{}</p></div>',
        '<div style="visibility:visible"><p style="visibility:hidden">{}</p></div>',
        '<p style="margin:0 0 0 -999px">{}</p>',
        '<p style="left:9999px;margin-left:-9999px">{}</p>',
        '<p style="position:absolute;left:50%;margin-left:-3000px">{}</p>',
        '<p style="margin-top:-120px;padding-top:10px">{}</p>',
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
        '<p style="margin:-8px auto;letter-spacing:-.02em;text-indent:1em;line-height:0">{}</p>',
        '<p style="width:0">{}</p>',
        '<p style="font:12px/1.5 serif;max-width:60em;overflow:hidden">{}</p>',
        '<p style="transform:translate(-50%, -50%) scale(0.9)">{}</p>',
        '<div style="color:white"><p style="color:#222">{}</p></div>',
        '<div style="background:url(a.png)"><p style="color:white">{}</p></div>',
        '<style>.d {{ background-color:#036 }} .d p {{ color:white }}</style><div class="d"><p>{}</p></div>',
        '<style>p {{ color:white }} p.e {{ color:black }}</style><p class="e">{}</p>',
        '<link rel="stylesheet" href="a.css"><p class="hero" style="color:white">{}</p>',
        '<p style="color:black;background:white">{}</p>',
        "<details><summary>열기</summary>{}</details>",
        '<ul style="font-size:0"><li style="font-size:15px">{}</li></ul>',
        '<ul style="font-size:0"><li style="font:medium serif;font-size:small">{}</li></ul>',
        '<p style="font-size:0;font:bold 14px/1.5 serif">{}</p>',
        '<style>p {{ font: 0/0 a }} .h {{ font-size: 14px }}</style><p class="h">{}</p>',
        '<div style="visibility:hidden">x<b style="visibility:visible">{}</b></div>',
        '<style>#w {{ position:relative; left:50%; margin-left:-500px }}</style><div id="w">{}</div>',
        '<div style="position:fixed;top:50%;left:50%;margin:-250px 0 0 -480px">{}</div>',
        '<h2 style="margin-top:-120px;padding-top:120px">{}</h2>',
        '<h2 style="margin:-120px 0 0;padding:120px 0 0">{}</h2>',
        '<div style="background-image:url(a.png)"><p style="color:white">{}</p></div>',
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
    for colour, ground in (("FFFFFF", "FFFFFF"), ("000000", "000000"), ("003366", "013467"), ("FDFDFD", "auto")):
        run = document.add_paragraph().add_run(CANARY)
        run.font.color.rgb = RGBColor.from_string(colour)
        shade(run._r.get_or_add_rPr(), ground)
    marked = document.add_paragraph().add_run(CANARY)
    marked.font.color.rgb, marked.font.highlight_color = RGBColor(255, 255, 255), WD_COLOR_INDEX.WHITE
    cell = document.add_table(1, 1).cell(0, 0)
    cell.paragraphs[0].add_run(CANARY).font.color.rgb = RGBColor(255, 255, 255)
    shade(cell._tc.get_or_add_tcPr(), "FFFFFF")
    document.add_paragraph(CANARY).paragraph_format.left_indent = Pt(-2000)
    narrow = OxmlElement("w:w")
    narrow.set(qn("w:val"), "1")
    document.add_paragraph().add_run(CANARY)._r.get_or_add_rPr().append(narrow)
    lit = document.add_paragraph().add_run("노란 바탕의 흰 글씨")
    lit.font.color.rgb, lit.font.highlight_color = RGBColor(255, 255, 255), WD_COLOR_INDEX.DARK_BLUE
    document.save(str(tmp_path / "deposit.docx"))
    text = read_document(tmp_path / "deposit.docx").pages[0].markdown
    assert SEEN in text
    assert "노란 바탕의 흰 글씨" in text
    assert "99" not in text


def with_another_prefix(part: bytes) -> bytes:
    return (
        part.replace(b"<w:", b"<q:").replace(b"</w:", b"</q:").replace(b" w:", b" q:").replace(b"xmlns:w=", b"xmlns:q=")
    )


def by_the_strict_standard(part: bytes) -> bytes:
    ours = b"http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    return part.replace(ours, b"http://purl.oclc.org/ooxml/wordprocessingml/main")


def in_utf_16(part: bytes) -> bytes:
    return part.decode().replace("UTF-8", "UTF-16", 1).encode("utf-16")


@pytest.mark.parametrize("rewrite", [with_another_prefix, by_the_strict_standard, in_utf_16])
def test_what_a_word_file_hides_is_left_out_however_it_is_written(
    tmp_path: Path, rewrite: Callable[[bytes], bytes]
) -> None:
    document = docx.Document()
    document.add_paragraph(SEEN)
    document.add_paragraph().add_run(CANARY).font.hidden = True
    document.save(str(tmp_path / "made.docx"))
    with zipfile.ZipFile(tmp_path / "made.docx") as made, zipfile.ZipFile(tmp_path / "deposit.docx", "w") as changed:
        for name in made.namelist():
            part = made.read(name)
            changed.writestr(name, rewrite(part) if name == "word/document.xml" else part)
    text = read_document(tmp_path / "deposit.docx").pages[0].markdown
    assert SEEN in text
    assert "99" not in text


def shade(properties: BaseOxmlElement, fill: str) -> None:
    shading = OxmlElement("w:shd")
    shading.set(qn("w:fill"), fill)
    properties.append(shading)


def test_what_a_presentation_hides_is_left_out(tmp_path: Path) -> None:
    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    slide.shapes.title.text = "예금"
    for left, words in ((1, SEEN), (-20, CANARY), (40, CANARY), (1, CANARY), (1, CANARY), (2, CANARY)):
        box = slide.shapes.add_textbox(Inches(left), Inches(2), Inches(4), Inches(1))
        box.text_frame.text = words
    box.text_frame.paragraphs[0].runs[0].font.size = Pt(1)
    slide.shapes[-2]._element.nvSpPr.cNvPr.set("hidden", "1")
    slide.shapes[-3]._element.nvSpPr.cNvPr.set("hidden", " true ")
    for said in ("0", " false "):
        other = deck.slides.add_slide(deck.slide_layouts[5])
        other.shapes.title.text = CANARY
        other.element.set("show", said)
    deck.save(str(tmp_path / "deposit.pptx"))
    text = text_of(read_document(tmp_path / "deposit.pptx"))
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
            (CANARY, Font(color="FFFDFDFD"), None, None),
            (CANARY, Font(color="FFFFFFFF"), PatternFill("solid", fgColor="FFFFFFFF"), None),
            (CANARY, Font(color="FF003366"), PatternFill("solid", fgColor="FF013467"), None),
            (CANARY, Font(color=Color(theme=1)), PatternFill("solid", fgColor="FF000000"), None),
            (CANARY, Font(size=1), None, None),
            (CANARY, None, None, '"";"";"";""'),
            (CANARY, None, None, "[White]@"),
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
    sheet["C1"] = sheet["A40"] = sheet["A41"] = CANARY
    sheet.column_dimensions["C"].width = 0.01
    sheet.row_dimensions[40].height, sheet.row_dimensions[41].height = 0.01, 0.5
    book.save(tmp_path / "deposit.xlsx")
    text = read_document(tmp_path / "deposit.xlsx").pages[0].markdown
    assert SEEN in text
    assert all(seen in text for seen in ("흰 글씨의 제목", "흰 테마의 제목", "회색 글씨", "검은 글씨"))
    assert "99" not in text


ROW = f'<row r="2"{{}}><c r="A2" t="inlineStr"><is><t>{CANARY}</t></is></c></row>'
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def sheet_of(rows: str, before: str = "", after: str = "") -> str:
    seen = f'<row r="1"><c r="A1" t="inlineStr"><is><t>{SEEN}</t></is></c></row>'
    return f'<worksheet xmlns="{MAIN}">{before}<sheetData>{seen}{rows}</sheetData>{after}</worksheet>'


def in_column_c(columns: str) -> str:
    return sheet_of(ROW.format("").replace("A2", "C2"), before=columns)


HIDDEN_ROW = sheet_of(ROW.format(' hidden="1"'))
HIDING_SHEETS = {
    "in single quotes": sheet_of(ROW.format(" hidden='1'")),
    "with spaces around the sign": sheet_of(ROW.format(' hidden = "1"')),
    "with a > in a value": sheet_of(ROW.format(' x:a=">" xmlns:x="urn:x" hidden="1"')),
    "as a character's number": sheet_of(ROW.format(' hidden="&#49;"')),
    "with spaces in the value": sheet_of(ROW.format(' hidden=" true "')),
    "in a row without a number": sheet_of(ROW.format("").replace(' r="2"', ' hidden="1"')),
    "in UTF-16": f'<?xml version="1.0" encoding="UTF-16"?>{HIDDEN_ROW}',
    "under another prefix": HIDDEN_ROW.replace("<", "<s-1:").replace("<s-1:/", "</s-1:").replace("xmlns", "xmlns:s-1"),
    "by a height in powers of ten": sheet_of(ROW.format(' ht="1e-3"')),
    "by a width in powers of ten": in_column_c('<cols><col min="3" max="3" width="1e-3"/></cols>'),
    "by a column in single quotes": in_column_c("<cols><col min='3' max='3' hidden='1'/></cols>"),
    "by the usual width": in_column_c(
        '<sheetFormatPr defaultColWidth="0"/><cols><col min="1" max="2" width="9"/></cols>'
    ),
}


@pytest.mark.parametrize("part", HIDING_SHEETS.values(), ids=HIDING_SHEETS)
def test_a_hidden_row_or_column_is_left_out_however_its_file_spells_that(tmp_path: Path, part: str) -> None:
    encoding = "utf-16" if "UTF-16" in part else "utf-8"
    text = text_of(read(tmp_path, with_part(xlsx_of([SEEN]), "xl/worksheets/sheet1.xml", part.encode(encoding))))
    assert SEEN in text
    assert "99" not in text


CHOICE = (
    '<mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" xmlns:x="urn:x">'
    '<mc:Choice Requires="x">{}</mc:Choice></mc:AlternateContent>'
)
MISPLACED = {
    "a row in an extension": sheet_of("", after=f'<extLst><ext uri="x">{ROW.format("")}</ext></extLst>'),
    "a row of a choice": sheet_of(CHOICE.format(ROW.format(""))),
    "a cell of another kind": sheet_of(
        f'<row r="2" xmlns:x="urn:x"><x:c r="A2" t="str"><v xmlns="{MAIN}">{CANARY}</v></x:c></row>'
    ),
}


@pytest.mark.parametrize("part", MISPLACED.values(), ids=MISPLACED)
def test_a_workbook_with_cells_where_no_program_shows_them_is_not_read(tmp_path: Path, part: str) -> None:
    with pytest.raises(Unreadable):
        read(tmp_path, with_part(xlsx_of([SEEN]), "xl/worksheets/sheet1.xml", part.encode()))


def test_a_table_of_texts_with_more_than_programs_count_is_not_read(tmp_path: Path) -> None:
    texts = f'<sst xmlns="{MAIN}">{CHOICE.format(f"<si><t>{CANARY}</t></si>")}<si><t>{SEEN}</t></si></sst>'
    with pytest.raises(Unreadable):
        read(tmp_path, with_shared_strings(xlsx_of([SEEN]), texts))


def test_a_file_that_is_another_workbook_to_who_opens_it_is_not_read(tmp_path: Path) -> None:
    kinds = zipfile.ZipFile(BytesIO(xlsx_of([SEEN]))).read("[Content_Types].xml")
    other = with_part(xlsx_of([SEEN]), "[Content_Types].xml", kinds.replace(b"/xl/workbook.xml", b"/xl/other.xml"))
    books = zipfile.ZipFile(BytesIO(other)).read("xl/workbook.xml")
    with pytest.raises(Unreadable, match="which part is its workbook"):
        read(tmp_path, with_part(other, "xl/other.xml", books))


@pytest.mark.parametrize("name", ["styles", "sharedStrings"])
def test_a_workbook_whose_texts_or_styles_are_others_to_who_opens_it_is_not_read(tmp_path: Path, name: str) -> None:
    data = with_shared_strings(xlsx_of([SEEN]), f'<sst xmlns="{MAIN}"/>')
    links = zipfile.ZipFile(BytesIO(data)).read("xl/_rels/workbook.xml.rels").decode()
    with pytest.raises(Unreadable, match="its texts or its styles"):
        read(
            tmp_path,
            with_part(data, "xl/_rels/workbook.xml.rels", links.replace(f"{name}.xml", "others.xml").encode()),
        )


@pytest.mark.parametrize("name", ["xl/worksheets/sheet1.xml", "xl/Worksheets/Sheet1.xml"])
def test_an_archive_with_two_parts_of_one_name_is_not_read(tmp_path: Path, name: str) -> None:
    archive = BytesIO(xlsx_of([SEEN]))
    with zipfile.ZipFile(archive, "a") as parts, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile says so too
        parts.writestr(name, HIDDEN_ROW)
    with pytest.raises(Unreadable, match="two parts of one name"):
        read(tmp_path, archive.getvalue())


def test_of_two_sheets_with_one_name_each_hides_its_own_rows(tmp_path: Path) -> None:
    book = Workbook()
    book.create_sheet("금리").append([SEEN])
    book.worksheets[0].append([CANARY])
    book.worksheets[0].row_dimensions[1].hidden = True
    book.save(tmp_path / "book.xlsx")
    data = (tmp_path / "book.xlsx").read_bytes()
    names = zipfile.ZipFile(BytesIO(data)).read("xl/workbook.xml").decode()
    text = text_of(read(tmp_path, with_part(data, "xl/workbook.xml", names.replace('"Sheet"', '"금리"').encode())))
    assert SEEN in text
    assert "99" not in text


def with_shared_texts(data: bytes) -> bytes:
    """Return a workbook whose texts stand in a table of their own, as Excel writes them."""
    part = "xl/worksheets/sheet1.xml"
    sheet = zipfile.ZipFile(BytesIO(data)).read(part).decode()
    texts = re.findall("<is>(.*?)</is>", sheet)
    for at, text in enumerate(texts):
        sheet = sheet.replace(f"<is>{text}</is>", f"<v>{at}</v>")
    table = f'<sst xmlns="{MAIN}">{"".join(f"<si>{text}</si>" for text in texts)}</sst>'
    return with_shared_strings(with_part(data, part, sheet.replace("inlineStr", "s").encode()), table)


@pytest.mark.parametrize("font", [InlineFont(color="FFFFFFFF"), InlineFont(sz=1)])
@pytest.mark.parametrize("shared", [bytes, with_shared_texts])
def test_letters_that_only_part_of_a_cell_hides_are_left_out(
    tmp_path: Path, font: InlineFont, shared: Callable[[bytes], bytes]
) -> None:
    book = Workbook()
    book.worksheets[0]["A1"] = CellRichText(SEEN, TextBlock(font, CANARY))
    book.worksheets[0]["A2"] = CellRichText(TextBlock(InlineFont(color="FFFFFFFF"), "흰 글씨의 제목"))
    book.worksheets[0]["A2"].fill = PatternFill("solid", fgColor="FF003366")
    book.save(tmp_path / "book.xlsx")
    data = (tmp_path / "book.xlsx").read_bytes()
    text = text_of(read(tmp_path, shared(data)))
    assert SEEN in text
    assert "흰 글씨의 제목" in text
    assert "99" not in text


@pytest.mark.parametrize(
    "form", [";;; ", "* ;* ;* ;* ", '" ";" ";" ";" "', "0;0;0;", "[Red];[Red];[Red];[Red]", "_-;_-;_-;_-"]
)
def test_a_text_that_its_number_format_shows_as_nothing_is_left_out(tmp_path: Path, form: str) -> None:
    assert [(form, text) for text in shown_as(tmp_path, form, CANARY) if text] == []
    assert shown_as(tmp_path, "0.00;-0.00;;@", CANARY) == [CANARY]


@pytest.mark.parametrize(("form", "value"), [(";;", 99), ("0;;0", -99), (";0", 99), ("* ;-0", 99), ("#,##0;-0;;@", 0)])
def test_a_number_that_its_format_shows_as_nothing_is_left_out(tmp_path: Path, form: str, value: int) -> None:
    assert shown_as(tmp_path, form, value) == [""]
    assert shown_as(tmp_path, "#,##0;[Red]-#,##0", value) == [str(abs(value))]
    assert shown_as(tmp_path, "General", value) == [str(abs(value))]


def shown_as(folder: Path, form: str, value: str | int) -> list[str]:
    """Return what is read of a value under a number format, beside another cell."""
    book = Workbook()
    book.worksheets[0].append([SEEN, value])
    book.worksheets[0]["B1"].number_format = form
    book.save(folder / "book.xlsx")
    text = read_document(folder / "book.xlsx").pages[0].markdown
    return [text.replace("Sheet", "").replace(SEEN, "").strip("# |-\n")]


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


def hwpx_of(letters: str, run: str = CANARY, *, fill: str = "none") -> bytes:
    """Return an HWPX document with a text in letters of its own, in a paragraph and in a cell with a ground."""
    data = hwpx()
    with zipfile.ZipFile(BytesIO(data)) as archive:
        header, section = (archive.read(f"Contents/{name}.xml").decode() for name in ("header", "section0"))
    own = re.sub(r'height="\d+" textColor="#000000" shadeColor="none"', letters, header, count=1)
    kind = re.findall(r'<hh:charPr id="0".*?</hh:charPr>', own)[0].replace('id="0"', 'id="7"')
    ground = re.findall(r'<hh:borderFill id="2".*?</hh:borderFill>', header)[0].replace('id="2"', 'id="4"')
    ground = ground.replace('faceColor="none"', f'faceColor="{fill}"')
    header = header.replace("</hh:charProperties>", f"{kind}</hh:charProperties>")
    header = header.replace("</hh:borderFills>", f"{ground}</hh:borderFills>")
    texts = f'<hp:run charPrIDRef="7"><hp:t>{run}</hp:t></hp:run>'
    section = section.replace('<hp:run charPrIDRef="0"><hp:t>기간</hp:t></hp:run>', texts)
    section = re.sub(r'(<hp:tc [^>]*borderFillIDRef=)"\d+"', r'\1"4"', section)
    data = with_part(data, "Contents/header.xml", header.encode())
    return with_part(data, "Contents/section0.xml", section.encode())


def as_hwp(data: bytes) -> bytes:
    """Return an HWPX document as an HWP 5 one; numbers of looks are places in the file there."""
    buffer = BytesIO()
    HwpxDocument.open(BytesIO(data)).save_to_stream(buffer, format="hwp")
    return buffer.getvalue()


WHITE = 'height="1000" textColor="#FFFFFF" shadeColor="none"'


@pytest.mark.parametrize(
    ("letters", "fill"),
    [
        (WHITE, "none"),
        (WHITE, "#FFFFFF"),
        ('height="1000" textColor="#FDFDFD" shadeColor="#FFFFFF"', "#003366"),
        ('height="1000" textColor="#013467" shadeColor="none"', "#003366"),
        ('height="100" textColor="#000000" shadeColor="none"', "none"),
    ],
)
@pytest.mark.parametrize("kind", [bytes, as_hwp])
def test_letters_of_a_hangul_document_that_nobody_sees_are_left_out(
    tmp_path: Path, letters: str, fill: str, kind: Callable[[bytes], bytes]
) -> None:
    text = text_of(read(tmp_path, kind(hwpx_of(letters, fill=fill))))
    assert "정기예금 상품설명서" in text
    assert "99" not in text


@pytest.mark.parametrize(
    ("letters", "fill"),
    [
        (WHITE, "#003366"),
        ('height="1000" textColor="#FFFFFF" shadeColor="#003366"', "none"),
        ('height="1000" textColor="#808080" shadeColor="none"', "none"),
        ('height="600" textColor="#000000" shadeColor="none"', "none"),
    ],
)
@pytest.mark.parametrize("kind", [bytes, as_hwp])
def test_letters_of_a_hangul_document_that_have_a_ground_are_read(
    tmp_path: Path, letters: str, fill: str, kind: Callable[[bytes], bytes]
) -> None:
    assert SEEN in text_of(read(tmp_path, kind(hwpx_of(letters, SEEN, fill=fill))))


def test_white_letters_on_a_ground_whose_colour_has_an_opacity_are_left_out(tmp_path: Path) -> None:
    text = text_of(read(tmp_path, hwpx_of(WHITE, fill="#FFFFFFFF")))
    assert "정기예금 상품설명서" in text
    assert "99" not in text


def test_memos_and_hidden_explanations_of_an_hwpx_are_no_text_of_it_and_what_they_stand_in_is(tmp_path: Path) -> None:
    data = hwpx(SEEN, "그 뒤에 선 글")
    section = zipfile.ZipFile(BytesIO(data)).read("Contents/section0.xml").decode()
    words = f'<hp:p paraPrIDRef="0" styleIDRef="0"><hp:run charPrIDRef="0"><hp:t>{CANARY}</hp:t></hp:run></hp:p>'
    aside = "".join(
        f"<hp:ctrl><hp:{kind}><hp:subList>{words}</hp:subList></hp:{kind.split()[0]}></hp:ctrl>"
        for kind in ("hiddenComment", 'fieldBegin id="1" type="MEMO"')
    )
    section = section.replace("<hp:t>그 뒤에", f"{aside}<hp:t>그 뒤에")
    text = text_of(read(tmp_path, with_part(data, "Contents/section0.xml", section.encode())))
    assert SEEN in text
    assert "그 뒤에 선 글" in text
    assert "99" not in text


W14 = 'xmlns:w14="http://schemas.microsoft.com/office/word/2010/wordml"'
HIDING_LETTERS = [
    '<w:color w:val="000000" w:themeColor="background1"/>',
    '<w:color w:val="auto" w:themeColor="light1" w:themeShade="FF"/>',
    '<w:color w:val="FFFFFF"/><w:shd w:val="clear" w:fill="003366" w:themeFill="background1"/>',
    '<w:color w:val="FFFFFF"/><w:shd w:val="solid" w:color="FFFFFF" w:fill="003366"/>',
    f'<w14:textFill {W14}><w14:solidFill><w14:srgbClr w14:val="FFFFFF"/></w14:solidFill></w14:textFill>',
    f'<w14:textFill {W14}><w14:solidFill><w14:schemeClr w14:val="bg1"/></w14:solidFill></w14:textFill>',
    f"<w14:textFill {W14}><w14:noFill/></w14:textFill>",
    '<w:sz w:val="1pt"/>',
    '<w:spacing w:val="-200"/>',
    '<w:sz w:val="40"/><w:spacing w:val="-9pt"/>',
]
SHOWING_LETTERS = [
    '<w:color w:val="FFFFFF" w:themeColor="text1"/>',
    '<w:color w:val="BFBFBF" w:themeColor="background1" w:themeShade="BF"/>',
    '<w:color w:val="FFFFFF" w:themeColor="background1"/><w:shd w:val="clear" w:fill="4F81BD" w:themeFill="accent1"/>',
    f'<w:color w:val="FFFFFF"/><w14:textFill {W14}><w14:solidFill><w14:srgbClr w14:val="003366"/></w14:solidFill>'
    "</w14:textFill>",
    '<w:sz w:val="9pt"/><w:spacing w:val="1"/>',
    '<w:spacing w:val="-30"/>',
]
HIDING_LINES = [
    '<w:spacing w:line="1" w:lineRule="exact"/>',
    '<w:ind w:hanging="20000"/>',
    '<w:ind w:leftChars="-20000"/>',
    '<w:ind w:left="30000"/>',
    '<w:framePr w:x="-20000" w:hAnchor="page"/>',
]
SHOWING_LINES = [
    '<w:spacing w:line="240" w:lineRule="exact"/>',
    '<w:spacing w:line="1" w:lineRule="auto"/>',
    '<w:ind w:left="720" w:hanging="720"/>',
    '<w:framePr w:x="2000" w:y="3000" w:hAnchor="page"/>',
]


def word_of(letters: str = "", lines: str = "", *, styles: str = "", row: str = "") -> bytes:
    """Return a Word file whose second paragraph has properties, or stands in a row that has some, beside a first."""
    document = docx.Document()
    document.add_paragraph(SEEN)
    made = BytesIO()
    document.save(made)
    with zipfile.ZipFile(made) as archive:
        body, named = (archive.read(f"word/{name}.xml").decode() for name in ("document", "styles"))
    run = f"<w:p><w:pPr>{lines}</w:pPr><w:r><w:rPr>{letters}</w:rPr><w:t>{CANARY}</w:t></w:r></w:p>"
    put = f"<w:tbl><w:tblPr/><w:tr><w:trPr>{row}</w:trPr><w:tc>{run}</w:tc></w:tr></w:tbl><w:p/>" if row else run
    data = with_part(made.getvalue(), "word/document.xml", body.replace("<w:sectPr", f"{put}<w:sectPr", 1).encode())
    return with_part(data, "word/styles.xml", named.replace("</w:styles>", f"{styles}</w:styles>").encode())


def hides(folder: Path, data: bytes) -> bool:
    text = text_of(read(folder, data))
    assert SEEN in text
    return CANARY not in text


@pytest.mark.parametrize("letters", HIDING_LETTERS)
def test_letters_of_a_word_file_are_hidden_by_their_theme_their_fill_and_their_ground(
    tmp_path: Path, letters: str
) -> None:
    assert hides(tmp_path, word_of(letters))


@pytest.mark.parametrize("letters", SHOWING_LETTERS)
def test_letters_of_a_word_file_that_are_seen_are_read(tmp_path: Path, letters: str) -> None:
    assert not hides(tmp_path, word_of(letters))


@pytest.mark.parametrize("lines", HIDING_LINES)
def test_lines_of_a_word_file_without_a_height_or_off_the_page_are_left_out(tmp_path: Path, lines: str) -> None:
    assert hides(tmp_path, word_of(lines=lines))
    style = f'<w:style w:type="paragraph" w:styleId="off"><w:pPr>{lines}</w:pPr></w:style>'
    assert hides(tmp_path, word_of(lines='<w:pStyle w:val="off"/>', styles=style))


@pytest.mark.parametrize("lines", SHOWING_LINES)
def test_lines_of_a_word_file_that_are_seen_are_read(tmp_path: Path, lines: str) -> None:
    assert not hides(tmp_path, word_of(lines=lines))


@pytest.mark.parametrize("row", ["<w:hidden/>", '<w:trHeight w:val="1" w:hRule="exact"/>'])
def test_rows_of_a_word_file_that_are_not_shown_are_left_out(tmp_path: Path, row: str) -> None:
    assert hides(tmp_path, word_of(row=row))
    assert not hides(tmp_path, word_of(row='<w:trHeight w:val="1"/>'))


@pytest.mark.parametrize("kind", ["paragraph", "table", "defaults"])
def test_what_the_styles_say_of_those_that_name_none_hides_their_letters(tmp_path: Path, kind: str) -> None:
    data = word_of('<w:vanish w:val="0"/>')
    assert not hides(tmp_path, data)
    with zipfile.ZipFile(BytesIO(data)) as archive:
        body, styles = (archive.read(f"word/{name}.xml").decode() for name in ("document", "styles"))
    shown = body.replace(f"<w:r><w:t>{SEEN}", f'<w:r><w:rPr><w:vanish w:val="0"/></w:rPr><w:t>{SEEN}')
    hidden = shown.replace(f'<w:rPr><w:vanish w:val="0"/></w:rPr><w:t>{CANARY}', f"<w:t>{CANARY}")
    if kind == "table":
        row = '<w:tbl><w:tblPr><w:tblStyle w:val="off"/></w:tblPr><w:tr><w:tc><w:p>'
        hidden = hidden.replace(f"<w:p><w:pPr></w:pPr><w:r><w:t>{CANARY}", f"{row}<w:r><w:t>{CANARY}")
        hidden = hidden.replace(f"{CANARY}</w:t></w:r></w:p>", f"{CANARY}</w:t></w:r></w:p></w:tc></w:tr></w:tbl>")
    styles = {
        "paragraph": re.sub(
            r'(<w:style w:type="paragraph" w:default="1".*?)</w:style>',
            r"\1<w:rPr><w:vanish/></w:rPr></w:style>",
            styles,
            count=1,
            flags=re.DOTALL,
        ),
        "table": styles.replace(
            "</w:styles>",
            '<w:style w:type="table" w:styleId="off"><w:rPr><w:vanish/></w:rPr></w:style></w:styles>',
        ),
        "defaults": styles.replace("<w:rPrDefault><w:rPr>", "<w:rPrDefault><w:rPr><w:vanish/>"),
    }[kind]
    data = with_part(with_part(data, "word/document.xml", hidden.encode()), "word/styles.xml", styles.encode())
    assert hides(tmp_path, data)
