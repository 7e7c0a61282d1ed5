"""Normalises the digits of a text, and maps each character back to its original position.

Digits of every script become ASCII digits, also circled, superscript and escaped ones (HTML, URL, JSON). Invisible
characters (categories Cf, Mn, Me) are removed. A text has two readings, because number words are ambiguous (이 means
two, but is also a particle): as written, and with number words as digits and single digits joined.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from itertools import pairwise
from typing import Final
from urllib.parse import unquote

_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0")  # letters by category, but invisible
_DASHES: Final = frozenset("−ㅡー⁃∼〜～")  # in addition to category Pd
_LINE_BREAKS: Final = frozenset("\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
# An escape, a syllable in NFD, or a character outside Korean and English text, with its marks. URL escapes are limited
# to those that cannot be a percentage with text after it.
_MARKS: Final = "\u0300-\u036f\u20d0-\u20ff\ufe00-\ufe0f"
_CHARACTER: Final = re.compile(
    r"(?:&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});|%(?:2[0DEFdef]|40|0[ADad])|%3\d(?=%)|(?<=%3\d)%3\d"
    r"|\\u00[0-9A-Fa-f]{2}|(?<=\d)\\[nrt]|[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?|[^ -~\t\n가-힣])"
    rf"[{_MARKS}]*|[ -~][{_MARKS}]+"
)
_WORDS: Final = {
    **dict(zip("공일이삼사오육칠팔구", "0123456789", strict=True)), "영": "0", "륙": "6",
    **dict(zip("零一二三四五六七八九", "0123456789", strict=True)), "〇": "0",
    **dict(zip("壹貳參肆伍陸柒捌玖", "123456789", strict=True)), "壱": "1", "弐": "2", "参": "3", "貮": "2", "叁": "3",
}  # fmt: skip
_WORD: Final = "".join(_WORDS)
# The 일 after a day of the month is not the digit one; `readings` writes 日 for it.
_DAY: Final = re.compile(rf"(?<=월)(?:[ ]?[\d{_WORD}]){{1,2}}[ ]?일")
# Eight or more digit words are a number, even with other words between them; so is a shorter run of digit words and
# figures. A single digit word counts only if it stands alone.
_SPOKEN: Final = re.compile(
    rf"[{_WORD}](?:(?:[ \t]{{0,2}}(?:-|다시|대시|에)?[ \t]{{0,2}})[{_WORD}]){{7,}}"
    rf"|(?<![가-힣\d])[{_WORD}](?![{_WORD}가-힣\d])|(?:(?<![가-힣])|(?<=[년월다시에고]))[\d{_WORD}]{{2,20}}"
    rf"|[\d{_WORD}]{{4,20}}"
)
# Endings that begin with a syllable that is a digit elsewhere: 이에요, 482913이 제 번호예요.
_ENDING: Final = re.compile(
    r"이(?=에[요여]|[고예라며니야지면란요])|일(?=[때까])|영(?=업)|사(?=용)|(?<=\d)이(?=[ ][가-힣])"
)
_ENGLISH: Final = {
    "zero": "0", "oh": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9",
}  # fmt: skip
_ENGLISH_WORD: Final = re.compile("|".join(_ENGLISH), re.IGNORECASE)
_ENGLISH_RUN: Final = re.compile(
    rf"(?<![A-Za-z])(?:{_ENGLISH_WORD.pattern})(?:(?:[ \t-]{{0,2}}|,[ \t]?)(?:{_ENGLISH_WORD.pattern})){{0,30}}"
    r"(?![A-Za-z])",
    re.IGNORECASE,
)
# Letters that look like digits, among digits: O1O, l23.
_LOOK_ALIKE: Final = re.compile(r"(?<![A-Za-z가-힣ㄱ-ㅎ\d])(?=[oOlIㅇ]{0,19}\d)[\doOlIㅇ]{3,20}(?![A-Za-zㄱ-ㅎ\d])")
_LETTERS: Final = str.maketrans("oOlIㅇ", "00110")
# A birth date (88년 1월 5일생, 88. 1. 5.) before a resident number's other 7 digits; months and days get two digits.
_BORN: Final = re.compile(
    r"(?<![\d.-])(?P<year>(?:19|20)?\d\d)[ ]?[년./ -][ ]?(?P<month>0?[1-9]|1[0-2])[ ]?[월./ -][ ]?"
    r"(?P<day>0?[1-9]|[12]\d|3[01])(?!\d)[ ]?[일日.]?[ ]?생?(?=[^\d]{0,12}\d{7}(?!\d))"
)
# Single digits with blanks between them, or five and more with the same separator.
_APART: Final = re.compile(
    r"(?<!\d)\d(?P<gap>[ \t]{1,2}|\n{1,2}|[ \t]?(?:[^\w\s%$₩€£]|_)[ \t\n]?)\d(?:(?P=gap)\d){3,30}(?!\d)"
    r"|(?<!\d)\d(?:[ \t]\d){1,30}(?!\d)"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A normalised text; character n maps to `starts[n]` to `ends[n]` of the original."""

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def sub(self, pattern: re.Pattern[str], rewrite: Callable[[re.Match[str]], str]) -> "Reading":
        """Rewrite each match; if the length changes, each new character maps to the whole match."""
        text: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        position = 0
        for match in pattern.finditer(self.text):
            start, end = match.span()
            rewritten = rewrite(match)
            text += self.text[position:start], rewritten
            starts += self.starts[position:start]
            ends += self.ends[position:start]
            if len(rewritten) == end - start:
                starts += self.starts[start:end]
                ends += self.ends[start:end]
            else:
                starts += [self.starts[start]] * len(rewritten)
                ends += [self.ends[end - 1]] * len(rewritten)
            position = end
        text.append(self.text[position:])
        return Reading("".join(text), (*starts, *self.starts[position:]), (*ends, *self.ends[position:]))


def readings(text: str) -> tuple[Reading, Reading]:
    """Return the text with normalised digits, and a second reading with words as digits and single digits joined."""
    as_written = Reading(text, tuple(range(len(text))), tuple(range(1, len(text) + 1)))
    plain = as_written.sub(_CHARACTER, lambda match: _folded(match.group()))
    # With eight or more number words in the text, even one that stands alone counts.
    shortest_run = 1 if len(_ENGLISH_WORD.findall(plain.text)) >= 8 else 2
    digits = plain.sub(_ENGLISH_RUN, lambda run: _english_digits(run.group(), shortest_run))
    digits = digits.sub(_DAY, lambda day: f"{day.group()[:-1]}日").sub(_SPOKEN, _spoken_digits)
    digits = digits.sub(_LOOK_ALIKE, lambda run: run.group().translate(_LETTERS))
    digits = digits.sub(_APART, _join_digits)
    return plain, digits.sub(_BORN, lambda day: f"{day['year']}{day['month']:0>2}{day['day']:0>2}")


@lru_cache(maxsize=4096)
def _folded(char: str) -> str:
    """Return the normalised form of a match of `_CHARACTER`; empty for an invisible character."""
    if len(char) > 1:
        chars = str(json.loads(f'"{char}"')) if char[0] == "\\" else unescape(unquote(char))
        return "".join(map(_folded, unicodedata.normalize("NFC", chars)))
    if char in _LINE_BREAKS:
        return "\n"
    if char.isascii():
        return char if char.isprintable() or char in "\t\n" else ""
    category = unicodedata.category(char)
    if category in ("Cf", "Mn", "Me", "Cc") or char in _FILLERS:
        return ""
    if category == "Pd" or char in _DASHES:
        return "-"
    value = unicodedata.digit(char, None)
    if value is None and category == "No" and unicodedata.numeric(char, -1.0) in range(10):
        value = int(unicodedata.numeric(char))  # a circled sans-serif zero, and scripts with separate signs for tens
    if value is not None:
        return str(value)
    # Compatibility forms (½, ㎡) have no digits of an identifier.
    folded = " " if category == "Zs" else unicodedata.normalize("NFKC", char)
    return "-" if folded in _DASHES else folded


def _spoken_digits(spoken: re.Match[str]) -> str:
    """Return a run of number words as digits, without its last syllable if that begins an ending."""
    words = spoken.group()
    has_ending = _ENDING.match(spoken.string, spoken.end() - 1) is not None
    length = len(words) - 1 if has_ending else len(words)
    return "".join(_WORDS.get(word, word) for word in words[:length]) + words[length:]


def _english_digits(run: str, shortest_run: int) -> str:
    words = _ENGLISH_WORD.findall(run)
    return "".join(_ENGLISH[word.lower()] for word in words) if len(words) >= shortest_run else run


def _join_digits(apart: re.Match[str]) -> str:
    """Return single digits joined, unless they are probably the labels of an axis or list items."""
    digits = re.sub(r"\D", "", apart.group())
    has_only_blanks = not (apart["gap"] or "").strip(" \t")
    steps = sum(abs(int(left) - int(right)) == 1 for left, right in pairwise(digits))
    are_mostly_consecutive = steps * 2 >= len(digits)  # 5, 4, 3, 2
    return digits if has_only_blanks or not are_mostly_consecutive else apart.group()
