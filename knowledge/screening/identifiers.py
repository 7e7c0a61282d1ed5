"""Finds identifiers of persons in Korean or English text in any spelling: full-width digits, blanks around hyphens,
zero-width characters, an attached particle, digits written as words.

A failed checksum never makes a number harmless: newer resident numbers have random last digits. Amounts, dates, rates,
product codes and the bank's own 1588-0000 numbers are no identifiers.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class IdentifierKind(StrEnum):
    """The kinds of identifiers; a `secret` is a PIN, password or security code."""

    RESIDENT_NUMBER = "resident_number"
    CARD = "card"
    ACCOUNT = "account"
    PHONE = "phone"
    PASSPORT = "passport"
    DRIVER_LICENCE = "driver_licence"
    BUSINESS_NUMBER = "business_number"
    EMAIL = "email"
    SECRET = "secret"  # noqa: S105  # the name of a kind, not one


@dataclass(frozen=True, slots=True)
class Identifier:
    """An identifier to mask; `start` and `end` are offsets in the searched text."""

    kind: IdentifierKind
    start: int
    end: int


_ZERO_WIDTH: Final = frozenset("\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e\u200e\u200f")
_DASHES: Final = frozenset("‐‑‒–—―−﹣ㅡ⁃∼〜")
_DIGIT_WORDS: Final = {"공": "0", "영": "0"} | dict(zip("일이삼사오육칠팔구", "123456789", strict=True)) | {"륙": "6"}
# Eight or more digit words, with the words between them, are a number; the 이 of 이에요 is no digit.
_SPOKEN: Final = re.compile(
    r"[공영일이삼사오육륙칠팔구](?:(?:[ \t]{0,2}(?:-|–|다시|대시|에)?[ \t]{0,2})[공영일이삼사오육륙칠팔구]){7,}"
)
_ENDING: Final = re.compile(r"이(?=[고에예라며니야지면란])|일(?=[때까])|영(?=업)|사(?=용)")
_SPOKEN_TO_WRITTEN: Final = _DIGIT_WORDS | {"다": " ", "시": "-", "대": " ", "에": "-"}
# Separators between two groups of digits.
_GAP: Final = r"[ \t]{0,2}[-._·/~)]?[ \t]{0,2}"
_HYPHEN: Final = r"[ \t]{0,2}-[ \t]{0,2}"
_NOT_BEFORE: Final = r"(?<![\d,])(?<!\d[.-])"
_NOT_AFTER: Final = r"(?!\d|,\d)"
_ACCOUNT_WORD: Final = r"(?:계좌|통장|입금|송금|이체|예금주|가상계좌|account|acct|a/c|iban)"
_NO_DATE: Final = r"(?!(?:19|20)\d\d[ ]?[.-][ ]?\d{1,2}[ ]?[.-][ ]?\d{1,2}(?!\d))"
_NO_AMOUNT: Final = r"(?![ \t]?(?:원|달러|만|억|천|%|퍼센트|won|usd|krw|dollars?))"


def _is_no_year_list(match: re.Match[str]) -> bool:
    groups = re.findall(r"\d{4}", match.group())
    spaced = not re.search(r"\d[-._·/~]\d|-", match.group())
    plain = all(group.startswith(("19", "20")) for group in groups) or all(group.endswith("00") for group in groups)
    return not (spaced and " " in match.group() and plain)


def _is_card(match: re.Match[str]) -> bool:
    """Return whether an ungrouped number passes the card checksum (Luhn, ISO/IEC 7812-1)."""
    doubled = [int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(match.group()))]
    return sum(value // 10 + value % 10 for value in doubled) % 10 == 0


def _is_private(match: re.Match[str]) -> bool:
    """Return whether a telephone number is none of those that banks publish."""
    return re.match(r"1[5-9]\d\d-?\d{4}\Z|\(?0?80", match["hit"]) is None and not re.match(
        r"(?:19|20)\d\d[-.]", match["hit"]
    )


def _has_account_length(match: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", match.group())
    return 10 <= len(digits) <= 16


def _has_ten_digits(match: re.Match[str]) -> bool:
    """Return whether a possible IBAN has enough digits; capital letters alone may be a word."""
    return len(re.sub(r"\D", "", match.group())) >= 10


def _is_account(match: re.Match[str]) -> bool:
    # 제2026-1234-5678호 is the number of an approval, not of an account.
    around = match.string[max(0, match.start() - 2) : match.start()], match.string[match.end() : match.end() + 2]
    approval = (
        around[0].endswith(("제", "제 ")) or around[1].lstrip().startswith("호") or match.group()[:2] in ("19", "20")
    )
    toll_free = re.match(r"0\d{1,3}-\d{3,4}-\d{3,4}\Z|1[5-9]\d\d-|0?80-", match.group().replace(" ", "")) is not None
    return _has_account_length(match) and not approval and not toll_free


def _always(_: re.Match[str]) -> bool:
    return True


_Check = Callable[[re.Match[str]], bool]
_PATTERNS: Final[tuple[tuple[IdentifierKind, re.Pattern[str], _Check], ...]] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE), check)
    for kind, pattern, check in (
        (IdentifierKind.EMAIL, r"[A-Za-z0-9._%+\-]{1,64}+[ \t]?@[ \t]?"
         r"[A-Za-z0-9\-]{1,63}(?:[ \t]?\.[ \t]?[A-Za-z0-9\-]{1,63}){0,8}\.[A-Za-z]{2,24}", _always),
        (IdentifierKind.ACCOUNT, r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){3,7}"
         r"(?:[ ]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])", _has_ten_digits),
        (IdentifierKind.RESIDENT_NUMBER, rf"{_NOT_BEFORE}\d{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d"
         rf"|3[01]){_GAP}\d\d{{6}}{_NOT_AFTER}", _always),
        (IdentifierKind.RESIDENT_NUMBER, rf"{_NOT_BEFORE}\d{{6}}{_HYPHEN}\d(?:\d{{6}}|[*xX●○#]{{6}})(?!\d)", _always),
        (IdentifierKind.RESIDENT_NUMBER, r"(?<!\d)(?<!\d[ \t])\d(?:[ \t]\d){5}[ \t]?-?[ \t]?\d"
         r"(?:[ \t]\d){6}(?![ \t]?\d)", _always),
        (IdentifierKind.RESIDENT_NUMBER, r"번호[^\d\n]{0,6}(?P<hit>\d{6}[^\d\n가-힣A-Za-z]{0,6}\d{7})(?!\d)", _always),
        (IdentifierKind.RESIDENT_NUMBER, r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])", _always),
        (IdentifierKind.CARD, rf"{_NOT_BEFORE}\d{{4}}(?:{_GAP}\d{{4}}){{3}}(?!\d)", _is_no_year_list),
        (IdentifierKind.CARD, rf"{_NOT_BEFORE}3[47]\d{{2}}[ -]\d{{6}}[ -]\d{{5}}(?!\d)", _always),
        (IdentifierKind.CARD, rf"{_NOT_BEFORE}\d{{12,19}}(?!\d){_NO_AMOUNT}", _is_card),
        (IdentifierKind.CARD, r"(?<!\d)(?<!\d[ \t])\d(?:[ \t]\d){14,15}(?![ \t]?\d)", _always),
        (IdentifierKind.DRIVER_LICENCE, rf"(?<![\d-])(?:[1-2]\d|서울|부산|경기|강원|충북|충남|전북|전남|경북|경남|제주"
          r"|대구"
         rf"|인천|광주|대전|울산)"
         rf"(?:{_HYPHEN}|[ \t]?)\d{{2}}{_HYPHEN}\d{{6}}{_HYPHEN}\d{{2}}(?![\d-])", _always),
        (IdentifierKind.PHONE, rf"(?<!\d)(?<!\d[.,])(?:\(?(?:\+|00)[ \t]?82\)?{_GAP}\(?0?\)?"
         rf"|\(?0)1[016-9]\)?{_GAP}\d{{3,4}}{_GAP}\d{{4}}(?!\d)", _always),
        (IdentifierKind.PHONE, r"(?<!\d)0[ \t]1[ \t][016-9](?:[ \t]?-?[ \t]?\d){7,8}(?!\d)", _always),
        (IdentifierKind.PHONE, rf"(?<![\d-])(?<!\d[.,])\(?0(?:2|[3-6][1-5]|70"
         rf"|50\d)(?:\)[ ]?|{_HYPHEN}|\.)\d{{3,4}}(?:{_HYPHEN}|\.)\d{{4}}(?![\d-])", _always),
        (IdentifierKind.PHONE, r"(?<![\d+])\+[1-9]\d{0,2}(?:[-. ()]{0,2}\d){8,12}(?!\d)", _always),
        (IdentifierKind.PHONE, r"(?<![\d-])(?<!\d[.,])0(?!80)\d{2,4}[ -]\d{3,4}[ -]\d{3,4}(?![\d-])", _always),
        (IdentifierKind.PHONE, r"(?:phone|mobile|cell|telephone|fax|call (?:me |us )?(?:at|on|back at)|reach(?:ed)?"
          r" (?:me )?"
         r"(?:at|on)|messages? to|answering at|휴대폰|핸드폰|휴대전화|전화번호|연락처)[^\d+(]{0,20}"
         rf"(?P<hit>\+?\(?\d(?:[-. ()]{{0,2}}\d){{6,11}})(?![\d-]){_NO_AMOUNT}", _is_private),
        (IdentifierKind.BUSINESS_NUMBER, rf"(?<![\d-])\d{{3}}{_HYPHEN}\d{{2}}{_HYPHEN}\d{{5}}(?![\d-])", _always),
        (IdentifierKind.PASSPORT, r"(?<![A-Za-z0-9])[MSRODG][ \t-]?(?:\d{8}|\d{3}[A-Z]\d{4})(?![A-Za-z0-9])", _always),
        (IdentifierKind.PASSPORT, r"(?:여권|passport)[^\d\n]{0,20}?(?P<hit>(?<![A-Za-z0-9])[A-Z]{0,2}\d{6,9}"
         r"(?![\dA-Za-z]))", _always),
        (IdentifierKind.DRIVER_LICENCE, r"(?:면허|licen[cs]e)[^\d]{0,20}?"
         r"(?P<hit>\d{2}[ .-]{0,3}\d{2}[ .-]{0,3}\d{6}[ .-]{0,3}\d{2})(?!\d)", _always),
        (IdentifierKind.DRIVER_LICENCE, r"(?<![\d.])[12]\d[ .]\d{2}[ .]\d{6}[ .]\d{2}(?![\d.])", _always),
        (IdentifierKind.DRIVER_LICENCE,
         r"driver'?s?'? licen[cs]e[^\d\n]{0,20}?(?P<hit>\b[A-Z]?\d{6,16})(?!\d)", _always),
        (IdentifierKind.BUSINESS_NUMBER, r"(?:사업자|business)[^\d]{0,20}?"
         r"(?P<hit>\d{3}[ .-]{0,3}\d{2}[ .-]{0,3}\d{5})(?!\d)", _always),
        (IdentifierKind.BUSINESS_NUMBER,
         r"(?P<hit>(?<!\d)\d{3}[ .-]{0,3}\d{2}[ .-]{0,3}\d{5})(?=[^\d\n]{1,12}사업자)", _always),
        (IdentifierKind.ACCOUNT, rf"(?<![\d-])\d{{3,6}}{_HYPHEN}\d{{2,6}}{_HYPHEN}\d{{2,8}}"
         rf"(?:{_HYPHEN}\d{{1,4}})?(?![\d-])", _is_account),
        (IdentifierKind.ACCOUNT, rf"{_ACCOUNT_WORD}[^\d]{{0,20}}?"
         rf"(?P<hit>(?<![\d,.]){_NO_DATE}\d(?:[ .-]{{0,4}}\d){{9,15}}){_NOT_AFTER}{_NO_AMOUNT}", _always),
        (IdentifierKind.ACCOUNT, rf"(?P<hit>(?<![\d,.-]){_NO_DATE}\d(?:[ .-]{{0,4}}\d){{9,15}}){_NOT_AFTER}{_NO_AMOUNT}"
         rf"(?=[^\d\n]{{0,12}}{_ACCOUNT_WORD})", _always),
        (IdentifierKind.ACCOUNT, r"(?<!\d)(?<!\d[ \t])\d(?:[ \t]\d){9,13}(?![ \t]?\d)", _always),
        # So many digits identify something, whatever words stand around them.
        (IdentifierKind.ACCOUNT, rf"{_NOT_BEFORE}\d{{11,19}}{_NOT_AFTER}{_NO_AMOUNT}", _always),
        (IdentifierKind.SECRET, r"(?:cvc|cvv|보안[ ]?코드|pin|비밀[ ]?번호|비번|passcode|password)(?:[ ]?(?:번호|number"
         r"|code))?"
         r"[ \t]{0,2}(?:는|은|가|이|:|=|is|was)?[ \t]{0,2}(?P<hit>(?<!\d)\d{3,8})(?!\d|[ ]?(?:자리|회|번|일|년|월"
         r"|digit|원|개))", _always),
    )
)  # fmt: skip


def find_identifiers(text: str) -> tuple[Identifier, ...]:
    """Return the identifiers of a text from left to right, without overlaps."""
    plain, offsets = _normalised(text)
    accepted: list[Identifier] = []
    for kind, start, end in _matches(plain):
        if not any(start < other.end and other.start < end for other in accepted):
            accepted.append(Identifier(kind, start, end))
    accepted.sort(key=lambda identifier: identifier.start)
    return tuple(
        Identifier(identifier.kind, offsets[identifier.start], offsets[identifier.end - 1] + 1)
        for identifier in accepted
    )


def _matches(plain: str) -> Iterator[tuple[IdentifierKind, int, int]]:
    if not any(char.isdigit() or char == "@" or char in "공영" for char in plain):
        return
    for kind, pattern, check in _PATTERNS:
        for match in pattern.finditer(plain):
            if check(match):
                start, end = match.span("hit" if "hit" in pattern.groupindex else 0)
                # (02-123-4567) keeps its brackets, 02)123-4567 has none to keep.
                unclosed = plain[start] == "(" and ")" not in plain[start:end]
                yield kind, start + unclosed, end


def _normalised(text: str) -> tuple[str, list[int]]:
    """Return the text with one spelling of digits, hyphens and blanks, and each character's offset in the original."""
    plain: list[str] = []
    offsets: list[int] = []
    for offset, char in enumerate(text):
        for folded in _fold(char):
            plain.append(folded)
            offsets.append(offset)
    for spoken in _SPOKEN.finditer("".join(plain)):
        # The same length, so that every offset stays valid.
        plain[spoken.start() : spoken.end()] = _as_digits(spoken)
    return "".join(plain), offsets


def _as_digits(spoken: re.Match[str]) -> list[str]:
    words = list(spoken.group())
    ending = _ENDING.match(spoken.string, spoken.end() - 1)
    until = len(words) - (ending is not None)
    return [_SPOKEN_TO_WRITTEN.get(word, word) for word in words[:until]] + words[until:]


def _fold(char: str) -> str:
    if char in _ZERO_WIDTH:
        return ""
    if char.isascii():
        return char
    if char in _DASHES:
        return "-"
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    if char.isspace():
        return "\n" if char in "\u2028\u2029\x85" else " "
    folded = unicodedata.normalize("NFKC", char)
    # ½, ㎡ and the like are no digits of an identifier; enclosed digits (①) are.
    return "-" if folded in _DASHES else folded
