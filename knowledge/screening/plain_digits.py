"""Writes a text with one spelling of digits, dashes and blanks, and remembers where each character stood.

Digits are whatever Unicode gives the value of one: decimal digits of every script, circled, raised, with a full stop;
also as HTML, an address or JSON escapes them.
Characters that are not seen or only mark others (categories Cf, Mn, Me: joiners, variation selectors, the keycap) are
left out. What words and blanks make of digits is ambiguous (이 is two, and a particle), so that a text has several
readings: `readings` yields the figures as they stand, then with words as digits, then with digits drawn together.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from itertools import pairwise
from typing import Final
from urllib.parse import unquote

_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0")  # letters by category, but nothing is drawn
_DASHES: Final = frozenset("−ㅡー⁃∼〜～")  # beside all of category Pd
_LINE_BREAKS: Final = frozenset("\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
_JAMO: Final = r"[\u1100-\u11ff\ua960-\ua97c\ud7b0-\ud7fb]{2,}"
# A character as HTML, an address or JSON writes it; of % only what no rate is followed by.
_ESCAPE: Final = (
    r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});|%(?:2[0DEFdef]|40|0[ADad])|%3\d(?=%)|(?<=%3\d)%3\d"
    r"|\\u00[0-9A-Fa-f]{2}|(?<=\d)\\[nrt]"
)
_WRITTEN_APART: Final = re.compile(rf"{_JAMO}|{_ESCAPE}")
_WORDS: Final = {
    **dict(zip("공일이삼사오육칠팔구", "0123456789", strict=True)), "영": "0", "륙": "6",
    **dict(zip("零一二三四五六七八九", "0123456789", strict=True)), "〇": "0",
    **dict(zip("壹貳參肆伍陸柒捌玖", "123456789", strict=True)), "壱": "1", "弐": "2", "参": "3", "貮": "2", "叁": "3",
}  # fmt: skip
_WORD: Final = "".join(_WORDS)
# The 일 of a day is none of its digits.
_DAY: Final = re.compile(rf"월(?:[ ]?[\d{_WORD}]){{1,2}}[ ]?일")
# Eight or more digit words, with the words between them, are a number; the 이 of 이에요 is no digit.
_SPOKEN: Final = re.compile(rf"[{_WORD}](?:(?:[ \t]{{0,2}}(?:-|다시|대시|에)?[ \t]{{0,2}})[{_WORD}]){{7,}}")
_SPOKEN_LINKS: Final = {"다": " ", "시": "-", "대": " ", "에": "-"}
# A shorter run of words or of words and figures; a single word is one only where it stands alone.
_RUN: Final = re.compile(
    rf"(?<![가-힣\d])[{_WORD}](?![{_WORD}가-힣\d])|(?:(?<![가-힣])|(?<=[년월다시에고]))[\d{_WORD}]{{2,20}}|[\d{_WORD}]{{4,20}}"
)
_ENDING: Final = re.compile(r"이(?=에[요여]|[고예라며니야지면란])|일(?=[때까])|영(?=업)|사(?=용)")
_PARTICLE: Final = re.compile(r"이[ ][가-힣]")  # behind figures: 482913이 제 번호예요
_ENGLISH: Final = {
    "zero": "0", "oh": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9",
}  # fmt: skip
_ENGLISH_WORD: Final = "|".join(_ENGLISH)
_ENGLISH_RUN: Final = re.compile(
    rf"(?<![A-Za-z])(?:{_ENGLISH_WORD})(?:(?:[ \t-]{{1,2}}|,[ \t]?)(?:{_ENGLISH_WORD})){{0,30}}(?![A-Za-z])",
    re.IGNORECASE,
)
_ENGLISH_NUMBER: Final = 8  # so many words in a text are a number, also those that stand alone
_APART: Final = re.compile(r"(?<!\d)\d(?:[ \t]\d){1,30}(?!\d)")
# Five or more with the same between them, whatever it is.
_APART_ALIKE: Final = re.compile(
    r"(?<!\d)\d(?P<gap>[ \t]{1,2}|\n{1,2}|[ \t]?(?:[^\w\s%$₩€£]|_)[ \t\n]?)\d(?:(?P=gap)\d){3,30}(?!\d)"
)
# A day with a birth number behind it (88년 1월 5일생, 88. 1. 5.): a month or a day of one digit gets its zero.
_BORN: Final = re.compile(
    r"(?<![\d.-])(?P<year>(?:19|20)?\d\d)[ ]?[년./-][ ]?(?P<month>0?[1-9]|1[0-2])[ ]?[월./-][ ]?"
    r"(?P<day>0?[1-9]|[12]\d|3[01])(?!\d)[ ]?[일.]?[ ]?생?(?=[^\d]{0,12}\d{7}(?!\d))"
)
# A letter that stands for a digit it looks like, among digits: O1O, l23.
_LOOK_ALIKE: Final = re.compile(r"(?<![A-Za-z가-힣ㄱ-ㅎ\d])[\doOlIㅇ]{3,20}(?![A-Za-zㄱ-ㅎ\d])")
_LETTERS: Final = str.maketrans("oOlIㅇ", "00110")


@dataclass(frozen=True, slots=True)
class Reading:
    """A text in one spelling; character n stands for `starts[n]` to `ends[n]` of the original."""

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Return the offsets in the original of a span that is not empty."""
        return self.starts[start], self.ends[end - 1]


def readings(text: str) -> Iterator[Reading]:
    """Yield the readings of a text that differ, the plainest first."""
    plain = _plain(text)
    yield plain
    said = _drawn_together(plain, _ENGLISH_RUN, _english_digits(plain.text))
    said = _rewritten(said, _DAY, lambda day: f"{day.group()[:-1]}日")
    for pattern, rewrite in ((_SPOKEN, _spoken_digits), (_RUN, _run_digits), (_LOOK_ALIKE, _letters_as_digits)):
        said = _rewritten(said, pattern, rewrite)
    if said.text != plain.text:
        yield said
    joined = said
    for pattern, digits in ((_BORN, _birth_date), (_APART_ALIKE, _digits_alike), (_APART, _digits_only)):
        joined = _drawn_together(joined, pattern, digits)
    if joined.text != said.text:
        yield joined


def _plain(text: str) -> Reading:
    plain: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for offset, length, char in _characters(text):
        folded = _folded(char)
        if not folded and ends:  # a mark belongs to what it marks
            ends[-1] = offset + length
        plain.extend(folded)
        starts.extend([offset] * len(folded))
        ends.extend([offset + length] * len(folded))
    return Reading("".join(plain), tuple(starts), tuple(ends))


def _characters(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield offset, length and each character; what is written in several is one: an escape, a syllable in NFD."""
    at = 0
    for apart in _WRITTEN_APART.finditer(text):
        yield from ((n, 1, text[n]) for n in range(at, apart.start()))
        at = apart.start()
        is_escape = apart.group()[0] in "&%\\"
        for char in _unescaped(apart.group()) if is_escape else unicodedata.normalize("NFC", apart.group()):
            length = len(apart.group()) if is_escape else len(unicodedata.normalize("NFD", char))
            yield at, length, char
            at += 0 if is_escape else length
        at = apart.end()
    yield from ((n, 1, text[n]) for n in range(at, len(text)))


def _unescaped(escape: str) -> str:
    match escape[:2]:
        case "\\u":
            return chr(int(escape[2:], 16))
        case "\\n" | "\\r" | "\\t":
            return "\n"
    return unescape(escape) if escape[0] == "&" else unquote(escape)


@lru_cache(maxsize=4096)
def _folded(char: str) -> str:
    if char in _LINE_BREAKS:
        return "\n"
    if char.isascii():
        return char if char.isprintable() or char in "\t\n" else ""
    category = unicodedata.category(char)
    if category in ("Cf", "Mn", "Me", "Cc") or char in _FILLERS:
        return ""
    if category == "Pd" or char in _DASHES:
        return "-"
    if (digit := _digit(char, category)) is not None:
        return str(digit)
    if category == "Zs":
        return " "
    # ½, ㎡ and the like are no digits of an identifier.
    folded = unicodedata.normalize("NFKC", char)
    return "-" if folded in _DASHES else folded


def _digit(char: str, category: str) -> int | None:
    value = unicodedata.digit(char, None)
    if value is None and category == "No" and (number := unicodedata.numeric(char, -1.0)) in range(10):
        value = int(number)  # a circled sans-serif zero, and digits of scripts that also have tens
    return value


def _rewritten(reading: Reading, pattern: re.Pattern[str], rewrite: Callable[[re.Match[str]], str]) -> Reading:
    """Return the reading with each match rewritten in the same length."""
    return Reading(pattern.sub(rewrite, reading.text), reading.starts, reading.ends)


def _drawn_together(
    reading: Reading, pattern: re.Pattern[str], digits: Callable[[re.Match[str]], list[tuple[str, int, int]]]
) -> Reading:
    """Return the reading with each match replaced by its digits, each of which keeps its place."""
    text: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    for match in pattern.finditer(reading.text):
        if not (found := digits(match)):
            continue
        text.append(reading.text[at : match.start()])
        starts += reading.starts[at : match.start()]
        ends += reading.ends[at : match.start()]
        for digit, start, end in found:
            text.append(digit)
            starts.append(reading.starts[start])
            ends.append(reading.ends[end - 1])
        at = match.end()
    if at == 0:
        return reading
    return Reading("".join([*text, reading.text[at:]]), (*starts, *reading.starts[at:]), (*ends, *reading.ends[at:]))


def _spoken_digits(spoken: re.Match[str]) -> str:
    until = len(spoken.group()) - (_ENDING.match(spoken.string, spoken.end() - 1) is not None)
    table = _WORDS | _SPOKEN_LINKS
    return "".join(table.get(word, word) for word in spoken.group()[:until]) + spoken.group()[until:]


def _run_digits(run: re.Match[str]) -> str:
    if run.group()[:-1].isdecimal() and _PARTICLE.match(run.string, run.end() - 1):
        return run.group()
    until = len(run.group()) - (_ENDING.match(run.string, run.end() - 1) is not None)
    return "".join(_WORDS.get(word, word) for word in run.group()[:until]) + run.group()[until:]


def _letters_as_digits(run: re.Match[str]) -> str:
    digits = sum(map(str.isdigit, run.group()))
    return run.group().translate(_LETTERS) if digits else run.group()


def _english_digits(text: str) -> Callable[[re.Match[str]], list[tuple[str, int, int]]]:
    word = re.compile(_ENGLISH_WORD, re.IGNORECASE)
    many = sum(1 for _ in word.finditer(text)) >= _ENGLISH_NUMBER

    def digits(run: re.Match[str]) -> list[tuple[str, int, int]]:
        words = [*word.finditer(run.string, run.start(), run.end())]
        return [(_ENGLISH[w.group().lower()], *w.span()) for w in words] if many or len(words) > 1 else []

    return digits


def _digits_only(apart: re.Match[str]) -> list[tuple[str, int, int]]:
    return [(apart.string[n], n, n + 1) for n in range(*apart.span()) if apart.string[n].isdigit()]


def _digits_alike(apart: re.Match[str]) -> list[tuple[str, int, int]]:
    found = _digits_only(apart)
    steps = sum(abs(int(a[0]) - int(b[0])) == 1 for a, b in pairwise(found))
    return found if steps * 2 < len(found) else []  # 5, 4, 3, 2: the marks of an axis, or items


def _birth_date(day: re.Match[str]) -> list[tuple[str, int, int]]:
    found = []
    for part in ("year", "month", "day"):
        start, end = day.span(part)
        if end - start == 1:
            found.append(("0", start, end))
        found += [(day.string[n], n, n + 1) for n in range(start, end)]
    return found
