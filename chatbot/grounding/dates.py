"""Read composite quantities in Korean and English text: dates, quarters, times, telephone numbers, codes. No I/O."""

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Final

from chatbot.grounding.numerals import NATIVE
from chatbot.grounding.quantity import (
    CODE,
    CURRENCIES,
    CURRENCY_CODES,
    DATE,
    PHONE,
    QUARTER,
    TIME,
    TIMES,
    PartialDate,
    Quantity,
    Reading,
)

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH: Final = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?"
    r"|JAN(?:UARY)?|FEB(?:RUARY)?|MAR(?:CH)?|APR(?:IL)?|MAY|JUNE?|JULY?|AUG(?:UST)?|SEPT?(?:EMBER)?|OCT(?:OBER)?"
    r"|NOV(?:EMBER)?|DEC(?:EMBER)?)(?![A-Za-z])"
)
# Without "May" and "March", which are often verbs.
_MONTH_ALONE: Final = r"(?:January|February|April|June|July|August|September|October|November|December)(?![A-Za-z])"
_TH: Final = r"(?:st|nd|rd|th)?"
_HALF_DAY: Final = r"(?:(?P<half>오전|오후|낮|저녁|밤|새벽|아침)\s?)?"
_AM_OR_PM: Final = r"(?P<am>(?i:[ap]\.?[ ]?m)(?![A-Za-z])\.?)"
_START: Final = r"(?<![\d.,])"  # of a number
_BEFORE_YEAR: Final = r"(?:\s?,)?"
_CODE: Final = f"(?:{'|'.join(sorted(CURRENCY_CODES))})"
# 2000.10 beside a currency is an amount, and before "points" an index.
_NO_AMOUNT_BEFORE: Final = rf"(?<![$€£¥₩])(?<!{_CODE})(?<!{_CODE}[ ])"
_NO_AMOUNT_AFTER: Final = (
    rf"(?!\s?(?:[$€£¥₩]|원|달러|불|엔|유로|위안|파운드|프랑|바트|포인트|퍼센트|배|(?:{_CODE}|won|dollars?|euros?|yen|yuan"
    r"|pounds?|francs?|points?|pts?|percent|times)(?![A-Za-z])))"
)

# Groups: `y` or `yy` is the year, `m` or `name` the month, `d` the day.
_DATES: Final = (
    rf"{_START}(?P<y>\d{{4}})\s?[-./]\s?(?P<m>\d{{1,2}})\s?[-./]\s?(?P<d>\d{{1,2}})(?!\d)\.?",
    rf"{_START}(?P<y>\d{{4}})년\s?(?P<m>\d{{1,2}})월(?:\s?(?P<d>\d{{1,2}})일)?",
    r"['’](?P<yy>\d{2})(?:년|[./])\s?(?P<m>\d{1,2})(?![\d개]|(?:/4)?\s?분기)(?:월|[./])?(?:\s?(?P<d>\d{1,2})(?:일|\b\.?))?",
    r"['’](?P<yy>\d{2})년",
    rf"{_START}(?P<yy>\d{{2}})\.\s?(?P<m>\d{{1,2}})\.\s?(?P<d>\d{{1,2}})(?![\d%])\.?",
    rf"{_START}(?P<y>\d{{4}})-(?P<m>0[1-9]|1[0-2])(?![-\d])",
    rf"{_START}(?P<y>\d{{4}})\.\s?(?P<m>\d{{1,2}})\.(?!\s?\d)",
    rf"{_START}{_NO_AMOUNT_BEFORE}(?P<y>(?:19|20)\d{{2}})\.(?P<m>0[1-9]|1[0-2])(?![\d.,%]){_NO_AMOUNT_AFTER}",
    rf"{_START}(?P<yy>\d{{2}})년\s?(?P<m>\d{{1,2}})월(?:\s?(?P<d>\d{{1,2}})일)?",
    rf"{_START}(?P<y>(?:19|20)\d{{2}})(?:년|\s?회계\s?연도)",
    r"(?<![A-Za-z\d])FY[ -]?(?:(?P<y>(?:19|20)\d{2})|['’]?(?P<yy>\d{2}))(?![\dA-Za-z])",
    r"(?<=(?<![A-Za-z\d])[1-4][Qq])['’]?(?P<yy>\d{2})(?![A-Za-z\d])",
    rf"{_START}(?P<m>\d{{1,2}})월\s?(?P<d>\d{{1,2}})일",
    rf"{_START}(?P<m>\d{{1,2}})월",
    r"(?:매월|매달|익월|당월)\s?(?P<d>\d{1,2})일",
    rf"(?<![A-Za-z])(?P<name>{_MONTH})\.?\s(?P<d>\d{{1,2}})(?!\d){_TH}(?:{_BEFORE_YEAR}\s(?P<y>\d{{4}})(?!\d))?",
    rf"{_START}(?P<d>\d{{1,2}}){_TH}(?:\sof)?[\s-](?P<name>{_MONTH})\.?(?:{_BEFORE_YEAR}[\s-](?P<y>\d{{4}})(?!\d))?",
    rf"(?<![A-Za-z])(?P<name>{_MONTH})\.?{_BEFORE_YEAR}\s(?P<y>\d{{4}})(?!\d)",
    rf"(?<![A-Za-z])(?P<name>{_MONTH_ALONE})",
    r"(?<![A-Za-z])(?:[Ii]n|[Bb]y|[Ss]ince|[Uu]ntil|[Ff]rom|of|to|[Ee]very|[Ee]arly|[Ll]ate)\s(?P<name>March|May)(?![A-Za-z])",
    rf"{_START}(?P<d>\d{{1,2}})(?:st|nd|rd|th)(?![A-Za-z])",
)
_SLASHED: Final = re.compile(rf"{_START}(?P<a>\d{{1,2}})/(?P<b>\d{{1,2}})/(?P<y>\d{{4}})(?!\d)")
_HOUR_WORDS: Final = "열한|열두|열|한|두|세|네|다섯|여섯|일곱|여덟|아홉"
# Groups: `h` or `word` is the hour, `min` the minute, `past` 반 (half past), `half` and `am` the half of the day.
_TIMES: Final = (
    rf"{_HALF_DAY}(?<![\d:.])(?P<h>\d{{1,2}}):(?P<min>\d{{2}})(?![\d:])(?:\s?{_AM_OR_PM})?",
    rf"{_HALF_DAY}(?<![\d.,])(?P<h>\d{{1,2}})시(?!간|점|행|작|중|장|도|설|스|급|민)(?:\s?(?P<min>\d{{1,2}})분|\s?(?P<past>반))?",
    rf"{_HALF_DAY}(?<![가-힣\d])(?!한시)(?P<word>{_HOUR_WORDS})\s?시(?![가-힣](?<![반에부까이가로쯤경입와은]))"
    r"(?:\s?(?P<min>\d{1,2})분|\s?(?P<past>반))?",
    rf"(?<![\d:.,])(?P<h>\d{{1,2}})\s?{_AM_OR_PM}",
    r"(?P<noon>정오|\bnoon\b)|(?P<night>자정|\bmidnight\b)",
)
_NOON_WORDS: Final = frozenset({"오후", "낮", "p"})  # after one of these words 12 o'clock is noon, otherwise midnight
_AFTERNOON_HOURS: Final[Mapping[str, range]] = {  # the hours to which each word adds 12
    "오후": range(12), "저녁": range(12), "p": range(12), "낮": range(9), "밤": range(5, 12)
}  # fmt: skip
_PHONES: Final = re.compile(
    r"(?<![\d-])(?:(?:\+|00)?82[-\s.)]{0,2}|0|\(0)\d{1,2}(?:\)[-\s.]{0,2}(?!1[568]\d\d-)|[-\s.]{1,2})\d{3,4}[-\s.]\d{4}(?![\d-])"
    r"|(?<![\d-])1[5-9]\d{2}-\d{4}(?![\d-])|(?<![\d.,-])1[568]\d{2}[ ]\d{4}(?![\d,-])"
)
_QUARTERS: Final = re.compile(
    r"(?<![A-Za-z\d])(?:[Qq](?P<before>[1-4])(?![A-Za-z\d])|(?P<after>[1-4])[Qq](?:(?=\d\d(?![A-Za-z\d]))|(?![A-Za-z\d]))"
    r"|(?P<word>(?i:first|second|third|fourth|1st|2nd|3rd|4th))[ -](?i:quarter)(?![A-Za-z\d]))"
)
# In "Q1. What is the limit?", Q1 numbers a question, so it is read as a code.
_QUESTION_NUMBER: Final = re.compile(r"^[ \t#>*•·-]*(?P<number>[Qq]\d{1,2})[.):][ \t][^\n]*[?？]", re.MULTILINE)
_ORDINALS: Final[Mapping[str, int]] = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "1st": 1, "2nd": 2, "3rd": 3, "4th": 4
}  # fmt: skip
_TWICE: Final = re.compile(r"(?<![A-Za-z])(?i:twice)(?![A-Za-z]|[ ](?:the|as|that|its|their|your)\b)")
_CODES: Final = re.compile(
    rf"(?<![A-Za-z\d])(?!(?:{'|'.join(CURRENCIES)})[ -]?\d)[A-Za-z]+(?:[-_]?\d+)+(?:[-_]?[A-Za-z\d]+)*"
)


def composite_quantities(text: str) -> Iterator[Quantity]:
    """Yield telephone numbers, quarters, dates, times and codes; on overlap, only the first kind in this order."""
    occupied = bytearray(len(text))
    for reader in (_phones, _quarters, _dates, _times, _codes):
        for quantity in reader(text):
            if not any(occupied[quantity.start : quantity.end]):
                occupied[quantity.start : quantity.end] = b"\1" * (quantity.end - quantity.start)
                yield quantity


def _quantity(match: re.Match[str], readings: Iterable[Reading], numbers: Iterable[Decimal]) -> Quantity:
    return Quantity(match.group(), match.start(), match.end(), tuple(readings), tuple(numbers))


def _phones(text: str) -> Iterator[Quantity]:
    for match in _PHONES.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        is_international = re.match(r"\+|(?:00)?82", match.group()) is not None
        national = "0" + re.sub(r"^(?:00)?820?", "", digits) if is_international else digits
        yield _quantity(match, [Reading(PHONE, national)], [Decimal(digits)])


def _codes(text: str) -> Iterator[Quantity]:
    for match in _CODES.finditer(text):
        yield _quantity(match, [Reading(CODE, re.sub(r"[-_]", "", match.group()).upper())], [])


def _quarters(text: str) -> Iterator[Quantity]:
    """Yield quarters in the unit 분기, and "twice" in the unit 회."""
    question_numbers = {match.start("number") for match in _QUESTION_NUMBER.finditer(text)}
    for match in _QUARTERS.finditer(text):
        if match.start() in question_numbers:
            continue
        word, digit = match["word"], match["before"] or match["after"]
        number = Decimal(digit if digit else _ORDINALS[word.lower()])
        yield _quantity(match, [Reading(QUARTER, number)], [number])
    for match in _TWICE.finditer(text):
        yield _quantity(match, [Reading(TIMES, Decimal(2))], [Decimal(2)])


def _dates(text: str) -> Iterator[Quantity]:
    for match in _SLASHED.finditer(text):
        year, first, second = int(match["y"]), int(match["a"]), int(match["b"])
        orders = ((first, second), (second, first))  # month/day and day/month
        dates = [PartialDate(year, month, day) for month, day in orders if month <= 12 and day <= 31]
        if dates:
            yield _quantity(match, [Reading(DATE, date) for date in dates], map(Decimal, (year, first, second)))
    for pattern in _DATES:
        for match in re.finditer(pattern, text):
            date = _date(match.groupdict())
            if date is not None:
                numbers = [Decimal(part) for part in (date.year, date.month, date.day) if part is not None]
                yield _quantity(match, [Reading(DATE, date)], numbers)


def _date(parts: dict[str, str | None]) -> PartialDate | None:
    """Return the date of a match's groups, or None if the month or the day is out of range."""
    year, month, day = parts.get("y"), parts.get("m"), parts.get("d")
    if short := parts.get("yy"):
        year = f"20{short}"
    if name := parts.get("name"):
        month = str(_MONTHS.index(name[:3].lower()) + 1)
    date = PartialDate(*(int(part) if part else None for part in (year, month, day)))
    is_month_valid = date.month is None or 1 <= date.month <= 12
    is_day_valid = date.day is None or 1 <= date.day <= 31
    return date if is_month_valid and is_day_valid else None


def _times(text: str) -> Iterator[Quantity]:
    for pattern in _TIMES:
        for match in re.finditer(pattern, text):
            readings = [Reading(TIME, Decimal(minutes)) for minutes in _minutes(match.groupdict())]
            if readings:
                yield _quantity(match, readings, map(Decimal, re.findall(r"\d+", match.group())))


def _minutes(parts: dict[str, str | None]) -> tuple[int, ...]:
    """Return the possible minutes since midnight: 9시 alone may be morning or evening; 24:00 is midnight."""
    if parts.get("noon"):
        return (720,)
    if parts.get("night"):
        return (0,)
    hour = int(parts.get("h") or NATIVE[parts["word"] or ""])
    minute = 30 if parts.get("past") else int(parts.get("min") or 0)
    if hour > 24 or minute > 59:
        return ()
    half_day = parts.get("half") or (parts.get("am") or "")[:1].lower()  # a Korean word, "a" or "p"
    if half_day and hour == 12:
        hour = 12 if half_day in _NOON_WORDS else 0
    elif hour in _AFTERNOON_HOURS.get(half_day, ()):
        hour += 12
    elif not half_day and parts.get("min") is None and 1 <= hour <= 12:
        return (hour * 60 + minute, (hour + 12) % 24 * 60 + minute)
    return (hour % 24 * 60 + minute,)
