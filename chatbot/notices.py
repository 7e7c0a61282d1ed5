"""The texts of notices in the customer's language, and the degradation levels with their notices."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from chatbot.events import Notice, NoticeCode
from knowledge.passage import Language


class DegradationLevel(StrEnum):
    """The substitutes for an answer of the conversation's own endpoint, best first (docs/decisions/0006-ladder.md)."""

    REPLICA = "replica"
    FALLBACK = "fallback"
    QUOTED = "quoted"
    HANDOFF = "handoff"


DEGRADATION_LEVELS: Final = tuple(DegradationLevel)

TEXTS: Final[Mapping[NoticeCode, Mapping[Language, str]]] = {
    NoticeCode.MASKED: {
        "ko": "질문에 있던 개인정보는 가리고 처리했습니다.",
        "en": "Personal data in your question was masked before it was used.",
    },
    NoticeCode.WITHHELD: {
        "ko": "문서에서 확인되지 않은 내용은 표시하지 않았습니다.",
        "en": "Statements that our documents do not confirm were left out.",
    },
    NoticeCode.HISTORY_UNAVAILABLE: {
        "ko": "지금은 앞선 상담 내용을 불러올 수 없고, 이 질문과 답변도 저장되지 않습니다.",
        "en": "Earlier messages cannot be loaded right now, and this question and its answer will not be saved.",
    },
    NoticeCode.THINKING: {
        "ko": "답변을 준비하고 있습니다. 잠시만 기다려 주세요.",
        "en": "The answer is being prepared. One moment, please.",
    },
    NoticeCode.NOT_RESUMABLE: {
        "ko": "답변이 도중에 끊기면 이어서 보여 드릴 수 없습니다. 그때는 다시 질문해 주세요.",
        "en": "If this answer breaks off, it cannot be continued. In that case, please ask again.",
    },
}
"""The texts of the codes with a fixed text."""
_LEVELS: Final[Mapping[DegradationLevel, tuple[NoticeCode, Mapping[Language, str]]]] = {
    DegradationLevel.REPLICA: (
        NoticeCode.MODEL_SWITCHED,
        {"ko": "다른 서버가 이어서 답변합니다.", "en": "Another server continues this answer."},
    ),
    DegradationLevel.FALLBACK: (
        NoticeCode.MODEL_SWITCHED,
        {
            "ko": "지금은 규모가 더 작은 예비 AI 모델이 답변합니다.",
            "en": "A smaller backup AI model answers right now.",
        },
    ),
    DegradationLevel.QUOTED: (
        NoticeCode.DEGRADED,
        {
            "ko": "지금은 답변을 작성할 수 없어 안내 문서의 해당 부분을 그대로 보여 드립니다.",
            "en": "An answer cannot be written right now, so here is what the documents say, word for word.",
        },
    ),
    DegradationLevel.HANDOFF: (
        NoticeCode.DEGRADED,
        {
            "ko": "지금은 답변을 작성할 수 없고, 대신 보여 드릴 안내 문서도 찾지 못했습니다.",
            "en": "An answer cannot be written right now, and no document was found to show instead.",
        },
    ),
}


def notice(code: NoticeCode, language: Language) -> Notice:
    """Return the notice of a code in `TEXTS`."""
    return Notice(code=code, text=TEXTS[code][language])


def degradation_notice(level: DegradationLevel, language: Language) -> Notice:
    """Return the notice of a degradation level."""
    code, texts = _LEVELS[level]
    return Notice(code=code, text=texts[language])
