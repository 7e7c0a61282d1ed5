"""What no document of the bank answers is told from the question; what its documents answer is let through."""

import pytest

from chatbot.questions.scope import ExcludedTopic, excluded_topic

NAMES = ("한빛은행", "Hanbit Bank")


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("하나은행 적금 이자 알려줘", ExcludedTopic.OTHER_BANK),
        ("What is the savings rate of Woori Bank?", ExcludedTopic.OTHER_BANK),
        ("내 계좌 잔액 얼마 남았어?", ExcludedTopic.OWN_ACCOUNT),
        ("어제 접수한 카드 신청 어디까지 진행됐어요?", ExcludedTopic.OWN_ACCOUNT),
        ("Why was my loan application rejected?", ExcludedTopic.OWN_ACCOUNT),
        ("What is my account balance?", ExcludedTopic.OWN_ACCOUNT),
        ("Show me my last transactions", ExcludedTopic.OWN_ACCOUNT),
        ("How much money is in my account?", ExcludedTopic.OWN_ACCOUNT),
        ("내년에 금리가 떨어질까요?", ExcludedTopic.FORECAST),
        ("Will mortgage rates fall next year?", ExcludedTopic.FORECAST),
        ("지금 비트코인 사도 될까요?", ExcludedTopic.ADVICE),
        ("Should I buy dollars now?", ExcludedTopic.ADVICE),
    ],
)
def test_questions_outside_the_documents(question: str, topic: ExcludedTopic) -> None:
    assert excluded_topic(question, NAMES) is topic


@pytest.mark.parametrize(
    "question",
    [
        "한빛은행 정기예금 금리 알려 주세요",
        "우리은행으로 이체하면 수수료가 얼마예요?",
        "다른은행 자동화기기에서 출금하면 수수료가 있나요?",
        "제 카드를 잃어버렸어요. 어떻게 해야 하나요?",
        "내 계좌가 지급정지되면 어떻게 푸나요?",
        "How much is a transfer to Shinhan Bank?",
        "What does Hanbit Bank charge for a replacement card?",
        "How do I close my account?",
        "대출 금리가 오르면 언제부터 적용되나요?",
        "한도를 조회하면 신용점수가 떨어지나요?",
        "How do I cancel my transaction?",
        "How can I check the exchange rate applied to my transaction?",
        "My card payment was declined, what can I do?",
        "Will I need to order a new card since mine expires next month?",
    ],
)
def test_questions_that_documents_may_answer(question: str) -> None:
    assert excluded_topic(question, NAMES) is None
