"""Sentences that differ by their amounts alone are shown with what tells them apart."""

from dataclasses import replace

import pytest

from chatbot.grounding.sources import read_source
from chatbot.grounding.stream import GroundingMode, GroundingStream
from knowledge.passage import Passage
from tests.chatbot.grounding.fed_streams import checked, cited, events_of, passage

OTHER = passage("other", "기타", "통장은 영업점에서 만듭니다. The app is free of charge.")
CARDS = passage(
    "cards",
    "카드 안내",
    "푸른 카드는 공항 라운지를 제공합니다. 연회비는 5만원입니다. "
    "붉은 카드는 영화 할인을 제공합니다. 연회비는 1만원입니다.",
)
PLANS = passage(
    "plans",
    "Plans",
    "The blue plan comes with a lounge. It costs KRW 50,000 a year. "
    "The red plan comes with movies. It costs KRW 10,000 a year.",
    "en",
)
DEPOSIT = passage("deposit", "푸른 예금", "최소 가입금액은 100만원입니다. 가입 기간은 6개월 이상입니다.")
SAVINGS = passage("savings", "붉은 적금", "최소 가입금액은 1만원입니다. 가입 기간은 12개월 이상입니다.")
HOUSE = passage("house", "주택대출", "주택대출의 수수료는 1.2%입니다. 3년이 지나면 수수료가 없습니다.")
CREDIT = passage("credit", "신용대출", "신용대출의 수수료는 0.7%입니다. 1년이 지나면 수수료가 없습니다.")
RATES = passage(
    "rates",
    "푸른 예금",
    "## 개인 고객\n\n| 기간 | 금리(연 %) |\n|---|---|\n| 6개월 | 2.5 |\n| 12개월 | 3.0 |\n\n"
    "## 법인 고객\n\n| 기간 | 금리(연 %) |\n|---|---|\n| 6개월 | 1.5 |\n| 12개월 | 2.0 |",
)
SECTIONS = passage(
    "sections", "예금", "## 푸른 예금\n\n수수료는 3회까지 없습니다.\n\n## 붉은 예금\n\n수수료는 5회까지 없습니다."
)


@pytest.mark.parametrize(
    ("answer", "sources", "shown"),
    [
        (
            "푸른 카드는 공항 라운지를 제공합니다. 연회비는 1만원입니다.",
            [CARDS],
            "푸른 카드는 공항 라운지를 제공합니다.\n\n붉은 카드는 영화 할인을 제공합니다. 연회비는 1만원입니다.",
        ),
        (
            "The blue plan comes with a lounge. It costs KRW 10,000 a year.",
            [PLANS],
            "The blue plan comes with a lounge.\n\nThe red plan comes with movies. It costs KRW 10,000 a year.",
        ),
        (
            "주택대출의 수수료는 1.2%입니다. 1년이 지나면 수수료가 없습니다.",
            [HOUSE, CREDIT],
            "주택대출의 수수료는 1.2%입니다.\n\n**신용대출**\n\n1년이 지나면 수수료가 없습니다.",
        ),
        (
            "# 푸른 예금\n최소 가입금액은 100만원입니다. 가입 기간은 12개월 이상입니다.",
            [DEPOSIT, SAVINGS],
            "# 푸른 예금\n최소 가입금액은 100만원입니다.\n\n**붉은 적금**\n\n가입 기간은 12개월 이상입니다.",
        ),
        (
            "# 푸른 예금\n최소 가입금액은 1만원입니다.",
            [DEPOSIT, SAVINGS],
            "**붉은 적금**\n\n최소 가입금액은 1만원입니다.",
        ),
        (
            "푸른 예금의 12개월 금리는 연 2.0%입니다.",
            [RATES],
            "**법인 고객**\n\n푸른 예금의 12개월 금리는 연 2.0%입니다.",
        ),
        (
            "개인 고객의 12개월 금리는 연 2.0%입니다.",
            [RATES],
            "**법인 고객**\n\n| 기간 | 금리(연 %) |\n|---|---|\n| 6개월 | 1.5 |\n| 12개월 | 2.0 |",
        ),
        (
            "# 개인 고객\n12개월 금리는 연 3.0%입니다. 6개월 금리는 연 1.5%입니다.",
            [RATES],
            "# 개인 고객\n12개월 금리는 연 3.0%입니다.\n\n**법인 고객**\n\n6개월 금리는 연 1.5%입니다.",
        ),
        ("수수료는 5회까지 없습니다.", [SECTIONS], "**붉은 예금**\n\n수수료는 5회까지 없습니다."),
    ],
)
def test_what_is_said_of_another_is_shown_with_what_it_is_of(answer: str, sources: list[Passage], shown: str) -> None:
    checks = checked(answer, [*sources, OTHER])
    assert checks.text.strip() == shown
    assert checks.grounded


@pytest.mark.parametrize(
    ("answer", "sources"),
    [
        ("푸른 카드는 공항 라운지를 제공합니다. 연회비는 5만원입니다.", [CARDS]),
        ("The blue plan comes with a lounge. It costs KRW 50,000 a year.", [PLANS]),
        ("신용대출의 수수료는 0.7%입니다. 1년이 지나면 수수료가 없습니다.", [HOUSE, CREDIT]),
        ("# 푸른 예금\n최소 가입금액은 100만원입니다. 가입 기간은 6개월 이상입니다.", [DEPOSIT, SAVINGS]),
        ("푸른 예금의 최소 가입금액은 100만원입니다.", [DEPOSIT, SAVINGS]),
        ("최소 가입금액은 100만원입니다.", [DEPOSIT, replace(DEPOSIT, document_id="again", title="예금")]),
        ("# 개인 고객\n12개월 금리는 연 3.0%입니다. 6개월 금리는 연 2.5%입니다.", [RATES]),
        ("12개월 금리는 연 3.0%입니다.", [replace(RATES, text=RATES.text.partition("## 법인")[0])] * 2),
    ],
)
def test_what_says_itself_what_it_is_of_is_shown_as_it_is(answer: str, sources: list[Passage]) -> None:
    assert checked(answer, [*sources, OTHER]).text == answer


def test_a_heading_without_a_claim_under_it_is_not_shown() -> None:
    assert checked("## 법인 고객\n", [RATES, OTHER]).text == ""
    assert checked("# 붉은 적금\n푸른 예금의 최소 가입금액은 100만원입니다.", [DEPOSIT, SAVINGS]).text == (
        "푸른 예금의 최소 가입금액은 100만원입니다."
    )


@pytest.mark.parametrize(
    "caption", ["(단위: 만원)", "※ 단위: 만원", "(단위: 만원)\n\n## 한도", "단위: 만원\n\n매월 바뀝니다."]
)
@pytest.mark.parametrize("answer", ["개인 한도는 500만원입니다.", "개인 한도는 500입니다."])
def test_a_table_is_shown_with_the_caption_that_gives_its_numbers_their_unit(caption: str, answer: str) -> None:
    table = "| 구분 | 한도 |\n|---|---|\n| 개인 | 500 |\n| 법인 | 3,000 |"
    limits = passage("limits", "이체 한도", f"고객별 한도를 알려 드립니다.\n\n{caption}\n\n{table}")
    assert checked(answer, [limits, OTHER]).text.strip() == f"{caption}\n\n{table}"


def test_the_caption_of_a_table_that_is_too_long_to_be_shown_stands_before_its_row() -> None:
    rows = "\n".join(f"| {chr(ord('가') + 31 * n)}등급 | {n}00 |" for n in range(150))
    limits = passage("limits", "이체 한도", f"(단위: 만원)\n\n| 구분 | 한도 |\n|---|---|\n{rows}")
    for answer in ("보등급 한도는 14,000만원입니다.", "보등급 한도는 14000입니다."):
        assert checked(answer, [limits, OTHER]).text.strip() == "**(단위: 만원)**\n\n| 보등급 | 14000 |"


POINTING_BACK = [
    "The blue card is for students. It costs KRW 5,000 a year. It has a limit of KRW 300,000 a month. "
    "They get a discount of 10% in cafes. It ends after 5 years.",
    "푸른 카드는 학생이 씁니다. 이 카드는 연회비가 5,000원입니다. 이 카드의 한도는 월 300,000원입니다. "
    "이때 카페 할인은 10%입니다. 해당 카드는 5년 뒤에 끝납니다.",
]


@pytest.mark.parametrize("text", POINTING_BACK)
def test_sentences_that_point_back_to_one_are_shown_once_with_it(text: str) -> None:
    first, _, rest = text.partition(". ")
    sources = [passage("card", "Card", text), OTHER]
    for answer in (rest, f"{first}. {rest}"):
        checks = GroundingStream(sources, grounding=GroundingMode.STRICT, language="en")
        places = [(citation.start, citation.end) for citation in cited(events_of(checks, [answer]))]
        assert checks.text == text
        assert checks.grounded
        ends = [0, *(end for _, end in places)]
        assert all(checks.text[end:start].strip() == "" for end, (start, _) in zip(ends, places, strict=False))
        assert ends[-1] == len(text)


def test_what_was_shown_within_more_is_not_shown_again() -> None:
    text = POINTING_BACK[0]
    assert checked("It ends after 5 years. It costs KRW 5,000 a year.", [passage("card", "Card", text)]).text == text


def test_a_sentence_that_points_back_is_shown_with_its_own_after_one_of_another() -> None:
    first = "The blue plan comes with a lounge. It costs KRW 50,000 a year."
    second = "The red plan comes with movies. It ends after 5 years."
    plans = [passage("blue", "Plans", f"{first} It has a limit of KRW 300,000."), passage("red", "Plans", second)]
    shown = checked(f"{first} {second} It has a limit of KRW 300,000.", plans).text
    assert shown.endswith(f"{second}\n\n{first} It has a limit of KRW 300,000.")


FACTS = passage(
    "facts",
    "Home loan",
    "- **Loan-to-value**: at most 70%. For a first home it is 80%.\n"
    "- **Payment holiday**: once, for up to 6 months. Interest goes on during the holiday.\n\n"
    "**How long.** One to three business days. Orders after 15:30 count as the next business day.\n\n"
    "**What it costs.**\n\n| Amount | Fee |\n|---|---|\n| up to USD 500 | KRW 3,000 |",
    "en",
)
LEASE = passage(
    "lease",
    "전세대출",
    "4. 한도: 보증금의 80% 이내입니다.\n5. 중도상환수수료: 3년 이내에 갚으면 0.6%입니다. 그 뒤에는 없습니다.\n\n"
    "▶ 신청시기\n잔금지급일부터 3개월 이내에 신청합니다.",
)


@pytest.mark.parametrize(
    ("answer", "source", "shown"),
    [
        ("The loan-to-value is at most 70%.", FACTS, "- **Loan-to-value**: at most 70%. For a first home it is 80%."),
        (
            "The payment holiday is once, for up to 6 months.",
            FACTS,
            "- **Payment holiday**: once, for up to 6 months. Interest goes on during the holiday.",
        ),
        (
            "Orders after 15:30 count as the next business day.",
            FACTS,
            "**How long.** One to three business days. Orders after 15:30 count as the next business day.",
        ),
        (
            "중도상환수수료는 3년 이내에 갚으면 0.6%입니다.",
            LEASE,
            "5. 중도상환수수료: 3년 이내에 갚으면 0.6%입니다. 그 뒤에는 없습니다.",
        ),
    ],
)
def test_a_line_is_shown_whole_with_the_label_that_says_what_it_is_of(answer: str, source: Passage, shown: str) -> None:
    assert checked(answer, [source, OTHER]).text.strip() == shown


@pytest.mark.parametrize("source", [FACTS, LEASE], ids=["bold", "marked"])
def test_a_title_is_no_sentence_of_its_own_to_quote(source: Passage) -> None:
    texts = [unit.text for unit in read_source(source).units]
    assert not {"**What it costs.**", "**How long.**", "▶ 신청시기"} & set(texts)
    assert any(text.startswith(("**What it costs.**\n\n| Amount", "▶ 신청시기\n잔금")) for text in texts)
