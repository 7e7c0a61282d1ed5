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
        ("지금 비트코인 사도 될까요?", ExcludedTopic.ADVICE), ("Should I buy dollars now?", ExcludedTopic.ADVICE),
        ("내 통장 잔액이 어떻게 돼요?", ExcludedTopic.OWN_ACCOUNT),
        ("제 카드가 왜 어제 정지됐나요?", ExcludedTopic.OWN_ACCOUNT),
        ("미국이 금리를 내리면 환율이 떨어질까요?", ExcludedTopic.FORECAST),
        ("지금 사면 비트코인 오르나요?", ExcludedTopic.FORECAST),
        ("기준금리가 오르면 주가가 내리나요?", ExcludedTopic.FORECAST),
        ("When the base rate falls, will the dollar go down?", ExcludedTopic.FORECAST),
        ("If the base rate falls, will the exchange rate go up?", ExcludedTopic.FORECAST),
        ("요즘 금리 오르나요?", ExcludedTopic.FORECAST), ("What is your outlook on the won?", ExcludedTopic.FORECAST),
        ("지금 펀드에 넣어도 되나요?", ExcludedTopic.ADVICE), ("좋은 적금 추천해 주세요", ExcludedTopic.ADVICE),
        ("Should I move my savings into a fund?", ExcludedTopic.ADVICE),
        ("Should I switch to a floating rate?", ExcludedTopic.ADVICE),
    ],
)  # fmt: skip
def test_questions_outside_the_documents(question: str, topic: ExcludedTopic) -> None:
    assert excluded_topic(question, NAMES) is topic


@pytest.mark.parametrize(
    "question",
    [
        "한빛은행 정기예금 금리 알려 주세요", "우리은행으로 이체하면 수수료가 얼마예요?",
        "다른은행 자동화기기에서 출금하면 수수료가 있나요?", "제 카드를 잃어버렸어요. 어떻게 해야 하나요?",
        "내 계좌가 지급정지되면 어떻게 푸나요?", "How much is a transfer to Shinhan Bank?",
        "What does Hanbit Bank charge for a replacement card?", "How do I close my account?",
        "대출 금리가 오르면 언제부터 적용되나요?", "한도를 조회하면 신용점수가 떨어지나요?",
        "How do I cancel my transaction?", "How can I check the exchange rate applied to my transaction?",
        "My card payment was declined, what can I do?",
        "Will I need to order a new card since mine expires next month?", "내 계좌 거래내역은 어떻게 조회해요?",
        "제 적금 잔액증명서 떼려면 뭐가 필요해요?", "국내 전용 카드 잔액 조회는 어디서 하나요?",
        "어제 만든 카드 결제일이 언제인가요?", "제휴 카드 거래내역도 보이나요?",
        "3개월 이내 해지한 적금 거래내역도 나와요?", "내 카드가 왜 해외에서 안 되나요?",
        "How long does a transfer take to show on my balance?", "How can the recipient see my transaction?",
        "연체하면 금리가 오르나요?", "기준금리가 오르면 대출 금리도 오르나요?",
        "If I miss a payment will my rate go up?", "Will my rate be higher if I choose floating?",
        "If I borrow 10 million won will my rate go up?", "환율이 오르면 외화대출 금리도 오르나요?",
        "사회 안전망 계좌가 뭐예요?", "예측하지 못한 출금이 있으면 어디에 신고하나요?",
        "I cannot open your statement in Outlook", "친구한테 추천해 주면 뭐 받아요?",
        "적금은 한 달에 두 번 넣어도 되나요?", "만기 전에 다른 상품으로 갈아타도 되나요?",
        "What should I put as the purpose of the transfer?", "Should I move house, do I need to tell you?",
        "Which funds are covered by deposit protection?", "Is it a good idea to tell you before I travel?",
        "주거래은행을 바꾸려면 어떻게 해요?", "수취은행 수수료는 누가 내나요?",
        "농협은행 ATM에서 뽑으면 수수료 있어요?", "What is a Receiving Bank charge?",
        "Is the Basic Savings Bank Deposit Account free?",
    ],
)  # fmt: skip
def test_questions_that_documents_may_answer(question: str) -> None:
    assert excluded_topic(question, NAMES) is None
