"""A figure is read as its reader sees it, whatever its letters look like and wherever they stand in the file."""

from collections.abc import Callable
from pathlib import Path

import docx
import pytest
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml import parse_xml

from ingest.parsing.html import parse_html
from ingest.parsing.superscripts import as_superscript
from tests.ingest.parsing.looks import Look, Runs, hancom, hancom_x, mail, slides, web_page, word, workbook
from tests.ingest.parsing.reading import text_in


def cell(html: str) -> str:
    """Return how a cell of a web page's table is read."""
    head = "<tr><th>상품</th><th>금리</th></tr>"
    page = f"<html><body><table>{head}<tr><td>예금</td><td>{html}</td></tr></table></body></html>"
    return parse_html(page).pages[0].markdown.splitlines()[-1].split(" | ")[1].removesuffix(" |")


def prose(html: str) -> str:
    return parse_html(f"<html><body><p>{html}</p></body></html>").pages[0].markdown


@pytest.mark.parametrize(("html", "text"), [
    ("<b>3</b>.<b>5</b>%", "3.5%"), ("3<span>,000</span>만원", "3,000만원"),
    ('<span style="display: inline">1</span>%', "1%"), ("연 1%<br>우대 2%", "연 1% 우대 2%"),
    ("<p>연 1%</p><p>우대 2%</p>", "연 1% 우대 2%"), ("<ul><li>1%<li>2%</ul>", "1% 2%"),
    ('<span style="display:block">1%</span><span style="display:block">2%</span>', "1% 2%"),
    ("3.5<img src=a>4.0", "3.5 4.0"), ("3<sup>년</sup>", "3년"), ('5,000<sup class="note">1)</sup>원', "5,000¹⁾원"),
])  # fmt: skip
def test_a_figure_of_a_cell_is_neither_torn_nor_joined_with_another(html: str, text: str) -> None:
    assert cell(html) == text


@pytest.mark.parametrize(("html", "text"), [
    ("금리 <b>3</b>.<b>5</b>%", "금리 3.5%"), ("금리 3.<b><i>5</i></b>%", "금리 3.5%"), ("<b>500</b>원", "500원"),
    ("<b>예금</b>은 <b>연</b> 3%", "**예금**은 **연** 3%"),
    ('<b style="display:block">3.5</b><b style="display:block">4.0</b>', "3.5\n\n4.0"),
])  # fmt: skip
def test_emphasis_does_not_part_a_figure(html: str, text: str) -> None:
    assert prose(html) == text


@pytest.mark.parametrize("html", [
    *(f"한도 5<{block}>90원</{block}>" for block in ("address", "aside", "main", "header", "footer", "form", "fieldset",
                                                    "figure", "menu")),
    "<details><summary>한도 5</summary>90원</details>",
    '<fieldset><legend>한도 5</legend><span style="float: right">90원</span></fieldset>',
    '<span>한도 5</span><span style="display: block">90원</span>',
])  # fmt: skip
def test_figures_of_two_parts_of_a_page_are_not_joined(html: str) -> None:
    assert parse_html(f"<html><body><div>{html}</div></body></html>").pages[0].markdown.split() == ["한도", "5", "90원"]


def test_boxes_of_a_page_say_whether_they_are_checked() -> None:
    assert prose('<input type="checkbox" checked> 면제 <input type="RADIO"> 부과') == "☑ 면제 ☐ 부과"


@pytest.mark.parametrize(
    "start", ['<meta charset="utf-8">', "<style>td {{ color: red }}</style>", "<!-- 1 -->", "<form>"]
)
def test_a_table_that_a_program_saves_as_a_workbook_is_a_page(tmp_path: Path, start: str) -> None:
    table = "<table border=1><tr><th>구분</th><th>금액</th></tr><tr><td>송금</td><td>500원</td></tr></table>"
    assert "| 송금 | 500원 |" in text_in(tmp_path, f"{start}\n{table}".encode())


@pytest.mark.parametrize(("runs", "text"), [
    (("금리 3.", "5", "%"), "금리 3.5%"), (("금리 ", "3", ".5%"), "금리 3.5%"),
    (("금리는 ", "매우", " 높음"), "금리는 **매우** 높음"), (("한도 1,", "0", "00원"), "한도 1,000원"),
])  # fmt: skip
def test_a_bold_digit_stays_in_its_figure(tmp_path: Path, runs: Runs, text: str) -> None:
    for made in (word, hancom_x, hancom):
        assert text in text_in(tmp_path, made(runs, "bold"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1", "¹"), ("1)", "¹⁾"), ("(12)", "⁽¹²⁾"), ("[3]", "⁽³⁾"), ("-2", "⁻²"), (" 2 ", "²"), ("1,2", "¹,²"),
        ("a", "[a]"), ("주1", "[주1]"), ("*", "*"), ("®", "®"), ("", ""), ("¹", "¹"), ("１）", "¹⁾"), ("(a)", "[a]"),
        ("(주 2)", "[주 2]"), ("원", "원"), ("%p", "%p"), ("(부가세 포함)", "(부가세 포함)"), ("5,000", "5,000"),
    ],
)  # fmt: skip
def test_a_raised_mark_is_written_in_raised_characters_or_in_brackets(text: str, shown: str) -> None:
    assert as_superscript(text) == shown


@pytest.mark.parametrize("made", [web_page, mail, word, workbook, slides, hancom_x, hancom])
@pytest.mark.parametrize(("runs", "shown"), [
    (("수수료 5,000", "1)", "원"), "수수료 5,000¹⁾원"), (("수수료 5,000", "원", " 이상"), "수수료 5,000원 이상"),
    (("금리 3.", "50", "%"), "금리 3.50%"),
])  # fmt: skip
def test_raised_text_spoils_no_figure(
    tmp_path: Path, made: Callable[[Runs, Look], bytes], runs: Runs, shown: str
) -> None:
    text = text_in(tmp_path, made(runs, "raised"))
    assert 0 < text.count(shown) == text.count(runs[0])


def test_a_style_raises_letters_of_a_web_page_and_of_a_word_file(tmp_path: Path) -> None:
    for tag in ("span", "sup"):
        words = f'한도 5,000<{tag} style="vertical-align: super"><{tag}>1</{tag}></{tag}>원'
        assert "한도 5,000¹원" in text_in(tmp_path, f"<html><body><p>{words}</p></body></html>".encode())
    document = docx.Document()
    document.styles.add_style("각주", WD_STYLE_TYPE.CHARACTER).font.superscript = True
    paragraph = document.add_paragraph("한도 5,000")
    paragraph.add_run("1", style="각주")
    paragraph.add_run("원")
    assert "한도 5,000¹원" in text_in(tmp_path, document)


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
    return text_in(folder, document)


@pytest.mark.parametrize("around", [
    '<w:fldSimple w:instr=" DOCPROPERTY Rate ">{}</w:fldSimple>', '<w:dir w:val="ltr">{}</w:dir>',
    '<w:bdo w:val="ltr">{}</w:bdo>',
    '<w:dir w:val="ltr"><w:fldSimple w:instr=" REF a "><w:bdo w:val="ltr">{}</w:bdo></w:fldSimple></w:dir>',
    '<w:hyperlink w:anchor="a"><w:fldSimple w:instr=" REF a ">{}</w:fldSimple></w:hyperlink>',
    '<w:ins w:id="1" w:author="a">{}</w:ins>', "<w:sdt><w:sdtContent>{}</w:sdtContent></w:sdt>",
    "<w:ofTomorrow>{}</w:ofTomorrow>",
])  # fmt: skip
def test_runs_are_read_whatever_is_around_them(tmp_path: Path, around: str) -> None:
    assert text_with(tmp_path, around.format(RUN)) == "연 3.50%입니다"


@pytest.mark.parametrize(("formula", "line"), [
    ("{a}", "원금"), ("<m:f><m:num>{a}</m:num><m:den>{b}</m:den></m:f>", "(원금)/(365)"),
    ("<m:sSup><m:e>{a}</m:e><m:sup>{b}</m:sup></m:sSup>", "원금^(365)"),
    ("<m:sSub><m:e>{a}</m:e><m:sub>{b}</m:sub></m:sSub>", "원금_(365)"),
    ("<m:rad><m:deg/><m:e>{a}</m:e></m:rad>", "√(원금)"), ("<m:d><m:e>{a}</m:e></m:d>", "(원금)"),
    ('<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr><m:sub>{b}</m:sub><m:e>{a}</m:e></m:nary>', "∑_(365)원금"),
    ("<m:func><m:fName>{a}</m:fName><m:e>{b}</m:e></m:func>", "원금 365"),
])  # fmt: skip
def test_a_formula_is_read_in_one_line(tmp_path: Path, formula: str, line: str) -> None:
    parts = formula.format(a="<m:r><m:t>원금</m:t></m:r>", b="<m:r><m:t>365</m:t></m:r>")
    assert text_with(tmp_path, f"<m:oMathPara><m:oMath>{parts}</m:oMath></m:oMathPara>") == f"연 {line}%입니다"


@pytest.mark.parametrize(("within", "text"), [
    ("<w:r><w:t>3</w:t><w:cr/><w:t>50</w:t></w:r>", "연 3  \n50%입니다"),
    ('<w:r><w:t>3</w:t><w:ptab w:alignment="right"/><w:t>50</w:t></w:r>', "연 3 50%입니다"),
    ('<w:r><w:t>3</w:t><w:sym w:font="Symbol" w:char="f0b3"/><w:t>50</w:t></w:r>', "연 3≥50%입니다"),
    ('<w:r><w:t>3</w:t><w:sym w:font="Batang" w:char="2264"/><w:t>50</w:t></w:r>', "연 3≤50%입니다"),
])  # fmt: skip
def test_a_character_between_two_figures_is_read(tmp_path: Path, within: str, text: str) -> None:
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
