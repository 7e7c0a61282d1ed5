"""Strict grounding shows the passage's own sentence where a claim turns it: no falsification reaches a customer."""

import random
import re

import pytest

from chatbot.grounding.boilerplate import is_refusal
from chatbot.grounding.departures import reads_row, restates
from evals.questions import falsified
from knowledge.passage import Passage
from tests.chatbot.grounding.fed_streams import checked, passage

KOREAN = passage(
    "limits",
    "이체 한도",
    "개인 고객은 앱에서 하루 최대 5,000,000원까지 이체할 수 있습니다. "
    "한도를 올리려면 영업점에서 본인 확인을 해야 합니다. "
    "법인은 만기 이전에 전부 해지할 수 없습니다. "
    "수수료는 월 300원 이상이며 고객이 은행에 냅니다. 매월 15일에 결제됩니다.",
)
ENGLISH = passage(
    "cards",
    "Check card",
    "You can withdraw at most KRW 1,000,000 a day at a branch. All replacement cards must be ordered before 18:00. "
    "The card cannot be used without a PIN. The monthly fee is KRW 300 and is waived for 12 months.",
    "en",
)
OTHER = passage("other", "기타", "통장은 영업점에서 만듭니다. The bank opens at 9:00.")


def sentences(text: str) -> list[str]:
    return [f"{part.strip()}." for part in text.split(". ") for part in [part.rstrip(".")]]


@pytest.mark.parametrize("own", [KOREAN, ENGLISH], ids=["Korean", "English"])
def test_no_falsification_of_a_sentence_is_shown(own: Passage) -> None:
    kinds = set()
    for sentence in sentences(own.text):
        others = [other for other in sentences(own.text) if other != sentence]
        for one in falsified(sentence, others, random.Random(1)):  # noqa: S311  a draw
            kinds.add(one.kind)
            checks = checked(one.false, (own, OTHER), question="알려 주세요", language=own.language)
            assert one.false.rstrip(".") not in checks.text, one
    assert len(kinds) >= 10


@pytest.mark.parametrize("own", [KOREAN, ENGLISH], ids=["Korean", "English"])
def test_a_true_sentence_is_shown_as_it_is(own: Passage) -> None:
    for sentence in sentences(own.text):
        assert checked(sentence, (own, OTHER), question="알려 주세요", language=own.language).text == sentence


def test_the_passage_s_sentence_stands_for_one_that_turns_it() -> None:
    checks = checked("법인은 만기 이전에 전부 해지할 수 있습니다.", (KOREAN,), question="법인은 언제 해지하나요?")
    assert checks.text == "법인은 만기 이전에 전부 해지할 수 없습니다."
    assert checks.grounded


def test_a_part_of_a_sentence_may_leave_words_out() -> None:
    text = "The monthly fee is waived for 12 months."
    assert checked(text, (ENGLISH,), question="How long is it waived?", language="en").text


FEES = passage(
    "fees",
    "송금 안내",
    "당행 이체는 300원, 타행 이체는 500원입니다. 교통카드 기능은 신용카드에 제공되며 체크카드에는 제공되지 않습니다. "
    "미성년자는 법정대리인의 동의를 받으면 카드를 발급받을 수 있습니다.\n\n"
    "| 통화 | 송금 수수료(원) | 전신료(원) |\n|---|---|---|\n| 달러 | 5,000 | 8,000 |\n| 유로 | 7,000 | 9,000 |",
)


@pytest.mark.parametrize(
    "claim",
    [
        "당행 이체는 500원, 타행 이체는 300원입니다.",
        "타행 이체는 300원, 당행 이체는 500원입니다.",
        "교통카드 기능은 체크카드에 제공됩니다.",
        "미성년자는 카드를 발급받을 수 있습니다.",
        "| 달러 | 8,000 | 5,000 |\n",
        "| 유로 | 5,000 | 8,000 |\n",
        "달러 송금 수수료는 8,000원, 전신료는 5,000원입니다.",
    ],
    ids=["numbers", "names", "half a denial", "no condition", "cells", "label of a row", "prose of a row"],
)
def test_what_is_said_in_another_order_or_by_half_is_not_shown(claim: str) -> None:
    assert claim.strip().rstrip(".") not in checked(claim, (FEES, OTHER), question="알려 주세요").text


def test_a_number_of_another_sentence_is_not_shown_in_a_sentence_that_is_repeated() -> None:
    own = passage(
        "rate",
        "신용대출 금리",
        "변동금리는 은행채 6개월물 금리에 가산금리를 더해 정하며 6개월마다 바뀝니다. 재직 3개월이 지나면 신청합니다.",
    )
    checks = checked(
        "변동금리는 은행채 3개월물 금리에 가산금리를 더해 정하며 6개월마다 바뀝니다.", (own,), question="금리는요?"
    )
    assert "6개월물" in checks.text
    assert "3개월물" not in checks.text


def test_a_row_as_it_stands_is_shown() -> None:
    text = "달러 수수료는 다음과 같습니다.\n\n| 통화 | 송금 수수료(원) | 전신료(원) |\n| 달러 | 5,000 | 8,000 |\n"
    assert "| 달러 | 5,000 | 8,000 |" in checked(text, (FEES, OTHER), question="달러 수수료 알려 주세요").text


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("문서에는 카드 분실 시 신고하지 않아도 됩니다.", "카드 분실 시 신고해야 하나요?"),
        ("자료에 따르면 대출 중도상환 수수료는 없습니다.", "대출 중도상환 수수료가 있나요?"),
        ("The documents do not cover you, so no fee applies.", "Does a fee apply?"),
        ("You get the new card without any documentation.", "How do I get a new card?"),
        ("You need no documents for the new card.", "Which documents do I need for the new card?"),
    ],
)
def test_a_fact_in_the_form_of_a_refusal_is_a_claim(text: str, question: str) -> None:
    assert not is_refusal(text, question)


def test_a_yes_does_not_stand_with_a_courtesy_alone() -> None:
    checks = checked("네. 고객센터로 문의해 주세요.", (FEES,), question="초등학생도 카드가 나오나요?")
    assert "네" not in checks.text


TERMS = passage(
    "terms",
    "새봄 예금 약관",
    "만 14세 미만 고객은 법정대리인이 계좌를 개설합니다. 개인 고객은 앱에서 하루 두 번 이체할 수 있습니다. "
    "유효기간은 3년이며, 클라우드에 저장되기 때문에 인증서를 복사할 필요가 없습니다. "
    "연금수령이 아닌 방법으로 해지하면 기타소득세가 부과됩니다. 심사에 올랐으나 승인에는 실패했습니다. "
    "고객이 은행에 서류를 보냅니다. 이체한도는 승인 후 늘어날 수 있습니다.\n\n"
    "1. 앱에서 본인을 확인합니다.\n2. 새 비밀번호를 정합니다.\n\n"
    "| 업종 | 캐시백 | 조건 |\n|---|---|---|\n| 편의점 | 5% | 3만원 이상 결제 |\n| 서점 | 3% | 1만원 이상 결제 |",
)
CONDITIONS = passage(
    "conditions",
    "Spring card",
    "If you fail to enter the PIN, the payment will be declined. Residents aged 17 or over can open an account "
    "in the app. The higher benefit applies to Gold and Platinum, the income benefit applies only to Platinum. "
    "The bank sends the notice to you. Fees may be charged by other banks. Option A is free for students.",
    "en",
)


@pytest.mark.parametrize(
    ("own", "claim"),
    [
        (TERMS, "고객은 법정대리인이 계좌를 개설합니다."),
        (TERMS, "앱에서 하루 두 번 이체할 수 있습니다."),
        (TERMS, "유효기간이 3년이기 때문에 인증서를 복사할 필요가 없습니다."),
        (TERMS, "연금수령 방법으로 해지하면 기타소득세가 부과됩니다."),
        (TERMS, "심사에 올라 승인했습니다."),
        (TERMS, "고객에게 은행이 서류를 보냅니다."),
        (TERMS, "고객이 은행에서 서류를 보냅니다."),
        (TERMS, "이체한도는 승인 후 늘어납니다."),
        (TERMS, "직접 방문 고객이 은행에 서류를 보냅니다."),
        (TERMS, "1. 새 비밀번호를 정합니다."),
        (TERMS, "편의점 캐시백은 5%입니다."),
        (TERMS, "새봄 예금 약관 조건은 없습니다."),
        (CONDITIONS, "If you enter the PIN, the payment will be declined."),
        (CONDITIONS, "You can open an account in the app."),
        (CONDITIONS, "The higher benefit applies only to Platinum."),
        (CONDITIONS, "You send the notice to the bank."),
        (CONDITIONS, "Fees are charged by other banks."),
        (CONDITIONS, "Option is free for students."),
    ],
    ids=[
        "no age", "no person", "cause of another clause", "denial inside", "failure", "who acts", "particle", "may",
        "channel before", "step of another", "no condition of a row", "nearest to a title", "failure in English",
        "no age in English", "only of another clause", "to whom", "may in English", "which option",
    ],
)  # fmt: skip
def test_what_says_more_or_less_than_a_sentence_is_not_shown(own: Passage, claim: str) -> None:
    shown = checked(f"{sentences(own.text)[1]} {claim}", (own, OTHER), question="알려 주세요").text
    assert shown
    assert not any(part.strip().startswith(claim.rstrip(".")) for part in re.split(r"\n|(?<=[.])\s", shown))


@pytest.mark.parametrize(
    ("own", "claim"),
    [
        (TERMS, "고객은 은행에 서류를 보냅니다."),
        (TERMS, "새봄 예금의 이체한도는 승인 후 늘어날 수 있어요."),
        (TERMS, "- 새 비밀번호를 정한다."),
        (CONDITIONS, "**the bank** sends the notice to you"),
        (CONDITIONS, "The payment will be declined if you fail to enter the PIN."),
        (FEES, "당행 이체는 300원, 타행 이체는 500원이에요."),
    ],
    ids=["topic", "name and ending", "mark", "marks in English", "order", "ending"],
)
def test_what_says_the_same_is_shown_as_it_is(own: Passage, claim: str) -> None:
    is_other_order = "if you fail" in claim
    shown = checked(claim, (own, OTHER), question="알려 주세요").text
    assert (claim in shown) is not is_other_order
    assert shown


@pytest.mark.parametrize("claim", ["Don't share the code.", "* Do not share **the code**"])
def test_contractions_and_marks_say_nothing(claim: str) -> None:
    assert restates(claim, "Do not share the code.")
    assert not restates(claim, "Do share the code.")


def test_a_sentence_of_signs_is_restated_by_none() -> None:
    assert not restates("새봄 예금", "|---|---|", {"새봄예금"})


def test_what_is_restated_is_what_is_cited() -> None:
    fund = passage("fund", "펀드 수수료", "펀드를 환매할 때 수수료 할인은 없습니다.")
    fax = passage("fax", "팩스 발송", "신청은 전화로 합니다.\n- 수수료 : 없음")
    checks = checked("수수료는 없습니다.", (fund, fax), question="돈이 드나요?")
    assert (checks.text, checks.cited) == ("수수료는 없습니다.", (2,))


def test_a_row_with_one_value_may_be_read() -> None:
    own = passage("rates", "새봄 예금", "| 기간 | 금리(연 %) |\n|---|---|\n| 6개월 | 2.5 |\n| 12개월 | 3.0 |")
    claim = "새봄 예금의 12개월 금리는 연 3.0%입니다."
    assert checked(claim, (own, OTHER), question="금리는요?").text == claim
    for other in ("12개월까지 금리는 연 3.0%입니다.", "12개월 최고 금리는 연 3.0%입니다."):
        assert other not in checked(other, (own, OTHER), question="금리는요?").text


def test_what_is_near_to_a_sentence_gives_way_to_it_and_begins_no_answer() -> None:
    own = passage(
        "joint",
        "미성년자 예금",
        "미성년자 명의의 예금은 해지 시 친권자 전원의 동의가 필수입니다. 통장은 지점에서 만듭니다.",
    )
    near = "미성년자 예금을 없애려면 부모 전원이 동의해야 해요."
    question = "미성년자 예금은 어떻게 하나요?"
    checks = checked(f"통장은 지점에서 만듭니다. {near}", (own, OTHER), question=question)
    assert "친권자 전원의 동의가 필수입니다" in checks.text
    assert near not in checks.text
    assert checked(near, (own, OTHER), question=question).text == ""
    assert checked(f"{near} 통장은 지점에서 만듭니다.", (own, OTHER), question=question).text.startswith("통장은")


ACCOUNTS = passage(
    "accounts",
    "Resident and non-resident accounts",
    "Residents can open an account in the app. Non-residents must visit a branch. Is the annual fee waived? No, never. "
    "Contactless payment works in every shop.",
    "en",
)
CARDS = passage(
    "two-cards",
    "신용카드·체크카드 안내",
    "신용카드 연회비는 2만원입니다. 체크카드는 다음과 같습니다. 연회비는 없습니다. 문자 서비스는 월 300원입니다. "
    "펀드는 원금이 보장된다? 사실이 아닙니다. 대출을 갚은 고객은 한도를 다시 신청할 수 있습니다. "
    "고객은 은행이 보호합니다. 가 등급은 수수료를 내지 않습니다. 0.5%p가 가산됩니다.\n\n"
    "가. 카드를 고릅니다.\n나. 새 비밀번호를 정합니다.\n\n"
    "다음은 할 수 없습니다:\n- 앱에서 해지합니다.\n- 전화로 해지합니다.",
)
WAIVERS = passage(
    "waivers", "수수료 면제 안내", "| 구분 | 수수료(면제 전) |\n|---|---|\n| 법인 | 500원 |\n| 개인 | 300원 |"
)
COUNTS = passage("counts", "우대", "| 구분 | 수수료 없는 횟수 |\n|---|---|\n| 이체 | 5회 |\n| 출금 | 3회 |")


@pytest.mark.parametrize(
    ("own", "claim"),
    [
        (ACCOUNTS, "Non-residents can open an account in the app."),
        (ACCOUNTS, "Is the annual fee waived."),
        (ACCOUNTS, "Contact less payment works in every shop."),
        (CARDS, "신용카드 연회비는 없습니다."),
        (CARDS, "안내 문자 서비스는 월 300원입니다."),
        (CARDS, "펀드는 원금이 보장된다."),
        (CARDS, "대출을 갚는 고객은 한도를 다시 신청할 수 있습니다."),
        (CARDS, "고객이 은행은 보호합니다."),
        (CARDS, "등급은 수수료를 내지 않습니다."),
        (CARDS, "-0.5%p가 가산됩니다."),
        (CARDS, ".5%p가 가산됩니다."),
        (CARDS, "가. 새 비밀번호를 정합니다."),
        (CARDS, "앱에서 해지합니다."),
        (WAIVERS, "법인 수수료는 500원 면제입니다."),
        (COUNTS, "이체 수수료는 5회입니다."),
    ],
    ids=[
        "word of a title", "question", "blank in a word", "one of two in a title", "announcement",
        "question in Korean", "tense", "who protects", "which grade", "minus", "point", "letter of an item",
        "item of a denial", "title behind", "half a heading",
    ],
)  # fmt: skip
def test_neither_a_title_nor_a_form_makes_another_claim_of_a_sentence(own: Passage, claim: str) -> None:
    shown = checked(claim, (own, OTHER), question="알려 주세요", language=own.language).text
    assert not any(line.strip() in {claim, claim.rstrip(".")} for line in re.split(r"\n|(?<=[.])\s", shown))


def test_a_sentence_stands_with_its_restriction() -> None:
    own = passage("fee", "해외 송금", "수수료는 없습니다. 단, 해외 송금은 5,000원입니다. 통장은 지점에서 만듭니다.")
    assert "단, 해외 송금은 5,000원" in checked("수수료는 없습니다.", (own, OTHER), question="돈이 드나요?").text


@pytest.mark.parametrize(
    "claim",
    ["문서에 따르면 문자 서비스는 월 300원입니다.", "문자 서비스가 월 300원이에요.", "나. 새 비밀번호를 정해요."],
    ids=["by documents", "subject", "letter"],
)
def test_how_a_claim_begins_and_is_marked_says_nothing(claim: str) -> None:
    assert claim in checked(claim, (CARDS, OTHER), question="알려 주세요").text


FORMS = passage(
    "forms",
    "Card forms",
    "You must submit the documents at a branch. A few fees apply to the account. Customer information is provided to "
    "other banks. If the balance is above USD 100, you can cancel at any time. The result of the year was\n(370)\n"
    '"Are the fees waived?" is asked often. Members go free (students excluded).\n\n'
    "These services are not offered:\n- cash by post\n- cash by phone",
    "en",
)
COLLATERAL = passage(
    "collateral",
    "대출 담보",
    "해지는 영업점 방문 없이 가능합니다. 고객이 은행에 통지합니다. 수수료는 면제되지 않습니다. “수수료가 면제돼요?” "
    "대출 자료에 소득 정보가 포함됩니다. "
    "비과세 대상입니다. 우편함으로 받습니다. 네, 가능합니다.\n\n"
    "| 구분 | 담보 |\n|---|---|\n| 신용 대출 | 무 |\n| 예금 대출 | 유 |\n\n"
    "| 항목 | 예금 | 적금 |\n|---|---|---|\n| 일부 해지 | 불가 | |\n| 재예치 | 가능 | 불가 |",
)


@pytest.mark.parametrize(
    ("own", "claim", "question"),
    [
        (FORMS, "You do not need to visit the branch.", "Where do I submit them?"),
        (FORMS, "Documents are not needed.", "Do I need documents?"),
        (FORMS, "Please contact our branch, which is not available to you.", "Where do I submit them?"),
        (FORMS, "All of them.", "Which fees apply?"),
        (FORMS, "- 5.", "How many fees apply?"),
        (FORMS, "⑤", "How many fees apply?"),
        (FORMS, "Customer information is not provided to other banks.", "Is customer information provided?"),
        (FORMS, "# You can cancel at any time", "Can I cancel at any time?"),
        (FORMS, "Few fees apply to the account.", "What costs are there?"),
        (FORMS, "You must submit [](the documents) at a branch.", "What do I do at a branch?"),
        (FORMS, "Members go free students (excluded).", "Who goes free?"),
        (FORMS, "370", "What was the result?"),
        (COLLATERAL, "영업점 방문이 필요합니다.", "해지하려면 영업점에 가나요?"),
        (COLLATERAL, "직원 확인이 필요합니다.", "해지하려면 어떻게 하나요?"),
        (COLLATERAL, "모두 이후.", "언제 통지하나요?"),
        (COLLATERAL, "대출 자료에 소득 정보는 포함되지 않습니다.", "대출 자료에 소득 정보가 포함되나요?"),
        (COLLATERAL, "고객 은행에 통지합니다.", "누가 통지하나요?"),
        (COLLATERAL, "수수료가 면제돼요.", "돈이 드나요?"),
        (COLLATERAL, "신용 대출의 담보 의무", "신용 대출에 담보가 있나요?"),
        (COLLATERAL, "불) 비과세 대상입니다.", "세금을 내나요?"),
        (COLLATERAL, "일부 해지 불가", "적금 일부를 찾을 수 있나요?"),
        (COLLATERAL, "일부 해지 | | 불가", "적금 일부를 찾을 수 있나요?"),
        (COLLATERAL, "가능합니다.", "휴대폰으로 증액할 수 있나요?"),
    ],
    ids=[
        "polite words", "need", "polite clause", "stop words", "number of an item", "circled number", "information",
        "heading", "article", "link without a text", "brackets", "negative number",
        "polite words in Korean", "need in Korean",
        "stop words in Korean", "information in Korean", "mark of a subject left out", "quoted question", "의 of 의무",
        "word as an item's letter", "empty cell", "cell moved", "answer to another question",
    ],
)  # fmt: skip
def test_no_form_hides_a_claim(own: Passage, claim: str, question: str) -> None:
    checks = checked(claim, (own, OTHER), question=question, language=own.language)
    assert claim.splitlines()[-1].strip() not in {line.strip() for line in re.split(r"\n|(?<=[.])\s", checks.text)}


@pytest.mark.parametrize(
    ("own", "text", "shown"),
    [
        (FORMS, "- cash by phone", "These services are not offered:\n- cash by post\n- cash by phone"),
        (
            COLLATERAL,
            "| 항목 | 예금 | 적금 |\n|---|---|---|\n| 신용 대출 | 무 |",
            "| 구분 | 담보 |\n|---|---|\n| 신용 대출 | 무 |\n| 예금 대출 | 유 |",
        ),
    ],
)
def test_an_item_and_a_row_stand_under_their_own_head(own: Passage, text: str, shown: str) -> None:
    assert checked(text, (own, OTHER), question="알려 주세요", language=own.language).text.strip().endswith(shown)


def test_a_row_is_read_with_the_heading_of_its_own_table() -> None:
    head = "|---|---|\n"
    own = passage(
        "two",
        "이체",
        f"| 구분 | 할인 |\n{head}| 앱 | 300원 |\n\n| 고객 | 수수료 |\n{head}| 법인 | 500원 |\n| 개인 | 100원 |",
    )
    claim = "법인 할인은 500원입니다."
    assert claim not in checked(claim, (own, OTHER), question="법인은요?").text
    assert (
        checked("법인 수수료는 500원입니다.", (own, OTHER), question="법인은요?").text == "법인 수수료는 500원입니다."
    )


def test_a_mark_in_a_cell_ends_no_table() -> None:
    table = "| Request | Do we ask? |\n|---|---|\n| Your PIN | Never |\n| Your name | Yes |"
    own = passage("asked", "Calls", f"What we ask on the telephone.\n\n{table}", "en")
    checks = checked("| Your PIN | Never |", (own, OTHER), question="Does the bank ask for a PIN?", language="en")
    assert checks.text.strip() == table


def test_a_label_is_read_as_a_topic() -> None:
    assert restates("수수료는 없습니다.", "- 수수료 : 없음")
    assert not restates("수수료 없음", "수수료가 없음")


@pytest.mark.parametrize(
    ("cell", "is_read"),
    [("0.5", True), ("**0.5**", True), ("- 0.5", False), ("− 0.5", False), ("* 0.5", False), ("◆ 0.5", False)],
)
def test_a_sign_before_the_number_of_a_cell_is_no_bullet(cell: str, *, is_read: bool) -> None:
    assert reads_row("12개월 증감은 0.5%p입니다.", f"| 12개월 | {cell} |", "| 구분 | 증감(%p) |", ()) is is_read
