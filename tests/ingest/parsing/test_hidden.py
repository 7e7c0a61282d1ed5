"""Text that a file marks as hidden is left out and counted; all other text is read."""

import warnings
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import docx
import pytest
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml import parse_xml
from docx.shared import Pt, RGBColor
from openpyxl import Workbook
from openpyxl.comments import Comment
from openpyxl.styles import Font
from pptx import Presentation
from pptx.util import Inches

from ingest.parsing import LeftOut, Unreadable
from ingest.parsing.parsed import Parsed
from tests.ingest.parsing.looks import Look, Runs, hancom_x, slides, web_page, word, workbook
from tests.ingest.parsing.reading import read, saved, text_in, text_of
from tests.ingest.samples_office import hwpx, with_part, with_shared_strings, xlsx_of

HIDDEN = "금리는 연 99%입니다"
SHOWN = "금리는 연 3.1%입니다"
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def assert_left_out(parsed: Parsed, expected: dict[LeftOut, int]) -> None:
    assert SHOWN in text_of(parsed)
    assert "99" not in text_of(parsed)
    assert parsed.left_out == expected


def a_word_file(*elements: str) -> bytes:
    document = docx.Document()
    document.add_paragraph(SHOWN)
    for element in elements:
        document.element.body.insert(1, parse_xml(element))
    return saved(document)


def paragraph(run: str, *, properties: str = "") -> str:
    return f"<w:p {W}><w:pPr>{properties}</w:pPr>{run}</w:p>"


RUN = f"<w:r><w:rPr>{{}}</w:rPr><w:t>{HIDDEN}</w:t></w:r>"
ROW = f"<w:tr><w:trPr><w:{{}}/></w:trPr><w:tc><w:p>{RUN.format('')}</w:p></w:tc></w:tr>"
DELETED = RUN.format("").replace("w:t>", "w:delText>")


@pytest.mark.parametrize(("element", "kind"), [
    (paragraph(RUN.format("<w:vanish/>") * 2), LeftOut.TEXT),
    (paragraph(f'<w:del w:id="1" w:author="a">{DELETED}</w:del>'), LeftOut.DELETED),
    (paragraph(f'<w:fldSimple w:instr=" REF a ">{RUN.format("<w:vanish/>")}</w:fldSimple>'), LeftOut.TEXT),
    (paragraph(f'<w:del w:id="1" w:author="a"><w:fldSimple w:instr=" REF a ">{DELETED}</w:fldSimple></w:del>'),
     LeftOut.DELETED),
    (paragraph(f'<w:moveFrom w:id="1" w:author="a">{RUN.format("")}</w:moveFrom>'), LeftOut.DELETED),
    (f"<w:tbl {W}>{ROW.format('hidden')}</w:tbl>", LeftOut.ROW),
    (f"<w:tbl {W}>{ROW.format('del')}</w:tbl>", LeftOut.DELETED),
])  # fmt: skip
def test_hidden_and_deleted_text_of_a_word_file_is_left_out(tmp_path: Path, element: str, kind: LeftOut) -> None:
    assert_left_out(read(tmp_path, a_word_file(element)), {kind: 1})


@pytest.mark.parametrize("kind", [WD_STYLE_TYPE.PARAGRAPH, WD_STYLE_TYPE.CHARACTER])
def test_a_style_of_a_word_file_and_its_base_style_hide_text(tmp_path: Path, kind: WD_STYLE_TYPE) -> None:
    document = docx.Document()
    document.styles.add_style("바탕", kind).font.hidden = True
    (style := document.styles.add_style("위", kind)).base_style = document.styles["바탕"]
    is_paragraph = kind is WD_STYLE_TYPE.PARAGRAPH
    document.add_paragraph(style=style if is_paragraph else None).add_run(HIDDEN, None if is_paragraph else style)
    document.add_paragraph(style=style if is_paragraph else None).add_run(SHOWN).font.hidden = False
    assert_left_out(read(tmp_path, document), {LeftOut.TEXT: 1})


@pytest.mark.parametrize(("hidden", "is_read"), [("0", True), ("1", False)])
def test_a_text_box_of_a_word_file_is_read_unless_it_is_hidden(tmp_path: Path, hidden: str, *, is_read: bool) -> None:
    inside = f"<w:txbxContent><w:p><w:r><w:t>{HIDDEN}</w:t></w:r></w:p></w:txbxContent>"
    drawing = (
        '<mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"><mc:Choice '
        'Requires="wps"><w:drawing><wp:anchor xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/'
        f'wordprocessingDrawing"><wp:docPr id="1" name="" hidden="{hidden}"/><wps:txbx xmlns:wps="urn:wps">{inside}'
        "</wps:txbx></wp:anchor></w:drawing></mc:Choice><mc:Fallback><w:pict><v:textbox xmlns:v="
        f'"urn:schemas-microsoft-com:vml">{inside.replace("99", "98")}</v:textbox></w:pict></mc:Fallback>'
        "</mc:AlternateContent>"
    )
    parsed = read(tmp_path, a_word_file(paragraph(f"<w:r>{drawing}</w:r>")))
    assert text_of(parsed).count("99%") == is_read
    assert "98%" not in text_of(parsed)
    assert parsed.left_out == ({} if is_read else {LeftOut.ELEMENT: 1})


def test_hidden_shapes_and_comments_of_a_presentation_are_left_out(tmp_path: Path) -> None:
    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[6])
    for words in (SHOWN, HIDDEN):
        slide.shapes.add_textbox(Inches(1), Inches(2), Inches(4), Inches(1)).text_frame.text = words
    slide.shapes[-1]._element.nvSpPr.cNvPr.set("hidden", "1")
    assert_left_out(read(tmp_path, deck), {LeftOut.ELEMENT: 1})


def part_of(data: bytes, name: str) -> bytes:
    return zipfile.ZipFile(BytesIO(data)).read(name)


def sheet_of(rows: str, before: str = "", after: str = "") -> str:
    shown = f'<row r="1"><c r="A1" t="inlineStr"><is><t>{SHOWN}</t></is></c></row>'
    return f'<worksheet xmlns="{MAIN}">{before}<sheetData>{shown}{rows}</sheetData>{after}</worksheet>'


LINE = f'<row r="2"{{}}><c r="A2" t="inlineStr"><is><t>{HIDDEN}</t></is></c></row>'
HIDDEN_ROW = sheet_of(LINE.format(' hidden="1"'))
IN_C = LINE.format("").replace("A2", "C2")
HIDING_SHEETS = {
    "with spaces in the value": sheet_of(LINE.format(' hidden=" true "')),
    "in a row without a number": sheet_of(LINE.format("").replace(' r="2"', ' hidden="1"')),
    "by no height": sheet_of(LINE.format(' ht="0"')),
    "by no width": sheet_of(IN_C, '<cols><col min="3" max="3" width="0e1"/></cols>'),
    "by the usual width": sheet_of(
        IN_C, '<sheetFormatPr defaultColWidth="0"/><cols><col min="1" max="2" width="9"/></cols>'
    ),
}


@pytest.mark.parametrize("part", HIDING_SHEETS.values(), ids=HIDING_SHEETS)
def test_a_hidden_row_or_column_is_left_out_however_it_is_hidden(tmp_path: Path, part: str) -> None:
    parsed = read(tmp_path, with_part(xlsx_of([SHOWN]), "xl/worksheets/sheet1.xml", part.encode()))
    assert_left_out(parsed, {LeftOut.COLUMN if "C2" in part else LeftOut.ROW: 1})


def test_comments_and_cells_that_a_number_format_hides_are_left_out_of_a_workbook(tmp_path: Path) -> None:
    book = Workbook()
    for row in ([SHOWN, None], [HIDDEN, 99], ["", 0]):
        book.worksheets[0].append(row)
    for cell in (*book.worksheets[0][2], *book.worksheets[0][3]):
        cell.number_format = ";;;"
    book.worksheets[0]["A1"].comment = Comment(HIDDEN, "kim")
    assert_left_out(read(tmp_path, book), {LeftOut.TEXT: 2, LeftOut.COMMENT: 1})


CHOICE = (
    '<mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" xmlns:x="urn:x">'
    '<mc:Choice Requires="x">{}</mc:Choice></mc:AlternateContent>'
)
MISPLACED = {
    "a row in an extension": sheet_of("", after=f'<extLst><ext uri="x">{LINE.format("")}</ext></extLst>'),
    "a row of a choice": sheet_of(CHOICE.format(LINE.format(""))),
    "a cell of another kind": sheet_of(
        f'<row r="2" xmlns:x="urn:x"><x:c r="A2" t="str"><v xmlns="{MAIN}">{HIDDEN}</v></x:c></row>'
    ),
}


def other_books() -> Iterator[tuple[str, bytes]]:
    """Yield files that are one workbook to a reader by kinds and names, and another one to programs that open it."""
    for name, part in MISPLACED.items():
        yield name, with_part(xlsx_of([SHOWN]), "xl/worksheets/sheet1.xml", part.encode())
    texts = f'<sst xmlns="{MAIN}">{CHOICE.format(f"<si><t>{HIDDEN}</t></si>")}<si><t>{SHOWN}</t></si></sst>'
    yield "more texts than programs count", with_shared_strings(xlsx_of([SHOWN]), texts)
    kinds, book = (part_of(xlsx_of([SHOWN]), name) for name in ("[Content_Types].xml", "xl/workbook.xml"))
    other = with_part(xlsx_of([SHOWN]), "[Content_Types].xml", kinds.replace(b"/xl/workbook.xml", b"/xl/other.xml"))
    yield "which part is its workbook", with_part(other, "xl/other.xml", book)
    data = with_shared_strings(xlsx_of([SHOWN]), f'<sst xmlns="{MAIN}"/>')
    for kind in (b"styles", b"sharedStrings"):
        links = part_of(data, "xl/_rels/workbook.xml.rels").replace(kind + b".xml", b"others.xml")
        yield f"its texts or its styles: {kind!r}", with_part(data, "xl/_rels/workbook.xml.rels", links)
    for part in ("xl/worksheets/sheet1.xml", "xl/Worksheets/Sheet1.xml"):
        archive = BytesIO(xlsx_of([SHOWN]))
        with zipfile.ZipFile(archive, "a") as parts, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parts.writestr(part, HIDDEN_ROW)
        yield f"two parts of one name: {part}", archive.getvalue()


@pytest.mark.parametrize(("name", "data"), [*other_books()], ids=lambda value: value if isinstance(value, str) else "")
def test_a_workbook_that_other_programs_read_differently_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    with pytest.raises(Unreadable) as refused:
        read(tmp_path, data)
    assert name in MISPLACED or name == "more texts than programs count" or name[:20] in refused.value.detail


@pytest.mark.parametrize("hidden", ["<p hidden>{}</p>", '<p style="color:red; DISPLAY : none !important">{}</p>'])
def test_elements_that_a_page_or_a_mail_does_not_display_are_left_out(tmp_path: Path, hidden: str) -> None:
    page = f"<html><body><p>{SHOWN}</p>{hidden.format(HIDDEN)}</body></html>"
    assert_left_out(read(tmp_path, page.encode()), {LeftOut.ELEMENT: 1})
    mail = f"MIME-Version: 1.0\nSubject: x\nContent-Type: text/html; charset=utf-8\n\n{page}"
    assert_left_out(read(tmp_path, mail.encode()), {LeftOut.ELEMENT: 1})


def test_memos_explanations_and_deletions_of_an_hwpx_are_left_out(tmp_path: Path) -> None:
    data = hwpx(SHOWN, "그 뒤에 선 글@@")
    section = part_of(data, "Contents/section0.xml").decode()
    words = f'<hp:p paraPrIDRef="0" styleIDRef="0"><hp:run charPrIDRef="0"><hp:t>{HIDDEN}</hp:t></hp:run></hp:p>'
    aside = "".join(
        f"<hp:ctrl><hp:{kind}><hp:subList>{words}</hp:subList></hp:{kind.split()[0]}></hp:ctrl>"
        for kind in ("hiddenComment", 'fieldBegin id="1" type="MEMO"')
    )
    deleted = '<hp:deleteBegin Id="1" TcId="1" paraend="0"/>9.9%<hp:deleteEnd Id="1" TcId="1" paraend="0"/>'
    open_ended = '<hp:deleteBegin Id="2" TcId="2" paraend="0"/>끝<hp:deleteEnd Id="3" TcId="2" paraend="0"/>'
    section = section.replace("<hp:t>그 뒤에", f"{aside}<hp:t>그 뒤에").replace("@@", deleted + open_ended)
    parsed = read(tmp_path, with_part(data, "Contents/section0.xml", section.encode()))
    assert "그 뒤에 선 글끝" in text_of(parsed)
    assert_left_out(parsed, {LeftOut.COMMENT: 2, LeftOut.DELETED: 1})


def test_white_and_tiny_text_is_read(tmp_path: Path) -> None:
    document = docx.Document()
    font = document.add_paragraph().add_run(SHOWN).font
    font.color.rgb, font.size = RGBColor(255, 255, 255), Pt(1)
    book = Workbook()
    book.worksheets[0]["A1"], book.worksheets[0]["A1"].font = SHOWN, Font(color="FFFFFFFF", size=1)
    for made in (document, book):
        made.save(data := BytesIO())
        assert SHOWN in text_in(tmp_path, data.getvalue())
    page = f'<html><style>p {{ display: none }}</style><p style="color:#fff">{SHOWN}</p></html>'
    assert SHOWN in text_in(tmp_path, page.encode())


@pytest.mark.parametrize("made", [web_page, word, workbook, slides])
def test_struck_words_are_marked_as_markdown_does(tmp_path: Path, made: Callable[[Runs, Look], bytes]) -> None:
    text = text_in(tmp_path, made(("금리는 ", "연 9.9%", " 연 3.1%"), "struck"))
    assert "금리는 ~~연 9.9%~~ 연 3.1%" in text


def test_struck_words_of_an_hwpx_are_read(tmp_path: Path) -> None:
    assert "연 9.9%" in text_in(tmp_path, hancom_x(("금리는 ", "연 9.9%", " 연 3.1%"), "struck"))
