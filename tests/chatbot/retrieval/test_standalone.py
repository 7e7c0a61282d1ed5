"""A Korean question that chooses one of two things is written out with the chosen one; nothing else is."""

import pytest

from chatbot.retrieval.standalone import LONGEST, ChoiceResolver
from knowledge.terms import Terms

SAVINGS = "자유적금이랑 정기적금 중에 어디가 높아요?"
LOANS = "주담대 고정이랑 변동 중에 뭐가 낮아요?"


@pytest.fixture(scope="module")
def choices() -> ChoiceResolver:
    return ChoiceResolver(Terms())


@pytest.mark.parametrize(
    ("question", "earlier", "whole"),
    [
        ("앞에 거는 얼마예요?", [SAVINGS], "자유적금은 얼마예요?"),
        ("그럼 후자는 얼마예요?", [SAVINGS], "정기적금은 얼마예요?"),
        ("둘째 거는 6개월만 들면요?", [SAVINGS], "정기적금은 6개월만 들면요?"),
        ("앞에 거는 몇 년마다 바뀌어요?", [SAVINGS, LOANS, "수수료는요?"], "주담대 고정은 몇 년마다 바뀌어요?"),
    ],
)
def test_a_choice_follows_its_place(choices: ChoiceResolver, question: str, earlier: list[str], whole: str) -> None:
    assert choices.rewrite(question, earlier) == whole


@pytest.mark.parametrize(
    ("question", "earlier"),
    [
        ("그건 얼마예요?", [SAVINGS]),
        ("12개월이면요?", [SAVINGS]),
        ("카드 뒤에 서명 안 했어요", [SAVINGS]),
        ("앞에 거는 얼마예요?", ["금리랑 한도 알려주세요"]),
        ("앞에 거는 얼마예요?", ["정기예금 금리는요?"]),
        ("How much is the first one?", ["a term deposit or savings?"]),
        ("앞에 거는 " + "정말 " * (LONGEST // 2) + "얼마예요?", [SAVINGS]),
    ],
    ids=["a pronoun", "an ellipsis", "no choice", "of any product", "one thing", "English", "too long"],
)
def test_nothing_else_is_written(choices: ChoiceResolver, question: str, earlier: list[str]) -> None:
    assert not choices.rewrite(question, earlier)
