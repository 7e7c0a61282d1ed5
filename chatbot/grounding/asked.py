"""Whether a text can be an answer: it has what is asked for and can be read by itself. No I/O.

An answer to "how much" states an amount. Only questions for an amount are told apart, since their answers are: over six
data sets that others wrote, 4 of 66 known answers to such questions state none, and two of these say nothing of the
amount. A sentence can be true, its passage about the question's subject, and still answer another question.
"""

import re
from itertools import takewhile
from typing import Final

from chatbot.grounding.numbers import quantities

_ASKS_FOR_AN_AMOUNT: Final = re.compile(
    r"얼마(?!\s?(?:전|간))|며칠(?!\s?(?:전|간))|(?<![가-힣])몇(?!\s?가지|\s?번을)"
    r"|\bhow (?:much|many|long|old|often|soon)\b",
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


_DEPENDS: Final = re.compile(
    r"[\s*>\-•]{0,8}(?:※(?!\s{0,3}(?:단위|units?))|\([^()]*\)[.\s]*\Z|(?:\([^()]*\)\s{0,4})?(?:단|다만|그러나|하지만|반면)(?=[,\s])"
    r"|(?:however|but|otherwise|except)\b)",
    re.IGNORECASE,
)


def depends_on_another(sentence: str) -> bool:
    """Return whether a sentence only restricts or notes something on what stands before it: "단, …", "(…)", "※ …"."""
    return _DEPENDS.match(sentence) is not None
