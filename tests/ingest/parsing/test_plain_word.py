"""What a Word file says in elements that the converter does not know is read where it stands."""

from io import BytesIO
from pathlib import Path

import docx
import pytest
from docx.oxml import parse_xml

from tests.ingest.parsing.reading import read, text_of

SPACES = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
    'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
)
RUN = "<w:r><w:t>3.50</w:t></w:r>"


def text_with(folder: Path, *within: str) -> str:
    """Return what is read of a paragraph with elements between its first and its last word."""
    document = docx.Document()
    paragraph = document.add_paragraph("연 ")
    inner = parse_xml(f"<w:p {SPACES}>{''.join(within)}</w:p>")
    for element in list(inner):
        paragraph._p.append(element)
    paragraph.add_run("%입니다")
    document.save(data := BytesIO())
    return text_of(read(folder, data.getvalue()))


@pytest.mark.parametrize(
    "around",
    [
        '<w:fldSimple w:instr=" DOCPROPERTY Rate ">{}</w:fldSimple>',
        '<w:dir w:val="ltr">{}</w:dir>',
        '<w:bdo w:val="ltr">{}</w:bdo>',
        '<w:dir w:val="ltr"><w:fldSimple w:instr=" REF a "><w:bdo w:val="ltr">{}</w:bdo></w:fldSimple></w:dir>',
        '<w:hyperlink w:anchor="a"><w:fldSimple w:instr=" REF a ">{}</w:fldSimple></w:hyperlink>',
        '<w:ins w:id="1" w:author="a">{}</w:ins>',
        "<w:sdt><w:sdtContent>{}</w:sdtContent></w:sdt>",
        "<w:ofTomorrow>{}</w:ofTomorrow>",
    ],
)
def test_runs_are_read_whatever_is_around_them(tmp_path: Path, around: str) -> None:
    assert text_with(tmp_path, around.format(RUN)) == "연 3.50%입니다"


@pytest.mark.parametrize("around", ['<w:del w:id="1" w:author="a">{}</w:del>', '<w:moveFrom w:id="1">{}</w:moveFrom>'])
def test_what_was_deleted_stays_out(tmp_path: Path, around: str) -> None:
    inner = f'<w:fldSimple w:instr=" REF a ">{RUN}</w:fldSimple>'
    assert text_with(tmp_path, around.format(inner)) == "연 %입니다"


def test_hidden_text_of_fields_and_formulas_stays_out(tmp_path: Path) -> None:
    hidden = "<w:rPr><w:vanish/></w:rPr>"
    field = f'<w:fldSimple w:instr=" REF a "><w:r>{hidden}<w:t>9.9</w:t></w:r></w:fldSimple>'
    assert text_with(tmp_path, field, f"<m:oMath><m:r>{hidden}<m:t>9.9</m:t></m:r></m:oMath>") == "연 %입니다"


@pytest.mark.parametrize(
    ("formula", "line"),
    [
        ("{a}", "원금"),
        ("<m:f><m:num>{a}</m:num><m:den>{b}</m:den></m:f>", "(원금)/(365)"),
        ("<m:sSup><m:e>{a}</m:e><m:sup>{b}</m:sup></m:sSup>", "원금^(365)"),
        ("<m:sSub><m:e>{a}</m:e><m:sub>{b}</m:sub></m:sSub>", "원금_(365)"),
        ("<m:rad><m:deg/><m:e>{a}</m:e></m:rad>", "√(원금)"),
        ("<m:d><m:e>{a}</m:e></m:d>", "(원금)"),
        ('<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr><m:sub>{b}</m:sub><m:e>{a}</m:e></m:nary>', "∑_(365)원금"),
        ("<m:func><m:fName>{a}</m:fName><m:e>{b}</m:e></m:func>", "원금 365"),
    ],
)
def test_a_formula_is_read_in_one_line(tmp_path: Path, formula: str, line: str) -> None:
    parts = formula.format(a="<m:r><m:t>원금</m:t></m:r>", b="<m:r><m:t>365</m:t></m:r>")
    assert text_with(tmp_path, f"<m:oMathPara><m:oMath>{parts}</m:oMath></m:oMathPara>") == f"연 {line}%입니다"


@pytest.mark.parametrize(
    ("within", "text"),
    [
        ("<w:r><w:t>3</w:t><w:cr/><w:t>50</w:t></w:r>", "연 3  \n50%입니다"),
        ('<w:r><w:t>3</w:t><w:ptab w:alignment="right"/><w:t>50</w:t></w:r>', "연 3 50%입니다"),
        ('<w:r><w:t>3</w:t><w:sym w:font="Symbol" w:char="f0b3"/><w:t>50</w:t></w:r>', "연 3≥50%입니다"),
        ('<w:r><w:t>3</w:t><w:sym w:font="Batang" w:char="2264"/><w:t>50</w:t></w:r>', "연 3≤50%입니다"),
    ],
)
def test_what_stands_between_two_figures_is_read(tmp_path: Path, within: str, text: str) -> None:
    assert text_with(tmp_path, within) == text


def test_a_box_says_whether_it_is_checked(tmp_path: Path) -> None:
    states = '<w14:checkedState w14:val="2612"/><w14:uncheckedState w14:val="2610"/>'
    boxes = [
        f'<w:sdt xmlns:w14="http://schemas.microsoft.com/office/word/2010/wordml"><w:sdtPr><w14:checkbox>'
        f'<w14:checked w14:val="{checked}"/>{states}</w14:checkbox></w:sdtPr><w:sdtContent><w:r><w:t>{sign}</w:t></w:r>'
        f"</w:sdtContent></w:sdt><w:r><w:t>{word}</w:t></w:r>"
        for checked, sign, word in ((1, "☒", "면제 "), (0, "☐", "부과 3.50"))
    ]
    assert text_with(tmp_path, *boxes) == "연 ☑면제 ☐부과 3.50%입니다"


def test_a_row_that_begins_a_column_later_keeps_its_columns(tmp_path: Path) -> None:
    document = docx.Document()
    table = document.add_table(rows=3, cols=3)
    for row, words in enumerate((("상품", "6개월", "12개월"), ("예금", "3.0%", "4.0%"), ("", "3.1%", "4.1%"))):
        for column, text in enumerate(words):
            table.cell(row, column).text = text
    last = table.rows[2]._tr
    last.remove(last.tc_lst[0])
    last.get_or_add_trPr().append(parse_xml(f'<w:gridBefore {SPACES} w:val="1"/>'))
    document.save(data := BytesIO())
    assert "|  | 3.1% | 4.1% |" in text_of(read(tmp_path, data.getvalue()))
