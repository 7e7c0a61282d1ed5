"""Spreadsheet values as their cells show them: 0.0235 under the number format 0.00% is "2.35%"."""

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

Value = str | int | float | bool | date | datetime | time | timedelta | None

_CURRENCY = re.compile(r"\[\$([^\[\]-]*+)[^\[\]]*+\]")
_BRACKETS = re.compile(r"\[[^\[\]]*+\]")
_PADDING = re.compile(r"_.|\*.")
_DIGITS = re.compile(r"[#0?][#0?,.]*")
_SCIENTIFIC = re.compile(r"[eE][+-]|/")
MOST_DECIMALS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pattern:
    """A number format's first section: text before and after, decimals (least, most), thousands separated, percent."""

    before: str
    after: str
    least: int
    most: int
    grouped: bool
    percent: bool


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
    sections = number_format.split(";")
    pattern = _pattern(sections[0])
    if pattern is None:
        return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    amount = value * 100 if pattern.percent else value
    text = f"{amount:,.{pattern.most}f}" if pattern.grouped else f"{amount:.{pattern.most}f}"
    spare = pattern.most - pattern.least
    while spare > 0 and text.endswith("0"):
        text, spare = text[:-1], spare - 1
    return f"{pattern.before}{text.removesuffix('.')}{pattern.after}"


def _pattern(section: str) -> _Pattern | None:
    plain = _PADDING.sub("", _BRACKETS.sub("", _CURRENCY.sub(r"\1", section)))
    match = _DIGITS.search(plain)
    if match is None or _SCIENTIFIC.search(plain):  # "General", text, and formats that are no decimals
        return None
    digits = match.group().rstrip(",.")
    decimals = digits.partition(".")[2]
    after = plain[match.end() :]
    return _Pattern(
        before=_literal(plain[: match.start()]),
        after=_literal(after),
        least=min(decimals.count("0"), MOST_DECIMALS),
        most=min(len(decimals), MOST_DECIMALS),
        grouped="," in digits,
        percent="%" in after,
    )


def _literal(text: str) -> str:
    return text.replace('"', "").replace("\\", "").replace("@", "")
