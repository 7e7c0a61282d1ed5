"""Small documents of every format, made here: a heading or two, a paragraph, a table; and broken ones of each kind."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from docx import Document
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib import pagesizes
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas

KOREAN = "HYSMyeongJo-Medium"  # which no file embeds
UNDRAWABLE = "\ua000"  # a syllable of Yi, which no font of a test machine has

MARKDOWN = """---
title: 정기예금 안내
---
# 한빛 정기예금

목돈을 한 번에 맡기는 예금입니다.

## 금리

| 기간 | 금리 |
| --- | --- |
| 6개월 | 연 2.10% |
| 12개월 | 연 2.35% |
"""

HTML = """<!doctype html><html><head><meta charset="{charset}"><title>수수료 안내</title>
<style>p {{ color: red }}</style></head><body><nav>메뉴 홈</nav><h1>수수료</h1><script>var 비밀 = 1</script>
<p>창구와 모바일의 수수료가 다릅니다.</p><table><thead><tr><th rowspan="2">구분</th><th colspan="2">금액</th></tr>
<tr><th>창구</th><th>모바일</th></tr></thead><tbody><tr><td>타행 이체</td><td>1,000원</td><td>면제</td></tr></tbody>
</table></body></html>"""


def pdf(*, password: str | None = None, sign: str = "") -> bytes:
    """Return a Korean PDF: a large title, a paragraph and a ruled table on page 1, text and `sign` on page 2."""
    pdfmetrics.registerFont(UnicodeCIDFont(KOREAN))
    lock = StandardEncryption(password) if password else None
    canvas = Canvas("", pagesize=pagesizes.A4, encrypt=lock)
    _first_page(canvas)
    canvas.setFont(KOREAN, 11)
    canvas.drawString(72, 760, f"2쪽에는 만기 후 이율과 중도해지에 관한 설명이 있습니다.{sign}")
    canvas.showPage()
    return _finished(canvas)


def _finished(canvas: Canvas) -> bytes:
    data: bytes = canvas.getpdfdata()
    return data


def _first_page(canvas: Canvas) -> None:
    canvas.setFont(KOREAN, 20)
    canvas.drawString(72, 760, "정기예금 상품설명서")
    canvas.setFont(KOREAN, 11)
    canvas.drawString(72, 730, "이 상품은 예금자보호법에 따라 보호됩니다.")
    _ruled_table(canvas, [("기간", "금리"), ("6개월", "연 2.10%"), ("12개월", "연 2.35%")])
    canvas.showPage()


def _ruled_table(canvas: Canvas, rows: Sequence[Sequence[str]]) -> None:
    for row, cells in enumerate(rows):
        for column, text in enumerate(cells):
            canvas.rect(72 + column * 120, 660 - row * 24, 120, 24)
            canvas.drawString(78 + column * 120, 668 - row * 24, text)


def pdf_without_text() -> bytes:
    """Return a PDF that is a picture of nothing: what a scan looks like to a reader of text."""
    canvas = Canvas("", pagesize=pagesizes.A4)
    canvas.rect(72, 72, 300, 300, fill=1)
    canvas.showPage()
    return _finished(canvas)


def docx() -> bytes:
    """Return a Word document with a title, headings and a table."""
    document = Document()
    document.core_properties.title = "민원 처리 안내"
    document.add_heading("민원 처리", level=1)
    document.add_paragraph("민원은 접수한 날부터 14일 안에 답합니다.")
    document.add_heading("접수 방법", level=2)
    table = document.add_table(rows=2, cols=2)
    for row, texts in zip(table.rows, (("방법", "시간"), ("전화", "평일 9시부터 18시")), strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    buffer = BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def pdf_of_tables(pages: int) -> bytes:
    """Return a PDF with a ruled table of thirty rows on each page, which is slow to find."""
    canvas = Canvas("", pagesize=pagesizes.A4)
    for _ in range(pages):
        for cell in range(120):
            left, bottom = 72 + cell % 4 * 110, 780 - cell // 4 * 24
            canvas.rect(left, bottom, 110, 24)
            canvas.drawString(left + 6, bottom + 8, f"cell {cell}")
        canvas.showPage()
    return _finished(canvas)


def pdf_in_two_columns() -> bytes:
    """Return a PDF of two columns under one heading, drawn one column after the other."""
    canvas = Canvas("", pagesize=pagesizes.A4)
    canvas.setFont("Helvetica", 20)
    canvas.drawString(72, 760, "Savings and loans")
    canvas.setFont("Helvetica", 11)
    for left, what in ((72, "savings"), (320, "loans")):
        for line in range(1, 9):
            canvas.drawString(left, 720 - 16 * line, f"Line {line} is about {what}.")
    canvas.showPage()
    return _finished(canvas)


def pdf_turned(turn: int, *, shown_upright: bool = True) -> bytes:
    """Return a PDF whose page is drawn lying by so many degrees, with a ruled table; viewers turn it, or do not."""
    width, height = pagesizes.A4
    is_landscape = turn in (90, 270)
    canvas = Canvas("", pagesize=(height, width) if is_landscape and not shown_upright else (width, height))
    if shown_upright:
        canvas.setPageRotation(turn)  # which takes the page's size for that of the turned page
    origin = {0: (0, 0), 90: (height, 0), 180: (width, height), 270: (0, width)}
    canvas.translate(*origin[turn])
    canvas.rotate({270: -90}.get(turn, turn))
    canvas.drawString(72, 760, "Terms and rates of the savings account")
    _ruled_table(canvas, [("Term", "Rate"), ("6 months", "2.10 %"), ("12 months", "2.35 %")])
    canvas.showPage()
    return _finished(canvas)


def scan(
    *pages: Sequence[str],
    font: Path,
    turned: int = 0,
    stamp: str = "",
    stamp_mode: int = 0,
    ruled: bool = False,
) -> bytes:
    """Return a PDF whose small pages are pictures of these lines, 200 dots an inch, turned by so many degrees.

    `stamp` is text at the foot of each page, `ruled`: in a table of two cells.
    """
    size = (432, 324)  # points
    canvas = Canvas("", pagesize=size)
    for lines in pages:
        canvas.drawImage(ImageReader(picture_of(lines, font).rotate(turned)), 0, 0, *size)
        canvas.setFont("Helvetica", 9)
        canvas.drawString(24, 12, stamp, mode=stamp_mode)
        if ruled:
            canvas.grid([20, 220, 420], [6, 26])
        canvas.showPage()
    return _finished(canvas)


def picture_of(lines: Sequence[str], font: Path) -> Image.Image:
    """Return a picture of lines, 1,200 by 900 dots."""
    picture = Image.new("RGB", (1200, 900), "white")
    drawn = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        drawn.text((80, 60 + 60 * number), line, fill="black", font=ImageFont.truetype(str(font), 34))
    return picture
