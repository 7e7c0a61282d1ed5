"""What a PDF's file says that its letters are is held against what its pages draw."""

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pypdf
import pytest
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from ingest.parsing import read_document
from ingest.parsing.pdf_shapes import Shown, drawn_otherwise
from knowledge.passage import COVERED, MISREAD
from tests.ingest import samples

NANUM = Path("/usr/share/fonts/truetype/nanum")
LIMIT = "전세자금대출의 한도는 1억원이고, 금리는 연 3.1%입니다. 중도상환수수료는 없음."
korean = pytest.mark.skipif(not NANUM.exists(), reason="no Korean font is installed")


def text_of(folder: Path, data: bytes) -> str:
    (file := folder / "deposit.pdf").write_bytes(data)
    return read_document(file).pages[0].markdown


@pytest.mark.parametrize(
    ("drawn", "read"),
    [("1", "9"), ("3", "8"), ("5", "6"), ("9", "1"), ("6", "\u00b7"), ("1", "\u200b"), ("2", "\ue001")],
)
@pytest.mark.parametrize("turned", [0, 90, 180])
def test_a_digit_that_is_read_as_another_is_marked_with_both(
    tmp_path: Path, drawn: str, read: str, turned: int
) -> None:
    line = f"The limit is {read}{read} million won at {read}.4 percent."
    data = samples.pdf_of_a_lying_font(line, font=samples.VERA, drawn_as={read: drawn}, turned=turned)
    assert (f"{drawn}→{read}" if read.isalnum() else MISREAD) in text_of(tmp_path, data)


@korean
@pytest.mark.parametrize(("drawn", "read"), [("없", "있"), ("억", "만"), ("1", "9"), ("음", ",")])
@pytest.mark.parametrize("font", ["NanumGothic", "NanumMyeongjoBold", "NanumSquareR", "NanumGothicCoding"])
def test_a_korean_word_that_is_read_as_another_is_marked(tmp_path: Path, font: str, drawn: str, read: str) -> None:
    line = LIMIT.replace(drawn, read)
    data = samples.pdf_of_a_lying_font(line, font=NANUM / f"{font}.ttf", drawn_as={read: drawn})
    assert MISREAD in text_of(tmp_path, data)


@korean
@pytest.mark.parametrize("size", [6, 9, 12, 30])
@pytest.mark.parametrize("font", ["NanumGothic", "NanumMyeongjo", "NanumSquareB", "NanumSquareRoundR"])
def test_an_honest_page_has_no_mark(tmp_path: Path, font: str, size: int) -> None:
    lines = [LIMIT, "○ 가입대상: 개인 ① 만 19세 이상 ② 소득 5천만원 이하 「예금자보호법」 2,345,678.90원 (±0.5%p)"]
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=(2000, 842))
    pdfmetrics.registerFont(TTFont(font, NANUM / f"{font}.ttf"))
    for number, line in enumerate(lines):
        canvas.setFont(font, size)
        canvas.drawString(60, 700 - 3 * size * number, line)
        canvas.setFont("Times-Italic", size)
        canvas.drawString(
            60, 400 - 3 * size * number, "The 0123456789 quick brown foxes jump over lazy dogs (AaBbGgQqYy)."
        )
    canvas.save()
    text = text_of(tmp_path, buffer.getvalue())
    assert MISREAD not in text
    assert LIMIT in text


def test_a_bullet_that_is_read_as_a_blank_is_no_mark() -> None:
    ink = np.zeros((60, 60), np.uint8)
    ink[20:24, 20:24] = (0, 255, 255, 60)
    assert list(drawn_otherwise(ink, [Shown("\u00a0", (20.0, 20.0, 23.8, 24.0))])) == []
    ink[20:40, 20:24] = (0, 255, 255, 60)
    assert list(drawn_otherwise(ink, [Shown("\u00a0", (20.0, 20.0, 23.8, 40.0))])) != []


def test_a_digit_that_is_read_as_two_is_marked(tmp_path: Path) -> None:
    honest = samples.pdf_of_a_lying_font("The limit is 1 million won.", font=samples.VERA, drawn_as={})
    assert MISREAD not in text_of(tmp_path, honest)
    text = text_of(tmp_path, with_map(honest, lambda said: said.replace(b"<0031>", b"<00310030>")))
    assert "is 10 million" in text
    assert "1→10⟧" in text


def test_words_in_place_of_what_is_drawn_are_not_read(tmp_path: Path) -> None:
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=(595, 842))
    canvas.addLiteral("/Span <</ActualText (The limit is 9 million won)>> BDC")
    canvas.drawString(72, 700, "The limit is 1 million won.")
    canvas.addLiteral("EMC")
    canvas.save()
    text = text_of(tmp_path, buffer.getvalue())
    assert "The limit is 1 million won." in text
    assert "9" not in text


def with_map(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change what the fonts of a PDF say that their letters are (`ToUnicode`)."""
    writer = pypdf.PdfWriter(clone_from=BytesIO(data))
    for font in writer.pages[0]["/Resources"]["/Font"].values():  # type: ignore[index]  # pypdf types no entry
        if "/ToUnicode" in (entry := font.get_object()):
            entry["/ToUnicode"].set_data(change(entry["/ToUnicode"].get_data()))
    writer.write(buffer := BytesIO())
    return buffer.getvalue()


def test_no_table_is_read_by_a_map_that_only_its_reader_follows(tmp_path: Path) -> None:
    rows = [["Limit", "1 million"], ["Rate", "3 percent"]]
    data = samples.pdf_of_a_lying_font("Loans", font=samples.VERA, drawn_as={}, rows=rows)
    assert "| Limit | 1 million |" in text_of(tmp_path, data)
    twice = with_map(data, lambda said: said.replace(b"endcmap", b"1 beginbfchar\n<31> <0039>\nendbfchar\nendcmap"))
    assert "9 million" not in text_of(tmp_path, twice) or MISREAD in text_of(tmp_path, twice)


def squeezed(canvas: Canvas) -> None:
    text = canvas.beginText(72, 600)
    text.setHorizScale(1)
    text.textLine("hidden 99 percent")
    canvas.drawText(text)


def flattened(canvas: Canvas) -> None:
    canvas.transform(1, 0, 0, 0.02, 72, 600)
    canvas.drawString(0, 0, "hidden 99 percent")


def sheared(canvas: Canvas) -> None:
    canvas.transform(1, 0, 9, 1, 72, 600)
    canvas.drawString(0, 0, "hidden 99 percent")


def aslant(canvas: Canvas) -> None:
    canvas.translate(72, 300)
    canvas.rotate(40)
    canvas.drawString(0, 0, "hidden 99 percent")


@pytest.mark.parametrize("hide", [squeezed, flattened, sheared, aslant])
def test_letters_that_nobody_can_read_are_no_text(tmp_path: Path, hide: Callable[[Canvas], None]) -> None:
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=(595, 842))
    canvas.drawString(72, 700, "The rate of this deposit is 3.1 percent a year.")
    condensed = canvas.beginText(72, 650)
    condensed.setHorizScale(50)
    condensed.textLine("Condensed words are read, and so are ill, 1 and l.")
    condensed.setHorizScale(100)
    canvas.drawText(condensed)
    hide(canvas)
    canvas.save()
    text = text_of(tmp_path, buffer.getvalue())
    assert "The rate of this deposit is 3.1 percent a year." in text
    assert "Condensed words are read, and so are ill, 1 and l." in text
    assert "99" not in text


def test_marks_are_told_apart_in_a_text() -> None:
    assert re.fullmatch(r"⟦[^⟦⟧]+⟧", COVERED)
    assert COVERED not in MISREAD
