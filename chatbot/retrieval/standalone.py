"""Rewrite a Korean question that refers to one of two things named earlier ("앞에 거는 얼마예요?"): decision 0025.

The reference is replaced by the name of the thing, with the right particle. All words are the customer's, and no model
is involved, so the same conversation always gives the same question.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from chatbot.retrieval.particles import with_particle
from knowledge.passage import language_of
from knowledge.terms import Morpheme, Terms

LONGEST: Final = 400
"""The maximum length in characters of a rewritten question; a longer question is not rewritten."""

MOST_EARLIER: Final = 8
"""The number of earlier questions to consider."""

_NOUN_TAGS: Final = frozenset({"NNG", "NNP", "XR", "SL", "XPN", "XSN", "SN", "SH"})
_NAMING_TAGS: Final = frozenset({"NNG", "NNP", "XR", "SL"})
# Attributes of any product: "수수료와 한도" does not name two things to choose from.
_OF_ANY_PRODUCT: Final = frozenset(
    {
        *("수수료", "금리", "이자", "이율", "한도", "금액", "기간", "기한", "서류", "심사"),
        *("신청", "가입", "해지", "조건", "방법", "절차", "비용", "가격", "나이", "시간"),
        *("은행", "통장", "계좌", "고객", "상품", "우대", "기본", "최대", "최소", "최고"),
        *("최저", "하루", "번", "만기", "돈", "지점", "영업점", "앱", "보관", "이용"),
        *("조회", "발급", "재발급", "안내", "처리", "보증", "연락처", "전화", "번호", "디자인"),
        *("변경", "소득", "월급", "이번", "다음", "중도", "중간", "원금", "사람"),
    }
)
# Words that begin a follow-up: "그럼", "네, 알겠어요."
_OPENERS: Final = re.compile(
    r"^(?:(?:그럼|그러면|그렇다면|근데|그런데|그리고|그래도|그래서|또|또한|아니|아뇨|아|네|넵|참|음|오"
    r"|혹시|그렇군요|알겠어요|감사합니다|고마워요)[\s,.!?~]+){1,4}"
)
# A reference to the first or the second of two things: "앞에 거는", "둘 중에 두 번째 거", "후자는".
_CHOICE: Final = re.compile(
    r"(?:둘 중(?:에)? )?(?:(?P<first>앞에?|첫\s?번째|먼저 말한|전자)|뒤에?|둘째|두\s?번째|나중에 말한|후자)"
    r"(?:\s?[거것꺼]|(?<=[전후]자))(?P<particle>[는은도로])?(?=[\s?])"
)
_AND: Final = re.compile(r"(?:이랑|랑|와|과|하고|이나|나|,|\s?아니면)\s?")


class ChoiceResolver:
    """Replaces a reference to one of two things by that thing's name."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms

    def rewrite(self, question: str, earlier: Sequence[str]) -> str:
        """Return the rewritten question, "" without such a reference or if too long; `earlier` is oldest first."""
        if language_of(question) != "ko":
            return ""
        without_opener = _OPENERS.sub("", question).strip()
        choice = _CHOICE.search(without_opener)
        if choice is None:
            return ""
        pairs = (self._pair(text) for text in reversed(earlier[-MOST_EARLIER:]))
        pair = next((pair for pair in pairs if pair is not None), None)
        if pair is None:
            return ""
        first, second = pair
        name = with_particle(first if choice["first"] else second, choice["particle"] or "")
        rewritten = without_opener[: choice.start()] + name + without_opener[choice.end() :]
        return rewritten if len(rewritten) <= LONGEST else ""

    def _pair(self, text: str) -> tuple[str, str] | None:
        """Return the first two things that a text joins, or None."""
        for left, right in pairwise(self._noun_phrases(text)):
            between = text[left[-1].end : right[0].start]
            if _AND.fullmatch(between) and _names_something(left) and _names_something(right):
                return text[left[0].start : left[-1].end], text[right[0].start : right[-1].end]
        return None

    def _noun_phrases(self, text: str) -> list[list[Morpheme]]:
        """Return the sequences of consecutive nouns that name something; a space does not end a sequence."""
        phrases: list[list[Morpheme]] = [[]]
        for morpheme in self._terms.morphemes(text):
            if morpheme.tag not in _NOUN_TAGS:
                phrases.append([])
                continue
            if phrases[-1] and morpheme.start > phrases[-1][-1].end + 1:
                phrases.append([])
            phrases[-1].append(morpheme)
        return [nouns for nouns in phrases if any(noun.tag in _NAMING_TAGS for noun in nouns)]


def _names_something(nouns: Sequence[Morpheme]) -> bool:
    return any(noun.tag in _NAMING_TAGS and noun.form not in _OF_ANY_PRODUCT for noun in nouns)
