"""A follow-up is read with what came before; a question that stands alone is not."""

import pytest

from chatbot.retrieval.search import is_follow_up


@pytest.mark.parametrize(
    "question",
    [
        "그럼 중도해지하면요?",
        "그건 언제부터예요?",
        "이자는요?",
        "What about its fee?",
        "And how long does it take?",
        "왜요?",
    ],
)
def test_a_question_that_points_back_is_read_with_the_one_before(question: str) -> None:
    assert is_follow_up(question)


@pytest.mark.parametrize(
    "question",
    [
        "해외송금을 하루에 얼마까지 보낼 수 있는지 알려 주세요",
        "How much does Hanbit Bank charge me for sending money abroad from Seoul?",
    ],
)
def test_a_question_that_stands_alone_is_left_alone(question: str) -> None:
    assert not is_follow_up(question)
