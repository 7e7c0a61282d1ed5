from email.message import EmailMessage
from pathlib import Path

import pytest

from ingest.parsing.parsed import Format, Reason, Unreadable
from tests.ingest.parsing.reading import read
from tests.ingest.parsing.shapes import SHAPES

ROWS = '기간,금리,비고\n6개월,2.10%,\n12개월,2.35%,"우대, 최대 0.5%p"\n'


@pytest.mark.parametrize("heading", ["# 가입\n\n", ""])
def test_of_a_picture_its_description_is_read_and_not_its_address(tmp_path: Path, heading: str) -> None:
    text = '절차는 ![가입 절차](https://evil.example/?q=1)와 ![](images/a.png "그림")입니다. [안내](https://bank.example/a)'
    parsed = read(tmp_path, f"{heading}{text}".encode())
    assert parsed.format is (Format.MARKDOWN if heading else Format.TEXT)
    expected = f"{heading}절차는 가입 절차와 입니다. [안내](https://bank.example/a)"
    assert [page.markdown for page in parsed.pages] == [expected]


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "cp949", "euc-kr", "utf-16"])
def test_csv_is_a_table_in_every_encoding_of_korean_offices(tmp_path: Path, charset: str) -> None:
    parsed = read(tmp_path, ROWS.encode(charset))
    assert parsed.format is Format.CSV
    assert parsed.pages[0].markdown == (
        "| 기간 | 금리 | 비고 |\n| --- | --- | --- |\n| 6개월 | 2.10% |  |\n| 12개월 | 2.35% | 우대, 최대 0.5%p |"
    )


def test_a_table_drawn_with_lines_is_read_in_cp949(tmp_path: Path) -> None:
    drawn = "┌───┬───┐\n│송금│500원│\n└───┴───┘\n"
    assert read(tmp_path, drawn.encode("cp949")).pages[0].markdown == drawn.strip()


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_csv_may_be_delimited_otherwise(tmp_path: Path, delimiter: str) -> None:
    rows = f"term{delimiter}rate\n6{delimiter}2,10\n12{delimiter}2,35\n"
    assert "| 12 | 2,35 |" in read(tmp_path, rows.encode()).pages[0].markdown


def test_lines_of_one_cell_of_a_csv_are_not_joined_to_one_word(tmp_path: Path) -> None:
    text = read(tmp_path, '구분,한도\n이체,"1일\n10"\n출금,20\n'.encode()).pages[0].markdown
    assert "| 이체 | 1일 10 |" in text


def test_lines_above_a_csv_are_its_title(tmp_path: Path) -> None:
    parsed = read(tmp_path, b"Deposit rates,,\nterm,rate,limit\n6,2.1,50\n12,2.3,30\n")
    assert parsed.title == "Deposit rates"
    assert parsed.pages[0].markdown.startswith("Deposit rates\n\n| term | rate | limit |")


@pytest.mark.parametrize(
    "prose",
    [
        "Dear customer, thank you.\nWe wrote on Monday, as agreed.\n",
        "예금, 적금, 대출을 안내합니다.\n자세한 내용은 영업점에 물어보세요.\n",
        "We open at nine.\nWe close at four; on Fridays at five.\n",
    ],
)
def test_prose_with_commas_is_no_table(tmp_path: Path, prose: str) -> None:
    assert read(tmp_path, prose.encode()).format is Format.TEXT


@pytest.mark.parametrize(
    "lines",
    [
        "해외송금 수수료 안내\n5천달러 이하 10,000원\n2만달러 이하 15,000원\n",
        "Fees\n- Up to USD 5,000: KRW 10,000\n- Up to USD 20,000: KRW 15,000\n",
        "상품,금액\n" + "정기예금,1,000,000원\n" * 30,
        "1. 예금,적금\n2. 카드,보험\n",
        "서명은 할 수 없으며,부모님도 할 수 없습니다.\n다만, 도장으로는 됩니다.\n",
    ],
)
def test_a_comma_in_a_number_or_a_list_ends_no_cell(tmp_path: Path, lines: str) -> None:
    parsed = read(tmp_path, lines.encode())
    assert (parsed.format, parsed.pages[0].markdown) == (Format.TEXT, lines.strip())


@pytest.mark.parametrize(
    "lines",
    [
        "# 금리\n\n* 정기예금: 1,000,000원 이상\n* 자유적금: 2,000,000원 이상",
        "| 구분 | 수수료 |\n|---|--:|\n| 송금 | 5,000원 |\n| 출금 | a\\|b |",
        "| 구분 | 수수료 |\n|:-:|-:|\n| 송금 | 500원 |",
        "구분|수수료\n송금|500원\n\n## 법인 고객\n\n구분|수수료\n송금|700원",
    ],
)
def test_markdown_with_regular_lines_is_no_csv(tmp_path: Path, lines: str) -> None:
    parsed = read(tmp_path, lines.encode())
    assert (parsed.format, parsed.pages[0].markdown) == (Format.MARKDOWN, lines)


def test_a_comment_in_a_short_markdown_table_stays_hidden(tmp_path: Path) -> None:
    text = "<!-- 내부: 원가 100원 -->\n\n| 구분 | 수수료 |\n|---|---|\n| 송금 | 5,000원 |\n"
    assert "원가" not in read(tmp_path, text.encode()).pages[0].markdown


def test_markdown_in_the_cells_of_a_csv_leaves_it_one(tmp_path: Path) -> None:
    rows = 'question,answer\n수수료?,"안내\n# 송금\n5,000원"\n한도?,"# 이체\n100만원"\n'
    assert "| 수수료? | 안내 # 송금 5,000원 |" in read(tmp_path, rows.encode()).pages[0].markdown


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('상품\t최소\n예금\t"1,500,000"\n적금\t"1,000,000"\n', "| 예금 | 1,500,000 |"),
        ("상품;최소\n예금;1,500,000\n적금;1,000,000\n", "| 예금 | 1,500,000 |"),
        ("상품;6개월\n예금 A, 일반;3,05\n예금 B, 특판;3,10\n", "| 예금 A, 일반 | 3,05 |"),
        ("상품,비고\n예금,비대면; 우대\n적금,창구; 없음\n", "| 예금 | 비대면; 우대 |"),
        ("구분,2024,2025\n매출,100,200\n비용,300,400\n", "| 매출 | 100 | 200 |"),
        ("상품,대상(개인|법인),금리\n예금,개인|법인,3.5%\n적금,개인|법인,3.7%\n", "| 예금 | 개인\\|법인 | 3.5% |"),
    ],
)
def test_the_delimiter_is_the_one_that_most_rows_share(tmp_path: Path, rows: str, line: str) -> None:
    assert line in read(tmp_path, rows.encode()).pages[0].markdown


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (
            "만기/금액(만원),100,300,500\n6개월,2.5,2.6,2.7\n12개월,2.8,2.9,3.0\n",
            "| 만기/금액(만원) | 100 | 300 | 500 |",
        ),
        ("등급\\점수,900,800,700\nA,3.1%,3.2%,3.3%\nB,4.1%,4.2%,4.3%\n", "| B | 4.1% | 4.2% | 4.3% |"),
        ("상품, 금리, 기간,대상\n예금, 3.5%, 12개월,개인\n적금, 3.7%, 6개월,개인\n", "| 예금 | 3.5% | 12개월 | 개인 |"),
        ("1. 정기예금\t12개월\t3.5%\n2. 자유적금\t6개월\t3.7%\n", "| 2. 자유적금 | 6개월 | 3.7% |"),
        ("# 순위\t상품\n1\t정기예금\n2\t자유적금\n", "| # 순위 | 상품 |"),
    ],
)
def test_numbers_in_a_head_and_spaces_after_some_commas_leave_a_table_one(tmp_path: Path, rows: str, line: str) -> None:
    parsed = read(tmp_path, rows.encode())
    assert parsed.format is Format.CSV
    assert line in parsed.pages[0].markdown


@pytest.mark.parametrize("end", ["", ",,"])
def test_a_heading_on_the_first_line_of_a_csv_is_its_title(tmp_path: Path, end: str) -> None:
    parsed = read(tmp_path, f"# 2026년 11월 금리표{end}\n상품,금리,기간\n예금,3.5%,12개월\n적금,3.7%,6개월\n".encode())
    assert (parsed.format, parsed.title) == (Format.CSV, "2026년 11월 금리표")
    assert parsed.pages[0].markdown.startswith("# 2026년 11월 금리표\n\n| 상품 | 금리 | 기간 |\n| --- ")


def test_a_cell_without_an_end_is_malformed_or_text_and_never_a_crash(tmp_path: Path) -> None:
    data = b'a,b\n1,2\n"' + b"x" * 200_000 + b",3\n"
    with pytest.raises(Unreadable) as refused:
        read(tmp_path, b"a,b\n1,2\n3,4\n" * 300 + data)
    assert refused.value.reason is Reason.MALFORMED


def message(*, html: bool = False) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = "금리 인상 안내"
    mail["From"] = "상품팀 <products@bank.example>"
    mail["To"] = "all@bank.example"
    mail["Date"] = "Mon, 02 Mar 2026 09:00:00 +0900"
    mail["Message-ID"] = "<1@bank.example>"
    mail.set_content("3월 9일부터 금리가 오릅니다.\n")
    if html:
        table = "<table><tr><th>기간</th><th>금리</th></tr><tr><td>6개월</td><td>2.10%</td></tr></table>"
        mail.add_alternative(f"<p>3월 9일부터 금리가 오릅니다.</p>{table}", subtype="html")
    return mail


def test_a_message_gives_its_subject_sender_date_and_body(tmp_path: Path) -> None:
    parsed = read(tmp_path, message().as_bytes())
    assert (parsed.format, parsed.title) == (Format.EML, "금리 인상 안내")
    assert parsed.pages[0].markdown == (
        "# 금리 인상 안내\n\nFrom: 상품팀 <products@bank.example>\n\nDate: 2026-03-02 09:00+09:00\n\n"
        "3월 9일부터 금리가 오릅니다."
    )


def test_the_html_of_a_message_keeps_its_table_and_the_text_is_not_read_twice(tmp_path: Path) -> None:
    text = read(tmp_path, message(html=True).as_bytes()).pages[0].markdown
    assert "| 6개월 | 2.10% |" in text
    assert text.count("3월 9일부터") == 1


def test_attachments_are_named_and_not_read(tmp_path: Path) -> None:
    mail = message()
    mail.add_attachment("기간,금리\n6개월,9.99%\n".encode(), maintype="text", subtype="csv", filename="금리표.csv")
    mail.add_attachment(message(), filename="앞선 메일.eml")
    text = read(tmp_path, mail.as_bytes()).pages[0].markdown
    assert text.endswith("Attachments, not read:\n\n- 금리표.csv\n- 앞선 메일.eml")
    assert "9.99%" not in text


@pytest.mark.parametrize("declared", ["ks_c_5601-1987", "euc-kr", "x-unknown", ""])
def test_a_message_in_cp949_is_read_whatever_it_declares(tmp_path: Path, declared: str) -> None:
    charset = f"; charset={declared}" if declared else ""
    head = f"MIME-Version: 1.0\r\nSubject: rates\r\nContent-Type: text/plain{charset}\r\n\r\n"
    body = "똠방각하의 펲시콜라 예금 금리를 올립니다."  # 똠, 펲: in cp949 alone, not in euc-kr
    assert body in read(tmp_path, head.encode() + body.encode("cp949")).pages[0].markdown


def test_a_subject_in_bare_cp949_is_read(tmp_path: Path) -> None:
    head = "MIME-Version: 1.0\r\nSubject: 금리 안내\r\nContent-Type: text/plain; charset=euc-kr\r\n\r\n본문입니다."
    assert read(tmp_path, head.encode("cp949")).title == "금리 안내"


def test_a_message_with_sender_and_subject_alone_is_read_as_a_message(tmp_path: Path) -> None:
    parsed = read(tmp_path, "From: a@bank.example\nSubject: 금리 안내\n\n본문입니다.".encode())
    assert (parsed.format, parsed.title) == (Format.EML, "금리 안내")


@pytest.mark.parametrize("name", ["subject.eml", "folded_subject.eml"])
def test_a_subject_as_long_as_a_document_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unreadable, match=r"the Subject has more than 10,000 characters") as refused:
        read(tmp_path, SHAPES[name](500_000))
    assert refused.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "kind", ["multipart/encrypted; boundary=x", "application/pkcs7-mime; smime-type=enveloped-data"]
)
def test_an_encrypted_message_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read(tmp_path, f"MIME-Version: 1.0\nSubject: x\nContent-Type: {kind}\n\nAAAA".encode())
    assert refused.value.reason is Reason.ENCRYPTED


def test_a_message_of_endless_parts_is_refused(tmp_path: Path) -> None:
    parts = "--x\nContent-Type: text/plain\n\na\n" * 1200
    head = "MIME-Version: 1.0\nSubject: x\nContent-Type: multipart/mixed; boundary=x\n\n"
    with pytest.raises(Unreadable) as refused:
        read(tmp_path, (head + parts).encode())
    assert refused.value.reason is Reason.HOSTILE
