"""Scanned pages."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from ingest.parsing import pdf
from ingest.parsing.ocr import Picture, recognise
from ingest.parsing.parsed import Format, Reason, Unreadable
from ingest.parsing.preview import preview_page
from ingest.parsing.process import ParserSettings, open_parser
from ingest.parsing.read import read_document
from tests.ingest import samples
from tests.ingest.parsing.reading import text_in

NANUM = Path("/usr/share/fonts/truetype/nanum/NanumGothic.ttf")
pytestmark = pytest.mark.skipif(
    shutil.which("tesseract") is None or not NANUM.exists(), reason="tesseract or a Korean font is not installed"
)
LINES = (
    "정기예금은 예금자보호법에 따라 보호됩니다.",
    "The rate is 2.35 percent a year.",
    "만기 전에 해지하면 이율이 낮습니다.",
)


@pytest.mark.anyio
async def test_a_scanned_page_is_read_in_both_languages_by_the_limited_process(tmp_path: Path) -> None:
    (file := tmp_path / "scan.pdf").write_bytes(samples.scan(LINES, font=NANUM))
    async with open_parser(ParserSettings()) as parser:
        parsed = await parser.parse(file)
    text = parsed.pages[0].markdown
    assert [page.number for page in parsed.pages] == [1]
    assert "예금자보호법에 따라 보호됩니다." in text  # words, not the syllables that tesseract counts as words
    assert "2.35 percent a year" in text


def test_a_page_scanned_upside_down_is_read(tmp_path: Path) -> None:
    lines = [f"{number}. The rate is {number / 10:.2f} percent a year for savings." for number in range(1, 13)]
    assert "percent a year for savings" in text_in(tmp_path, samples.scan(lines, font=NANUM, turned=180))


@pytest.mark.parametrize("ruled", [False, True])
def test_a_line_or_a_box_that_is_stamped_on_a_scan_hides_none_of_it(tmp_path: Path, *, ruled: bool) -> None:
    lines = [f"{number}. The rate is {number / 10:.2f} percent a year for savings." for number in range(1, 9)]
    stamp = "Approved on 2026-03-02 as document 2026-0114"
    read = text_in(tmp_path, samples.scan(lines, font=NANUM, stamp=stamp, ruled=ruled))
    assert "0.80 percent a year for savings" in read
    assert stamp in read, "as it is written, not as it is recognised"


def test_a_scan_after_pages_with_backgrounds_is_read_unless_many_are_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf, "MOST_TEXTLESS", 2)
    stamp = "Approved on 2026-03-02 as document 2026-0114"
    pages = [[], [f"The rate of account {n} is 2.35 percent." for n in range(8)]]
    assert "account 7 is 2.35 percent" in text_in(tmp_path, samples.scan(*pages, font=NANUM, stamp=stamp))
    assert "2.35" not in text_in(tmp_path, samples.scan([], *pages, font=NANUM, stamp=stamp))


def test_a_scan_with_an_invisible_text_layer_is_recognised(tmp_path: Path) -> None:
    text = text_in(tmp_path, samples.scan(LINES, font=NANUM, stamp="hidden 99", stamp_mode=3))
    assert "예금자보호법에 따라 보호됩니다." in text
    assert "99" not in text


def test_a_page_with_a_text_layer_is_not_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no tesseract there: it would be missed
    assert "정기예금 상품설명서" in text_in(tmp_path, samples.pdf())


@pytest.mark.parametrize("stamp", ["", "Guide to deposits, 2026-03-02 (No 0114)"])
def test_without_tesseract_a_scan_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stamp: str) -> None:
    (file := tmp_path / "scan.pdf").write_bytes(samples.scan(LINES, font=NANUM, stamp=stamp))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unreadable) as refused:
        read_document(file)
    assert refused.value.reason is Reason.EMPTY_TEXT
    assert "not installed" in refused.value.detail


@pytest.mark.parametrize(("act", "message"), [
    ("echo \"Failed loading language 'kor'\" >&2", "tesseract lacks a language"),
    ("kill -XCPU $$", "took too much time or memory"),
])  # fmt: skip
def test_a_failing_tesseract_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, message: str) -> None:
    (program := tmp_path / "tesseract").write_text(f"#!/bin/sh\n{act}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(Unreadable, match=message):
        recognise(Picture(pixmap=b"P6 1 1 255\n\0\0\0", dpi=300, height=1), "kor+eng")


@pytest.mark.parametrize("kind", [Format.PNG, Format.JPEG, Format.TIFF])
def test_a_picture_is_read_as_a_scanned_page_is_and_shown_to_its_approver(tmp_path: Path, kind: Format) -> None:
    picture = samples.picture_of(LINES, NANUM)
    more = {"save_all": True, "append_images": [picture]} if kind is Format.TIFF else {}
    picture.save(file := tmp_path / "picture", str(kind).upper(), quality=95, **more)
    parsed = read_document(file)
    assert parsed.format is kind
    assert len(parsed.pages) == (2 if kind is Format.TIFF else 1)
    assert all("2.35 percent a year" in page.markdown for page in parsed.pages)
    preview = preview_page(file, 1)
    assert (preview.pages, preview.picture is not None) == (len(parsed.pages), True)
    assert preview_page(file, 3).picture is None


def test_a_damaged_and_a_huge_picture_are_refused(tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(file := tmp_path / "huge", "PNG")
    with pytest.raises(Unreadable, match="more than 50 million dots") as refused:
        read_document(file)
    assert refused.value.reason is Reason.TOO_LARGE
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(Unreadable) as refused:
        read_document(file)
    assert refused.value.reason is Reason.MALFORMED
