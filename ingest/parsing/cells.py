"""Format spreadsheet values as their cells show them: 0.0235 with the number format 0.00% is "2.35%"."""

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache
from math import isfinite

Value = str | int | float | bool | date | datetime | time | timedelta | None

# Literal text (quoted or escaped with `\`; Korean workbooks also escape with `!`) and padding.
_LITERAL = re.compile(r'"([^"]*+)"?|[\\!](.?)|[_*].?', re.DOTALL)
# A colour, condition or currency ([$€-407]) in brackets, but not a duration such as [h].
_BRACKETS = re.compile(r"\[(?![hms]++\])(?:\$([^\[\]-]*+))?[^\[\]]*+\]", re.IGNORECASE)
_LITERAL_OR_BRACKETS = re.compile(f"{_LITERAL.pattern}|{_BRACKETS.pattern}", re.DOTALL | re.IGNORECASE)
# Whole digits (with literal text between them), thousands commas, decimals, thousands commas.
_DIGITS = re.compile(r"([#0?](?:[^.]*[#0?])?)(,*)(?:\.([#0?]*)(,*))?|General|@", re.IGNORECASE)
_DATE = re.compile(r"[a-z]", re.IGNORECASE)  # in a section without digits, an unquoted letter is a date code
_SCIENTIFIC = re.compile(r"[eE][+-]|/")
_CONDITION = re.compile(r"\[(<=|>=|<>|<|>|=)(-?\d{1,15}(?:\.\d{1,15})?)\]")
_OPERATORS = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "<>": operator.ne,
}  # fmt: skip
_NEGATIVE_SIGNS = frozenset("-\N{MINUS SIGN}△▲▽▼")
MOST_DECIMALS = 15
_EXACT = Context(prec=400, rounding=ROUND_HALF_UP)  # enough for the largest number in a cell, plus decimals


@dataclass(frozen=True, slots=True)
class _Section:
    """One section of a number format and its condition.

    `words` is the section as shown, without quotes, padding and brackets; `codes` is the same with NUL for each literal
    character.
    """

    condition: re.Match[str] | None
    words: str
    codes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pattern:
    """How a section formats a number: literal text before and after, and the layout of the digits.

    `places` has a `#`, `0` or `?` for each whole digit, `words` the literal text at the same offsets. Without places,
    the number is written unformatted. The value is scaled by 10 ** `power`.
    """

    before: str
    after: str
    places: str = ""
    words: str = ""
    power: int = 0
    least_decimals: int = 0
    most_decimals: int = 0


def display_text(value: Value, number_format: str) -> str:
    """Return a value as its cell shows it, but dates always as in ISO 8601, so that documents and searches agree."""
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _format_number(value, number_format)
    if _hides(value, number_format):
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.strftime("%Y-%m-%d %H:%M")
    return str(value)


def shows_weekday(number_format: str) -> bool:
    """Return whether a format shows a number as a Korean weekday (`aaa`, `aaaa`)."""
    return any("aaa" in section.codes.lower() for section in _sections(number_format))


def _format_number(value: float, number_format: str) -> str:
    """Format a number with the section of the number format that applies to it."""
    sections = _sections(number_format)
    index = _section_index(value, sections)
    if index is None:
        return "" if _hides(value, number_format) else _general(value)
    pattern = _pattern(sections[index])
    if isinstance(pattern, str):
        return pattern
    if pattern is None or not isfinite(value):
        return _general(value)
    if pattern.places:
        # Spreadsheets round to 15 digits, halves away from zero; binary floats would round 3.125 to 3.12.
        scaled = Decimal(f"{value:.15g}").scaleb(pattern.power, _EXACT)
        rounded = scaled.quantize(Decimal(1).scaleb(-pattern.most_decimals), context=_EXACT)
        is_negative = rounded < 0
        digits = _digits(pattern, abs(rounded))
    else:
        is_negative = value < 0
        digits = _general(abs(value))
    # A section used only for negative numbers shows the sign itself; otherwise add "-".
    shows_sign = _has_sign(pattern) and _section_index(abs(value), sections) != index
    sign = "-" if is_negative and not shows_sign else ""
    return f"{sign}{pattern.before}{digits}{pattern.after}"


def _general(value: float) -> str:
    """Format a number as cells without a number format show it."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.15g}"


def _has_sign(pattern: _Pattern) -> bool:
    """Return whether the literal text shows that a number is negative: by a sign, or by brackets around it."""
    before = pattern.before
    return (
        not _NEGATIVE_SIGNS.isdisjoint(before) or before.count("(") > before.count(")") or pattern.after.startswith("-")
    )


def _hides(value: Value, number_format: str) -> bool:
    """Return whether a format displays this text, date or other value as empty."""
    sections = _sections(number_format)
    if len(sections) == 1:
        return False
    if any(section.condition for section in sections):
        return all(_pattern(section) == "" for section in sections)
    index = 3 if isinstance(value, str) else 0  # the section for text, the section for dates and other values
    return index < len(sections) and _pattern(sections[index]) == ""


@lru_cache(maxsize=256)
def _sections(number_format: str) -> tuple[_Section, ...]:
    """Split a number format at its semicolons, except those in literal text."""
    if not _BRACKETS.sub("", number_format):  # only a colour
        return _sections("General")
    outline = _LITERAL.sub(lambda literal: "\0" * len(literal[0]), number_format)  # a literal may contain ";" or codes
    sections: list[_Section] = []
    start = 0
    for section in outline.split(";"):
        end = start + len(section)
        words = _LITERAL_OR_BRACKETS.sub(_visible_text, number_format[start:end])
        codes = _LITERAL_OR_BRACKETS.sub(lambda match: "\0" * len(_visible_text(match)), number_format[start:end])
        sections.append(_Section(_CONDITION.search(section), words, codes))
        start = end + 1
    return tuple(sections)


def _visible_text(match: re.Match[str]) -> str:
    """Return the visible text of a literal, padding or bracket match."""
    return next(filter(None, match.groups()), "")


def _section_index(value: float, sections: Sequence[_Section]) -> int | None:
    """Return the index of the section for a number: the first whose condition holds, or None.

    Without conditions, the second section is for negative numbers, the third for 0, a last one with `@` for text.
    """
    if any(section.condition for section in sections):
        for index, section in enumerate(sections[:3]):
            condition = section.condition
            if condition is None or _OPERATORS[condition[1]](value, float(condition[2])):
                return index
        return None
    number_sections = len(sections) - ("@" in sections[-1].codes)
    if value < 0 and number_sections > 1:
        return 1
    return 2 if value == 0 and number_sections > 2 else 0


@lru_cache(maxsize=256)
def _pattern(section: _Section) -> _Pattern | str | None:
    """Return a section's number pattern, its literal text if it shows no digits, or None for dates and exponents."""
    words, codes = section.words, section.codes
    match = _DIGITS.search(codes)
    if match is None:
        return None if _DATE.search(codes) else words.strip()
    if _SCIENTIFIC.search(codes):
        return None
    before = words[: match.start()]
    after = words[match.end() :]
    if match[1] is None:
        return _Pattern(before=before, after=after)
    decimals = match[3] or ""
    thousands_commas = len(match[2]) + len(match[4] or "")
    return _Pattern(
        before=before,
        after=after,
        places=match[1],
        words=words[match.start(1) : match.end(1)],
        power=2 * ("%" in codes) - 3 * thousands_commas,
        least_decimals=min(decimals.count("0"), MOST_DECIMALS),
        most_decimals=min(len(decimals), MOST_DECIMALS),
    )


def _digits(pattern: _Pattern, rounded: Decimal) -> str:
    """Format a number that is not negative with the pattern's places and decimals."""
    whole, _, decimals = f"{rounded:f}".partition(".")
    decimals = decimals[: pattern.least_decimals] + decimals[pattern.least_decimals :].rstrip("0")
    return _fill_places(pattern, whole) + (f".{decimals}" if decimals else "")


def _fill_places(pattern: _Pattern, digits: str) -> str:
    """Fill whole digits into their places from the right; extra digits precede the first place."""
    if "," in pattern.places:
        return f"{int(digits):,}"
    remaining = list(digits)
    reversed_text: list[str] = []
    for place, literal in zip(reversed(pattern.places), reversed(pattern.words), strict=True):
        if place not in "#0?":
            reversed_text.append(literal)
        elif remaining:
            reversed_text.append(remaining.pop())
        elif place == "0":  # the other places stay empty without a digit
            reversed_text.append("0")
    return "".join([*remaining, *reversed(reversed_text)])
