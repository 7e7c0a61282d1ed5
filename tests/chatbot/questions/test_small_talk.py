"""A message that asks nothing of the bank is told from a question that begins politely."""

import pytest

from chatbot.questions.small_talk import SmallTalk, small_talk

NAMES = ("한빛은행", "Hanbit Bank")


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("안녕하세요!! 반갑습니다 :)", SmallTalk.GREETING), ("한빛은행 안녕하세요~", SmallTalk.GREETING),
        ("Hello there, good morning!", SmallTalk.GREETING), ("ＨＥＬＬＯ", SmallTalk.GREETING),
        ("질문이 있는데요", SmallTalk.GREETING), ("네, 알겠습니다. 정말 감사합니다 ^^", SmallTalk.THANKS),
        ("친절한 안내 감사합니다. 좋은 하루 되세요", SmallTalk.THANKS),
        ("Thank you so much for your help!", SmallTalk.THANKS), ("no thanks", SmallTalk.THANKS),
        ("ㄱㅅ", SmallTalk.THANKS), ("ㅎㅇ", SmallTalk.GREETING), ("안녕, 너는 누구야?", SmallTalk.IDENTITY),
        ("혹시 사람이세요?", SmallTalk.IDENTITY), ("무엇을 도와줄 수 있나요?", SmallTalk.IDENTITY),
        ("Are you a real person?", SmallTalk.IDENTITY), ("please, help!", SmallTalk.IDENTITY),
        ("상담원 연결해 주세요", SmallTalk.PERSON), ("감사합니다. 직원과 통화하고 싶어요", SmallTalk.PERSON),
        ("CAN I SPEAK TO A REAL PERSON?!?!", SmallTalk.PERSON), ("상담원이랑 통화하고 싶은데요", SmallTalk.PERSON),
        ("상담원 연결 좀 해주세요", SmallTalk.PERSON), ("챗봇 말고 상담원이요", SmallTalk.PERSON),
        ("그냥 사람 바꿔줘", SmallTalk.PERSON), ("고객센터 연결 가능한가요?", SmallTalk.PERSON),
        ("I want a human", SmallTalk.PERSON), ("How do I reach a real person?", SmallTalk.PERSON),
        ("I need to speak with someone from the bank", SmallTalk.PERSON),
        ("감사합니다 해결됐어요 ㅎㅎ", SmallTalk.THANKS),
    ],
)  # fmt: skip
def test_small_talk_is_recognised_by_the_whole_message(message: str, kind: SmallTalk) -> None:
    assert small_talk(message, NAMES) is kind


@pytest.mark.parametrize(
    "message",
    [
        "안녕하세요. 정기예금 금리 알려 주세요",
        "Hi, what does a transfer cost?",
        "help with my loan",
        "네, 더 자세히 설명해 주세요",
        "상담원 연결 시간이 어떻게 되나요?",
        "감사 인증 수수료",
        "고객센터 전화번호 알려 주세요",
        "사람",
        "I want a loan",
        "How do I reach support for cards?",
        "예금",
        "어떻게 사용하나요?",  # what was talked of before
        "뭐야?",
        "How does this work?",
        "history",
        "한빛은행",
        "there",
        "!?",
        "",
    ],
)
def test_a_message_that_may_be_a_question_is_no_small_talk(message: str) -> None:
    assert small_talk(message, NAMES) is None


def test_a_long_message_is_none() -> None:
    assert small_talk("안녕하세요" * 16, NAMES) is SmallTalk.GREETING
    assert small_talk("안녕하세요" * 17, NAMES) is None
