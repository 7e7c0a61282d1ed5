"""What is typed into the fields of a PDF, and what its notes draw."""

from io import BytesIO
from pathlib import Path

import pypdfium2
import pypdfium2.raw as pdfium_c
from reportlab.lib import pagesizes
from reportlab.pdfgen.canvas import Canvas

from tests.ingest.parsing.reading import read, text_of


def test_what_is_typed_into_a_field_is_read(tmp_path: Path) -> None:
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=pagesizes.A4)
    canvas.drawString(72, 760, "The fee of a transfer abroad is")
    canvas.acroForm.textfield(name="fee", value="5,000", x=300, y=755, width=80, height=16, fontSize=11)
    canvas.save()
    text = text_of(read(tmp_path, buffer.getvalue()))
    assert "The fee of a transfer abroad is" in text
    assert "5,000" in text


def test_what_a_note_writes_over_a_figure_is_read_beside_it(tmp_path: Path) -> None:
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=pagesizes.A4)
    canvas.drawString(72, 760, "The rate of this deposit is")
    canvas.drawString(300, 760, "3.1 percent")
    canvas.save()
    text = text_of(read(tmp_path, with_stamp(buffer.getvalue(), "3.7 percent")))
    assert "The rate of this deposit is 3.1 percent" in text
    assert "3.7 percent" in text


def with_stamp(data: bytes, said: str) -> bytes:
    """Return a PDF with a white note at (295, 750) that says something."""
    document = pypdfium2.PdfDocument(data)
    page = document[0]
    note = pdfium_c.FPDFPage_CreateAnnot(page, pdfium_c.FPDF_ANNOT_STAMP)
    pdfium_c.FPDFAnnot_SetRect(note, pdfium_c.FS_RECTF(295, 780, 400, 750))
    ground = pdfium_c.FPDFPageObj_CreateNewRect(295, 750, 105, 30)
    pdfium_c.FPDFPageObj_SetFillColor(ground, 255, 255, 255, 255)
    pdfium_c.FPDFPath_SetDrawMode(ground, pdfium_c.FPDF_FILLMODE_ALTERNATE, 0)
    pdfium_c.FPDFAnnot_AppendObject(note, ground)
    written = pdfium_c.FPDFPageObj_NewTextObj(document, b"Helvetica", 12.0)
    letters = f"{said}\0".encode("utf-16-le")
    pdfium_c.FPDFText_SetText(written, (pdfium_c.FPDF_WCHAR * (len(letters) // 2)).from_buffer_copy(letters))
    pdfium_c.FPDFPageObj_Transform(written, 1, 0, 0, 1, 300, 760)
    pdfium_c.FPDFAnnot_AppendObject(note, written)
    pdfium_c.FPDFPage_CloseAnnot(note)
    page.close()
    buffer = BytesIO()
    document.save(buffer)
    document.close()
    return buffer.getvalue()
