"""Numbers in Korean and English text, with their values: 1천만, 5억 3천만, 10 million, two hundred. No I/O.

Only the number itself is read; `numbers` finds the unit. Offsets are those of the given text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

_DIGITS: Final = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?)"
_MONEY: Final = r"(?:원|달러|유로|엔|위안|파운드)"
# A scale stands right behind its digits (5만), or apart only before a currency (5 만원, but "5 만기" is no 50,000).
# 조 is an article of a law (제3조) unless money follows.
_BIG: Final = rf"(?:[만억]|조(?=[ ]?(?:{_MONEY}|{_DIGITS}[천백십]*억)))"
_NEXT: Final = rf"(?:[ ](?={_DIGITS}(?:[천백십만억]|[ ]?{_MONEY})))?"
_GROUP: Final = rf"(?:{_DIGITS}[천백십]{_NEXT})*{_DIGITS}[천백십]?"
_KOREAN: Final = (
    rf"(?:{_GROUP}{_BIG}{_NEXT})*"
    rf"{_GROUP}(?:{_BIG}|[ ](?:천|만|억|조|천만|백만|십만)(?=[ ]?{_MONEY}))?"
)

_UNITS: Final = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_SCALES: Final = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ABBREVIATED: Final = {"mn": 10**6, "bn": 10**9, "tn": 10**12}
_ENGLISH_WORD: Final = "|".join(sorted([*_UNITS, *_SCALES], key=len, reverse=True))
_ENGLISH_SCALE: Final = "|".join([*_SCALES, *_ABBREVIATED])
_ENGLISH_UNIT: Final = "|".join(sorted(_UNITS, key=len, reverse=True))

_SINO: Final = {"일": 1, "이": 2, "삼": 3, "사": 4, "오": 5, "육": 6, "칠": 7, "팔": 8, "구": 9}
_SINO_SCALES: Final = {"십": 10, "백": 100, "천": 1000}
_SINO_BIG: Final = {"만": 10**4, "억": 10**8, "조": 10**12}
_SINO_WORD: Final = r"[일이삼사오육칠팔구십백천만억]"
_SINO_UNIT: Final = rf"(?:{_MONEY}|퍼센트|개월|년|명|회|건|일(?![가-힣]))"

_NATIVE: Final = {
    "한": 1, "두": 2, "세": 3, "네": 4, "다섯": 5, "여섯": 6, "일곱": 7, "여덟": 8, "아홉": 9, "열": 10,
    "열한": 11, "열두": 12, "열세": 13, "열네": 14, "열다섯": 15, "열여섯": 16, "열일곱": 17, "열여덟": 18,
    "열아홉": 19, "스무": 20,
}  # fmt: skip
_NATIVE_WORD: Final = "|".join(sorted(_NATIVE, key=len, reverse=True))
_COUNTED: Final = r"(?:번|차례|가지|개|명|분|달|시간|시|살|곳|군데|건|장|배|종류|단계|주|사람|자리|영업일)"
_DAYS: Final = {"하루": 1, "이틀": 2, "사흘": 3, "나흘": 4, "열흘": 10, "보름": 15, "일주일": 7}

_NUMBER = re.compile(
    rf"(?P<english_scaled>{_DIGITS}[ -]?(?:{_ENGLISH_SCALE})(?![A-Za-z]))"
    rf"|(?P<digits>{_KOREAN})"
    rf"|(?P<days>(?<![가-힣])(?:{'|'.join(_DAYS)}))"
    rf"|(?P<sino>(?<![가-힣])(?={_SINO_WORD}*[십백천만억]){_SINO_WORD}+(?:[ ]{_SINO_WORD}+){{0,12}}"
    rf"(?=[ ]?{_SINO_UNIT}))"
    rf"|(?P<native>(?<![가-힣])(?:{_NATIVE_WORD})(?=[ ]?{_COUNTED}))"
    rf"|(?P<english>(?<![A-Za-z])(?:{_ENGLISH_UNIT})(?:[ -](?:and[ ])?(?:{_ENGLISH_WORD}))*(?![A-Za-z]))",
    re.IGNORECASE,
)
_TOKEN = re.compile(rf"{_DIGITS}|[천백십만억조]")
_LEADING_DIGITS = re.compile(_DIGITS)


@dataclass(frozen=True, slots=True)
class Number:
    """A number at [start, end) of a text.

    `scale` is the factor of a single mantissa (10^8 in 3억), otherwise 1. `in_words`: it has no digits.
    `counts_days`: it is a word for a number of days, like 하루.
    """

    start: int
    end: int
    value: Decimal
    scale: Decimal
    in_words: bool
    counts_days: bool


def numbers_in(text: str) -> Iterator[Number]:
    """Yield the numbers of `text` from left to right."""
    for match in _NUMBER.finditer(text):
        kind, raw = match.lastgroup or "", match.group()
        value = _READERS[kind](raw)
        digits = _LEADING_DIGITS.match(raw)
        is_single = digits is not None and len(_LEADING_DIGITS.findall(raw)) == 1
        mantissa = _plain(digits.group()) if is_single and digits else Decimal(0)
        scale = value / mantissa if mantissa else Decimal(1)
        yield Number(match.start(), match.end(), value, scale, in_words=kind in _WORDS, counts_days=kind == "days")


def _plain(digits: str) -> Decimal:
    return Decimal(digits.replace(",", ""))


def _korean(raw: str) -> Decimal:
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
            pending = _plain(token)
    return total + section + (pending or 0)


def _sino(raw: str) -> Decimal:
    return _korean("".join(str(_SINO.get(char, char)) for char in raw if char != " "))


def _english_scaled(raw: str) -> Decimal:
    digits = _LEADING_DIGITS.match(raw)
    value = _plain(digits.group()) if digits else Decimal(1)
    word = re.sub(r"[^a-z]", "", raw.lower())
    return value * (_SCALES | _ABBREVIATED)[word]


def _english(raw: str) -> Decimal:
    total = section = 0
    for word in re.split(r"[ -]", raw.lower()):
        if word in _UNITS:
            section += _UNITS[word]
        elif word == "hundred":
            section = (section or 1) * 100
        elif word in _SCALES:
            total += (section or 1) * _SCALES[word]
            section = 0
    return Decimal(total + section)


_READERS: Final = {
    "english_scaled": _english_scaled,
    "digits": _korean,
    "days": lambda raw: Decimal(_DAYS[raw]),
    "sino": _sino,
    "native": lambda raw: Decimal(_NATIVE[raw]),
    "english": _english,
}
_WORDS: Final = frozenset({"days", "sino", "native", "english"})
