"""Whether a text can be an answer: it has what is asked for and can be read by itself. No I/O.

An answer to "how much" states an amount. Only questions for an amount are told apart, since their answers are: over six
data sets that others wrote, 4 of 66 known answers to such questions state none, and two of these say nothing of the
amount. A sentence can be true, its passage about the question's subject, and still answer another question.
"""

import re
from itertools import takewhile
from typing import Final

from chatbot.grounding.numbers import quantities

# Who says that something was tried several times (몇 번), or is a few years old, asks for no number.
_SEVERAL: Final = (
    r"\s?(?:년|해|달|개월|주|시간)째(?!\s?(?:부터|되면))"
    r"|\s?[가-힣]{1,2}(?:\s?된\s|(?:이나)?\s(?:\S{1,8}\s)?(?:틀려서|해도(?!\s?(?:되|돼|괜찮|무료))|해\s?봐도|했는데"
    r"|(?:틀렸|해\s?봤|시도했|눌렀|입력했|거절당|보냈|전화했|문의했)(?!을))"
    r"|\s?전에\s?(?:\S{1,6}\s)?(?:만든|만들었|가입[한했]|신청[한했]|개설[한했]|받은|받았|보낸|보냈))"
)
_ASKS_FOR_AN_AMOUNT: Final = re.compile(
    rf"얼마(?!\s?(?:전|간|안\s|되지\s|든지))|며칠(?!\s?(?:전|간|째(?!\s?(?:부터|되면))))|(?<![가-힣])몇(?!\s?가지|\s?번을|{_SEVERAL})"
    r"|(?<!matter )(?<!don't know )(?<!do not know )\bhow (?:much|many|long|old|often|soon)\b",
    re.IGNORECASE,
)
# An amount without a number: none of it, no bound, at once, a number that is a word. "할 수 없습니다" is none of these.
_AMOUNT_IN_WORDS: Final = re.compile(
    r"무료|면제|즉시|바로|당일|언제든|수시로|제한이? ?없|무제한|(?:받지|내지|들지|붙지|부과하지|부과되지) ?않"
    r"|(?<!수 )(?<!수가 )없(?:습니다|어요|음|다)|매\s?(?:분기|반기|월|년|일|주)|다음\s?(?:날|영업일)|익일|전액"
    r"|\b(?:free|waived|unlimited|immediate(?:ly)?|instant(?:ly)?|real[- ]?time|any ?time|nil|none|one|once|until"
    r"|no (?:\w+ ){0,2}(?:fees?|charges?|limits?|costs?|minimum|maximum|cap|bound)|not (?:\w+ )?charged?|every|each"
    r"|same day|overnight|twice|daily|weekly|monthly|quarterly|yearly|annually)\b",
    re.IGNORECASE,
)


def asks_for_amount(question: str) -> bool:
    """Return whether a question asks how much, how many, how long, how often or how old."""
    return _ASKS_FOR_AN_AMOUNT.search(question) is not None


def states_amount(text: str) -> bool:
    """Return whether a text states an amount, in numbers or in words."""
    return bool(quantities(text)) or _AMOUNT_IN_WORDS.search(text) is not None


def is_question(text: str) -> bool:
    """Return whether a text ends with a question mark, or with one before brackets and quotes."""
    return any(char in "?？" for char in takewhile(lambda char: not str.isalnum(char), reversed(text)))


_MARKS: Final = r"[\s*>\-•]{0,8}"
_DEPENDS: Final = re.compile(
    _MARKS + r"(?:※(?!\s{0,3}(?:단위|units?))|\([^()]*\)[.\s]*\Z"
    r"|(?:\([^()]*\)\s{0,4})?(?:단|다만|그러나|하지만|반면|예외적으로|그\s?(?:외|밖)[가-힣]{0,2})(?=[,\s])"
    r"|(?:however|but|otherwise|except|unless|only|provided|that said|(?:for )?(?:all )?(?:the )?others?)\b"
    r"|[¹²³†‡]|주\s?\d?\s?[):]"
    r"|(?:예외|대상|조건|주의|유의|참고|비고|notes?|exceptions?|conditions?)[가-힣 ]{0,4}[:：]\s)",
    re.IGNORECASE,
)
_POINTS_BACK: Final = re.compile(
    _MARKS + r"(?:(?:이|그|해당|상기)\s+[가-힣]|(?:이|그)(?:때|는|를|에|와)\s|(?:이|그)(?:러한|처럼|중)\s?"
    r"|(?:this|these|those|it|its|they|their|such|in (?:this|that|such|these|those) cases?)\b)",
    re.IGNORECASE,
)
_RESTRICTS: Final = re.compile(
    r"(?<=[가-힣])(?<![미십백천])만(?=[\s.]|\Z)|한(?:하여|해|합니다|함|정)|제외|까지만"
    r"|\b(?:only|not apply|except|excluding|unless)\b",
    re.IGNORECASE,
)
_END: Final = re.compile(r"(?<=[.!?])\s|\n")
_KOREAN: Final = re.compile(r"[가-힣]")
_SUBJECT: Final = re.compile(r"[가-힣][은는이가](?=\s)")
_FEWEST_WORDS: Final = 5
"""Words of an English sentence from which on it has a subject of its own: "Students only!" has none."""


def depends_on_another(sentence: str) -> bool:
    """Return whether a sentence only restricts or notes something on what stands before it.

    It says so ("단, …", "(…)", "※ …", "예외: …"), or restricts ("만", "only") what it points back to or does not name.
    """
    if _DEPENDS.match(sentence):
        return True
    first = _END.split(sentence, maxsplit=1)[0]
    return _RESTRICTS.search(first) is not None and (points_back(first) or not _has_subject(first))


def _has_subject(sentence: str) -> bool:
    if _KOREAN.search(sentence):
        return _SUBJECT.search(sentence) is not None
    return len(sentence.split()) >= _FEWEST_WORDS


def points_back(sentence: str) -> bool:
    """Return whether a sentence begins with a word for what stands before it: "이때 …", "It …"."""
    return _POINTS_BACK.match(sentence) is not None
