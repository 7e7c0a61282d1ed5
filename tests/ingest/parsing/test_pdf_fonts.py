"""What a PDF says does not depend on the fonts that are installed; what its picture shows may, and is marked then."""

import shutil
import sys
from pathlib import Path

import pytest

from ingest.parsing import ParserSettings, open_parser
from ingest.parsing.parsed import Parsed
from ingest.parsing.process import PROGRAM
from tests.ingest import samples
from tests.ingest.parsing.reading import text_of

pytestmark = pytest.mark.anyio

# The process that reads files, on a machine without fonts: pdfium looks for them in no folder.
WITHOUT_FONTS = (
    sys.executable,
    "-c",
    """
import ctypes, runpy
import pypdfium2.raw as pdfium
pdfium.FPDF_DestroyLibrary()
no_folders = (ctypes.POINTER(ctypes.c_char) * 1)()
pdfium.FPDF_InitLibraryWithConfig(pdfium.FPDF_LIBRARY_CONFIG(version=2, m_pUserFontPaths=no_folders))
runpy.run_module("ingest.parsing", run_name="__main__")
""",
)
SAMPLES = Path(__file__).parents[3] / "evals/datasets/hanbit/documents"
STAMP = "승인 2026"  # fewer letters than a page's text has, in a font that is not in the file


async def read_by(program: tuple[str, ...], files: list[Path]) -> list[Parsed]:
    async with open_parser(ParserSettings(), program) as parser:
        return [await parser.parse(file) for file in files]


async def test_every_sample_pdf_is_read_alike_with_and_without_installed_fonts() -> None:
    files = sorted(SAMPLES.rglob("*.pdf"))
    with_fonts, without = await read_by(PROGRAM, files), await read_by(WITHOUT_FONTS, files)
    assert len(files) == 7
    assert with_fonts == without
    assert "⟦" not in "".join(map(text_of, without)), "no mark of what is not sure"
    (inheritance,) = (text_of(one) for file, one in zip(files, without, strict=True) if "상속" in file.name)
    assert sum(c.isalnum() for c in inheritance) > 900


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
async def test_a_stamp_on_a_scan_is_read_alike_with_and_without_installed_fonts(tmp_path: Path) -> None:
    lines = [f"{number}. The rate is {number / 10:.2f} percent a year for savings." for number in range(1, 9)]
    file = tmp_path / "scan.pdf"
    file.write_bytes(samples.scan(lines, font=samples.VERA, stamp=STAMP, stamp_font=samples.KOREAN))
    with_fonts, without = await read_by(PROGRAM, [file]), await read_by(WITHOUT_FONTS, [file])
    assert with_fonts == without
    assert STAMP in text_of(without[0])
    assert "0.80 percent a year for savings" in text_of(without[0])


async def test_a_picture_that_lacks_letters_is_marked_and_their_text_is_read(tmp_path: Path) -> None:
    (korean := tmp_path / "korean.pdf").write_bytes(samples.pdf())
    english = SAMPLES / "en/cards-for-residents.pdf"
    async with open_parser(ParserSettings(), WITHOUT_FONTS) as parser:
        assert [(await parser.preview(file, 1)).is_incomplete for file in (korean, english)] == [True, False]
        assert "정기예금 상품설명서" in text_of(await parser.parse(korean))
