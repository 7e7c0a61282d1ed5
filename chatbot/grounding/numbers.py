"""Check numbers exactly: a source must state each amount, rate, date, period and count of a claim. No I/O.

Values are compared as Decimals after normalisation: 1천만원 equals KRW 10 million, and 12개월 equals 1년. But 0.5% is
not 0.5%p, 3회 is not 3명, and 365일 is not 1년. Signs are ignored: -0.3%p in a table is "0.3%p 인하" in prose.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from chatbot.grounding.dates import composite_quantities
from chatbot.grounding.numerals import Number, numbers_in
from chatbot.grounding.plain_text import plain_text
from chatbot.grounding.quantity import (
    BUSINESS_DAYS,
    CURRENCIES,
    DATE,
    DAYS,
    MONTHS,
    PERCENT,
    POINTS,
    SECONDS,
    TIME,
    PartialDate,
    Quantity,
    Reading,
    Statement,
)
from chatbot.grounding.units import Unit, heading_unit, leading_currency, may_be_age, trailing_unit, unknown_unit

_ORDINAL: Final = re.compile(
    r"^[ \t]*(?:(?:#{1,6}|[-*•·>])[ \t]+)*[*_]{0,2}(?!\(?0\d\)[ ]\d)\(?\d{1,2}[.)](?=[*_]{0,2}[ \t]+\S)", re.MULTILINE
)
_MARKER: Final = re.compile(r"[\[【［]\^?\d{1,2}(?:\s?[,、~-]\s?\d{1,2})*[\]】］]")
_RANGE: Final = re.compile(
    r"[*_]{0,4}\s{0,2}(?:~|∼|〜|～|→|–|—|-|to|through|내지|에서|부터)\s{0,2}[*_]{0,4}", re.IGNORECASE
)
_LIST: Final = re.compile(r"\s?(?:,|·|/|,?\s?(?:and|or|및|또는|혹은|이나|나))\s?", re.IGNORECASE)
_AND_A_HALF: Final = re.compile(
    r"[ ]?반(?=(?:은|이|을|의|에|으로|까지|부터|동안|만|간|마다|입니다|이며|이고|이내|이상)?(?![가-힣]))"
    r"|[ ]and[ ]a[ ]half(?![A-Za-z])"
)
_PERIODS: Final = frozenset({MONTHS, DAYS, SECONDS})
_BY_BUSINESS_DAYS: Final = re.compile(
    r"영업일[ ]?(?:기준(?:으로)?[ ]?)?(?:(?:약|최대|최소|최장|통상|보통|평균)[ ]?)?"
    r"(?:\d{1,3}(?:일?[ ]?[~∼～-]|일?에서)[ ]?)?\Z"
)
_OF_BUSINESS_DAYS: Final = re.compile(r"[ ]?(?:이내|내|안|정도)?[ ]?[(（]영업일(?:[ ]?기준)?[)）]")
_JOINED: Final = re.compile(r"\s?(?:(?:and|하고|과)\s)?")
_CAPTION: Final = re.compile(r"(?:단위|[Uu]nits?)\s{0,3}[:：][^\n)]*")
_YEARS: Final = range(1900, 2101)
_MEASURES: Final = frozenset({*CURRENCIES, PERCENT, POINTS, MONTHS, DAYS, SECONDS})
# A word may also support a quantity of one: 하루 supports 1일 한도; 회당 and "each" support 1회.
_ONE_IN_WORDS: Final[Mapping[tuple[str, object], re.Pattern[str]]] = {
    (DAYS, 1): re.compile(r"하루|일일|매일|일\s?(?:한도|최대|최고)|daily|(?:per|a|each|every) day", re.IGNORECASE),
    (MONTHS, 1): re.compile(r"매월|매달|월간|월\s?\d|monthly|(?:per|a|each|every) month", re.IGNORECASE),
    (MONTHS, 12): re.compile(r"연간|매년|연\s?\d|annual|yearly|(?:per|a|each|every) year", re.IGNORECASE),
    ("회", 1): re.compile(r"회당|건당|건별|매회|(?:per|each) (?:transaction|transfer|time)|once", re.IGNORECASE),
    ("건", 1): re.compile(r"회당|건당|건별|(?:per|each) (?:transaction|transfer|case)", re.IGNORECASE),
    ("명", 1): re.compile(r"인당|(?:per|each) (?:person|customer)", re.IGNORECASE),
    (SECONDS, 3600): re.compile(r"시간당|hourly|(?:per|an) hour", re.IGNORECASE),
}
_ZERO_IN_WORDS: Final = re.compile(
    r"무료|면제|없(?:음|이|습|는|으며|고)|\b(?:free|waived|no (?:\w+ )?(?:fee|charge|cost|interest)s?|without)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class QuantifiedText:
    """A source's plain text and the statements of its quantities, read once for all claims."""

    text: str
    statements: frozenset[Statement]

    @classmethod
    def read(cls, text: str) -> "QuantifiedText":
        statements = (statement for quantity in quantities(text) for statement in quantity.statements())
        return cls(plain_text(text), frozenset(statements))

    def supports(self, claimed: Quantity) -> bool:
        """Return whether the text states the claimed quantity, in numbers or (zero and one) in words."""
        if not self.statements.isdisjoint(claimed.supporting_statements()):
            return True
        if not claimed.readings or len(claimed.numbers) != 1 or claimed.numbers[0] > 1:
            return False
        reading = claimed.readings[0]
        words = _ONE_IN_WORDS.get((reading.unit, reading.value)) if claimed.numbers[0] else _ZERO_IN_WORDS
        return words is not None and words.search(self.text) is not None


def unsupported_quantities(claim: str, sources: Sequence[str]) -> tuple[Quantity, ...]:
    """Return the quantities of the claim that no source states."""
    return unsupported_by(quantities(claim), [QuantifiedText.read(text) for text in sources])


def unsupported_by(claimed: Iterable[Quantity], sources: Sequence[QuantifiedText]) -> tuple[Quantity, ...]:
    """Return the claimed quantities that no source supports."""
    return tuple(quantity for quantity in claimed if not any(source.supports(quantity) for source in sources))


def quantities(text: str) -> tuple[Quantity, ...]:
    """Return the quantities of a text from left to right; offsets refer to its `plain_text`."""
    plain = plain_text(text)
    occupied = bytearray(len(plain))
    for match in (*_ORDINAL.finditer(plain), *_MARKER.finditer(plain)):
        occupied[match.start() : match.end()] = b"\1" * len(match.group())
    result = [found for found in composite_quantities(plain) if not any(occupied[found.start : found.end])]
    for quantity in result:
        occupied[quantity.start : quantity.end] = b"\1" * (quantity.end - quantity.start)
    for number in numbers_in(plain):
        if not any(occupied[number.start : number.end]):
            result.extend(_with_unit(plain, number))
    result.sort(key=lambda quantity: quantity.start)
    return tuple(_with_table_units(plain, _with_shared_units(plain, _with_compounds(plain, result))))


def _with_unit(text: str, number: Number) -> Iterator[Quantity]:
    """Yield the quantity of a number and its unit, or nothing if the number is not a quantity."""
    trailing, leading = trailing_unit(text, number.end), leading_currency(text, number.start)
    start, end = number.start, number.end
    unit: Unit | None = None
    if number.counts_days:
        unit = Unit((DAYS,))
    elif trailing is not None:
        unit, end = trailing
    elif leading is not None:
        unit, start = leading
    is_business = _BY_BUSINESS_DAYS.search(text, max(0, start - 24), start) or _OF_BUSINESS_DAYS.match(text, end)
    if unit is not None and unit.names == (DAYS, DATE) and is_business:  # 영업일 기준 3일, 3일(영업일 기준)
        unit = Unit((BUSINESS_DAYS,))
    if number.in_words and _is_other_word(text, number, unit):
        return
    value = number.value
    half = _AND_A_HALF.match(text, end)
    if half is not None and unit is not None and unit.names[0] in _PERIODS:
        value += Decimal("0.5")
        end = half.end()
    code, noun = ("", "") if unit else unknown_unit(text, start, end)
    is_age = unit is None and may_be_age(text, start, end)
    yield Quantity(text[start:end], start, end, _readings(value, unit), (value,), code, noun, is_age)


def _is_other_word(text: str, number: Number, unit: Unit | None) -> bool:
    """Return whether a number in words is a part of a heading, an article or another word."""
    is_scale = text[number.start : number.end] in ("만", "천", "백", "백만", "천만", "십만", "십억")
    if is_scale and text[: number.start].rstrip().endswith((":", "：", "단위", "(", "（", ",")):
        return True  # the unit in a table heading: (단위: 천원), (만원)
    if unit is None:
        is_korean = not text[number.start].isascii()
        return is_korean or number.value <= 1 or text[number.start :].lower().startswith("a ")
    return number.value <= 1 and not set(unit.names) & _MEASURES


def _readings(value: Decimal, unit: Unit | None) -> tuple[Reading, ...]:
    """Return a reading for each meaning of the unit: 25일 is a period or a day of the month."""
    if unit is None:
        return ()
    first, *others = unit.names
    readings = [Reading(first, value * unit.factor)]
    for name in others:
        if name != DATE:
            readings.append(Reading(name, value))
        elif value == int(value) and 1 <= value <= 31:
            readings.append(Reading(DATE, PartialDate(day=int(value))))
    return tuple(readings)


def _with_compounds(text: str, parsed_quantities: Iterable[Quantity]) -> list[Quantity]:
    """Join 1년 6개월 and 1시간 30분 into one period."""
    joined: list[Quantity] = []
    for quantity in parsed_quantities:
        last = joined[-1] if joined else None
        if last is not None and _continues_period(text, last, quantity):
            total = last.readings[0].value + quantity.readings[0].value  # type: ignore[operator]  # both are periods
            readings = (Reading(quantity.readings[0].unit, total),)
            start, end = last.start, quantity.end
            joined[-1] = Quantity(text[start:end], start, end, readings, (*last.numbers, *quantity.numbers))
        else:
            joined.append(quantity)
    return joined


def _continues_period(text: str, first: Quantity, second: Quantity) -> bool:
    """Return whether the second quantity adds a smaller unit to the first one: 1년 6개월, but not 6개월 1년."""
    if not first.readings or not second.readings or not _JOINED.fullmatch(text, first.end, second.start):
        return False
    unit = first.readings[0].unit
    if unit not in (MONTHS, SECONDS) or second.readings[0].unit != unit:
        return False
    is_larger_unit = first.numbers[-1] != first.readings[0].value
    return is_larger_unit and 0 < second.numbers[0] * _unit_size(second) < _unit_size(first)


def _unit_size(quantity: Quantity) -> Decimal:
    """Return the size of the written unit in the reading's unit: 12 months for 1년."""
    value, number = quantity.readings[0].value, quantity.numbers[-1]
    return value / number if isinstance(value, Decimal) and number else Decimal(0)


def _with_shared_units(text: str, parsed_quantities: list[Quantity]) -> list[Quantity]:
    """Give bare numbers their neighbour's unit: 3~5일, 100만~500만원, 6, 12 and 24 months, KRW 10,000 to 50,000."""
    shared = list(parsed_quantities)
    for at in range(len(shared) - 2, -1, -1):
        left, right = shared[at], shared[at + 1]
        if not left.readings and right.readings and _are_joined(text, left, right):
            shared[at] = replace(left, readings=_readings_like(right, left))
    for at in range(1, len(shared)):
        left, right = shared[at - 1], shared[at]
        has_leading_unit = left.readings and not left.text[0].isdigit() and left.readings[0].unit in _MEASURES
        if has_leading_unit and not right.readings and _RANGE.fullmatch(text, left.end, right.start):
            shared[at] = replace(right, readings=_readings_like(left, right))
    return shared


def _are_joined(text: str, left: Quantity, right: Quantity) -> bool:
    """Return whether two quantities are a range's ends, or list neighbours, the left not a year ("2024, 3개월")."""
    if _RANGE.fullmatch(text, left.end, right.start):
        return True
    is_year = left.numbers[0] in _YEARS and right.readings[0].unit != DATE
    return not is_year and _LIST.fullmatch(text, left.end, right.start) is not None


def _readings_like(neighbour: Quantity, bare: Quantity) -> tuple[Reading, ...]:
    """Return the readings of a bare number in its neighbour's unit."""
    value, first = bare.numbers[0], neighbour.readings[0]
    if isinstance(first.value, PartialDate):
        return _date_like(first.value, int(value))
    if not isinstance(first.value, Decimal):
        return ()
    if first.unit == TIME:
        return tuple(Reading(TIME, (value * 60 + half_day) % 1440) for half_day in (0, 720))
    number = neighbour.numbers[-1]
    factor = first.value / number if number else Decimal(1)
    others = [reading for reading in neighbour.readings[1:] if isinstance(reading.value, Decimal)]
    readings = [Reading(first.unit, value * factor), *(replace(reading, value=value) for reading in others)]
    scale = next((number.scale for number in numbers_in(neighbour.text)), Decimal(1))
    if scale > 1 and value < scale:
        readings.append(Reading(first.unit, value * factor * scale))  # 1~3천만원
    return tuple(readings)


def _date_like(neighbour: PartialDate, number: int) -> tuple[Reading, ...]:
    """Return the number as a year, as a day of the neighbour's month, or as a month."""
    if number in _YEARS:
        return (Reading(DATE, PartialDate(year=number)),)
    if neighbour.day is not None:
        return (Reading(DATE, replace(neighbour, day=number)), Reading(DATE, PartialDate(day=number)))
    return (Reading(DATE, PartialDate(month=number)),) if number <= 12 else ()


def _with_table_units(text: str, parsed_quantities: list[Quantity]) -> list[Quantity]:
    """Give the bare numbers of a table the unit of their column, their row or the last caption before them."""
    if "|" not in text and "단위" not in text and "nit" not in text:
        return parsed_quantities
    captions = [(match.start(), heading_unit(match.group())) for match in _CAPTION.finditer(text)]
    rows = list(_rows(text))

    def unit_at(at: int) -> Unit | None:
        caption_unit = next((unit for start, unit in reversed(captions) if unit and start < at), None)
        for start, row, heading in rows:
            if start <= at < start + len(row):
                column = row.count("|", 0, at - start)
                column_unit = heading_unit(heading[column]) if column < len(heading) else None
                return column_unit or heading_unit(row.split("|")[1]) or caption_unit
        return caption_unit

    return [
        replace(quantity, readings=quantity.readings or _readings(quantity.numbers[0], unit_at(quantity.start)))
        for quantity in parsed_quantities
    ]


def _rows(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield each table row below a heading: its offset, its text, and the heading's cells."""
    heading: list[str] = []
    at = 0
    for line in text.splitlines(keepends=True):
        cells = line.split("|") if line.lstrip().startswith("|") else []
        if not heading or not cells:
            heading = cells
        elif cells != heading:
            yield at, line, heading
        at += len(line)
