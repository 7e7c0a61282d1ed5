"""Which cells of a sheet a conditional format may hide. Pure.

Compared are values with written numbers and words; that any other condition holds is not known, and it may.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

_COMPARED: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "equal": operator.eq, "notEqual": operator.ne, "greaterThan": operator.gt, "lessThan": operator.lt,
    "greaterThanOrEqual": operator.ge, "lessThanOrEqual": operator.le,
}  # fmt: skip
_OF_WORDS: Final = frozenset({"notEqual", "notBetween", "greaterThan", "greaterThanOrEqual"})  # they follow all numbers
_FOR_ERRORS: Final = re.compile(r"(?:ISERROR|ISERR|ISNA|ISBLANK)\([^()]*+\)", re.IGNORECASE)
_NUMBER: Final = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?")
_WORDS: Final = re.compile(r'"([^"]*+)"')
_Area = tuple[int | None, int | None, int | None, int | None]  # first column, row, last column, row


@dataclass(slots=True)
class Condition:
    """A rule of a sheet: the areas it is for, its kind, how it compares, and the number of its look."""

    areas: tuple[_Area, ...]
    kind: str
    comparison: str
    look: int
    formulas: list[str] = field(default_factory=list)

    def is_for(self, column: int, row: int) -> bool:
        """Tell whether a cell is one of those that the rule is for."""
        return any(
            (left or 1) <= column <= (right or column) and (top or 1) <= row <= (bottom or row)
            for left, top, right, bottom in self.areas
        )

    def may_hold(self, value: object) -> bool:
        """Tell whether the rule holds of a value, or may."""
        if self.kind == "cellIs":
            return self._may_compare(value)
        is_error = isinstance(value, str) and value.startswith("#")
        is_for_errors = self.kind == "expression" and all(map(_FOR_ERRORS.fullmatch, self.formulas))
        return is_error if is_for_errors or self.kind == "containsErrors" else self.kind != "containsBlanks"

    def _may_compare(self, value: object) -> bool:
        words = [_WORDS.fullmatch(formula) for formula in self.formulas]
        if self.comparison in {"equal", "notEqual"} and words and words[0] is not None:
            return (str(value).casefold() == words[0].group(1).casefold()) is (self.comparison == "equal")
        if not all(map(_NUMBER.fullmatch, self.formulas)):
            return True
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.comparison in _OF_WORDS
        bounds = sorted(map(float, self.formulas))
        if self.comparison in {"between", "notBetween"} and len(bounds) == 2:
            return (bounds[0] <= value <= bounds[1]) is (self.comparison == "between")
        compare = _COMPARED.get(self.comparison)
        return compare is None or len(bounds) != 1 or compare(value, bounds[0])
