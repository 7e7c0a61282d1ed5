"""An answer is right, wrong, or beside the question; each case stands on a sentence of the sample documents."""

import pytest

from evals.scorers import Judgement, judge_answer

RIGHT, WRONG, BESIDE = Judgement
RELOCATION = (
    "Tell us your new address in the app or at any branch within 14 days. You need your passport and a lease. "
    "Letters go to the new address from the next month on."
)
DELAYED = (
    "지연이체를 신청하면 이체를 신청한 때부터 3시간이 지난 뒤에 돈이 상대방 계좌로 갑니다. "
    "돈이 가기 30분 전까지는 한빛 앱에서 이체를 취소할 수 있습니다."
)
CANCEL = "지연이체는 언제까지 취소돼요?"
NO_AGENT = (
    "할머니나 할아버지는 법정대리인이 아니므로 손주의 통장을 만들 수 없습니다. "
    "부모가 신분증과 가족관계증명서를 가지고 함께 와야 합니다."
)


@pytest.mark.parametrize(
    ("text", "question", "answers", "judgement"),
    [
        ("The rate is 3.10% a year.", "What is the rate?", ["연 3.1%"], RIGHT),
        ("The rate is 3.20% a year.", "What is the rate?", ["연 3.1%"], WRONG),
        ("창구에서 내는 수수료는 4,000원입니다.", "창구에서 이체 수수료 얼마예요?", ["4,000원", "4천원"], RIGHT),
        ("창구에서 내는 이체 수수료는 2,500원입니다.", "창구에서 이체 수수료 얼마예요?", ["4,000원", "4천원"], WRONG),
        ("창구에서 내는 이체 수수료는 무료입니다.", "창구에서 이체 수수료 얼마예요?", ["4,000원", "4천원"], WRONG),
        ("수수료는 이체할 때 함께 빠집니다.", "창구에서 이체 수수료 얼마예요?", ["4,000원", "4천원"], BESIDE),
        ("창구에서 이체 수수료 얼마예요?", "창구에서 이체 수수료 얼마예요?", ["4,000원", "4천원"], BESIDE),
        ("15,000원", "가족카드 연회비는 얼마예요?", ["5,000원"], WRONG),
        ("디지털 OTP는 5,000원입니다.", "디지털 OTP 발급 비용은?", ["0원"], WRONG),
        ("The minimum is KRW 1,000,000 for a term deposit.", "minimum for a term deposit", ["USD 500"], WRONG),
        ("연봉이 4천만원이면 최대 한도는 150,000,000원입니다.", "연봉 4천만원이면 최대 한도가 얼마예요?",
         ["40,000,000원", "4천만원"], WRONG),
        ("네, 중도상환수수료를 내야 합니다.", "마이너스통장도 중도상환수수료를 내요?", ["없습니다", "내지 않"], WRONG),
        ("Yes, your check card will work overseas.", "Will my check card work overseas?", ["in Korea only"], WRONG),
        ("Yes, at any branch.", "Can I pay at a branch?", ["Yes, but not in cash"], BESIDE),
        ("", "What is the rate?", ["연 3.1%"], BESIDE),
    ],
)  # fmt: skip
def test_by_a_fact(text: str, question: str, answers: list[str], judgement: Judgement) -> None:
    assert judge_answer(text, question, answers) is judgement


@pytest.mark.parametrize(
    ("text", "question", "answer", "judgement"),
    [
        ("You need your passport and a lease.", "What do I need to change my address?", RELOCATION, RIGHT),
        ("Tell us the new address in the app or at a branch.", "How do I change it?", RELOCATION, RIGHT),
        ("Moving abroad ends the youth savings account early.", "How do I change my address?", RELOCATION, BESIDE),
        ("How do I change my address?", "How do I change my address?", RELOCATION, BESIDE),
        ("", "How do I change my address?", RELOCATION, BESIDE),
        ("Letters never go to the new address from the next month on.", "Where do letters go?", RELOCATION, WRONG),
        ("Tell us your new address within 30 days.", "When do I tell you my new address?", RELOCATION, WRONG),
        ("돈이 가기 30분 전까지 한빛 앱에서 이체를 취소할 수 있습니다.", CANCEL, DELAYED, RIGHT),
        ("지연이체는 1시간 전까지 취소할 수 있습니다.", CANCEL, DELAYED, WRONG),
        ("돈이 가기 30분 후까지는 한빛 앱에서 이체를 취소할 수 있습니다.", CANCEL, DELAYED, WRONG),
        ("지연이체 서비스는 영업점에서 가입합니다.", CANCEL, DELAYED, BESIDE),
        ("네, 할머니가 손주의 통장을 만들 수 있습니다.", "할머니가 손주 통장을 만들 수 있나요?", NO_AGENT, WRONG),
    ],
)  # fmt: skip
def test_by_a_text(text: str, question: str, answer: str, judgement: Judgement) -> None:
    assert judge_answer(text, question, [answer]) is judgement


def test_the_best_judgement_of_several_known_answers_counts() -> None:
    question = "How long is the term?"
    assert judge_answer("The term is 7 years.", question, ["5 years"]) is WRONG
    assert judge_answer("The term is 7 years.", question, ["5 years", "7 years"]) is RIGHT


LEASE = (
    "전세대출 만기 연장은 언제까지 신청해야 되나요",
    "전세대출은 계약을 갱신할 때에는 갱신일부터 3개월 이내에 신청하고, 만기를 연장할 때에는 "
    "만기 1개월 전까지 영업점이나 한빛 앱에서 신청해야 합니다.",
    "계약을 갱신하면서 집주인이 바뀐 고객은 임대차계약서와 신분증을 가지고 "
    "전국 모든 영업점의 창구에서 대출 연장을 상담받고 신청할 수 있습니다.",
)
JEONSE = (
    "What's the most I can borrow for a jeonse deposit?",
    "Foreign residents with an F visa can borrow up to 70% of the deposit and at most KRW 200,000,000.",
    "The deposit must be paid before you move in, and you can apply at a branch within three months.",
)
"""A question and the two sentences of its answer."""


@pytest.mark.parametrize(
    ("known", "sentence", "true", "false"),
    [
        (LEASE, 1, "3개월 이내", "7개월 이내"),
        (LEASE, 1, "1개월 전까지", "1개월 후부터"),
        (LEASE, 1, "신청해야 합니다", "신청하지 않아도 됩니다"),
        (LEASE, 2, "신청할 수 있습니다", "신청할 수 없습니다"),
        (LEASE, 2, "모든 영업점", "일부 영업점"),
        (LEASE, 2, "모든 영업점", "모든 앱"),
        (LEASE, 2, "바뀐 고객은", "바뀐 은행은"),
        (LEASE, 2, "수 있습니다.", "수 있습니다 다만 카카오톡 친구추가로만 신청합니다."),
        (LEASE, 2, "계약을 갱신하면서", "비밀번호를 알려 주신 고객은 계약을 갱신하면서"),
        (JEONSE, 1, "at most", "at least"),
        (JEONSE, 1, "70%", "40%"),
        (JEONSE, 1, "with an F visa", "without an F visa"),
        (JEONSE, 2, "you can apply", "you cannot apply"),
        (JEONSE, 2, "before you move", "after you move"),
        (JEONSE, 2, "at a branch", "in the app"),
        (JEONSE, 2, "The deposit must be", "The withdrawal must be"),
        (JEONSE, 2, "must be", "do not need to be"),
        (JEONSE, 2, "months.", "months only through KakaoTalk."),
    ],
)
def test_a_falsified_sentence_of_a_known_answer_is_wrong(
    known: tuple[str, ...], sentence: int, true: str, false: str
) -> None:
    question, whole = known[0], " ".join(known[1:])
    assert judge_answer(whole, question, [whole]) is RIGHT
    assert true in known[sentence]
    falsified = known[sentence].replace(true, false)
    assert judge_answer(falsified, question, [whole]) is WRONG
    assert judge_answer(whole.replace(known[sentence], falsified), question, [whole]) is WRONG
