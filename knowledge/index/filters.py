"""Conditions of filters, which each engine translates; `visible_filter` in `knowledge/index/index.py` combines them."""

from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = str | int


@dataclass(frozen=True, slots=True)
class Equals:
    """The field has this value."""

    field: str
    value: Value


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field, or an element if it is a list, is one of these values; without values no point matches."""

    field: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AtMost:
    """The field is a number not above the bound; a missing or null field does not match."""

    field: str
    bound: float


@dataclass(frozen=True, slots=True)
class Above:
    """The field is a number above the bound; a missing or null field does not match."""

    field: str
    bound: float


@dataclass(frozen=True, slots=True)
class Missing:
    """The field is absent, null or an empty list."""

    field: str


Condition: TypeAlias = Equals | AnyOf | AtMost | Above | Missing


@dataclass(frozen=True, slots=True)
class Filter:
    """Matches a point that satisfies every condition of `must`, and one of `should` unless that is empty."""

    must: tuple[Condition, ...]
    should: tuple[Condition, ...] = ()

    def narrowed(self, *conditions: Condition) -> "Filter":
        """Return this filter with further conditions in `must`."""
        return Filter((*self.must, *conditions), self.should)
