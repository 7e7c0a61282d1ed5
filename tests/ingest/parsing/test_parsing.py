import resource
import time
from pathlib import Path

import pytest

from ingest.parsing.parsed import Format, Reason, Unreadable
from ingest.parsing.process import ParserSettings, open_parser
from tests.ingest import samples
from tests.ingest.parsing.reading import read, text_of


def test_markdown_keeps_its_headings_and_tables_and_loses_its_front_matter(tmp_path: Path) -> None:
    parsed = read(tmp_path, samples.MARKDOWN.encode())
    assert (parsed.format, parsed.title, parsed.pages[0].number) == (Format.MARKDOWN, "정기예금 안내", None)
    assert "## 금리" in text_of(parsed)
    assert "| 12개월 | 연 2.35% |" in text_of(parsed)
    assert "title:" not in text_of(parsed)


def test_plain_text_stays_as_it_is(tmp_path: Path) -> None:
    parsed = read(tmp_path, "영업시간은 9시부터 16시까지입니다.\r\n토요일은 쉽니다.".encode())
    assert parsed.format is Format.TEXT
    assert text_of(parsed) == "영업시간은 9시부터 16시까지입니다.\n토요일은 쉽니다."


@pytest.mark.parametrize("charset", ["utf-8", "euc-kr", "cp949", "utf-16"])
def test_html_is_read_in_the_encodings_of_korean_offices(tmp_path: Path, charset: str) -> None:
    parsed = read(tmp_path, samples.HTML.format(charset=charset).encode(charset))
    assert (parsed.format, parsed.title) == (Format.HTML, "수수료 안내")
    assert "# 수수료" in text_of(parsed)
    assert "창구와 모바일의 수수료가 다릅니다." in text_of(parsed)


def test_html_that_declares_no_charset_is_read_too(tmp_path: Path) -> None:
    page = samples.HTML.format(charset="").replace('<meta charset="">', "")
    assert "타행 이체" in text_of(read(tmp_path, page.encode("cp949")))


def test_html_loses_scripts_styles_and_navigation(tmp_path: Path) -> None:
    text = text_of(read(tmp_path, samples.HTML.format(charset="utf-8").encode()))
    assert not any(gone in text for gone in ("비밀", "메뉴", "color"))


def test_spans_in_an_html_table_are_filled_in_and_its_two_header_rows_become_one(tmp_path: Path) -> None:
    text = text_of(read(tmp_path, samples.HTML.format(charset="utf-8").encode()))
    assert "| 구분 | 금액 / 창구 | 금액 / 모바일 |" in text
    assert "| 타행 이체 | 1,000원 | 면제 |" in text


def test_a_page_wrapped_in_a_form_or_a_layout_table_keeps_its_text(tmp_path: Path) -> None:
    inside = "<table><tr><td><h2>한도</h2><p>하루 500만원입니다.</p></td></tr></table>"
    page = f"<html><body><form>{inside}</form></body></html>"
    text = text_of(read(tmp_path, page.encode()))
    assert "## 한도" in text
    assert "하루 500만원입니다." in text


def test_pdf_gives_pages_headings_and_tables(tmp_path: Path) -> None:
    parsed = read(tmp_path, samples.pdf())
    assert (parsed.format, [page.number for page in parsed.pages]) == (Format.PDF, [1, 2])
    assert parsed.title is not None
    first = parsed.pages[0].markdown
    assert "# 정기예금 상품설명서" in first
    assert "| 기간 | 금리 |\n| --- | --- |\n| 6개월 | 연 2.10% |\n| 12개월 | 연 2.35% |" in first
    assert first.count("2.35%") == 1
    assert "2쪽에는" in parsed.pages[1].markdown


def test_two_columns_of_a_pdf_are_read_one_after_the_other(tmp_path: Path) -> None:
    text = text_of(read(tmp_path, samples.pdf_in_two_columns()))
    lines = [f"Line {line} is about {subject}." for subject in ("savings", "loans") for line in range(1, 9)]
    assert text.split() == " ".join(["# Savings and loans", *lines]).split()


@pytest.mark.parametrize("shown_upright", [True, False])
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_table_on_a_turned_page_keeps_its_header(tmp_path: Path, turn: int, *, shown_upright: bool) -> None:
    text = text_of(read(tmp_path, samples.pdf_turned(turn, shown_upright=shown_upright)))
    table = "| Term | Rate |\n| --- | --- |\n| 6 months | 2.10 % |\n| 12 months | 2.35 % |"
    assert text == f"Terms and rates of the savings account\n\n{table}"


def test_docx_gives_headings_and_tables_and_no_pages(tmp_path: Path) -> None:
    parsed = read(tmp_path, samples.docx())
    assert (parsed.format, parsed.title, parsed.pages[0].number) == (Format.DOCX, "민원 처리 안내", None)
    assert "# 민원 처리" in text_of(parsed)
    assert "## 접수 방법" in text_of(parsed)
    assert "| 전화 | 평일 9시부터 18시 |" in text_of(parsed)


def test_the_type_is_judged_by_content_and_not_by_name(tmp_path: Path) -> None:
    assert read(tmp_path, samples.pdf(), "보고서.txt").format is Format.PDF
    assert read(tmp_path, samples.MARKDOWN.encode(), "보고서.pdf").format is Format.MARKDOWN


ENTITIES = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aa">]><w:document/>'

BROKEN = {
    "an empty file": (b"", Reason.EMPTY_TEXT),
    "blank text": (b" \n\t\n ", Reason.EMPTY_TEXT),
    "bytes of no kind": (bytes(range(256)) * 40, Reason.UNKNOWN_TYPE),
    "an archive of something else": (samples.other_archive(), Reason.UNKNOWN_TYPE),
    "RTF": (rb"{\rtf1\ansi Hello}", Reason.UNKNOWN_TYPE),
    "HTML without text": (b"<html><body><script>var a = 1</script></body></html>", Reason.EMPTY_TEXT),
    "a PDF that is cut off": (samples.pdf()[:300], Reason.MALFORMED),
    "a PDF with a password": (samples.pdf(password="1234"), Reason.ENCRYPTED),
    "a PDF of a black square": (samples.pdf_without_text(), Reason.EMPTY_TEXT),
    "a DOCX that is cut off": (samples.docx()[:2000], Reason.MALFORMED),
    "a DOCX with nonsense inside": (samples.docx_with("word/document.xml", b"<w:document"), Reason.MALFORMED),
    "a DOCX with macros": (samples.docx_with("word/vbaProject.bin", b"x"), Reason.HOSTILE),
    "a DOCX with entities": (samples.docx_with("word/document.xml", ENTITIES), Reason.HOSTILE),
    "a DOCX that is a bomb": (samples.docx_with("word/styles.xml", b"<a/>" * 20_000_000), Reason.HOSTILE),
    "a protected DOCX": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
        Reason.ENCRYPTED,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    data, reason = BROKEN[name]
    with pytest.raises(Unreadable) as refused:
        read(tmp_path, data)
    assert refused.value.reason is reason


@pytest.mark.anyio
async def test_files_are_read_in_a_process_of_their_own(tmp_path: Path) -> None:
    (good := tmp_path / "good").write_bytes(samples.MARKDOWN.encode())
    (bad := tmp_path / "bad").write_bytes(samples.pdf(password="1234"))
    async with open_parser(ParserSettings()) as parser:
        with pytest.raises(Unreadable) as refused:
            await parser.parse(bad)
        parsed = await parser.parse(good)
    assert refused.value.reason is Reason.ENCRYPTED
    assert parsed.title == "정기예금 안내"


@pytest.mark.anyio
async def test_a_file_that_takes_too_long_is_stopped_and_the_next_one_is_read(tmp_path: Path) -> None:
    (slow := tmp_path / "slow").write_bytes(samples.pdf(pages=2000))
    (good := tmp_path / "good").write_bytes(samples.MARKDOWN.encode())
    async with open_parser(ParserSettings()) as parser:
        await parser.parse(good)
    for limits in (ParserSettings(wall_seconds=0.05), ParserSettings(most_wall_seconds=0.05)):
        async with open_parser(limits) as parser:
            with pytest.raises(Unreadable) as refused:
                await parser.parse(slow)
        assert refused.value.reason is Reason.TOO_SLOW


@pytest.mark.anyio
async def test_each_page_has_the_computing_time_of_a_page(tmp_path: Path) -> None:
    (long := tmp_path / "long").write_bytes(samples.pdf_of_tables(400))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    async with open_parser(ParserSettings(cpu_seconds=1)) as parser:
        parsed = await parser.parse(long)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert all("cell 119" in page.markdown for page in parsed.pages)
    assert after.ru_utime - before.ru_utime > 2  # else it would have passed with the seconds of one page


@pytest.mark.anyio
async def test_a_file_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    (large := tmp_path / "large").write_bytes(b"a" * (150 * 1024 * 1024))
    (good := tmp_path / "good").write_bytes(samples.MARKDOWN.encode())
    async with open_parser(ParserSettings(memory_bytes=300 * 1024 * 1024)) as parser:
        began = time.monotonic()
        with pytest.raises(Unreadable) as refused:
            await parser.parse(large)
        assert (await parser.parse(good)).title == "정기예금 안내"
    assert refused.value.reason is Reason.TOO_LARGE
    assert time.monotonic() - began < 30
