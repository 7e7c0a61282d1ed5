"""The canned replies. Each names the bank's contact for customers.

The product's texts contain no bank's name; a bank's file may replace any of them.
"""

from enum import StrEnum
from typing import Final

from knowledge.bank import Bank
from knowledge.passage import Language


class CannedReply(StrEnum):
    """The reason for a canned reply."""

    GREETING = "greeting"
    THANKS = "thanks"
    IDENTITY = "identity"
    PERSON = "person"
    INJECTION = "injection"
    OUT_OF_SCOPE = "out_of_scope"
    DISTRESS = "distress"
    OTHER_BANK = "other_bank"
    OWN_ACCOUNT = "own_account"
    FORECAST = "forecast"
    ADVICE = "advice"
    CANNOT_VERIFY = "cannot_verify"
    UNAVAILABLE = "unavailable"
    EMERGENCY = "emergency"


HANDOFFS: Final = frozenset({CannedReply.PERSON, CannedReply.DISTRESS, CannedReply.UNAVAILABLE, CannedReply.EMERGENCY})
"""The replies that refer to a person; all others decline the question."""
CAUSED_BY_QUESTION: Final = frozenset(CannedReply) - {
    CannedReply.CANNOT_VERIFY,
    CannedReply.UNAVAILABLE,
    CannedReply.EMERGENCY,
}
"""The replies that depend on the question's words alone; such a question never enters a later prompt."""
_TEXTS: Final[dict[Language, dict[CannedReply, str]]] = {
    "ko": {
        CannedReply.GREETING: (
            "안녕하세요. {bank} 챗봇입니다. 은행의 상품과 이용 방법에 관해 궁금하신 점을 물어봐 주세요."
        ),
        CannedReply.THANKS: "도움이 되었기를 바랍니다. 더 궁금하신 점이 있으면 언제든지 물어봐 주세요.",
        CannedReply.IDENTITY: (
            "사람이 아닌 {bank} 챗봇입니다. 은행의 안내 문서에서 확인한 내용을 출처와 함께 알려 드립니다."
            " 예금, 대출, 카드, 이체처럼 궁금하신 것을 물어봐 주세요."
        ),
        CannedReply.PERSON: "상담원과 이야기하시려면 전화해 주세요: {contact}.",
        CannedReply.INJECTION: "죄송합니다. 요청하신 내용은 도와드릴 수 없습니다. 금융 상품과"
        " 은행 이용에 관한 질문을 해 주시면 안내해 드리겠습니다.",
        CannedReply.OUT_OF_SCOPE: "죄송합니다. 저는 은행의 상품과 이용 방법에 관한 질문에만,"
        " 한국어와 영어로 답변해 드릴 수 있습니다.",
        CannedReply.DISTRESS: (
            "많이 힘드신 것 같아 걱정됩니다. 혼자 견디지 마시고 지금 바로 {crisis}, 또는 가까운"
            " 분께 이야기해 주세요. 위급하면 {emergency}에 연락해 주세요. 빚 때문에 힘드시다면 {debt} 또는"
            " 저희 상담원과 상의해 주세요. 함께 방법을 찾아 드립니다: {contact}."
        ),
        CannedReply.OTHER_BANK: (
            "죄송합니다. 다른 금융회사의 상품과 조건은 저희가 확인해 드릴 수 없습니다. 해당 금융회사에 문의해 주세요."
        ),
        CannedReply.OWN_ACCOUNT: (
            "고객님의 계좌와 거래 내역은 이 챗봇에서 조회할 수 없습니다. 앱이나 인터넷뱅킹에 로그인하시면 직접"
            " 확인하실 수 있고, 상담원에게 전화하시면 본인 확인 후 안내해 드립니다: {contact}."
        ),
        CannedReply.FORECAST: (
            "앞으로의 금리나 환율, 시세가 어떻게 될지는 말씀드릴 수 없습니다. 현재 고시된 조건이 궁금하시면"
            " 물어봐 주세요."
        ),
        CannedReply.ADVICE: (
            "어떤 상품에 가입하거나 투자하실지는 고객님의 상황에 따라 다르므로 챗봇이 권해 드리지 않습니다."
            " 상품의 조건이나 위험을 물어봐 주시면 안내 문서에 있는 대로 알려 드리고,"
            " 맞춤 상담은 상담원이 도와드립니다: {contact}."
        ),
        CannedReply.CANNOT_VERIFY: "죄송합니다. 은행의 안내 문서에서 문의하신 내용을 확인할 수 없어"
        " 답변을 드리지 못합니다.",
        CannedReply.UNAVAILABLE: "지금은 답변을 드릴 수 없으니, 잠시 뒤에 다시"
        " 질문하시거나 상담원에게 전화해 주세요: {contact}.",
        CannedReply.EMERGENCY: "현재 챗봇 상담을 일시 중단하였습니다. 이용에 불편을 드려 죄송합니다.",
    },
    "en": {
        CannedReply.GREETING: (
            "Hello. This is the chatbot of {bank}. What would you like to know about our products and services?"
        ),
        CannedReply.THANKS: "I hope that helped. Please ask whenever you have another question.",
        CannedReply.IDENTITY: (
            "I am the chatbot of {bank}, not a person. I answer from the bank's documents and show where each answer"
            " comes from. Ask me about accounts, loans, cards or transfers, for example."
        ),
        CannedReply.PERSON: "To speak with a person, please call {contact}.",
        CannedReply.INJECTION: "I'm sorry, but I can't help with that. I'm glad to answer"
        " questions about our products and services.",
        CannedReply.OUT_OF_SCOPE: (
            "I'm sorry, but I can only answer questions about the bank's products and services, in Korean or in"
            " English."
        ),
        CannedReply.DISTRESS: (
            "I'm worried about you. Please don't go through this alone: in Korea call {crisis}, or talk to"
            " someone close to you now. In an emergency call {emergency}. If debt is the worry, {debt} and our staff"
            " ({contact}) will look for a way together with you."
        ),
        CannedReply.OTHER_BANK: (
            "I'm sorry, but I cannot confirm the products or terms of other institutions. Please ask that institution."
        ),
        CannedReply.OWN_ACCOUNT: (
            "This chatbot cannot look up your accounts or transactions. You can see them when you sign in to our"
            " app or internet banking, or call our staff, who can help once they have verified who you are: {contact}."
        ),
        CannedReply.FORECAST: (
            "I cannot say how rates, prices or exchange rates will develop. Please ask me about the terms that are"
            " published today."
        ),
        CannedReply.ADVICE: (
            "Which product to choose, buy or sell depends on your situation, so I do not recommend one. Ask me about"
            " a product's terms or risks and I will tell you what our documents say; for personal advice, please call"
            " {contact}."
        ),
        CannedReply.CANNOT_VERIFY: (
            "I'm sorry, but I cannot confirm this from our documents, so I would rather not guess."
        ),
        CannedReply.UNAVAILABLE: "I cannot answer right now: please ask again in a moment, or call {contact}.",
        CannedReply.EMERGENCY: "The chatbot is paused at the moment. We apologise for the inconvenience.",
    },
}
# Do not put a particle after a placeholder: the right particle depends on the sound of the value (1588-5000으로).
_HANDOFF: Final[dict[Language, str]] = {
    "ko": "상담원의 도움이 필요하시면 연락해 주세요: {contact}.",
    "en": "To speak with a person, please call {contact}.",
}


def canned_reply(reply: CannedReply, language: Language, bank: Bank) -> str:
    """Return the text of a canned reply, the bank's own if it has one; the text names the contact exactly once."""
    bank_texts = bank.refusals.get(reply.value)
    template = _TEXTS[language][reply] if bank_texts is None else getattr(bank_texts, language)
    text = bank.fill_in(template, language)
    return text if "{contact}" in template else f"{text} {handoff(language, bank)}"


def handoff(language: Language, bank: Bank) -> str:
    """Return the sentence that names the bank's contact for customers."""
    return _HANDOFF[language].format(contact=bank.telephone)
