"""What a number in a text states: an exact value, its unit, and when one statement supports another. No I/O."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

KRW: Final = "KRW"
PERCENT: Final = "%"
POINTS: Final = "%p"
MONTHS: Final = "months"
DAYS: Final = "days"
SECONDS: Final = "seconds"
TIME: Final = "time"
DATE: Final = "date"
PHONE: Final = "phone"
CODE: Final = "code"

# Counters that English expresses by the noun (3장, "three cards"): a source may have the number without a unit.
GENERIC_COUNTERS: Final = frozenset(
    {"개", "건", "장", "곳", "단계", "자리", "조", "항", "호", "차", "대", "등급", "쪽"}
)


@dataclass(frozen=True, slots=True)
class PartialDate:
    """A date, as far as it was written: a year, a year and month, a month and day, or a day of the month."""

    year: int | None = None
    month: int | None = None
    day: int | None = None

    def covers(self, claimed: "PartialDate") -> bool:
        """Whether every part of the claimed date is written here, with the same value."""
        return (
            claimed.year in (None, self.year)
            and claimed.month in (None, self.month)
            and claimed.day in (None, self.day)
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """One meaning of a quantity: money in currency units, periods in months, days or seconds, times in minutes."""

    unit: str
    value: Decimal | PartialDate | str

    def supports(self, claimed: "Reading") -> bool:
        """Whether a source with this reading supports the claimed one."""
        if self.unit != claimed.unit:
            return False
        if isinstance(self.value, PartialDate) and isinstance(claimed.value, PartialDate):
            return self.value.covers(claimed.value)
        return self.value == claimed.value


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit, at [start, end) of a text.

    `readings` is empty for a bare number; `numbers` are the numbers as written.
    """

    text: str
    start: int
    end: int
    readings: tuple[Reading, ...]
    numbers: tuple[Decimal, ...]

    def is_same_kind(self, other: "Quantity") -> bool:
        """Whether both have a unit in common, or both have none."""
        units = {reading.unit for reading in self.readings}
        return bool(units & {reading.unit for reading in other.readings}) or not (units or other.readings)

    def supports(self, claimed: "Quantity") -> bool:
        """Whether a source with this quantity supports the claimed one."""
        if not claimed.readings:
            return all(number in self.numbers for number in claimed.numbers)
        if any(reading.supports(other) for reading in self.readings for other in claimed.readings):
            return True
        unit_is_optional = claimed.readings[0].unit in GENERIC_COUNTERS or claimed.readings[0].unit == PHONE
        return unit_is_optional and not self.readings and claimed.numbers == self.numbers
