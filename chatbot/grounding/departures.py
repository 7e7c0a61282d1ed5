"""What a claim says otherwise than the sentence it is made of. No I/O.

Words that say how much, when, who may or whether at all weigh little among the content of a sentence, and turn it; so
do another order, and a condition left out. A claim may only restate: it has no turning word and no content word that
its sentence lacks, keeps the order of the words and numbers that both have, denies where the sentence does, and leaves
no condition out.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from chatbot.grounding.boilerplate import is_discourse
from chatbot.grounding.stems import content_words, word_features

_TURNING: Final = re.compile(
    r"최대|최소|최고|최저|최장|최단|이상|이하|초과|미만|이전|이후|(?<=[가-힣\d] )[전후]에|[전후](?=까지|부터)"
    r"|모든|모두|전부|일부|매월|매년|매일|매주|(?<![가-힣\d])[월연](?=\s?[\d%])|반드시|필수|선택|없이|외에|제외|포함"
    r"|무료|유료|면제|고정|변동|개인|법인|국내|해외|입금|출금|가입|해지|본인|대리인|평일|주말|오전|오후"
    r"|영업점|창구|(?<![가-힣])앱|전화|인터넷|고객|은행(?=[이은가])|않|없|못|불가|아니|(?<=[가-힣])만[이은을도]?(?=[\s.,]|\Z)"
    r"|[월화수목금토일]요일|다음|당일|첫|마지막"
    r"|\b(?:most|least|maximum|minimum|more|less|over|under|above|below|before|after|until|from|all|some|any|always"
    r"|never|only|without|with|must|may|could|should|once|twice"
    r"|need|have to|required|not|no|cannot|if|unless|except|per|monthly|yearly|annual"
    r"|month|year|week|day|daily|weekly|fixed|variable|branch|app|phone|open|close|deposit|withdrawal|free|either|both"
    r"|bank|customer)\b|n't\b",
    re.IGNORECASE,
)
_CONDITION: Final = re.compile(
    r"(?:[가-힣]면|경우|지만|려면|[가-힣]야)(?=[\s,.]|\Z)"
    r"|\b(?:if|unless|when|while|until|once|provided|subject to|except|but)\b",
    re.IGNORECASE,
)
_CELL_MARKS: Final = re.compile(r"[\s*_`]")
_MOST_PAIRS: Final = 10_000
"""Pairs of words that are compared: two sentences of a hundred words each."""
_KNOWN: Final = 0.5
"""Share of a word's features from which on it stands in a text: endings differ."""


def turning_words(text: str) -> Counter[str]:
    """Return the words of a text that turn the meaning of a sentence, with their counts."""
    return Counter(match[0].lower() for match in _TURNING.finditer(unicodedata.normalize("NFKC", text)))


def new_words(text: str, known: Collection[str], own: frozenset[str] = frozenset()) -> list[str]:
    """Return the content words of a text whose features are not among those known, nor the bank's `own`."""
    return [word for word in _words(text, own) if not _is_known(word, known)]


def is_out_of_order(text: str, origin: str, own: frozenset[str] = frozenset()) -> bool:
    """Return whether words that both texts have stand in another order: "from A to B" for "from B to A".

    Texts too long to be compared word by word count as out of order.
    """
    words, of_origin = _words(text, own), [frozenset(word_features(word)) for word in _words(origin, own)]
    if len(words) * len(of_origin) > _MOST_PAIRS:
        return True
    shared = [word for word in words if any(_is_known(word, other) for other in of_origin)]
    return _longest_common(shared, of_origin) < len(shared)


def leaves_condition_out(text: str, origin: str) -> bool:
    """Return whether the origin has more conditions than the text."""
    return len(_CONDITION.findall(origin)) > len(_CONDITION.findall(text))


def cells(row: str) -> list[str]:
    """Return what stands in the cells of a table's row."""
    return [_CELL_MARKS.sub("", cell).rstrip(".") for cell in row.strip().strip("|").split("|")]


def _words(text: str, own: frozenset[str]) -> list[str]:
    return [word for word in content_words(text) if not is_discourse(word, own)]


def _is_known(word: str, known: Collection[str]) -> bool:
    parts = word_features(word)
    return sum(part in known for part in parts) >= _KNOWN * len(parts)


def _longest_common(words: Sequence[str], others: Sequence[Collection[str]]) -> int:
    """Return the length of the longest common subsequence of words and of those that the others' features make."""
    row = [0] * (len(others) + 1)
    for word in words:
        before = row[:]
        for at, other in enumerate(others, 1):
            row[at] = max(before[at], row[at - 1], before[at - 1] + _is_known(word, other))
    return row[-1]
