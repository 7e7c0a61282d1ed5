"""Spreadsheet values as their cells show them: 0.0235 under the number format 0.00% is "2.35%"."""

import operator
import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache
from math import isfinite

Value = str | int | float | bool | date | datetime | time | timedelta | None

_CURRENCY = re.compile(r"\[\$([^\[\]-]*+)[^\[\]]*+\]")
_BRACKETS = re.compile(r"\[[^\[\]]*+\]")
_PADDING = re.compile(r"_.|\*.")
_WORDS = re.compile(r'"[^"]*+"|\\.')  # shown as they are written
# Whole digits (words may stand between them), thousands left out, decimals, thousands left out.
_DIGITS = re.compile(r"([#0?](?:[^.]*[#0?])?)(,*)(?:\.([#0?]*)(,*))?|General", re.IGNORECASE)
_SCIENTIFIC = re.compile(r"[eE][+-]|/")
_CONDITION = re.compile(r"\[(<=|>=|<>|<|>|=)(-?\d{1,15}(?:\.\d{1,15})?)\]")
_COMPARED = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "<>": operator.ne,
}  # fmt: skip
MOST_DECIMALS = 15
_EXACT = Context(prec=400, rounding=ROUND_HALF_UP)  # digits of the largest number that a cell holds, and its decimals


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pattern:
    """A section of a number format: text before and after, and how the number between them is written.

    `places` has a `#`, `0` or `?` for each whole digit, `words` the text at the same offsets; without places the number
    is written as it is. The value is shifted by `power` of ten, and has `least` to `most` decimals.
    """

    before: str
    after: str
    places: str = ""
    words: str = ""
    power: int = 0
    least: int = 0
    most: int = 0


def shown(value: Value, number_format: str) -> str:
    """Return the value as its cell shows it; dates are ISO, for every reader and search to agree on."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return _number(value, number_format)
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.strftime("%Y-%m-%d %H:%M")
    return str(value)


def _number(value: float, number_format: str) -> str:
    pattern = _pattern(_section(value, number_format))
    if pattern is None or not isfinite(value):
        return _general(value)
    if not pattern.places:
        return f"{pattern.before}{_general(value)}{pattern.after}"
    # Fifteen digits and halves away from zero, as spreadsheets round: of 3.125 binary numbers make 3.12.
    amount = Decimal(f"{value:.15g}").scaleb(pattern.power, _EXACT)
    rounded = amount.quantize(Decimal(1).scaleb(-pattern.most), context=_EXACT)
    whole, _, decimals = f"{abs(rounded):f}".partition(".")
    decimals = decimals[: pattern.least] + decimals[pattern.least :].rstrip("0")
    text = _filled(pattern, whole) + (f".{decimals}" if decimals else "")
    return f"{'-' if rounded < 0 else ''}{pattern.before}{text}{pattern.after}"


def _general(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.15g}"


def _section(value: float, number_format: str) -> str:
    """Return the section for a value: the first whose condition holds, the first of all where none has a condition."""
    sections = number_format.split(";")
    if not _CONDITION.search(number_format):
        return sections[0]
    for section in sections:
        condition = _CONDITION.search(section)
        if condition is None or _COMPARED[condition[1]](value, float(condition[2])):
            return section
    return ""


@lru_cache(maxsize=256)
def _pattern(section: str) -> _Pattern | None:
    plain = _PADDING.sub("", _BRACKETS.sub("", _CURRENCY.sub(r"\1", section)))
    codes = _WORDS.sub(lambda words: "\0" * len(words[0]), plain)  # words may hold digits and signs of their own
    match = _DIGITS.search(codes)
    if match is None or _SCIENTIFIC.search(codes):  # text, and formats that are no decimals
        return None
    before, after = _literal(plain[: match.start()]), _literal(plain[match.end() :])
    if match[1] is None:
        return _Pattern(before=before, after=after)
    decimals, thousands = match[3] or "", len(match[2]) + len(match[4] or "")
    return _Pattern(
        before=before,
        after=after,
        places=match[1],
        words=plain[match.start(1) : match.end(1)],
        power=2 * ("%" in codes) - 3 * thousands,
        least=min(decimals.count("0"), MOST_DECIMALS),
        most=min(len(decimals), MOST_DECIMALS),
    )


def _filled(pattern: _Pattern, digits: str) -> str:
    """Write whole digits into their places from the right; those for which there is none stand before the first."""
    if "," in pattern.places:
        return f"{int(digits):,}"
    left = list(digits)
    written = [
        (left.pop() if left else place.strip("#?")) if place in "#0?" else word
        for place, word in zip(reversed(pattern.places), reversed(pattern.words), strict=True)
    ]
    return _literal("".join([*left, *reversed(written)]))


def _literal(text: str) -> str:
    return text.replace('"', "").replace("\\", "").replace("@", "")
