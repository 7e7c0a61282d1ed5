"""A number's exact value and unit, and the rules by which one quantity supports another. No I/O."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

KRW: Final = "KRW"
CURRENCIES: Final = (KRW, "USD", "EUR", "JPY", "GBP", "CNY", "HKD", "SGD", "AUD", "CAD", "NZD", "TWD", "CHF", "THB")
# All ISO 4217 codes in use and the offshore yuan (CNH), except ALL and TOP, which are words before counts ("TOP 10").
CURRENCY_CODES: Final = frozenset(
    """AED AFN AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF
    CHW CLF CLP CNH CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD
    HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD
    MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR
    RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TRY TTD TWD TZS UAH UGX
    USD USN UYI UYU UYW UZS VED VES VND VUV WST XAD XAF XAG XAU XBA XBB XBC XBD XCD XCG XDR XOF XPD XPF XPT XSU XUA YER
    ZAR ZMW ZWG""".split()  # noqa: SIM905  # a word list reads best as prose
)
PERCENT: Final = "%"
POINTS: Final = "%p"
MONTHS: Final = "months"
DAYS: Final = "days"
SECONDS: Final = "seconds"
TIME: Final = "time"
YEARS_OLD: Final = "세"
DATE: Final = "date"
PHONE: Final = "phone"
CODE: Final = "code"
QUARTER: Final = "분기"
TIMES: Final = "회"
BUSINESS_DAYS: Final = "business days"

_YEAR: Final = re.compile(r"(?:19|20)\d{2}")
_COUNTED: Final = "counted"  # stands for any counter: a source with 10명 also states ten of a claim's noun

# English expresses these counters by a noun (3장, "three cards"): a source may state the number without a unit.
GENERIC_COUNTERS: Final = frozenset(
    {"개", "건", "장", "곳", "단계", "자리", "조", "항", "호", "차", "대", "등급", "쪽"}
)
# A claim in one of these counters needs the same one in the source; "10 customers", with a noun, accepts any (10명).
_COUNTERS: Final = GENERIC_COUNTERS | {"명", "회", "주"}


@dataclass(frozen=True, slots=True)
class PartialDate:
    """A date or a part of one: a year, a year and month, a month and day, or a day of the month."""

    year: int | None = None
    month: int | None = None
    day: int | None = None

    def parts(self) -> "Iterator[PartialDate]":
        """Yield the dates that this date supports: all combinations of its parts."""
        for year in {self.year, None}:
            for month in {self.month, None}:
                yield from (PartialDate(year, month, day) for day in {self.day, None})


@dataclass(frozen=True, slots=True)
class Reading:
    """One meaning of a quantity: money in currency units, periods in months, days or seconds, time in minutes."""

    unit: str
    value: Decimal | PartialDate | str


Statement = Decimal | tuple[str, Decimal | PartialDate | str] | tuple[Decimal, ...]
"""The form in which sources and claims are compared: a number in any unit, (unit, value), or numbers without a unit."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit at [start, end) of a text; a bare number may have an unknown unit (`code` or `noun`)."""

    text: str
    start: int
    end: int
    readings: tuple[Reading, ...]  # empty for a bare number
    numbers: tuple[Decimal, ...]  # as written, before conversion into the unit of a reading
    code: str = ""  # the currency code beside a bare number (SEK 2,000)
    noun: str = ""  # the word after a bare number (5 decades); `MONTHS` for a number of monthly payments
    may_be_age: bool = False  # the context suggests an age without a unit (aged 19, over 65)

    @property
    def kinds(self) -> frozenset[str]:
        """The possible units; the empty string for a bare number."""
        return frozenset(reading.unit for reading in self.readings) or frozenset({""})

    def statements(self) -> Iterator[Statement]:
        """Yield the statements of a source that contains this quantity."""
        yield from self.numbers
        if _YEAR.fullmatch(self.text) and not self.code:  # "in 2022", or a column's heading
            yield DATE, PartialDate(year=int(self.numbers[0]))
        for reading in self.readings:
            parts = reading.value.parts() if isinstance(reading.value, PartialDate) else (reading.value,)
            yield from ((reading.unit, part) for part in parts)
        if not self.readings:
            yield (self.code, self.numbers[0]) if self.code else self.numbers  # `numbers`: they have no unit
            if self.may_be_age:
                yield YEARS_OLD, self.numbers[0]
        elif not self.kinds.isdisjoint(_COUNTERS):
            yield _COUNTED, self.numbers[0]

    def supporting_statements(self) -> Iterator[Statement]:
        """Yield the statements that support this quantity in a claim; a source needs one of them."""
        if self.readings:
            yield from ((reading.unit, reading.value) for reading in self.readings)
            if self.readings[0].unit in GENERIC_COUNTERS or self.readings[0].unit == PHONE:
                yield self.numbers
        elif self.code:
            yield self.code, self.numbers[0]
        elif self.noun:
            yield self.numbers
            yield from ((unit, self.numbers[0]) for unit in (_COUNTED, self.noun))
        else:
            yield from self.numbers

    def supports(self, claimed: "Quantity") -> bool:
        """Return whether a source with this quantity supports the claimed quantity."""
        return not set(self.statements()).isdisjoint(claimed.supporting_statements())
