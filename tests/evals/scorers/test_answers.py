"""An answer is right where it says what a known answer says, in whatever words around it."""

import pytest

from evals.scorers import answers_rightly

RELOCATION = (
    "Tell us your new address in the app or at any branch within 14 days. You need your passport and a lease. "
    "Letters go to the new address from the next month on."
)


@pytest.mark.parametrize(
    ("text", "question", "answers", "right"),
    [
        ("The rate is 3.10% a year.", "What is the rate?", ["연 3.1%"], True),
        ("The rate is 3.20% a year.", "What is the rate?", ["연 3.1%"], False),
        ("You need your passport and a lease.", "What do I need to change my address?", [RELOCATION], True),
        ("Tell us the new address in the app or at a branch.", "How do I change it?", [RELOCATION], True),
        ("Moving abroad ends the youth savings account early.", "How do I change my address?", [RELOCATION], False),
        ("How do I change my address?", "How do I change my address?", [RELOCATION], False),
        ("", "How do I change my address?", [RELOCATION], False),
        ("새 주소는 앱이나 영업점에서 14일 안에 알려 주셔야 합니다.", "주소는 어떻게 바꿔요?", [
            "새 주소는 앱이나 영업점에서 14일 안에 알려 주셔야 합니다. 여권과 임대차계약서가 필요합니다. "
            "우편물은 다음 달부터 새 주소로 갑니다."
        ], True),
    ],
)  # fmt: skip
def test_a_long_answer_is_said_by_one_of_its_statements_or_by_nothing_else(
    text: str, question: str, answers: list[str], *, right: bool
) -> None:
    assert answers_rightly(text, question, answers) is right
