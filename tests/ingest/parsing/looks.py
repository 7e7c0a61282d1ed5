"""Documents of each office format in which one run of a text has letters of a look of its own."""

import re
import zipfile
from email.message import EmailMessage
from io import BytesIO
from typing import Literal, get_args

import docx
from hwpx import HwpxDocument
from openpyxl import Workbook
from openpyxl.cell.rich_text import CellRichText, TextBlock
from openpyxl.cell.text import InlineFont
from pptx import Presentation
from pptx.util import Inches

from tests.ingest.parsing.reading import saved
from tests.ingest.samples_office import hwpx, with_part

Look = Literal["struck", "raised", "bold"]
Runs = tuple[str, str, str]  # the second has the look


def web_page(runs: Runs, look: Look) -> bytes:
    return _html(runs, "del" if look == "struck" else "sup").encode()


def mail(runs: Runs, look: Look) -> bytes:
    message = EmailMessage()
    message["Subject"], message["From"], message["MIME-Version"] = "안내", "a@bank.example", "1.0"
    message.set_content(_html(runs, "s" if look == "struck" else "sup"), subtype="html")
    return message.as_bytes()


def word(runs: Runs, look: Look) -> bytes:
    document = docx.Document()
    table = document.add_table(rows=1, cols=2)
    table.cell(0, 0).text = "구분"
    for where in (table.cell(0, 1).paragraphs[0], document.add_paragraph()):
        first, marked, last = (where.add_run(text) for text in runs)
        marked.font.strike, marked.font.superscript, marked.font.bold = (look == kind for kind in get_args(Look))
        assert first.text + last.text == runs[0] + runs[2]
    return saved(document)


def workbook(runs: Runs, look: Look) -> bytes:
    book = Workbook()
    font = InlineFont(strike=True) if look == "struck" else InlineFont(vertAlign="superscript")
    book.worksheets[0]["A1"] = CellRichText(runs[0], TextBlock(font, runs[1]), TextBlock(InlineFont(), runs[2]))
    return saved(book)


def slides(runs: Runs, look: Look) -> bytes:
    presentation = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    box = slide.shapes.add_textbox(Inches(1), Inches(1), Inches(6), Inches(1))
    table = slide.shapes.add_table(1, 2, Inches(1), Inches(3), Inches(6), Inches(1)).table
    for where in (box.text_frame.paragraphs[0], table.cell(0, 1).text_frame.paragraphs[0]):
        for n, text in enumerate(runs):
            (run := where.add_run()).text = text
            if n == 1:
                name, value = ("strike", "sngStrike") if look == "struck" else ("baseline", "30000")
                run.font._rPr.set(name, value)
    return saved(presentation)


def hancom_x(runs: Runs, look: Look) -> bytes:
    data = hwpx("@@")
    with zipfile.ZipFile(BytesIO(data)) as archive:
        header, section = (archive.read(f"Contents/{name}.xml").decode() for name in ("header", "section0"))
    usual = re.findall(r'<hh:charPr id="0".*?</hh:charPr>', header)[0]
    own = usual.replace('id="0"', 'id="7"')
    if look == "struck":
        own = own.replace('strikeout shape="NONE"', 'strikeout shape="SOLID"')
    else:
        own = own.replace("</hh:charPr>", f"<hh:{'bold' if look == 'bold' else 'supscript'}/></hh:charPr>")
    header = header.replace("</hh:charProperties>", f"{own}</hh:charProperties>")
    texts = zip((0, 7, 0), runs, strict=True)
    inner = "".join(f'<hp:run charPrIDRef="{n}"><hp:t>{text}</hp:t></hp:run>' for n, text in texts)
    section = re.sub(r'<hp:run charPrIDRef="\d+"><hp:t>@@</hp:t></hp:run>', inner, section)
    data = with_part(data, "Contents/header.xml", header.encode())
    return with_part(data, "Contents/section0.xml", section.encode())


def hancom(runs: Runs, look: Look) -> bytes:
    HwpxDocument.open(BytesIO(hancom_x(runs, look))).save_to_stream(data := BytesIO(), format="hwp")
    return data.getvalue()


def _html(runs: Runs, tag: str) -> str:
    words = f"{runs[0]}<{tag}>{runs[1]}</{tag}>{runs[2]}"
    return f"<html><body><p>{words}</p><table><tr><td>구분</td><td>{words}</td></tr></table></body></html>"
