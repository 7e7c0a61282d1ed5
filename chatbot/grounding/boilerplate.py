"""Sentences that claim nothing: greetings, thanks, "please call us", refusals ("the documents do not say"). No I/O.

Only sentences of a small closed vocabulary are courtesies; the bank's own words (`own`) are polite too. Claims can be
made of it all the same ("영업점 방문이 필요합니다", "Documents are not needed"), as of a refusal's words, so a strict
stream shows neither in the model's words.
"""

import re
from functools import lru_cache
from typing import Final

from chatbot.grounding.stems import content_words, features

_POLITE_STEMS: Final = """
    안녕 고객 고객님 감사 죄송 양해 부탁 문의 상담 상담원 상담사 직원 고객센터 콜센터 센터 영업점 지점 가까운
    가까 방문 연락 전화 도움 필요 궁금 추가 질문 말씀 언제든지 언제든 편하게 편하 자세한 자세 정확 내용 사항
    문서 자료 정보 안내 확인 답변 설명 요약 정리 요청 연결 대표번호 번호 저희 은행 아니요 아니오
    직접 하루 알려 도와 이용
"""
_POLITE_FORMS: Final = """
    점 점이 네 예 찾 찾을 어렵 어려 관하 제 제가 저 해주 좋 좋은 되 되세 되었기 보내 주세 주시 주십 주시기 바랍
    바랍니다 바라 바라겠 드리 드립 드려 드립니다 드리기 드리겠 드릴 도움이 따르면 같습니다 같습 다음과 아래
    아래와 경우 있으시면 있으면 대하 제공 제공된 더 합니다만 습니다만 그 이상
"""
# Honorific and connecting syllables after a polite stem: 문의하시면, 안내해드리겠습니다, 확인하시기.
_POLITE_ENDINGS: Final = (
    r"(?:[하해시신실드려릴립겠주세십기거나면며고은는이가을를에로도의께요만]|지만|합니다만|니다|습니다|어요|아요){0,7}"
)
_POLITE: Final = re.compile(
    "(?:" + "|".join(sorted(_POLITE_STEMS.split(), key=len, reverse=True)) + ")" + _POLITE_ENDINGS
)
_POLITE_ENDING: Final = re.compile(_POLITE_ENDINGS)
_KOREAN: Final = re.compile(r"[가-힣]")
_POLITE_WORDS: Final = frozenset(_POLITE_FORMS.split())
_POLITE_ENGLISH: Final = frozenset(
    word
    for text in (
        "hello hi dear customer thank thanks sorry apologize apologise apologies unfortunately please contact call",
        "visit our us bank centre center service staff branch nearest help assist assistance further question",
        "more information detail details document documents provided answer welcome glad happy feel free ask anything",
        "else let know need here following follows summary based according passage passages sources available speak",
        "person representative yes no sure certainly course great day have directly confirm find i'm cannot",
        "regarding reach visit",
    )
    for word in content_words(text)
)
# Words that announce an answer or its source; no passage contains them, so they do not count against a claim.
_DISCOURSE: Final = frozenset(
    """문서 문서에 따르면 제공된 안내 안내드리 고객님 답변 질문 질문하신 문의하신 말씀하신 드리면 드립니다 다음과
    같습니다 아래와 정리 요약 네 예 아니요 아니오 따라서 그러므로""".split()  # noqa: SIM905  # a word list reads best as prose
) | frozenset(
    content_words("according document documents provided passage passages source sources yes therefore based")
)
# Each names the documents or the speaker: "수수료는 없습니다" (there is no fee) is a fact and no refusal.
_REFUSAL: Final = re.compile(
    r"(?:문서|자료|출처|본문|안내문|근거)(?:들)?(?:에|에서|에는|에서는|만으로|만으로는|로는|상)\s.{0,60}?"
    r"(?:나와|나오|기재|언급|명시|포함|제공|확인|찾|설명|안내|답변|알|적혀|판단|정보|내용|답)[가-힣\s]{0,10}?(?:없|않|어렵|못)"
    r"|(?:정보|내용|근거|답변|설명|언급|규정)(?:가|이|는|은|를|을)?\s?(?:전혀 )?"
    r"(?:없습니다|없어|부족|나와 있지 않|포함되어 있지 않|포함되지 않|찾을 수 없|찾지 못|확인할 수 없|확인되지 않"
    r"|제공되지 않|명시되지 않)"
    r"|(?:명시|언급|기재|안내|설명)(?:되어|돼)? ?(?:있지 않|되지 않|되어 있지 않)"
    r"|(?:답변|안내)(?:을|를)?\s?(?:드리기|하기|드릴 수|할 수)(?:가)?\s?(?:어렵|없)"
    r"|(?:죄송|유감).{0,60}?(?:확인|답변|안내)[가-힣]{0,12}\s?(?:수 )?(?:어렵|없|못)"
    r"|\b(?:I|we)\b.{0,20}?\b(?:can(?:no|')t|could ?n[o']t|unable to|not able to)\s"
    r"(?:verify|confirm|find|answer|determine)"
    r"|\b(?:documents?|passages?|sources?|information|context|text)\b.{0,60}?\b"
    r"(?:do(?:es)? not|don't|doesn't|is not|are not|isn't|aren't|not)\b.{0,40}?"
    r"\b(?:say|state|mention|contain|include|provide|specif|cover|available|given|found|address)"
    r"|\bno (?:information|mention)\b|\bnot (?:\w+ ){0,3}any (?:information|mention)\b"
    r"|\bno (?:documents?|passages?|sources?)\b.{0,20}\b(?:say|state|mention|contain|answer|cover)"
    r"|\bnot (?:stated|mentioned|found|given|covered|specified|provided|included|available) in (?:the|any|these|our)\b",
    re.IGNORECASE,
)
# What follows makes a fact of a refusal: "… do not cover you, so no fee applies".
_GOES_ON: Final = re.compile(
    r"[가-힣]{0,4}(?:지만|으므로|으니|[아어]서|고)[,\s]|[,;]\s*(?:so|but|and|therefore|hence|which)\b", re.IGNORECASE
)
_BY_DOCUMENTS: Final = re.compile(r"따르면|의하면|\baccording to\b", re.IGNORECASE)


def is_courtesy(sentence: str, own: frozenset[str]) -> bool:
    """Whether the sentence has content words, all of them polite, or neither letters nor digits."""
    words = content_words(sentence)
    return all(_is_polite(word, own) for word in words) if words else not any(map(str.isalnum, sentence))


def is_refusal(sentence: str, question: str, own: frozenset[str] = frozenset()) -> bool:
    """Whether the sentence only says, in the question's words, that the documents do not answer it."""
    refusal = _REFUSAL.search(sentence)
    if refusal is None or _GOES_ON.search(sentence, refusal.end()) or _BY_DOCUMENTS.search(sentence):
        return False
    question_features = features(question)
    words = [word for word in content_words(sentence) if not _is_polite(word, own)]
    of_question = sum(bool(features(word) & question_features) for word in words)
    # One word in four may be new, and one more for the verb of the refusal itself.
    return of_question >= len(words) - 1 - len(words) // 4


def claim_features(sentence: str) -> frozenset[str]:
    """Return the features of a claim that its passages must have."""
    return frozenset(f for word in content_words(sentence) if word not in _DISCOURSE for f in features(word))


def _is_polite(word: str, own: frozenset[str]) -> bool:
    if word in _POLITE_WORDS or word in _POLITE_ENGLISH or _POLITE.fullmatch(word) is not None:
        return True
    return word in _as_content_words(own) or any(
        word.startswith(name) and _KOREAN.search(name) and _POLITE_ENDING.fullmatch(word, len(name)) for name in own
    )


@lru_cache(maxsize=64)
def _as_content_words(own: frozenset[str]) -> frozenset[str]:
    """Return the bank's own words as they stand among content words."""
    return frozenset(word for text in own for word in content_words(text))
