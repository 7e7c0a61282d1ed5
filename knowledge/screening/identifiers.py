"""Finds identifiers of persons in Korean or English text in any spelling.

A text is read in up to three ways (`plain_digits`): whatever Unicode calls a digit, a dash or a blank is one, unseen
characters are none, and words may be digits. Patterns here find what is written in one piece, `digit_groups` what
stands in groups with marks, words or line breaks between, `named_secrets` what only its name tells.

A failed checksum never makes a number harmless: newer resident numbers have random last digits. Amounts, dates, rates,
product codes and the bank's own 1588-0000 numbers are no identifiers.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from knowledge.screening.digit_groups import grouped_identifiers, is_card_number
from knowledge.screening.identifier_kinds import IdentifierKind
from knowledge.screening.named_secrets import named_secrets
from knowledge.screening.plain_digits import readings
from knowledge.screening.spelled_addresses import spelled_addresses


@dataclass(frozen=True, slots=True)
class Identifier:
    """An identifier to mask; `start` and `end` are offsets in the searched text."""

    kind: IdentifierKind
    start: int
    end: int


# Separators between two groups of digits.
_GAP: Final = r"[ \t]{0,2}[-._·/~)]?[ \t]{0,2}"
_HYPHEN: Final = r"[ \t]{0,2}-[ \t]{0,2}"
_NOT_BEFORE: Final = r"(?<![\d,])(?<!\d[.-])"
_NOT_AFTER: Final = r"(?!\d|,\d)"
_SPACER: Final = r"[ \t./-]"
_REGION: Final = (
    r"(?:서울|부산|경기|강원|충북|충남|전북|전남|경북|경남|제주|대구|인천|광주|대전|울산)"
    r"(?:특별시|광역시|시|도)?"
)
_ACCOUNT_WORD: Final = r"(?:계좌|통장|입금|송금|이체|예금주|가상계좌|account|acct|a/c|iban)"
_NO_DATE: Final = r"(?!(?:19|20)\d\d[ ]?[.-][ ]?\d{1,2}[ ]?[.-][ ]?\d{1,2}(?!\d))"
# Ten digits and more are no number of 만 or 억: what follows is 만기, 억울, or "only".
_NO_AMOUNT: Final = r"(?![ \t]?(?:원(?![래금하])|달러|%|퍼센트|won\b|usd\b|krw\b|dollars?\b))"


def _is_no_year_list(match: re.Match[str]) -> bool:
    groups = re.findall(r"\d{4}", match.group())
    if set("".join(groups)) <= {"0", "1"} or all(re.match(r"1[5-9]", group) for group in groups[:2]):
        return False  # bytes in binary, the bank's own numbers
    spaced = not re.search(r"\d[-._·/~]\d|-", match.group())
    plain = all(group.startswith(("19", "20")) for group in groups) or all(group.endswith("00") for group in groups)
    return not (spaced and " " in match.group() and plain)


def _is_no_digest(match: re.Match[str]) -> bool:
    """Return whether digits are no part of a long word of letters and digits, such as a digest in an address."""
    start, end = match.span()
    before = re.search(r"[A-Za-z0-9]{0,40}\Z", match.string[max(0, start - 40) : start])
    after = re.match(r"[A-Za-z0-9]{0,40}", match.string[end : end + 40])
    word = (before.group() if before else "") + (after.group() if after else "")
    return len(re.sub(r"\d", "", word)) < 2 or len(word) + end - start < 20


def _is_iban(match: re.Match[str]) -> bool:
    """Return whether capital letters and digits may be an IBAN, or others pass its check (ISO 13616)."""
    written = match.group().replace(" ", "")
    if len(re.sub(r"\D", "", written)) < 10:
        return False
    turned = written[4:] + written[:4]
    return written.isupper() or int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def _is_card(match: re.Match[str]) -> bool:
    """Return whether an ungrouped number passes the card checksum."""
    return is_card_number(match.group())


def _is_private(match: re.Match[str]) -> bool:
    """Return whether a telephone number is none of those that banks publish."""
    return re.match(r"1[5-9]\d\d-?\d{4}\Z|\(?0?80", match["hit"]) is None and not re.match(
        r"(?:19|20)\d\d[-.]", match["hit"]
    )


def _has_account_length(match: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", match.group())
    return 10 <= len(digits) <= 16


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


# Without a digit in any spelling and a sign of an address nothing is searched.
_MAY_HOLD_ONE: Final = re.compile(
    r"\d|[^\x00-\x7f\uac00-\ud7a3]|@|&\w|[공영일이삼사오육륙칠팔구][ ]?[공영일이삼사오육륙칠팔구]|골뱅이|앳"
    r"|\bat\b|_at_|\(at|\[at|\{at|<at|zero|one|two|three|four|five|six|seven|eight|nine",
    re.IGNORECASE,
)
_LONGEST_HALF = 8  # digits
_Check = Callable[[re.Match[str]], bool]
_PATTERNS: Final[tuple[tuple[IdentifierKind, re.Pattern[str], _Check], ...]] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE), check)
    for kind, pattern, check in (
        (IdentifierKind.SECRET, r"bck_[0-9a-f]{16}_[0-9a-f]{64}", _always),  # `knowledge.service_keys`
        (IdentifierKind.EMAIL, r"[A-Za-z0-9._%+\-]{1,64}+[ \t]?@[ \t]?"
         r"[A-Za-z0-9\-]{1,63}(?:[ \t]?\.[ \t]?[A-Za-z0-9\-]{1,63}){0,8}\.[A-Za-z]{2,24}", _always),
        (IdentifierKind.ACCOUNT, r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){3,7}"
         r"(?:[ ]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])", _is_iban),
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
        (IdentifierKind.DRIVER_LICENCE, rf"(?<![\d-])(?:[1-2]\d|{_REGION})"
         rf"(?:{_HYPHEN}|[ \t]?)\d{{2}}{_HYPHEN}\d{{6}}{_HYPHEN}\d{{2}}(?![\d-])", _always),
        (IdentifierKind.DRIVER_LICENCE, rf"{_REGION}{_SPACER}{{0,2}}\d{{2}}{_SPACER}{{1,2}}\d{{6}}"
         rf"{_SPACER}{{1,2}}\d{{2}}(?!\d|[.,]\d|[ ]?[만억])", _always),
        (IdentifierKind.PHONE, rf"(?<!\d)(?<!\d[.,])(?:\(?(?:\+|00)[ \t]?82\)?{_GAP}\(?0?\)?"
         rf"|\(?0)1[016-9]\)?{_GAP}\d{{3,4}}{_GAP}\d{{4}}(?!\d)", _always),
        (IdentifierKind.PHONE, r"(?<!\d)0[ \t]1[ \t][016-9](?:[ \t]?-?[ \t]?\d){7,8}(?!\d)", _always),
        (IdentifierKind.PHONE, rf"(?<![\d-])(?<!\d[.,])\(?0(?:2|[3-6][1-5]|70"
         rf"|50\d)(?:\)[ ]?|{_HYPHEN}|\.)\d{{3,4}}(?:{_HYPHEN}|[. ])\d{{4}}(?![\d-])", _always),
        (IdentifierKind.PHONE, r"(?<![\d+])\+[1-9]\d{0,2}(?:[-. ()]{0,2}\d){8,12}(?!\d)", _always),
        (IdentifierKind.PHONE, r"(?<![\d-])(?<!\d[.,])0(?!80)\d{2,4}[ -]\d{3,4}[ -]\d{3,4}(?![\d-])", _always),
        (IdentifierKind.PHONE, r"(?:phone|mobile|cell|telephone|fax|call (?:me |us )?(?:at|on|back at)|reach(?:ed)?"
          r" (?:me )?"
         r"(?:at|on)|messages? to|answering at|휴대폰|핸드폰|휴대전화|전화번호|연락처)[^\d+(]{0,20}"
         rf"(?P<hit>\+?\(?\d(?:[-. ()]{{0,2}}\d){{6,11}})(?![\d-]){_NO_AMOUNT}", _is_private),
        (IdentifierKind.BUSINESS_NUMBER, rf"(?<![\d-])\d{{3}}{_HYPHEN}\d{{2}}{_HYPHEN}\d{{5}}(?![\d-])", _always),
        (IdentifierKind.PASSPORT, r"(?<![A-Za-z0-9])[MSRODG][ \t-]?(?:\d{8}|\d{3}[A-Z]\d{4})(?![A-Za-z0-9])", _always),
        (IdentifierKind.PASSPORT, r"(?:여권|passport)[^\d\n]{0,20}?(?P<hit>(?<![A-Za-z0-9])[MSRODG][ -]?\d{3,4}"
         r"[ -]\d{4,5}(?![\dA-Za-z]))", _always),
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
        (IdentifierKind.ACCOUNT, rf"{_NOT_BEFORE}\d{{11,19}}{_NOT_AFTER}{_NO_AMOUNT}", _is_no_digest),
        (IdentifierKind.RESIDENT_NUMBER, r"뒷[ ]?(?:자리|번호|부분)[^\d]{0,8}(?:7[ ]?자리[^\d]{0,8})?"
         rf"(?P<hit>(?<!\d)[1-8]\d{{6}}){_NOT_AFTER}{_NO_AMOUNT}", _always),
        (IdentifierKind.RESIDENT_NUMBER, r"앞[ ]?(?:자리|번호|부분)[^\d]{0,8}(?:6[ ]?자리[^\d]{0,8})?"
         rf"(?P<hit>(?<!\d)\d{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])){_NOT_AFTER}{_NO_AMOUNT}", _always),
    )
)  # fmt: skip


def find_identifiers(text: str) -> tuple[Identifier, ...]:
    """Return the identifiers of a text from left to right, without overlaps."""
    if not _MAY_HOLD_ONE.search(text):
        return ()
    accepted: list[Identifier] = []
    for reading in readings(text):
        for found in _found(reading.text):
            start, end = reading.original(found.start, found.end)
            _accept(accepted, Identifier(found.kind, start, end))
    return tuple(sorted(accepted, key=lambda identifier: identifier.start))


def _accept(accepted: list[Identifier], one: Identifier) -> None:
    """Add an identifier; where two readings find one in part, the longer names it and both are masked."""
    touched = [other for other in accepted if one.start < other.end and other.start < one.end]
    if touched:
        accepted[:] = [other for other in accepted if other not in touched]
        longest = max([*touched, one], key=lambda other: other.end - other.start)
        start, end = min(other.start for other in (one, *touched)), max(other.end for other in (one, *touched))
        one = Identifier(longest.kind, start, end)
    accepted.append(one)


def _found(plain: str) -> list[Identifier]:
    """Return the identifiers of one reading; each character belongs to one at most."""
    owners: list[Identifier | None] = [None] * len(plain)
    for kind, start, end in _matches(plain):
        if not any(owners[start:end]):
            owners[start:end] = [Identifier(kind, start, end)] * (end - start)
    for kind, start, end in grouped_identifiers(plain):
        # Several groups are surer than one of them that looked like an account or a secret.
        within = {owner for owner in owners[start:end] if owner is not None}
        if all(_is_part(owner, kind, start, end) for owner in within):
            owners[start:end] = [Identifier(kind, start, end)] * (end - start)
    return list(dict.fromkeys(owner for owner in owners if owner is not None))


def _is_part(owner: Identifier, kind: IdentifierKind, start: int, end: int) -> bool:
    is_larger = end - start > owner.end - owner.start
    is_half = owner.end - owner.start <= _LONGEST_HALF
    is_weaker = owner.kind in (kind, IdentifierKind.ACCOUNT, IdentifierKind.SECRET) or (
        owner.kind is IdentifierKind.PHONE and kind is not IdentifierKind.ACCOUNT
    )
    return start <= owner.start and owner.end <= end and is_larger and (is_half or is_weaker)


def _matches(plain: str) -> Iterator[tuple[IdentifierKind, int, int]]:
    for kind, pattern, check in _PATTERNS:
        for match in pattern.finditer(plain):
            if check(match):
                start, end = match.span("hit" if "hit" in pattern.groupindex else 0)
                # (02-123-4567) keeps its brackets, 02)123-4567 has none to keep.
                unclosed = plain[start] == "(" and ")" not in plain[start:end]
                yield kind, start + unclosed, end
    yield from ((IdentifierKind.EMAIL, start, end) for start, end in spelled_addresses(plain))
    yield from ((IdentifierKind.SECRET, start, end) for start, end in named_secrets(plain))
