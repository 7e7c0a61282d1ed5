"""How a spreadsheet shows a value: 0.0235 under the format 0.00% is "2.35%", and only that is what a customer reads."""

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

Value = str | int | float | bool | date | datetime | time | timedelta | None

_CURRENCY = re.compile(r"\[\$([^\]-]*)[^\]]*\]")
_BRACKETS = re.compile(r"\[[^\]]*\]")
_PADDING = re.compile(r"_.|\*.")
_DIGITS = re.compile(r"[#0?][#0?,.]*")
_SCIENTIFIC = re.compile(r"[eE][+-]|/")
MOST_DECIMALS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pattern:
    """A number format's first section: words before and after, decimals (at least, at most), thousands marked."""

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
    found = _DIGITS.search(plain)
    if found is None or _SCIENTIFIC.search(plain):  # "General", text, and what decimals cannot say
        return None
    digits = found.group().rstrip(",.")
    decimals = digits.partition(".")[2]
    after = plain[found.end() :]
    return _Pattern(
        before=_words(plain[: found.start()]),
        after=_words(after),
        least=min(decimals.count("0"), MOST_DECIMALS),
        most=min(len(decimals), MOST_DECIMALS),
        grouped="," in digits,
        percent="%" in after,
    )


def _words(text: str) -> str:
    return text.replace('"', "").replace("\\", "").replace("@", "")
