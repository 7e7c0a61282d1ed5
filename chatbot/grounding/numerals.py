"""Read numbers in Korean and English text, without units: 1천만, 5억 3천만, 10 million, two hundred. No I/O."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from unicodedata import numeric

from chatbot.grounding.quantity import CURRENCY_CODES
from chatbot.grounding.units import ANY_UNIT

_DIGITS: Final = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?)"
_MONEY: Final = r"(?:원|달러|유로|엔|위안|파운드)"
# A scale directly follows its digits (5만); a space is allowed only before a currency (5 만원, but "5 만기" is not
# 50,000). 조 is an article of a law (제3조) unless money follows.
_BIG: Final = rf"(?:[만억]|조(?=[ ]?(?:{_MONEY}|{_DIGITS}[천백십]*억)))"
_NEXT: Final = rf"(?:[ ](?={_DIGITS}(?:[천백십만억]|[ ]?{_MONEY})))?"  # a blank within a number
_GROUP: Final = rf"(?:{_DIGITS}[천백십]{_NEXT})*{_DIGITS}[천백십]?"  # the digits before 만, 억 or 조: 3천5백
_KOREAN: Final = (
    rf"(?:{_GROUP}{_BIG}{_NEXT})*"
    rf"{_GROUP}(?:{_BIG}|[ ](?:천|만|억|조|천만|백만|십만)(?=[ ]?{_MONEY}))?"
)

_ENGLISH_NUMERALS: Final = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_GROUPS: Final = {"hundred": 100, "dozen": 12}
_SCALES: Final = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ABBREVIATED: Final = {"mn": 10**6, "bn": 10**9, "tn": 10**12}
# One letter is a scale only beside a currency: KRW 10k, $5m, 10k won; 10m means metres.
_LETTERS: Final = {"k": 10**3, "m": 10**6, "b": 10**9}
_CODE: Final = f"(?:{'|'.join(sorted(CURRENCY_CODES))})"
_AFTER_CURRENCY: Final = rf"(?=\d)(?:(?<=[₩$€£¥])|(?<=[₩$€£¥][ ])|(?-i:(?<={_CODE})|(?<={_CODE}[ ])))"
_ENGLISH_WORD: Final = "|".join(sorted([*_ENGLISH_NUMERALS, *_SCALES, *_GROUPS], key=len, reverse=True))
_ENGLISH_SCALE: Final = "|".join([*_SCALES, *_ABBREVIATED])
_ENGLISH_GROUP: Final = "|".join([*_SCALES, "dozen"])
_ENGLISH_NUMERAL: Final = "|".join(sorted(_ENGLISH_NUMERALS, key=len, reverse=True))

_SINO: Final = {"일": 1, "이": 2, "삼": 3, "사": 4, "오": 5, "육": 6, "칠": 7, "팔": 8, "구": 9}
_SINO_SCALES: Final = {"십": 10, "백": 100, "천": 1000}
_SINO_BIG: Final = {"만": 10**4, "억": 10**8, "조": 10**12}
_SINO_DIGIT: Final = "[영공일이삼사오육칠팔구]"
_SINO_WORD: Final = r"[일이삼사오육칠팔구십백천만억조]"
_SINO_UNIT: Final = rf"(?:{_MONEY}|퍼센트|개월|년|명|회|건|일(?![가-힣]))"
# Directly after one syllable, most units would form another word: 열차, 백인, 만세.
_APART: Final = r"(?:[ ]|(?<=[가-힣]{2}))"
# One syllable is a number only where another word is unlikely: 이 건 is "this matter", 구분 and 사회 are nouns.
_SINO_ALONE: Final = (
    r"(?:[일이](?=[ ]?(?:퍼센트|개월))|[삼사오육칠팔구](?=[ ]?(?:퍼센트|개월|영업일)"
    r"|[ ](?:년|(?<!구[ ])분|회|일)(?:간|은|을|에|의|이|로|까지|마다|동안)?(?![가-힣])))"
)

_NATIVE_ONES: Final = {
    "한": 1, "두": 2, "세": 3, "네": 4, "다섯": 5, "여섯": 6, "일곱": 7, "여덟": 8, "아홉": 9,
}  # fmt: skip
_NATIVE_TENS: Final = {
    "열": 10, "스물": 20, "서른": 30, "마흔": 40, "쉰": 50, "예순": 60, "일흔": 70, "여든": 80, "아흔": 90,
}  # fmt: skip
NATIVE: Final = (  # the values of native Korean numerals
    _NATIVE_ONES
    | {"석": 3, "넉": 4, "스무": 20}
    | _NATIVE_TENS
    | {ten + one: tens + ones for ten, tens in _NATIVE_TENS.items() for one, ones in _NATIVE_ONES.items()}
)
_NATIVE_FEW: Final = r"[한두세네]"
_NATIVE_MANY: Final = "|".join(sorted((word for word in NATIVE if word not in "한두세네석넉"), key=len, reverse=True))
_COUNTED: Final = r"(?:번|차례|가지|개|명|분|달|시간|시|살|곳|군데|건|장|배|종류|단계|주|사람|자리|영업일)"
_DAYS: Final = {
    "하루": 1, "이틀": 2, "사흘": 3, "나흘": 4, "닷새": 5, "엿새": 6, "이레": 7, "여드레": 8, "아흐레": 9,
    "열흘": 10, "보름": 15, "일주일": 7,
}  # fmt: skip
_HALVED: Final = r"(?=[ ]?(?:년|달|개월|시간)(?![가-힣]{2}))"

# A number's possible first characters: trying each kind of number at every character would take most of the time.
# In order: 10 million · $5m · 2½ · .5 · 1/4분기 · 5억 3천만 · 하루 · 영점오 · 이백만 · 스무 · 반 · a · two hundred
_FIRST: Final = r"(?=[\d.¼½¾A-Za-z영일이삼사오육칠팔구십백천만억조한두세네석넉다여아열스서마쉰예하나닷엿보반])"
_NUMBER = re.compile(
    rf"{_FIRST}(?:(?P<english_scaled>{_DIGITS}[ -]?(?:{_ENGLISH_SCALE})(?![A-Za-z]))"
    rf"|(?P<lettered>{_AFTER_CURRENCY}{_DIGITS}[kmb](?![A-Za-z])"
    rf"|{_DIGITS}[kmb](?=[ ]?(?:{_MONEY}|won|dollars|krw|usd)))"
    r"|(?P<fraction>(?:(?<![\d.,])\d+[ ]?)?[¼½¾]|\d+[ ]and[ ]a[ ]half(?![A-Za-z]))"
    r"|(?P<point>(?<![\w.,)])\.\d+(?![천백십만억조]))"
    r"|(?P<quarter>(?<![\d/])[1-4]/4(?=[ ]?분기))"
    rf"|(?P<digits>{_KOREAN})"
    rf"|(?P<days>(?<![가-힣])(?:{'|'.join(_DAYS)}))"
    rf"|(?P<sino_point>(?<![가-힣])[영일이삼사오육칠팔구십]+점[ ]?{_SINO_DIGIT}+(?=[ ]?(?:퍼센트|프로|%|배)))"
    rf"|(?P<sino>(?<![가-힣\d])(?!만[ ]{_SINO_WORD}+[ ]?[세살])(?:(?={_SINO_WORD}*[십백천만억])"
    rf"{_SINO_WORD}+(?:[ ]{_SINO_WORD}+){{0,12}}(?=[ ]?{_SINO_UNIT}|{_APART}{ANY_UNIT})|{_SINO_ALONE}))"
    rf"|(?P<native>(?<![가-힣\d])(?:{_NATIVE_FEW}(?=[ ]?{_COUNTED})|[석넉](?=[ ]?[달장])"
    rf"|(?:{_NATIVE_MANY})(?=[ ]?{_COUNTED}|{_APART}{ANY_UNIT})))"
    rf"|(?P<half>(?<![가-힣])반{_HALVED}|(?<![A-Za-z])half[ ]an?[ ](?:(?:{_ENGLISH_SCALE})(?![A-Za-z]))?"
    r"|(?<![A-Za-z])half(?=[ ]percent))"
    r"|(?P<one>(?<![A-Za-z])an?(?=[ ](?:year|month|week|day|hour)[ ]and[ ]a[ ]half(?![A-Za-z])))"
    rf"|(?P<english>(?<![A-Za-z])(?:an?[ ](?:{_ENGLISH_GROUP})|{_ENGLISH_NUMERAL})"
    rf"(?:[ -](?:and[ ])?(?:{_ENGLISH_WORD}))*(?:[ ]and[ ]a[ ]half)?(?![A-Za-z])))",
    re.IGNORECASE,
)
_TOKEN = re.compile(rf"{_DIGITS}|[천백십만억조]")
_LEADING_DIGITS = re.compile(_DIGITS)


@dataclass(frozen=True, slots=True)
class Number:
    """A number at [start, end) of a text."""

    start: int
    end: int
    value: Decimal
    scale: Decimal  # the factor of a single mantissa (10^8 in 3억), otherwise 1
    in_words: bool  # the number has no digits
    counts_days: bool  # the number is a word for days, such as 하루


def numbers_in(text: str) -> Iterator[Number]:
    """Yield the numbers of `text` from left to right."""
    for match in _NUMBER.finditer(text):
        kind, raw = match.lastgroup or "", match.group()
        value = _READERS[kind](raw)
        digits = _LEADING_DIGITS.match(raw)
        is_only = len(_LEADING_DIGITS.findall(raw)) == 1
        mantissa = _decimal(digits.group()) if digits and is_only else Decimal(0)
        scale = value / mantissa if mantissa else Decimal(1)
        yield Number(match.start(), match.end(), value, scale, in_words=kind in _IN_WORDS, counts_days=kind == "days")


def _decimal(digits: str) -> Decimal:
    return Decimal(digits.replace(",", ""))


def _korean(raw: str) -> Decimal:
    """Return the value of digits and scales: `section` is the part before the next 만, 억 or 조."""
    total = section = Decimal(0)
    pending: Decimal | None = None
    for token in _TOKEN.findall(raw):
        if token in _SINO_SCALES:
            section += (1 if pending is None else pending) * _SINO_SCALES[token]
            pending = None
        elif token in _SINO_BIG:
            section += pending or 0
            total += (section or 1) * _SINO_BIG[token]
            section, pending = Decimal(0), None
        else:
            pending = _decimal(token)
    return total + section + (pending or 0)


def _sino(raw: str) -> Decimal:
    return _korean("".join(str(_SINO.get(char, char)) for char in raw if char != " "))


def _sino_point(raw: str) -> Decimal:
    whole, _, decimals = raw.replace(" ", "").partition("점")
    digits = "".join(str(_SINO.get(char, 0)) for char in decimals)
    return _sino(whole.replace("영", "")) + Decimal(f"0.{digits}")


def _fraction(raw: str) -> Decimal:
    digits = _LEADING_DIGITS.match(raw)
    whole = _decimal(digits.group()) if digits else 0
    return whole + Decimal(numeric(raw[-1]) if raw[-1] in "¼½¾" else 0.5)


def _half(raw: str) -> Decimal:
    return Decimal("0.5") * _SCALES.get(raw.lower().split()[-1], 1)


def _english_scaled(raw: str) -> Decimal:
    digits = _LEADING_DIGITS.match(raw)
    value = _decimal(digits.group()) if digits else Decimal(1)
    word = re.sub(r"[^a-z]", "", raw.lower())
    return value * (_SCALES | _ABBREVIATED | _LETTERS)[word]


def _english(raw: str) -> Decimal:
    total = section = 0
    for word in re.split(r"[ -]", raw.lower()):
        if word in _ENGLISH_NUMERALS:
            section += _ENGLISH_NUMERALS[word]
        elif word in _GROUPS:
            section = (section or 1) * _GROUPS[word]
        elif word in _SCALES:
            total += (section or 1) * _SCALES[word]
            section = 0
    return Decimal(total + section) + (Decimal("0.5") if raw.lower().endswith(" half") else 0)


_READERS: Final = {
    "english_scaled": _english_scaled,
    "lettered": _english_scaled,
    "fraction": _fraction,
    "point": lambda raw: Decimal(f"0{raw}"),
    "quarter": lambda raw: Decimal(raw[0]),
    "digits": _korean,
    "days": lambda raw: Decimal(_DAYS[raw]),
    "sino_point": _sino_point,
    "sino": _sino,
    "native": lambda raw: Decimal(NATIVE[raw]),
    "half": _half,
    "one": lambda _: Decimal(1),
    "english": _english,
}
_IN_WORDS: Final = frozenset({"days", "sino_point", "sino", "native", "half", "one", "english"})
