"""The exact check of numbers: every amount, rate, date, period and count of a claim must stand in a source. No I/O.

`quantities` reads a text, `unsupported_quantities` compares a claim with its sources. Values are compared as Decimals
after normalisation: 1천만원 is KRW 10 million and 연 2.50% is 2.5 percent, while 0.5% is not 0.5%p and 3회 is not 3명.
12개월 and 1년 are equal; 365일 and 1년 are not. The sign is ignored (a table's -0.3%p is the text's "0.3%p 인하").
Not quantities: list ordinals at the start of a line, citation markers, "one" and 한 without a unit of money or time.
A bare number in a table has the unit that its column, its row or a caption (단위: 만원) names. A bare number with a
currency's code or a noun beside it (IDR 2,000, 5 decades) has a unit that is not read: no number with another unit
supports it, but one in a counter of anything (10명 of "10 customers") supports the noun's.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from operator import attrgetter, itemgetter
from typing import Any, Final

from chatbot.grounding.dates import Taken, composite_quantities
from chatbot.grounding.numerals import Number, numbers_in
from chatbot.grounding.plain_text import PlainText
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
from chatbot.grounding.units import Unit, heading_unit, leading_currency, may_be_age, trailing_unit, unread_unit

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
_HALVED: Final = frozenset({MONTHS, DAYS, SECONDS})
_BY_BUSINESS_DAYS: Final = re.compile(
    r"영업일[ ]?(?:기준(?:으로)?[ ]?)?(?:(?:약|최대|최소|최장|통상|보통|평균)[ ]?)?"
    r"(?:\d{1,3}(?:일?[ ]?[~∼～-]|일?에서)[ ]?)?\Z"
)
_OF_BUSINESS_DAYS: Final = re.compile(r"[ ]?(?:이내|내|안|정도)?[ ]?[(（]영업일(?:[ ]?기준)?[)）]")
_JOINED: Final = re.compile(r"\s?(?:(?:and|하고|과)\s)?")
_YEARS: Final = range(1900, 2101)
_MEASURES: Final = frozenset({*CURRENCIES, PERCENT, POINTS, MONTHS, DAYS, SECONDS})
# A quantity of one is also supported by a word for it: 1일 한도 by 하루, 1회 by 회당 or "each".
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
    """A source's text with its quantities, which are read once for all claims."""

    text: str
    quantities: tuple[Quantity, ...]
    stated: frozenset[Statement] = field(init=False)

    def __post_init__(self) -> None:
        stated = frozenset(statement for quantity in self.quantities for statement in quantity.supported())
        object.__setattr__(self, "stated", stated)

    @classmethod
    def read(cls, text: str) -> "QuantifiedText":
        return cls(text, quantities(text))

    def within(self, start: int, end: int) -> tuple[Quantity, ...]:
        """Return the quantities that begin in [start, end)."""
        first, last = (bisect_left(self.quantities, offset, key=attrgetter("start")) for offset in (start, end))
        return self.quantities[first:last]

    def supports(self, claimed: Quantity) -> bool:
        """Whether the claimed quantity stands in the text, in numbers or, of zero and one, in words."""
        if not self.stated.isdisjoint(claimed.needed()):
            return True
        if not claimed.may_be_in_words:
            return False
        reading = claimed.readings[0]
        words = _ONE_IN_WORDS.get((reading.unit, reading.value)) if claimed.numbers[0] else _ZERO_IN_WORDS
        return words is not None and words.search(PlainText.of(self.text).text) is not None


def unsupported_quantities(claim: str, sources: Sequence[str]) -> tuple[Quantity, ...]:
    """Return the quantities of the claim that stand in none of the sources."""
    return unsupported_by(quantities(claim), [QuantifiedText.read(text) for text in sources])


def unsupported_by(claimed: Iterable[Quantity], sources: Sequence[QuantifiedText]) -> tuple[Quantity, ...]:
    """Return the claimed quantities that none of the sources supports."""
    return tuple(quantity for quantity in claimed if not any(source.supports(quantity) for source in sources))


def quantities(text: str) -> tuple[Quantity, ...]:
    """Return the quantities of a text, from left to right."""
    plain = PlainText.of(text)
    read = _quantities(plain.text)
    return tuple(_as_written(quantity, plain) for quantity in read) if plain.spans else tuple(read)


def _as_written(quantity: Quantity, plain: PlainText) -> Quantity:
    start, end = plain.written(quantity.start, quantity.end)
    return replace(quantity, start=start, end=end)


def _quantities(plain: str) -> Iterable[Quantity]:
    """Return the quantities of a plain text, from left to right."""
    taken = Taken(plain)
    for pattern in (_ORDINAL, _MARKER):
        for match in pattern.finditer(plain):
            taken.take(*match.span())
    result = [quantity for quantity in composite_quantities(plain) if taken.is_free(quantity.start, quantity.end)]
    for quantity in result:
        taken.take(quantity.start, quantity.end)
    for number in numbers_in(plain):
        if taken.is_free(number.start, number.end):
            result.extend(_with_unit(plain, number))
    result.sort(key=lambda quantity: quantity.start)
    return _with_table_units(plain, _with_shared_units(plain, _with_compounds(plain, result)))


def _with_unit(text: str, number: Number) -> Iterator[Quantity]:
    """Yield the quantity of a number and its unit; nothing where the number states none."""
    trailing, leading = trailing_unit(text, number.end), leading_currency(text, number.start)
    start, end = number.start, number.end
    unit: Unit | None = None
    if number.counts_days:
        unit = Unit((DAYS,))
    elif trailing is not None:
        unit, end = trailing
    elif leading is not None:
        unit, start = leading
    if unit is not None and unit.names == (DAYS, DATE) and _are_business_days(text, start, end):
        unit = Unit((BUSINESS_DAYS,))
    if _is_no_quantity(text, number, unit):
        return
    value = number.value
    if unit is not None and unit.names[0] in _HALVED and (half := _AND_A_HALF.match(text, end)) is not None:
        value, end = value + Decimal("0.5"), half.end()
    code, noun = ("", "") if unit else unread_unit(text, start, end)
    is_age = unit is None and may_be_age(text, start, end)
    yield Quantity(text[start:end], start, end, _readings(value, unit), (value,), code, noun, is_age)


def _are_business_days(text: str, start: int, end: int) -> bool:
    """Whether days at [start, end) are said to be business days: 영업일 기준 3일, 3일(영업일 기준)."""
    before = _BY_BUSINESS_DAYS.search(text, max(0, start - 24), start)
    return before is not None or _OF_BUSINESS_DAYS.match(text, end) is not None


def _is_no_quantity(text: str, number: Number, unit: Unit | None) -> bool:
    if not number.in_words:
        return False
    is_scale_alone = text[number.start : number.end] in ("만", "천", "백", "백만", "천만", "십만", "십억")
    if is_scale_alone and (text[: number.start].rstrip().endswith((":", "：", "단위", "(", "（", ",")) or unit is None):
        return True  # a table's heading names its unit: (단위: 천원), (만원)
    if unit is None:
        return number.value <= 1 or not text[number.start].isascii() or text[number.start :].lower().startswith("a ")
    return number.value <= 1 and not set(unit.names) & _MEASURES


def _readings(value: Decimal, unit: Unit | None) -> tuple[Reading, ...]:
    if unit is None:
        return ()
    first, *others = unit.names
    return (Reading(first, value * unit.factor), *(other for name in others for other in _other_reading(value, name)))


def _other_reading(value: Decimal, name: str) -> Iterator[Reading]:
    """Yield the reading of a number in another meaning of its unit: 25일 is a period or a day of the month."""
    if name != DATE:
        yield Reading(name, value)
    elif value == int(value) and 1 <= value <= 31:
        yield Reading(DATE, PartialDate(day=int(value)))


def _with_compounds(text: str, separate: Iterable[Quantity]) -> list[Quantity]:
    """Join 1년 6개월 and 1시간 30분 into one period."""
    joined: list[Quantity] = []
    for quantity in separate:
        last = joined[-1] if joined else None
        if last is not None and _continues(text, last, quantity):
            total = last.readings[0].value + quantity.readings[0].value  # type: ignore[operator]  # both are periods
            joined[-1] = Quantity(
                text[last.start : quantity.end], last.start, quantity.end,
                (Reading(quantity.readings[0].unit, total),), (*last.numbers, *quantity.numbers),
            )  # fmt: skip
        else:
            joined.append(quantity)
    return joined


def _continues(text: str, first: Quantity, second: Quantity) -> bool:
    if not first.readings or not second.readings or not _JOINED.fullmatch(text, first.end, second.start):
        return False
    larger, smaller = first.readings[0], second.readings[0]
    if larger.unit != smaller.unit or larger.unit not in (MONTHS, SECONDS):
        return False
    # The larger unit comes first, and the second quantity is less than one of it: not "6개월 1년".
    return first.numbers[-1] != larger.value and 0 < second.numbers[0] * _unit_size(second) < _unit_size(first)


def _unit_size(quantity: Quantity) -> Decimal:
    """Return how many of its reading's unit one of its written unit is: 12 months for 1년."""
    value = quantity.readings[0].value
    return value / quantity.numbers[-1] if isinstance(value, Decimal) and quantity.numbers[-1] else Decimal(0)


def _with_shared_units(text: str, separate: list[Quantity]) -> list[Quantity]:
    """Give 3~5일, 100만~500만원, 6, 12 and 24 months and KRW 10,000 to 50,000 the unit that is written once."""
    shared = list(separate)
    for at in range(len(shared) - 2, -1, -1):
        left, right = shared[at], shared[at + 1]
        if not left.readings and right.readings and _share_unit(text, left, right):
            shared[at] = replace(left, readings=_borrowed(left, right))
    for at in range(1, len(shared)):
        left, right = shared[at - 1], shared[at]
        prefixed = left.readings and not left.text[0].isdigit() and left.readings[0].unit in _MEASURES
        if prefixed and not right.readings and _RANGE.fullmatch(text, left.end, right.start):
            shared[at] = replace(right, readings=_borrowed(right, left))
    return shared


def _share_unit(text: str, left: Quantity, right: Quantity) -> bool:
    if _RANGE.fullmatch(text, left.end, right.start):
        return True
    is_year = left.numbers[0] in _YEARS and right.readings[0].unit != DATE
    return not is_year and _LIST.fullmatch(text, left.end, right.start) is not None


def _borrowed(bare: Quantity, neighbour: Quantity) -> tuple[Reading, ...]:
    """Return the readings of a bare number in the unit of its neighbour."""
    value, model = bare.numbers[0], neighbour.readings[0]
    if isinstance(model.value, PartialDate):
        return _borrowed_date(value, model.value)
    if not isinstance(model.value, Decimal):
        return ()
    if model.unit == TIME:
        return tuple(Reading(TIME, (value * 60 + half) % 1440) for half in (0, 720))
    written = neighbour.numbers[-1]
    factor = model.value / written if written else Decimal(1)
    readings = [Reading(model.unit, value * factor)]
    readings += [
        replace(reading, value=value) for reading in neighbour.readings[1:] if isinstance(reading.value, Decimal)
    ]
    scale = _scale(neighbour)
    if scale > 1 and value < scale:
        readings.append(Reading(model.unit, value * factor * scale))  # 1~3천만원
    return tuple(readings)


def _borrowed_date(value: Decimal, model: PartialDate) -> tuple[Reading, ...]:
    number = int(value)
    if number in _YEARS:
        return (Reading(DATE, PartialDate(year=number)),)
    if model.day is not None:
        return (Reading(DATE, replace(model, day=number)), Reading(DATE, PartialDate(day=number)))
    return (Reading(DATE, PartialDate(month=number)),) if number <= 12 else ()


def _scale(quantity: Quantity) -> Decimal:
    return next((number.scale for number in numbers_in(quantity.text)), Decimal(1))


def _with_table_units(text: str, separate: list[Quantity]) -> list[Quantity]:
    """Give the bare numbers of a table the unit that a heading or a caption before them names."""
    if "|" not in text and "단위" not in text and "nit" not in text:
        return separate
    units = _TableUnits(text)
    return [
        quantity
        if quantity.readings
        else replace(quantity, readings=_readings(quantity.numbers[0], units.at(quantity)))
        for quantity in separate
    ]


class _TableUnits:
    """The units that the columns, rows and captions of a text's tables name."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._captions = [
            (match.start(), unit)
            for match in re.finditer(r"(?:단위|[Uu]nits?)\s{0,3}[:：][^\n)]*", text)
            if (unit := heading_unit(match.group()))
        ]
        self._rows: list[tuple[int, int, list[str]]] = []
        heading: list[str] = []
        at = 0
        for line in text.splitlines(keepends=True):
            is_row = line.lstrip().startswith("|")
            heading = (heading or line.split("|")) if is_row else []
            if is_row and heading != line.split("|"):
                self._rows.append((at, at + len(line), heading))
            at += len(line)

    def at(self, quantity: Quantity) -> Unit | None:
        """Return the unit of the bare number: of its column, of its row, or of the last caption before it."""
        row = bisect_right(self._rows, quantity.start, key=_start) - 1
        if row >= 0 and quantity.start < self._rows[row][1]:
            start, end, heading = self._rows[row]
            column = self._text.count("|", start, quantity.start)
            label = self._text[start:end].split("|")[1]
            column_unit = heading_unit(heading[column]) if column < len(heading) else None
            return column_unit or heading_unit(label) or self._captioned(quantity)
        return self._captioned(quantity)

    def _captioned(self, quantity: Quantity) -> Unit | None:
        before = bisect_left(self._captions, quantity.start, key=_start)
        return self._captions[before - 1][1] if before else None


_start: Final[Callable[[tuple[Any, ...]], int]] = itemgetter(0)
