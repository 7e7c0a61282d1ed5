"""A Korean question of a conversation is written out with what was named before; nothing is guessed."""

import pytest

from chatbot.retrieval.standalone import LONGEST, EarlierQuestion, StandaloneQuestions, with_particle
from knowledge.terms import Terms

DEPOSIT = EarlierQuestion("정기예금 9개월 금리가 얼마예요?", ("한빛 정기예금 상품안내", "금리 고시"))
CHECK_CARD = EarlierQuestion("체크카드를 잃어버렸는데 어디로 전화해요?", ("한빛 데일리 체크카드 상품안내",))


@pytest.fixture(scope="module")
def questions() -> StandaloneQuestions:
    return StandaloneQuestions(Terms(), ("한빛은행",))


@pytest.mark.parametrize(
    ("question", "before", "whole"),
    [
        ("앱으로 가입하면 더 주나요?", DEPOSIT, "정기예금은 앱으로 가입하면 더 주나요?"),
        ("그럼 그거 이자는 언제 줘요?", DEPOSIT, "정기예금 이자는 언제 줘요?"),
        ("그건 언제부터예요?", DEPOSIT, "정기예금은 언제부터예요?"),
        ("그걸로 버스도 타요?", CHECK_CARD, "체크카드로 버스도 타요?"),
        ("그걸로 대출도 받아요?", DEPOSIT, "정기예금으로 대출도 받아요?"),
        ("중도해지는요?", DEPOSIT, "정기예금 중도해지는 어떻게 되나요?"),
        ("12개월이면요?", DEPOSIT, "12개월이면 정기예금 9개월 금리가 얼마예요?"),
        ("아니 9개월 말고 12개월이요", DEPOSIT, "정기예금 12개월 금리가 얼마예요?"),
    ],
)
def test_what_was_left_out_is_named(
    questions: StandaloneQuestions, question: str, before: EarlierQuestion, whole: str
) -> None:
    assert questions.write_out(question, [before], ()) == whole


def test_a_question_that_names_a_document_of_its_own_stands_alone(questions: StandaloneQuestions) -> None:
    asked = "근데 신용대출도 앱으로 돼요?"
    assert questions.write_out(asked, [DEPOSIT], ["한빛 직장인 신용대출 설명서"]) == "신용대출도 앱으로 돼요?"
    assert questions.write_out("정기예금은 누가 가입해요?", [DEPOSIT], ()) == "정기예금은 누가 가입해요?"


def test_one_of_two_is_chosen_by_its_place(questions: StandaloneQuestions) -> None:
    both = EarlierQuestion(
        "자유적금이랑 정기적금 중에 어디가 높아요?", ("한빛 자유적금 상품안내", "한빛 정기적금 상품안내")
    )
    assert questions.write_out("앞에 거는 얼마예요?", [both], ()) == "자유적금은 얼마예요?"
    assert questions.write_out("후자는 얼마예요?", [both], ()) == "정기적금은 얼마예요?"
    assert questions.write_out("카드 뒤에 서명 안 했어요", [both], ()) == "자유적금은 카드 뒤에 서명 안 했어요"


def test_the_earlier_question_that_shares_a_word_is_the_one_that_goes_on(questions: StandaloneQuestions) -> None:
    wages = EarlierQuestion("정기예금 급여 우대가 있어요?", ("한빛 정기예금 상품안내",))
    earlier = [wages, CHECK_CARD]
    assert questions.write_out("아까 그 급여는 얼마부터예요?", earlier, ()) == "정기예금은 아까 그 급여는 얼마부터예요?"
    assert questions.write_out("연회비는 얼마예요?", earlier, ()) == "체크카드는 연회비는 얼마예요?"
    assert questions.write_out("맨 처음 말한 거 세금은 얼마예요?", earlier, ()).startswith("정기예금은")


@pytest.mark.parametrize(
    ("question", "before"),
    [
        ("그건 얼마예요?", EarlierQuestion("돈을 딴 사람한테 보냈어요", ("지연이체 서비스와 착오송금 반환 안내",))),
        ("그건 얼마예요?", EarlierQuestion("정기예금 금리는요?")),
        ("아뇨 입대 말고 결혼하면요", EarlierQuestion("돈을 딴 사람한테 보냈어요")),
        ("What about its fee?", EarlierQuestion("How much is the term deposit?", ("Term deposit",))),
        ("그건 " * (LONGEST // 2) + "얼마예요?", DEPOSIT),
    ],
    ids=[
        "the question does not name what was found",
        "nothing is known of what was found",
        "a correction of nothing",
        "English",
        "too long",
    ],
)
def test_what_is_not_known_is_not_written(
    questions: StandaloneQuestions, question: str, before: EarlierQuestion
) -> None:
    assert not questions.write_out(question, [before], ())


def test_particles_follow_the_last_syllable() -> None:
    pairs = [
        ("예금", "은"),
        ("카드", "은"),
        ("예금", "로"),
        ("카드", "로"),
        ("서울", "로"),
        ("카드", "을"),
        ("OTP", "이"),
        ("예금", ""),
    ]
    assert [with_particle(*pair) for pair in pairs] == [
        "예금은",
        "카드는",
        "예금으로",
        "카드로",
        "서울로",
        "카드를",
        "OTP가",
        "예금",
    ]
