"""What a number in an answer claims: an exact value, the unit it is counted in, and when one claim covers another."""

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

# A count of things that English often leaves to the noun (3장, "three cards"): it may stand without a unit in a source.
GENERIC_COUNTERS: Final = frozenset(
    {"개", "건", "장", "곳", "단계", "자리", "조", "항", "호", "차", "대", "등급", "쪽"}
)


@dataclass(frozen=True, slots=True)
class Day:
    """A date as far as it was written: a year, a year and month, a month and day, a day of the month."""

    year: int | None = None
    month: int | None = None
    day: int | None = None

    def covers(self, claimed: "Day") -> bool:
        """Whether every part that is claimed is written here, and the same."""
        return (
            claimed.year in (None, self.year)
            and claimed.month in (None, self.month)
            and claimed.day in (None, self.day)
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """One meaning of a quantity: money in currency units, periods in months, days or seconds, times in minutes."""

    unit: str
    value: Decimal | Day | str

    def supports(self, claimed: "Reading") -> bool:
        if self.unit != claimed.unit:
            return False
        if isinstance(self.value, Day) and isinstance(claimed.value, Day):
            return self.value.covers(claimed.value)
        return self.value == claimed.value


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of a text with its unit; `readings` is empty for a bare number, `numbers` are the numbers as written."""

    text: str
    start: int
    end: int
    readings: tuple[Reading, ...]
    numbers: tuple[Decimal, ...]

    def is_counted_like(self, other: "Quantity") -> bool:
        """Whether both are of one kind: amounts of one currency, periods, bare numbers."""
        own = {reading.unit for reading in self.readings}
        return bool(own & {reading.unit for reading in other.readings}) or not (own or other.readings)

    def supports(self, claimed: "Quantity") -> bool:
        """Whether a source that says this quantity supports the claimed one."""
        if not claimed.readings:
            return all(number in self.numbers for number in claimed.numbers)
        if any(own.supports(reading) for own in self.readings for reading in claimed.readings):
            return True
        unit_may_miss = claimed.readings[0].unit in GENERIC_COUNTERS or claimed.readings[0].unit == PHONE
        return unit_may_miss and not self.readings and claimed.numbers == self.numbers
