"""What may be an answer: it states the amount asked for, is read by itself, and agrees with its yes or no."""

import pytest

from chatbot.grounding.asked import asks_for_amount, depends_on_another, states_amount
from chatbot.grounding.boilerplate import is_refusal
from chatbot.grounding.negation import without_yes_or_no
from chatbot.grounding.sentences import split_sentences
from chatbot.grounding.stream import GroundingMode
from tests.answers import text_of
from tests.chatbot.grounding.fed_streams import FEES, checked, cited, events_of, passage, quoted_by_words, stream

SAVINGS = passage(
    "savings",
    "한빛 자유적금",
    "한빛 자유적금은 월 한도 안에서 자유롭게 납입할 수 있습니다. 월 한도는 3,000,000원입니다. "
    "만기일 전날까지 앱에서 해지할 수 있습니다.",
)


@pytest.mark.parametrize(
    ("question", "asks"),
    [
        ("자유적금은 한 달에 얼마까지 넣나요?", True),
        ("OTP 몇 번 틀리면 막혀요?", True),
        ("며칠 걸려요?", True),
        ("How long does a transfer take?", True),
        ("how many accounts may I have", True),
        ("자유적금은 어떻게 해지하나요?", False),
        ("며칠 전에 만든 카드로 버스를 탈 수 있나요?", False),
        ("몇 가지 여쭤볼게요", False),
        ("만기 몇 개월 전부터 납입이 안 되나요?", True),
        ("비밀번호를 몇 번 입력했을 때 잠기나요?", True),
        ("한 달에 몇 번 해도 되나요?", True),
        ("몇 번 해도 안 돼요", False),
        ("연체 며칠째부터 이자가 붙나요?", True),
        ("몇 개월째부터 원금을 갚나요?", True),
        ("비밀번호를 몇 번 틀려서 잠겼어요. 어떻게 풀어요?", False),
        ("몇 년 전에 만든 통장을 해지하려면 뭐가 필요해요?", False),
        ("며칠째 앱이 안 열려요", False),
        ("만든 지 얼마 안 됐는데 해지할 수 있나요?", False),
        ("No matter how often I try, the app says error", False),
        ("How do I close my account?", False),
    ],
)
def test_a_question_for_an_amount_is_told_by_its_words(question: str, *, asks: bool) -> None:
    assert asks_for_amount(question) is asks


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("월 한도는 3,000,000원입니다.", True),
        ("수수료는 무료입니다.", True),
        ("금액 제한이 없습니다.", True),
        ("수수료를 받지 않습니다.", True),
        ("No fee is charged.", True),
        ("It is credited immediately.", True),
        ("Only one individual can be named.", True),
        ("파킹통장은 지정할 수 없습니다.", False),
        ("월 한도 안에서 자유롭게 납입할 수 있습니다.", False),
        ("Interest is paid every quarter.", True),
        ("이용일 다음 영업일에 출금됩니다.", True),
        ("It is not possible.", False),
        ("You can pay in as often as you like.", False),
    ],
)
def test_an_amount_is_a_number_or_a_word_for_one(text: str, *, states: bool) -> None:
    assert states_amount(text) is states


def test_a_true_sentence_without_an_amount_is_no_answer_to_how_much() -> None:
    text = "한빛 자유적금은 월 한도 안에서 자유롭게 납입할 수 있습니다."
    question = "자유적금은 한 달에 얼마까지 넣을 수 있어요?"
    checks = checked(text, (SAVINGS,), question=question)
    assert checks.text == ""
    assert checks.withheld == 1
    assert "월 한도는 3,000,000원입니다." in quoted_by_words(question, (SAVINGS,)).text
    other = checked(text, (SAVINGS,), question="자유적금은 아무 때나 넣을 수 있나요?")
    assert other.text == text


def test_what_waits_for_an_amount_is_shown_in_order_with_the_sentence_that_states_it() -> None:
    text = "한빛 자유적금은 월 한도 안에서 자유롭게 납입할 수 있습니다. 월 한도는 3,000,000원입니다."
    checks = checked(text, (SAVINGS,), question="자유적금은 한 달에 얼마까지 넣을 수 있어요?")
    assert checks.text == text
    assert checks.grounded
    assert checks.withheld == 0


def test_no_quote_stands_for_an_amount_that_no_passage_states() -> None:
    club = passage("club", "한빛 클럽", "한빛 클럽 회원은 라운지를 이용할 수 있습니다. 회원 등급은 앱에서 확인합니다.")
    question = "한빛 클럽 회원 연회비는 얼마예요?"
    checks = checked("한빛 클럽 회원은 라운지를 이용할 수 있습니다.", (club,), question=question)
    assert checks.text == ""
    assert quoted_by_words(question, (club,)).text == ""


@pytest.mark.parametrize(
    ("sentence", "depends"),
    [
        ("단, 일부 상품은 제외됩니다.", True),
        ("다만 예금주 명의의 도장은 됩니다.", True),
        ("- 다만, 동일인이 여러 계좌를 개설하면 한 번이면 됩니다.", True),
        ("※ 법인은 제외됩니다.", True),
        ("(인터넷뱅킹에서는 발급 불가)", True),
        ("However, the fee is waived online.", True),
        ("단리로 계산합니다.", False),
        ("(개인고객) 인터넷뱅킹에서 가입합니다.", False),
        ("Provide your passport.", False),
    ],
)
def test_a_sentence_that_only_restricts_another_is_told(sentence: str, *, depends: bool) -> None:
    assert depends_on_another(sentence) is depends


CERTIFICATE = passage(
    "certificate",
    "인증서",
    "우리 인증서는 앱에서 본인 확인 절차로 발급할 수 있습니다. (인터넷뱅킹에서는 발급 불가) "
    "단, 법인은 영업점에서 신청합니다.",
)


def test_a_restriction_is_shown_with_what_it_restricts() -> None:
    checks = checked("단, 법인은 영업점에서 신청합니다.", (CERTIFICATE,), question="인증서는 어떻게 발급받나요?")
    assert checks.text == CERTIFICATE.text
    quoted = quoted_by_words("법인 인증서는 영업점에서 신청하나요?", (CERTIFICATE,))
    assert quoted.citations[0].quote == CERTIFICATE.text


CARD = passage("card", "새봄 체크카드", "새봄 체크카드는 만 14세 이상 고객이 발급받을 수 있습니다. 연회비는 없습니다.")
RESTRICTION = "단, 미성년자는 법정대리인의 동의를 받아야 카드를 발급받을 수 있습니다."
MINORS = passage("minors", "미성년자", RESTRICTION)
WITH_RESTRICTION = passage("whole", "새봄 체크카드", f"{CARD.text} {RESTRICTION}")


def test_an_answer_does_not_begin_with_a_restriction() -> None:
    opener = "새봄 체크카드는 만 14세 이상 고객이 발급받을 수 있습니다."
    question = "새봄 체크카드는 누가 발급받나요?"
    checks = checked(f"{RESTRICTION} {opener}", (CARD, MINORS), question=question)
    assert checks.text.startswith(opener)
    assert checks.text.endswith(RESTRICTION)
    alone = checked(RESTRICTION, (MINORS,), question=question)
    assert (alone.text, alone.withheld) == ("", 1)


@pytest.mark.parametrize("before", ["안녕하세요, 고객님. ", "### 새봄 체크카드\n\n", "네, 안내해 드리겠습니다. "])
def test_what_opens_an_answer_that_is_withheld_does_not_stand_alone(before: str) -> None:
    question = "새봄 체크카드 발급 나이는요?"
    checks = checked(f"{before}발급 나이는 만 19세입니다.", (CARD,), question=question)
    assert checks.text == ""
    assert checks.withheld_whole
    assert "만 14세 이상" in quoted_by_words(question, (CARD,)).text
    claim = "새봄 체크카드는 만 14세 이상 고객이 발급받을 수 있습니다."
    kept = before if before.startswith("#") else ""  # a title of a passage
    assert checked(before + claim, (CARD,), question=question).text == kept + claim


def test_a_refusal_is_shown_once_in_words_that_claim_nothing() -> None:
    text = "안녕하세요, 고객님. 제공된 문서에는 연회비 정보가 없습니다. 문서에서 연회비 정보를 찾을 수 없습니다."
    shown = "문의하신 내용은 제공된 문서에서 확인할 수 없습니다."
    assert checked(text, (FEES,), question="연회비 정보가 있나요?").text == shown


def test_a_sentence_that_is_shown_is_not_said_again_with_what_restricts_it() -> None:
    text = f"연회비는 없습니다. {RESTRICTION}"
    checks = checked(text, (WITH_RESTRICTION,), question="새봄 체크카드는 어떤 카드인가요?")
    assert checks.text.count("연회비는 없습니다.") == 1
    assert checks.text.count("법정대리인의 동의") == 1


def test_a_quoted_table_has_one_rule() -> None:
    table = "| 통화 | 수수료 |\n|---|---|\n| 달러 | 5,000원 |\n| 유로 | 7,000원 |"
    fees = passage("fees", "송금", f"통화별 수수료는 다음과 같습니다.\n\n{table}")
    checks = checked(fees.text, (fees,), question="송금 수수료는 얼마예요?")
    assert checks.text.count("|---|---|") == 1
    assert checks.text.count("| 달러 |") == 1


@pytest.mark.parametrize(
    ("sentence", "rest"),
    [
        ("Yes, the card can be used.", "The card can be used."),
        ("\n\n**네**, 됩니다.", "\n\n됩니다."),
        ("No. ", ""),
        ("아니요", ""),
        ("No fee applies.", "No fee applies."),
        ("네 번까지 됩니다.", "네 번까지 됩니다."),
        ("예: 6개월", "예: 6개월"),
        ("", ""),
    ],
)
def test_a_yes_or_no_ends_with_a_mark(sentence: str, rest: str) -> None:
    assert without_yes_or_no(sentence) == rest


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Yes, the gift card needs a PIN.", "Can I use the gift card without a PIN?"),
        ("Sure. The gift card needs a PIN.", "Can I use the gift card without a PIN?"),
        ("No, the gift card needs a PIN.", "Is a PIN needed?"),
    ],
)
def test_a_yes_or_no_is_no_sentence_of_a_passage(text: str, question: str) -> None:
    own = passage("card", "Gift card", "The gift card needs a PIN. It has a limit of 5 payments a day.", "en")
    assert checked(text, (own,), question=question, language="en").text.strip().lower() == "the gift card needs a pin."


def test_the_passage_s_own_words_stand_for_a_yes_that_denies() -> None:
    own = passage("card", "Gift card", "The gift card cannot be used to withdraw cash at any machine.", "en")
    question = "Can I use the gift card to withdraw cash?"
    for text in (
        "Yes, the gift card cannot be used to withdraw cash.",
        "Yes. The gift card cannot be used to withdraw cash.",
    ):
        checks = checked(text, (own,), question=question, language="en")
        assert "Yes" not in checks.text
        assert "cannot be used to withdraw cash" in checks.text


def test_an_amount_after_rs_stands_in_its_sentence() -> None:
    text = "The minimum balance is Rs. 10,000 a month. It is checked daily."
    assert [sentence.strip() for sentence in split_sentences(text)] == [
        "The minimum balance is Rs. 10,000 a month.",
        "It is checked daily.",
    ]


def test_that_the_documents_do_not_specify_is_no_claim() -> None:
    text = "The maturity benefit of this plan is not specified in any of the documents provided."
    assert is_refusal(text, "What is the maturity benefit of this plan?")


@pytest.mark.parametrize("answered", ["Yes, ", "Yes. "])
def test_a_yes_that_is_no_echo_of_the_question_gives_way_too(answered: str) -> None:
    own = passage(
        "card", "Gift card", "The gift card needs a PIN of 4 digits and is not accepted by machines abroad.", "en"
    )
    checks = checked(answered + own.text, (own,), question="Is it accepted abroad?", language="en")
    assert checks.text == own.text


def test_a_sentence_said_again_and_again_is_cited_where_it_stands() -> None:
    text = "The replacement fee is KRW 2,000. The replacement fee is KRW 2,000.The replacement fee is KRW 2,000. "
    events = events_of(stream(GroundingMode.STRICT), [text])
    shown = text_of(events)
    assert all(shown[citation.start : citation.end].strip() for citation in cited(events))


TRANSFERS = "이체 수수료는 5,000원입니다."
FEE = "The fee for a transfer is KRW 5,000."


@pytest.mark.parametrize(
    "restriction",
    [
        "이 혜택은 만 65세 이상 고객에게만 적용됩니다.",
        "이는 만 65세 이상 고객에 한합니다.",
        "만 65세 이상 고객에 한합니다.",
        "그 외 고객은 15,000원을 냅니다.",
        "예외: 다른 은행은 20,000원을 받습니다.",
        "예외적으로 다른 은행은 20,000원을 받습니다.",
        "이 수수료는 12월 31일까지만 적용됩니다.",
        "\n* 만 65세 이상 고객에 한함",
        "\n주) 만 65세 이상 고객만",
        "\n대상: 만 65세 이상 고객",
        "\n[주의] 만 65세 이상 고객만",
        "\n¹ 만 65세 이상 고객만",
    ],
)
def test_a_korean_sentence_is_shown_with_what_restricts_it(restriction: str) -> None:
    gap = "" if restriction.startswith("\n") else " "
    source = passage("fees", "수수료", f"{TRANSFERS}{gap}{restriction}\n\n통장은 지점에서 만듭니다.")
    assert checked(TRANSFERS, [source]).text == f"{TRANSFERS}{gap}{restriction}"


@pytest.mark.parametrize(
    "restriction",
    [
        "This applies only to customers aged 65 or over.",
        "It does not apply on weekends.",
        "Exceptions: foreign banks charge KRW 20,000.",
        "Only customers aged 65 or over qualify.",
        "For all other customers it is KRW 15,000.",
        "Unless you are a student, add KRW 3,000.",
        "Note: students only.",
        "Provided that you bank online.",
        "Students only!",
    ],
)
def test_an_english_sentence_is_shown_with_what_restricts_it(restriction: str) -> None:
    source = passage("fees", "Fees", f"{FEE} {restriction} Passbooks are made at a branch.", "en")
    assert checked(FEE, [source], language="en").text == f"{FEE} {restriction}"


@pytest.mark.parametrize(
    ("answer", "text", "shown"),
    [
        (
            "이때 금리는 연 4.1%입니다.",
            "급여를 받는 고객은 금리를 우대합니다. 이때 금리는 연 4.1%입니다. 우대는 앱에서 신청합니다.",
            "급여를 받는 고객은 금리를 우대합니다. 이때 금리는 연 4.1%입니다.",
        ),
        (
            "1일 이체 한도는 30만원입니다.",
            "[만 19세 미만]\n1일 이체 한도는 30만원입니다.\n\n한도는 앱에서 바꿉니다.",
            "[만 19세 미만]\n1일 이체 한도는 30만원입니다.",
        ),
        (
            "The daily limit is KRW 300,000.",
            "Customers under 19:\nThe daily limit is KRW 300,000.\n\nLimits are changed in the app.",
            "Customers under 19:\nThe daily limit is KRW 300,000.",
        ),
    ],
)
def test_what_points_back_or_has_a_label_is_shown_with_what_stands_before_it(
    answer: str, text: str, shown: str
) -> None:
    assert checked(answer, [passage("limits", "안내", text)]).text == shown


@pytest.mark.parametrize(
    "sentence",
    [
        "이체 한도는 30만원까지만 가능합니다.",
        "만 19세 미만은 가입할 수 없습니다.",
        "Customers who are 65 or over qualify only at a branch.",
        "| 600,000원 미만 | 10,000원 |",
        "단위: 만원",
    ],
)
def test_what_has_a_subject_of_its_own_depends_on_no_other(sentence: str) -> None:
    assert not depends_on_another(sentence)
