"""Extract content features that Korean particles, Korean endings and English plurals do not change. No I/O.

A Korean word's features are the syllable bigrams of its stem: 가입 조건 and 가입조건을 share most of them. An English
word's feature is its stem. Numbers have no features; `grounding.numbers` compares them exactly.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final

# Hangul directly after a number is a unit with a particle (12개월간, 3%로), so it is skipped with the number.
_WORD: Final = re.compile(r"\d[\d,.:]*[%~]?p?[가-힣]*|([a-z]+(?:'[a-z]+)?|[가-힣]+)")
_OTHER_LETTERS: Final = re.compile(r"[^\W\d_a-zㄱ-ㅎㅏ-ㅣ가-힣]+")
_ENDING_LIST: Final = """
    하였습니다 되었습니다 했습니다 됐습니다 하셨습니다 하십니다 하실 합니다 됩니다 입니다 습니다 십니다
    하십시오 십시오 하세요 세요 해야 하여야 하여 해서 하며 하고 하는 하면 하지 하기 하신 하시면 되는 되며 되고
    되어 되면 되지 되기 할 한 될 된 됨 함 임 이며 이고 인 이나 이라 이란 라는 라도 에서부터 으로부터 에서는 으로는
    에서도 까지는 부터는 으로써 로써 로서 으로서 에서 에게 으로 까지 부터 처럼 만큼 보다 마다 밖에 께서 은 는 이
    가 을 를 의 에 와 과 로 도 만 나 란 시 해 요 이에요 예요 이다 하다 한다 된다 되다 인가요 나요 까요 건가요 는지"""
_ENDINGS: Final = tuple(sorted(_ENDING_LIST.split(), key=len, reverse=True))
_KOREAN_STOP_WORDS: Final = frozenset(
    """있 없 수 것 등 및 때 또는 그리고 그러나 하지만 따라 따라서 대한 대해 대하여 통해 통하여 위해 위하여 관련
    해당 다음 같 같습 있습 없습 경우 위 이 그 저 각 본 및 더 또 즉 단 다만 먼저 이를 이후 이때 매우 바로 모두
    모든 어떤 의한 의해 있는 있으 있으며 있고 없는 없으 않 않습 않는 아니 않으 못 안 후 전 중 내 외 별 측 년 월
    일 원 회 개월 만원 천원 억원 백만원 천만원 퍼센트 포인트""".split()  # noqa: SIM905  # a word list reads best as prose
) | frozenset(_ENDINGS)
_ENGLISH_STOP_WORDS: Final = frozenset(
    """a an the of to in on at by for from with without as is are was were be been being am do does did have
    has had can could may might will would shall should must and or but if then else than that this these those
    it its they them their there here you your we our us i my me he she his her who which what when where how
    why not no nor so such also please into over under up down out about per each any all some more most other
    only own same too very just both through during before after above below between while because until again
    further once yes""".split()  # noqa: SIM905  # a word list reads best as prose
)
# Suffixes and their replacements.
_ENGLISH_SUFFIXES: Final = (
    ("ies", "y"),
    ("sses", "ss"),
    ("ing", ""),
    ("edly", ""),
    ("ed", ""),
    ("es", ""),
    ("s", ""),
    ("ly", ""),
)


def content_words(text: str) -> list[str]:
    """Return the stems of the content words in order."""
    plain = unicodedata.normalize("NFKC", text).lower()
    return [stem for word in _WORD.findall(plain) if word and (stem := _stem(word))]


def features(text: str) -> frozenset[str]:
    """Return the features of a text."""
    return frozenset(feature for stem in content_words(text) for feature in word_features(stem))


def other_letters(text: str) -> frozenset[str]:
    """Return the runs of letters other than Hangul and unaccented Latin: they have no features."""
    return frozenset(_OTHER_LETTERS.findall(unicodedata.normalize("NFKC", text).lower()))


@lru_cache(maxsize=20_000)
def _stem(word: str) -> str:
    """Return a word without its endings (a Korean word loses at most two), or "" for a stop word."""
    if word[0] < "가":
        return _english_stem(word)
    for _ in range(2):
        ending = next((end for end in _ENDINGS if word.endswith(end) and len(word) - len(end) >= 2), "")
        word = word.removesuffix(ending)
    return "" if word in _KOREAN_STOP_WORDS else word


def _english_stem(word: str) -> str:
    word = word.removesuffix("'s").replace("'", "")
    if word in _ENGLISH_STOP_WORDS or len(word) < 2:
        return ""
    for suffix, replacement in _ENGLISH_SUFFIXES:
        if word.endswith(suffix) and not word.endswith("ss") and len(word) - len(suffix) >= 3:
            word = word.removesuffix(suffix) + replacement
            break
    return word.removesuffix("e") if len(word) > 4 else word


@lru_cache(maxsize=20_000)
def word_features(stem: str) -> tuple[str, ...]:
    """Return the features of a content word's stem."""
    if stem[0] < "가" or len(stem) == 1:
        return (stem,)
    return tuple(stem[at : at + 2] for at in range(len(stem) - 1))
