"""What a `notice` says, in the customer's language."""

from collections.abc import Mapping
from typing import Final

from chatbot.events import Notice, NoticeCode
from knowledge.passage import Language

_TEXTS: Final[Mapping[NoticeCode, Mapping[Language, str]]] = {
    NoticeCode.DEGRADED: {
        "ko": "지금은 답변을 만들 수 없어 안내 문서의 해당 부분을 그대로 보여 드립니다.",
        "en": "An answer cannot be written right now, so here is what the documents say, word for word.",
    },
    NoticeCode.MASKED: {
        "ko": "질문에 있던 개인정보는 가리고 처리했습니다.",
        "en": "Personal data in your question was masked before it was used.",
    },
    NoticeCode.HISTORY_UNAVAILABLE: {
        "ko": "지금은 이전 대화를 볼 수 없고 이 대화도 저장되지 않습니다.",
        "en": "Earlier messages cannot be read right now, and this one is not kept.",
    },
    NoticeCode.MODEL_SWITCHED: {
        "ko": "다른 서버가 이어서 답변합니다.",
        "en": "Another server continues this answer.",
    },
}


def notice(code: NoticeCode, language: Language) -> Notice:
    """Return the notice of that code."""
    return Notice(code=code, text=_TEXTS[code][language])
