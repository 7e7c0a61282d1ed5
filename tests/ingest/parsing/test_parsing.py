"""Text, web pages, mail and tables of text, and the limits of the process that reads them."""

import resource
import time
from email.message import EmailMessage
from pathlib import Path

import pytest

from ingest.parsing.parsed import Format, Reason, Unreadable
from ingest.parsing.process import ParserSettings, open_parser
from tests.constants import with_constants
from tests.ingest import samples
from tests.ingest.parsing.reading import read, text_in, text_of
from tests.ingest.samples_office import archive
from tests.shapes import SHAPES


def test_markdown_keeps_its_headings_and_tables_and_loses_its_front_matter(tmp_path: Path) -> None:
    parsed = read(tmp_path, samples.MARKDOWN.encode())
    assert (parsed.format, parsed.title, parsed.pages[0].number) == (Format.MARKDOWN, "정기예금 안내", None)
    assert all(line in text_of(parsed) for line in ("## 금리", "| 12개월 | 연 2.35% |"))
    assert "title:" not in text_of(parsed)


@pytest.mark.parametrize("charset", ["utf-8", "euc-kr", "cp949", "utf-16", ""])
def test_html_is_read_in_each_encoding_without_scripts_and_navigation(tmp_path: Path, charset: str) -> None:
    page = samples.HTML.format(charset=charset).replace('<meta charset="">', "")
    parsed = read(tmp_path, page.encode(charset or "cp949"))
    assert (parsed.format, parsed.title) == (Format.HTML, "수수료 안내")
    spans_filled_in = ("| 구분 | 금액 / 창구 | 금액 / 모바일 |", "| 타행 이체 | 1,000원 | 면제 |")
    assert all(line in text_of(parsed) for line in ("# 수수료", "창구와 모바일의 수수료가 다릅니다.", *spans_filled_in))
    assert not any(gone in text_of(parsed) for gone in ("비밀", "메뉴", "color"))


def test_a_page_wrapped_in_a_form_or_a_layout_table_keeps_its_text(tmp_path: Path) -> None:
    inside = "<table><tr><td><h2>한도</h2><p>하루 500만원입니다.</p></td></tr></table>"
    page = f"<html><body><form>{inside}</form></body></html>"
    assert text_in(tmp_path, page.encode()) == "## 한도\n\n하루 500만원입니다."


def test_pdf_gives_pages_headings_and_tables_whatever_its_name(tmp_path: Path) -> None:
    parsed = read(tmp_path, samples.pdf(), "보고서.txt")
    assert (parsed.format, [page.number for page in parsed.pages]) == (Format.PDF, [1, 2])
    assert parsed.title is not None
    first = parsed.pages[0].markdown
    assert "# 정기예금 상품설명서" in first
    assert "| 기간 | 금리 |\n| --- | --- |\n| 6개월 | 연 2.10% |\n| 12개월 | 연 2.35% |" in first
    assert first.count("2.35%") == 1
    assert "2쪽에는" in parsed.pages[1].markdown


def test_two_columns_of_a_pdf_are_read_one_after_the_other(tmp_path: Path) -> None:
    text = text_in(tmp_path, samples.pdf_in_two_columns())
    lines = [f"Line {line} is about {subject}." for subject in ("savings", "loans") for line in range(1, 9)]
    assert text.split() == " ".join(["# Savings and loans", *lines]).split()


@pytest.mark.parametrize("shown_upright", [True, False])
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_table_on_a_turned_page_keeps_its_header(tmp_path: Path, turn: int, *, shown_upright: bool) -> None:
    text = text_in(tmp_path, samples.pdf_turned(turn, shown_upright=shown_upright))
    table = "| Term | Rate |\n| --- | --- |\n| 6 months | 2.10 % |\n| 12 months | 2.35 % |"
    assert text == f"Terms and rates of the savings account\n\n{table}"


def test_docx_gives_headings_and_tables_and_no_pages(tmp_path: Path) -> None:
    parsed = read(tmp_path, samples.docx())
    assert (parsed.format, parsed.title, parsed.pages[0].number) == (Format.DOCX, "민원 처리 안내", None)
    assert all(line in text_of(parsed) for line in ("# 민원 처리", "## 접수 방법", "| 전화 | 평일 9시부터 18시 |"))


MAIL = "MIME-Version: 1.0\nSubject: x\nContent-Type: "
BROKEN = {
    "an empty file": (b"", Reason.EMPTY_TEXT),
    "blank text": (b" \n\t\n ", Reason.EMPTY_TEXT),
    "bytes of no kind": (bytes(range(256)) * 40, Reason.UNKNOWN_TYPE),
    "an archive of something else": (archive(**{"rates.csv": b"term,rate\n6,2.1\n12,2.35\n"}), Reason.UNKNOWN_TYPE),
    "RTF": (rb"{\rtf1\ansi Hello}", Reason.UNKNOWN_TYPE),
    "HTML without text": (b"<html><body><script>var a = 1</script></body></html>", Reason.EMPTY_TEXT),
    "a PDF that is cut off": (samples.pdf()[:300], Reason.MALFORMED),
    "a PDF with a password": (samples.pdf(password="1234"), Reason.ENCRYPTED),
    "a PDF of a black square": (samples.pdf_without_text(), Reason.EMPTY_TEXT),
    "a subject as long as a document": (SHAPES["subject.eml"](500_000), Reason.TOO_LARGE),
    "an encrypted message": (f"{MAIL}multipart/encrypted; boundary=x\n\nAAAA".encode(), Reason.ENCRYPTED),
    "one by a certificate": (
        f"{MAIL}application/pkcs7-mime; smime-type=enveloped-data\n\nAAAA".encode(), Reason.ENCRYPTED
    ),
    "a message of endless parts": (
        f"{MAIL}multipart/mixed; boundary=x\n\n".encode() + b"--x\nContent-Type: text/plain\n\na\n" * 1200,
        Reason.HOSTILE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    data, reason = BROKEN[name]
    with pytest.raises(Unreadable) as refused:
        read(tmp_path, data)
    assert refused.value.reason is reason


@pytest.mark.anyio
async def test_each_page_has_the_computing_time_of_a_page(tmp_path: Path) -> None:
    (long := tmp_path / "long").write_bytes(samples.pdf_of_tables(250))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    async with open_parser(with_constants(ParserSettings(), cpu_seconds=1)) as parser:
        parsed = await parser.parse(long)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert all("cell 119" in page.markdown for page in parsed.pages)
    assert after.ru_utime - before.ru_utime > 1.2  # else it would have passed with the seconds of one page


@pytest.mark.anyio
async def test_a_file_that_needs_too_much_memory_is_refused_and_the_next_one_is_read(tmp_path: Path) -> None:
    (large := tmp_path / "large").write_bytes(b"a" * (150 * 1024 * 1024))
    (good := tmp_path / "good").write_bytes(samples.MARKDOWN.encode())
    async with open_parser(ParserSettings(memory_bytes=300 * 1024 * 1024)) as parser:
        began = time.monotonic()
        with pytest.raises(Unreadable) as refused:
            await parser.parse(large)
        assert (await parser.parse(good)).title == "정기예금 안내"
    assert refused.value.reason is Reason.TOO_LARGE
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("heading", ["# 가입\n\n", ""])
def test_a_pictures_description_is_read_and_its_address_is_not(tmp_path: Path, heading: str) -> None:
    text = '절차는 ![가입 절차](https://evil.example/?q=1)와 ![](images/a.png "그림")입니다. [안내](https://bank.example/a)'
    parsed = read(tmp_path, f"{heading}{text}".encode())
    assert parsed.format is (Format.MARKDOWN if heading else Format.TEXT)
    assert text_of(parsed) == f"{heading}절차는 가입 절차와 입니다. [안내](https://bank.example/a)"


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "cp949", "euc-kr", "utf-16"])
def test_csv_is_a_table_in_every_encoding_of_korean_offices(tmp_path: Path, charset: str) -> None:
    rows = '기간,금리,비고\n6개월,2.10%,\n12개월,2.35%,"우대, 최대 0.5%p"\n'
    assert text_in(tmp_path, rows.encode(charset)) == (
        "| 기간 | 금리 | 비고 |\n| --- | --- | --- |\n| 6개월 | 2.10% |  |\n| 12개월 | 2.35% | 우대, 최대 0.5%p |"
    )


@pytest.mark.parametrize(("rows", "line"), [
    ("term;rate\n6;2,10\n12;2,35\n", "| 12 | 2,35 |"), ("term|rate\n6|2,10\n12|2,35\n", "| 12 | 2,35 |"),
    ('구분,한도\n이체,"1일\n10"\n출금,20\n', "| 이체 | 1일 10 |"),
    ('question,answer\n수수료,"안내\n# 송금\n5,000원"\n한도,"# 이체\n100만원"\n', "| 수수료 | 안내 # 송금 5,000원 |"),
    ('상품\t최소\n예금\t"1,500,000"\n적금\t"1,000,000"\n', "| 예금 | 1,500,000 |"),
    ("상품;최소\n예금;1,500,000\n적금;1,000,000\n", "| 예금 | 1,500,000 |"),
    ("상품;6개월\n예금 A, 일반;3,05\n예금 B, 특판;3,10\n", "| 예금 A, 일반 | 3,05 |"),
    ("상품,비고\n예금,비대면; 우대\n적금,창구; 없음\n", "| 예금 | 비대면; 우대 |"),
    ("구분,2024,2025\n매출,100,200\n비용,300,400\n", "| 매출 | 100 | 200 |"),
    ("상품,대상(개인|법인),금리\n예금,개인|법인,3.5%\n적금,개인|법인,3.7%\n", "| 예금 | 개인\\|법인 | 3.5% |"),
    ("만기/금액(만원),100,300,500\n6개월,2.5,2.6,2.7\n12개월,2.8,2.9,3.0\n", "| 만기/금액(만원) | 100 | 300 | 500 |"),
    ("등급\\점수,900,800,700\nA,3.1%,3.2%,3.3%\nB,4.1%,4.2%,4.3%\n", "| B | 4.1% | 4.2% | 4.3% |"),
    ("상품, 금리, 기간,대상\n예금, 3.5%, 12개월,개인\n적금, 3.7%, 6개월,개인\n", "| 예금 | 3.5% | 12개월 | 개인 |"),
    ("1. 정기예금\t12개월\t3.5%\n2. 자유적금\t6개월\t3.7%\n", "| 2. 자유적금 | 6개월 | 3.7% |"),
    ("# 순위\t상품\n1\t정기예금\n2\t자유적금\n", "| # 순위 | 상품 |"),
])  # fmt: skip
def test_rows_that_share_a_delimiter_are_a_table(tmp_path: Path, rows: str, line: str) -> None:
    parsed = read(tmp_path, rows.encode())
    assert (parsed.format, line in text_of(parsed)) == (Format.CSV, True)


def test_a_csv_with_a_cell_that_is_not_closed_is_malformed(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="line 2: a cell of the table is not closed") as refused:
        read(tmp_path, '수수료,금액\n송금,"5,000\n이체,500\n출금,700\n조회,0\n'.encode())
    assert refused.value.reason is Reason.MALFORMED
    with pytest.raises(Unreadable, match="line 601: a cell"):
        read(tmp_path, b"a,b\n1,2\n" * 300 + b'"' + b"x" * 200_000 + b",3\n")


@pytest.mark.parametrize("title", ["# 2026년 11월 금리표", "# 2026년 11월 금리표,,", "2026년 11월 금리표,,"])
def test_lines_above_a_csv_are_its_title(tmp_path: Path, title: str) -> None:
    parsed = read(tmp_path, f"{title}\n상품,금리,기간\n예금,3.5%,12개월\n적금,3.7%,6개월\n".encode())
    assert (parsed.format, parsed.title) == (Format.CSV, "2026년 11월 금리표")
    assert text_of(parsed).startswith(f"{title.rstrip(',')}\n\n| 상품 | 금리 | 기간 |\n| --- ")


@pytest.mark.parametrize("lines", [
    "영업시간은 9시부터 16시까지입니다.\r\n토요일은 쉽니다.",
    "Dear customer, thank you.\nWe wrote on Monday, as agreed.\n",
    "예금, 적금, 대출을 안내합니다.\n자세한 내용은 영업점에 물어보세요.\n",
    "We open at nine.\nWe close at four; on Fridays at five.\n",
    "해외송금 수수료 안내\n5천달러 이하 10,000원\n2만달러 이하 15,000원\n",
    "Fees\n- Up to USD 5,000: KRW 10,000\n- Up to USD 20,000: KRW 15,000\n",
    "상품,금액\n" + "정기예금,1,000,000원\n" * 30,
    "1. 예금,적금\n2. 카드,보험\n", "서명은 할 수 없으며,부모님도 할 수 없습니다.\n다만, 도장으로는 됩니다.\n",
    "┌───┬───┐\n│송금│500원│\n└───┴───┘\n".encode("cp949"),
])  # fmt: skip
def test_prose_lists_and_commas_in_numbers_are_plain_text(tmp_path: Path, lines: str | bytes) -> None:
    parsed = read(tmp_path, lines if isinstance(lines, bytes) else lines.encode())
    text = lines.decode("cp949") if isinstance(lines, bytes) else lines
    assert (parsed.format, text_of(parsed)) == (Format.TEXT, text.replace("\r", "").strip())


@pytest.mark.parametrize("lines", [
    "# 금리\n\n* 정기예금: 1,000,000원 이상\n* 자유적금: 2,000,000원 이상",
    "| 구분 | 수수료 |\n|---|--:|\n| 송금 | 5,000원 |\n| 출금 | a\\|b |",
    "| 구분 | 수수료 |\n|:-:|-:|\n| 송금 | 500원 |",
    "구분|수수료\n송금|500원\n\n## 법인 고객\n\n구분|수수료\n송금|700원",
])  # fmt: skip
def test_markdown_with_regular_lines_is_no_csv_and_its_comments_stay_hidden(tmp_path: Path, lines: str) -> None:
    parsed = read(tmp_path, f"{lines}\n\n<!-- 내부: 원가 100원 -->".encode())
    assert (parsed.format, text_of(parsed)) == (Format.MARKDOWN, lines)


def message(*, html: bool = False) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"], mail["From"] = "금리 인상 안내", "상품팀 <products@bank.example>"
    mail["To"], mail["Message-ID"] = "all@bank.example", "<1@bank.example>"
    mail["Date"] = "Mon, 02 Mar 2026 09:00:00 +0900"
    mail.set_content("3월 9일부터 금리가 오릅니다.\n")
    if html:
        table = "<table><tr><th>기간</th><th>금리</th></tr><tr><td>6개월</td><td>2.10%</td></tr></table>"
        mail.add_alternative(f"<p>3월 9일부터 금리가 오릅니다.</p>{table}", subtype="html")
    return mail


def test_a_message_gives_its_subject_sender_date_and_body_with_its_table_once(tmp_path: Path) -> None:
    parsed = read(tmp_path, message().as_bytes())
    assert (parsed.format, parsed.title) == (Format.EML, "금리 인상 안내")
    head = "# 금리 인상 안내\n\nFrom: 상품팀 <products@bank.example>\n\nDate: 2026-03-02 09:00+09:00\n\n"
    assert text_of(parsed) == f"{head}3월 9일부터 금리가 오릅니다."
    table = "| 기간 | 금리 |\n| --- | --- |\n| 6개월 | 2.10% |"
    assert text_in(tmp_path, message(html=True).as_bytes()) == f"{text_of(parsed)}\n\n{table}"


def test_attachments_are_named_and_not_read(tmp_path: Path) -> None:
    mail = message()
    mail.add_attachment("기간,금리\n6개월,9.99%\n".encode(), maintype="text", subtype="csv", filename="금리표.csv")
    mail.add_attachment(message(), filename="앞선 메일.eml")
    text = text_in(tmp_path, mail.as_bytes())
    assert text.endswith("Attachments, not read:\n\n- 금리표.csv\n- 앞선 메일.eml")
    assert "9.99%" not in text


@pytest.mark.parametrize("declared", ["; charset=ks_c_5601-1987", "; charset=euc-kr", "; charset=x-unknown", ""])
def test_a_message_and_its_subject_in_cp949_are_read_whatever_it_declares(tmp_path: Path, declared: str) -> None:
    body = "똠방각하의 펲시콜라 예금 금리를 올립니다."  # 똠, 펲: in cp949 alone, not in euc-kr
    head = f"MIME-Version: 1.0\r\nSubject: 금리 안내\r\nContent-Type: text/plain{declared}\r\n\r\n"
    parsed = read(tmp_path, f"{head}{body}".encode("cp949"))
    assert (parsed.title, body in text_of(parsed)) == ("금리 안내", True)


def test_a_message_with_sender_and_subject_alone_is_read_as_a_message(tmp_path: Path) -> None:
    parsed = read(tmp_path, "From: a@bank.example\nSubject: 금리 안내\n\n본문입니다.".encode())
    assert (parsed.format, parsed.title) == (Format.EML, "금리 안내")
